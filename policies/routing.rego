# May this agent use this model under this classification?
#
# Input: model, rank (0 PUBLIC to 4 TOP_SECRET). Data: `data.tappass.agent.models`, one list per source, each a list of
# {id, rank, models} in ascending rank. In every source the list with the highest rank at or below the request's
# applies, so data that is more confidential is never freer. A source without such a list allows.
# Outcome: allow or block.
package tappass.routing

applicable := [list |
	some source in data.tappass.agent.models
	ranked := [list | some list in source; list.rank <= input.rank]
	count(ranked) > 0
	list := ranked[count(ranked) - 1]
]

names_model(list) if {
	some pattern in list.models
	glob_matches(pattern, input.model)
}

refusing := [list | some list in applicable; not names_model(list)]

decision := {
	"outcome": "block",
	"rule": refusing[0].id,
	"reason": "the model is not on the list for this classification",
} if {
	count(refusing) > 0
} else := {
	"outcome": "allow",
	"rule": applicable[0].id,
	"reason": "the model is on the list for this classification",
} if {
	count(applicable) > 0
	is_string(input.model)
} else := {
	"outcome": "allow",
	"rule": "policy.default",
	"reason": "no list restricts this classification",
} if {
	is_string(input.model)
	is_number(input.rank)
}
