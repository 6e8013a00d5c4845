package tappass.routing_test

lists := [[
	{"id": "r0", "rank": 0, "models": ["gpt-4o-*"]},
	{"id": "r3", "rank": 3, "models": ["local/*"]},
]]

decide(model, rank, models) := answer if {
	answer := data.tappass.routing.decision with input as {"model": model, "rank": rank}
		with data.tappass.agent as {"models": models}
}

test_no_list_allows if decide("any", 4, []).outcome == "allow"

test_a_list_names_the_models_of_its_classification if {
	decide("gpt-4o-mini", 0, lists).outcome == "allow"
	decide("o3", 0, lists) == {
		"outcome": "block",
		"rule": "r0",
		"reason": "the model is not on the list for this classification",
	}
}

test_a_classification_without_a_list_takes_the_next_lower_one if {
	decide("gpt-4o-mini", 2, lists).outcome == "allow"
	decide("local/llama", 2, lists).outcome == "block"
	decide("local/llama", 4, lists).outcome == "allow"
	decide("gpt-4o-mini", 4, lists).outcome == "block"
}

test_below_the_lowest_list_everything_is_allowed if {
	decide("any", 0, [[{"id": "r3", "rank": 3, "models": ["local/*"]}]]).outcome == "allow"
}

test_an_empty_list_allows_no_model if decide("any", 1, [[{"id": "r1", "rank": 1, "models": []}]]).outcome == "block"

test_every_source_must_agree if {
	decide("gpt-4o-mini", 0, array.concat(lists, [[{"id": "p", "rank": 0, "models": ["o3"]}]])).rule == "p"
}

test_without_a_model_there_is_no_decision if {
	not data.tappass.routing.decision with input as {"rank": 0} with data.tappass.agent as {"models": []}
}
