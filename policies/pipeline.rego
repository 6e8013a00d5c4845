# Which steps the merged policy switches on.
#
# Data: `data.tappass.agent.steps`, the rules of every assigned policy as {id, kind, scopes, mode}; a conditional rule
# appears once per family of signals that it reads. Evaluated once, when a snapshot is compiled.
# Outcome: plan, or error where a rule has no place in the table (a rule must never silently do nothing).
package tappass.pipeline

# A gate or detector that a rule needs runs at least with `log`; `block` is for what the rule itself forbids.
table := {
	"BlockPII": {
		"input": [{"step": "detect_pii", "action": "block", "category": "pii"}],
		"output": [{"step": "scan_output", "action": "block", "category": "pii"}],
	},
	"BlockSecrets": {
		"input": [{"step": "detect_secrets", "action": "block", "category": "secret"}],
		"output": [{"step": "scan_output", "action": "block", "category": "secret"}],
	},
	"tools": {"call": [
		{"step": "tool_permissions", "action": "block", "category": ""},
		{"step": "filter_tools", "action": "log", "category": ""},
	]},
	"reads_tools": {"call": [{"step": "tool_permissions", "action": "block", "category": ""}]},
	"reads_classification": {"input": [{"step": "classify_data", "action": "log", "category": ""}]},
	"reads_detections": {"input": [
		{"step": "detect_pii", "action": "log", "category": ""},
		{"step": "detect_secrets", "action": "log", "category": ""},
		{"step": "detect_unicode", "action": "log", "category": ""},
		{"step": "detect_injection", "action": "log", "category": ""},
	]},
}

# A shadow rule is evaluated and recorded, so its steps run, but they refuse nothing on its behalf.
action(rule, target) := target.action if rule.mode == "enforce"

action(rule, _) := "log" if rule.mode == "shadow"

switches := [switch |
	some rule in data.tappass.agent.steps
	some scope in rule.scopes
	some target in table[rule.kind][scope]
	switch := {
		"step": target.step,
		"action": action(rule, target),
		"category": target.category,
		"scope": scope,
		"rule": rule.id,
	}
]

placed := [scope |
	some rule in data.tappass.agent.steps
	some scope in rule.scopes
	count(table[rule.kind][scope]) > 0
	rule.mode in {"enforce", "shadow"}
]

expected := sum([count(rule.scopes) | some rule in data.tappass.agent.steps])

decision := {
	"outcome": "plan",
	"rule": "policy.default",
	"reason": "every rule has its steps",
	"switches": switches,
} if {
	count(placed) == expected
} else := {
	"outcome": "error",
	"rule": "policy.error",
	"reason": "a rule has no place in the table of steps",
}
