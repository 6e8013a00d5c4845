# Who may do what.
#
# Input: role, action (`<thing>.<verb>`), same_org (does the thing belong to the principal's organization).
# Outcome: allow or block. What is not listed here is refused.
package tappass.authz

agent_actions := {"chat.create", "models.read", "me.read"}

read_actions := {
	"agents.read",
	"policies.read",
	"credentials.read",
	"pipeline.read",
	"budget.read",
	"audit.read",
	"metrics.read",
	"orgs.read",
	"models.read",
	"me.read",
}

write_actions := {
	"agents.write",
	"policies.write",
	"credentials.write",
	"pipeline.write",
	"budget.write",
	"orgs.write",
}

# A person cannot chat: a governed call belongs to an agent, or to a developer on behalf of one.
permissions := {
	"super_admin": read_actions | write_actions,
	"org_admin": read_actions | write_actions,
	"developer": (read_actions - {"credentials.read", "audit.read"}) | {"agents.write", "chat.create"},
	"auditor": read_actions,
	"member": read_actions - {"credentials.read", "audit.read"},
	"agent": agent_actions,
}

known_actions := (agent_actions | read_actions) | write_actions

# Only the super admin reaches across organizations.
within_reach if input.same_org == true

within_reach if input.role == "super_admin"

decision := {
	"outcome": "block",
	"rule": "authz.unknown_role",
	"reason": "unknown role",
} if {
	not input.role in object.keys(permissions)
} else := {
	"outcome": "block",
	"rule": "authz.unknown_action",
	"reason": "unknown action",
} if {
	not input.action in known_actions
} else := {
	"outcome": "block",
	"rule": "authz.other_organization",
	"reason": "this belongs to another organization",
} if {
	not within_reach
} else := {
	"outcome": "allow",
	"rule": "authz.role",
	"reason": "the role permits this",
} if {
	input.action in permissions[input.role]
} else := {
	"outcome": "block",
	"rule": "authz.role",
	"reason": "the role does not permit this",
}
