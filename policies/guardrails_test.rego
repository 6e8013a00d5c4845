package tappass.guardrails_test

condition(signal, op, value) := {"signal": signal, "op": op, "value": value, "over": "any"}

of_all(signal, op, value) := {"signal": signal, "op": op, "value": value, "over": "all"}

rule(id, effect, when) := {"id": id, "effect": effect, "mode": "enforce", "reason": id, "when": when}

shadow_rule(id, effect, when) := {"id": id, "effect": effect, "mode": "shadow", "reason": id, "when": when}

decide(signals, enforced, watched) := answer if {
	answer := data.tappass.guardrails.decision with input as signals
		with data.tappass.agent as {"conditionals": {"enforced": enforced, "watched": watched}}
}

fires(signals, when) if decide(signals, [[rule("r", "block", when)]], []).rule == "r"

one(signals, op, value) if fires(signals, [[condition("s", op, value)]])

test_no_rule_allows if decide({}, [], []).rule == "policy.default"

test_every_operator_compares if {
	one({"s": ["a"]}, "eq", "a")
	one({"s": ["a"]}, "ne", "b")
	one({"s": [3]}, "gt", 2)
	one({"s": [3]}, "gte", 3)
	one({"s": [3]}, "lt", 4)
	one({"s": [3]}, "lte", 3)
	one({"s": ["a"]}, "in", ["a", "b"])
	one({"s": ["c"]}, "not_in", ["a", "b"])
	one({"s": ["abc"]}, "contains", "b")
	one({"s": ["abc"]}, "matches", "a*")
	one({"s": ["abc"]}, "exists", true)
	one({}, "exists", false)
}

test_every_operator_can_fail if {
	not one({"s": ["a"]}, "eq", "b")
	not one({"s": ["a"]}, "ne", "a")
	not one({"s": [3]}, "gt", 3)
	not one({"s": [3]}, "gte", 4)
	not one({"s": [3]}, "lt", 3)
	not one({"s": [3]}, "lte", 2)
	not one({"s": ["c"]}, "in", ["a", "b"])
	not one({"s": ["a"]}, "not_in", ["a", "b"])
	not one({"s": ["abc"]}, "contains", "d")
	not one({"s": ["abc"]}, "matches", "b*")
	not one({"s": ["abc"]}, "exists", false)
	not one({}, "exists", true)
}

test_a_false_value_is_present if {
	one({"s": [false]}, "exists", true)
	not one({"s": [false]}, "exists", false)
	one({"s": [false]}, "eq", false)
}

test_an_absent_signal_meets_no_comparison if {
	every op in ["eq", "ne", "gt", "gte", "lt", "lte", "contains", "matches"] {
		not one({}, op, "a")
	}
	not one({}, "in", ["a"])
	not one({}, "not_in", ["a"])
	not fires({}, [[of_all("s", "not_in", ["a"])]])
}

test_values_of_another_type_do_not_compare if {
	not one({"s": ["zzz"]}, "gt", 2)
	not one({"s": [true]}, "gt", 2)
	not one({"s": [5]}, "contains", "5")
	not one({"s": [5]}, "matches", "*")
}

test_a_quoted_number_is_still_a_number if {
	one({"s": ["5000"]}, "gt", 1000)
	not one({"s": ["500"]}, "gt", 1000)
}

test_any_value_suffices_for_a_block_and_all_are_needed_for_an_allow if {
	fires({"s": ["a", "x"]}, [[condition("s", "not_in", ["a"])]])
	not fires({"s": ["a", "x"]}, [[of_all("s", "in", ["a"])]])
	fires({"s": ["a", "a"]}, [[of_all("s", "in", ["a"])]])
}

test_all_conditions_of_one_alternative_must_hold if {
	both := [[condition("s", "eq", "a"), condition("t", "eq", "b")]]
	fires({"s": ["a"], "t": ["b"]}, both)
	not fires({"s": ["a"], "t": ["c"]}, both)
	not fires({"s": ["a"]}, both)
}

test_one_alternative_suffices if {
	fires({"t": ["b"]}, [[condition("s", "eq", "a")], [condition("t", "eq", "b")]])
}

always := [[condition("s", "eq", "a")]]

test_the_first_rule_that_fires_decides_within_a_policy if {
	decide({"s": ["a"]}, [[rule("ok", "allow", always), rule("no", "block", always)]], []).rule == "ok"
	decide({"s": ["a"]}, [[rule("no", "block", always), rule("ok", "allow", always)]], []).rule == "no"
}

test_any_block_wins_across_policies if {
	decide({"s": ["a"]}, [[rule("ok", "allow", always)], [rule("no", "block", always)]], []) == {
		"outcome": "block",
		"rule": "no",
		"reason": "no",
		"shadow": [],
	}
}

test_a_shadow_rule_is_reported_and_never_refuses if {
	answer := decide({"s": ["a"]}, [], [[shadow_rule("s", "block", always)]])
	answer.outcome == "allow"
	answer.shadow == [{"rule": "s", "outcome": "block", "reason": "s"}]
}
