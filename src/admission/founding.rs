//! The first change of an organization, and trying a configuration before it is written.
//!
//! Owns two pure functions that changes use. Never writes.

use serde_json::json;

use super::{
    change::{ChangeRefused, ChangeSet},
    snapshot::{level, view_of},
    snapshots::Compiler,
};
use crate::{
    domain::{
        clock::Micros,
        ids::{OrgId, ProjectId},
        rows::{Table, Write},
    },
    policy::check_relaxation,
    tenants::{OrgConfig, Organization, Project},
};

/// Makes an organization with a project named `default`; refused if it exists.
pub fn found_organization(
    org: OrgId,
    name: String,
    now: Micros,
) -> impl FnOnce(Option<&OrgConfig>) -> Result<ChangeSet, ChangeRefused> + Clone + Send + Sync + 'static {
    move |config| {
        if config.is_some() {
            let message = format!("the organization `{org}` exists already");
            return Err(ChangeRefused::Conflict { code: "organization_exists", message });
        }
        let project_id = ProjectId::parse("default").map_err(|_| ChangeRefused::Internal)?;
        let project = Project { project_id, name: "default".to_owned(), created_at: now };
        let organization = Organization { org_id: org.clone(), name, created_at: now, unlocked_flags: Vec::new() };
        Ok(ChangeSet {
            kind: "organization.created",
            content: json!({ "name": organization.name }),
            writes: vec![
                Write::put(Table::Organization, org.as_str(), &organization)?,
                Write::put(Table::Project, project.project_id.as_str(), &project)?,
            ],
        })
    }
}

/// Whether every agent compiles under a configuration and no lower level relaxes an upper one. A configuration that would
/// refuse an agent's every request is refused itself.
pub fn check_agents(config: &OrgConfig, compiler: &Compiler) -> Result<(), ChangeRefused> {
    let now = compiler.clock.now();
    let invalid = |message: String| ChangeRefused::Invalid { details: json!({ "errors": [message] }), message };
    for agent in config.agents.values() {
        let scopes = config.scopes_of(agent);
        let levels = scopes.iter().map(|scope| level(config, scope, now)).collect::<Result<Vec<_>, _>>();
        let levels = levels.map_err(|error| invalid(error.to_string()))?;
        if let Err(relaxations) = check_relaxation(&levels) {
            let words: Vec<String> = relaxations.iter().map(ToString::to_string).collect();
            return Err(ChangeRefused::Invalid {
                message: words.join("; "),
                details: json!({ "relaxations": relaxations }),
            });
        }
        view_of(config, agent, now, compiler).map_err(|error| invalid(format!("agent `{}`: {error}", agent.slug)))?;
    }
    Ok(())
}
