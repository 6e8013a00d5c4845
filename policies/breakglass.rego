# Is an emergency grant in force?
#
# Input: level, expires_at and now (both microseconds since 1970). Outcome: active or inactive.
package tappass.breakglass

levels := {"relax", "bypass_step", "full_bypass"}

decision := {
	"outcome": "inactive",
	"rule": "breakglass.level",
	"reason": "unknown level",
} if {
	not input.level in levels
} else := {
	"outcome": "active",
	"rule": "breakglass.grant",
	"reason": "the grant is in force",
} if {
	is_number(input.now)
	is_number(input.expires_at)
	input.now < input.expires_at
} else := {
	"outcome": "inactive",
	"rule": "breakglass.expired",
	"reason": "the grant has run out",
}
