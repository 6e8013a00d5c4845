package tappass.breakglass_test

outcome(level, expires_at, now) := answer.outcome if {
	answer := data.tappass.breakglass.decision with input as {"level": level, "expires_at": expires_at, "now": now}
}

test_a_grant_is_active_until_it_expires if {
	every level in ["relax", "bypass_step", "full_bypass"] {
		outcome(level, 10, 9) == "active"
		outcome(level, 10, 10) == "inactive"
		outcome(level, 10, 11) == "inactive"
	}
}

test_an_unknown_level_is_never_active if outcome("everything", 10, 1) == "inactive"

test_a_missing_or_textual_time_is_never_active if {
	data.tappass.breakglass.decision.outcome == "inactive" with input as {"level": "relax", "now": 1}
	data.tappass.breakglass.decision.outcome == "inactive" with input as {"level": "relax", "expires_at": 10}
	outcome("relax", "10", 1) == "inactive"
}
