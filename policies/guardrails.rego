# Conditional rules over the signals of a request.
#
# Input: an object from signal to the list of its values (a scalar is a list of one); a signal that no rule reads, or
# that the request lacks, is absent. Data: `data.tappass.agent.conditionals`, shaped as in tools.rego. A rule has `when`,
# a list of alternatives, each a list of conditions {signal, op, value, over}: `over` says whether any value of the
# signal must meet the condition (block rules) or all of them (allow rules). Outcome: allow or block.
package tappass.guardrails

# A condition on an absent signal does not hold, negations included; only `exists` speaks about absence.
met(condition) if {
	condition.op == "exists"
	is_array(input[condition.signal]) == condition.value
}

met(condition) if {
	condition.op == "exists"
	condition.value == false
	not input[condition.signal]
}

met(condition) if {
	condition.over == "any"
	some value in input[condition.signal]
	holds(condition, value)
}

met(condition) if {
	condition.over == "all"
	count(input[condition.signal]) > 0
	every value in input[condition.signal] {
		holds(condition, value)
	}
}

# Ordering is over numbers, and over texts that are plainly numbers, so that quoting one does not evade a limit.
number(value) := value if is_number(value)

number(value) := to_number(value) if {
	is_string(value)
	regex.match(`^-?[0-9]{1,18}(\.[0-9]{1,18})?$`, value)
}

holds(condition, value) := value == condition.value if condition.op == "eq"
else := value != condition.value if condition.op == "ne"
else := number(value) > condition.value if condition.op == "gt"
else := number(value) >= condition.value if condition.op == "gte"
else := number(value) < condition.value if condition.op == "lt"
else := number(value) <= condition.value if condition.op == "lte"
else := value in condition.value if condition.op == "in"
else := false if {
	condition.op == "not_in"
	value in condition.value
}
else := true if condition.op == "not_in"
else := contains(value, condition.value) if {
	condition.op == "contains"
	is_string(value)
}
else := glob_matches(condition.value, value) if {
	condition.op == "matches"
	is_string(value)
}

fires(rule) if {
	some alternative in rule.when
	every condition in alternative {
		met(condition)
	}
}

# Within a policy the first rule that fires decides.
deciding(rules) := rules[min([i | some i, rule in rules; fires(rule)])]

decided := [rule |
	some rules in data.tappass.agent.conditionals.enforced
	rule := deciding(rules)
]

# Across policies any block wins.
blocks := [rule | some rule in decided; rule.effect == "block"]

shadow := [{"rule": rule.id, "outcome": rule.effect, "reason": rule.reason} |
	some rules in data.tappass.agent.conditionals.watched
	rule := deciding(rules)
	rule.mode == "shadow"
]

decision := {
	"outcome": "block",
	"rule": blocks[0].id,
	"reason": blocks[0].reason,
	"shadow": shadow,
} if {
	count(blocks) > 0
} else := {
	"outcome": "allow",
	"rule": decided[0].id,
	"reason": decided[0].reason,
	"shadow": shadow,
} if {
	count(decided) > 0
} else := {
	"outcome": "allow",
	"rule": "policy.default",
	"reason": "no rule applies",
	"shadow": shadow,
}
