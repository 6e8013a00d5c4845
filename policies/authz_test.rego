package tappass.authz_test

decide(role, action, same_org) := answer if {
	answer := data.tappass.authz.decision with input as {"role": role, "action": action, "same_org": same_org}
}

outcome(role, action, same_org) := decide(role, action, same_org).outcome

rule(role, action, same_org) := decide(role, action, same_org).rule

test_an_org_admin_writes_in_the_own_organization if {
	every action in data.tappass.authz.write_actions {
		outcome("org_admin", action, true) == "allow"
	}
}

test_only_the_super_admin_reaches_across_organizations if {
	outcome("super_admin", "policies.write", false) == "allow"
	every role in ["org_admin", "developer", "auditor", "member", "agent"] {
		every action in data.tappass.authz.known_actions {
			outcome(role, action, false) == "block"
		}
	}
}

test_an_auditor_reads_everything_and_writes_nothing if {
	every action in data.tappass.authz.read_actions {
		outcome("auditor", action, true) == "allow"
	}
	every action in data.tappass.authz.write_actions {
		outcome("auditor", action, true) == "block"
	}
}

test_an_agent_only_chats_and_reads_models_and_itself if {
	allowed := {action |
		some action in data.tappass.authz.known_actions
		outcome("agent", action, true) == "allow"
	}
	allowed == {"chat.create", "models.read", "me.read"}
}

test_a_developer_writes_agents_and_nothing_else if {
	written := {action |
		some action in data.tappass.authz.write_actions
		outcome("developer", action, true) == "allow"
	}
	written == {"agents.write"}
}

test_members_and_developers_see_neither_credentials_nor_the_record if {
	every role in ["member", "developer"] {
		outcome(role, "credentials.read", true) == "block"
		outcome(role, "audit.read", true) == "block"
	}
}

test_a_person_cannot_chat if {
	every role in ["super_admin", "org_admin", "auditor", "member"] {
		outcome(role, "chat.create", true) == "block"
	}
}

test_an_unknown_role_is_refused if rule("root", "agents.read", true) == "authz.unknown_role"

test_an_unknown_action_is_refused if rule("super_admin", "agents.raed", true) == "authz.unknown_action"

test_a_missing_field_is_refused if {
	data.tappass.authz.decision.outcome == "block" with input as {}
	data.tappass.authz.decision.outcome == "block" with input as {"role": "org_admin", "action": "agents.read"}
}
