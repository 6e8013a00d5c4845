# May this agent use this tool?
#
# Input: tool. Data: `data.tappass.agent.tools`, one list of rules per assigned policy, upper levels first, rules by
# ordinal. `enforced` holds the rules in force; `watched` the same with the shadow rules, for policies that have any.
# Outcome: allow or block.
package tappass.tools

names_tool(rule) if {
	some pattern in rule.tools
	glob_matches(pattern, input.tool)
}

# Within a policy the first rule that names the tool decides, so an allow rule may precede a block of `*`.
deciding(rules) := rules[min([i | some i, rule in rules; names_tool(rule)])]

decided := [rule |
	some rules in data.tappass.agent.tools.enforced
	rule := deciding(rules)
]

# Across policies any block wins.
blocks := [rule | some rule in decided; rule.effect == "block"]

shadow := [{"rule": rule.id, "outcome": rule.effect, "reason": rule.reason} |
	some rules in data.tappass.agent.tools.watched
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
	"reason": "no rule names this tool",
	"shadow": shadow,
}
