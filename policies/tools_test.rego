package tappass.tools_test

rule(id, effect, tools) := {"id": id, "effect": effect, "mode": "enforce", "reason": id, "tools": tools}

shadow_rule(id, effect, tools) := {"id": id, "effect": effect, "mode": "shadow", "reason": id, "tools": tools}

decide(tool, enforced, watched) := answer if {
	answer := data.tappass.tools.decision with input as {"tool": tool}
		with data.tappass.agent as {"tools": {"enforced": enforced, "watched": watched}}
}

allow_list := [[rule("a", "allow", ["read_*"]), rule("b", "block", ["*"])]]

test_no_rule_allows if decide("x", [], []).rule == "policy.default"

test_an_allow_rule_alone_blocks_nothing if {
	decide("other", [[rule("a", "allow", ["read_*"])]], []).outcome == "allow"
}

test_an_allow_rule_before_a_block_of_everything_is_an_allow_list if {
	decide("read_file", allow_list, []).outcome == "allow"
	decide("send_email", allow_list, []) == {"outcome": "block", "rule": "b", "reason": "b", "shadow": []}
}

test_the_first_rule_of_a_policy_decides if {
	decide("rm", [[rule("b", "block", ["rm"]), rule("a", "allow", ["*"])]], []).rule == "b"
}

test_a_lower_policy_cannot_allow_what_an_upper_one_blocks if {
	decide("rm", [[rule("upper", "block", ["rm"])], [rule("lower", "allow", ["rm"])]], []).outcome == "block"
	decide("rm", [[rule("lower", "allow", ["rm"])], [rule("upper", "block", ["rm"])]], []).rule == "upper"
}

test_a_shadow_rule_is_reported_and_never_refuses if {
	decide("rm", [], [[shadow_rule("s", "block", ["r*"])]]) == {
		"outcome": "allow",
		"rule": "policy.default",
		"reason": "no rule names this tool",
		"shadow": [{"rule": "s", "outcome": "block", "reason": "s"}],
	}
}

test_a_shadow_rule_behind_the_rule_that_decides_is_silent if {
	decide("rm", [], [[rule("e", "allow", ["*"]), shadow_rule("s", "block", ["rm"])]]).shadow == []
}
