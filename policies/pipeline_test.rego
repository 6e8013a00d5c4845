package tappass.pipeline_test

decide(rules) := answer if {
	answer := data.tappass.pipeline.decision with data.tappass.agent as {"steps": rules}
}

rule(kind, scopes, mode) := {"id": "p@1#1", "kind": kind, "scopes": scopes, "mode": mode}

steps(rules) := {[switch.step, switch.action, switch.category] | some switch in decide(rules).switches}

test_no_rule_switches_nothing if decide([]).switches == []

test_personal_data_is_blocked_where_the_scope_says if {
	steps([rule("BlockPII", ["input"], "enforce")]) == {["detect_pii", "block", "pii"]}
	steps([rule("BlockPII", ["output"], "enforce")]) == {["scan_output", "block", "pii"]}
}

test_secrets_are_blocked_where_the_scope_says if {
	steps([rule("BlockSecrets", ["input", "output"], "enforce")]) == {
		["detect_secrets", "block", "secret"],
		["scan_output", "block", "secret"],
	}
}

test_a_tool_rule_switches_the_gate_and_the_filter if {
	steps([rule("tools", ["call"], "enforce")]) == {["tool_permissions", "block", ""], ["filter_tools", "log", ""]}
}

test_a_condition_switches_on_what_it_reads if {
	steps([rule("reads_classification", ["input"], "enforce")]) == {["classify_data", "log", ""]}
	steps([rule("reads_tools", ["call"], "enforce")]) == {["tool_permissions", "block", ""]}
	count(steps([rule("reads_detections", ["input"], "enforce")])) == 4
}

test_a_shadow_rule_only_records if {
	steps([rule("BlockPII", ["input"], "shadow")]) == {["detect_pii", "log", "pii"]}
}

test_a_switch_names_its_rule_and_scope if {
	decide([rule("BlockPII", ["input"], "enforce")]).switches[0] == {
		"step": "detect_pii",
		"action": "block",
		"category": "pii",
		"scope": "input",
		"rule": "p@1#1",
	}
}

test_a_rule_without_a_place_is_an_error if {
	decide([rule("BlockEverything", ["input"], "enforce")]).outcome == "error"
	decide([rule("BlockPII", ["sideways"], "enforce")]).outcome == "error"
	decide([rule("BlockPII", ["input"], "sometimes")]).outcome == "error"
}
