//! An organization's configuration as records, read from its rows.
//!
//! Owns the look-ups that more than one place needs. Never changes: a change makes new rows, and new rows make a new one.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::records::{
    Agent, AgentKey, Assignment, Budget, Credential, Organization, Policy, PolicyVersion, Project, Scope, ScopeKind,
    StoredPipeline, VersionStatus,
};
use crate::domain::{
    clock::Micros,
    ids::{AgentId, KeyId, PolicyId, ProjectId},
    rows::{ConfigRows, Table},
};

/// Why configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// A row does not read back as its record.
    #[error("row `{id}` of table `{table}` does not make sense")]
    Row {
        /// Which table.
        table: &'static str,
        /// Which row.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// An organization without its own row.
    #[error("the organization has no row of its own")]
    NoOrganization,
}

/// Everything that is configured for one organization.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is named like its record")]
pub struct OrgConfig {
    pub organization: Organization,
    pub projects: BTreeMap<ProjectId, Project>,
    pub agents: BTreeMap<AgentId, Agent>,
    pub keys: BTreeMap<KeyId, AgentKey>,
    pub credentials: Vec<Credential>,
    pub policies: BTreeMap<PolicyId, Policy>,
    pub versions: Vec<PolicyVersion>,
    pub assignments: Vec<Assignment>,
    pub budget: Option<Budget>,
    pub pipelines: Vec<StoredPipeline>,
}

impl OrgConfig {
    /// Reads the rows.
    pub fn read(rows: &ConfigRows) -> Result<Self, TenantsError> {
        let mut organizations: Vec<Organization> = all(rows, Table::Organization)?;
        Ok(Self {
            organization: organizations.pop().ok_or(TenantsError::NoOrganization)?,
            projects: keyed(all(rows, Table::Project)?, |p: &Project| p.project_id.clone()),
            agents: keyed(all(rows, Table::Agent)?, |a: &Agent| a.agent_id.clone()),
            keys: keyed(all(rows, Table::AgentKey)?, |k: &AgentKey| k.key_id.clone()),
            credentials: all(rows, Table::ProviderCredential)?,
            policies: keyed(all(rows, Table::Policy)?, |p: &Policy| p.policy_id.clone()),
            versions: all(rows, Table::PolicyVersion)?,
            assignments: all(rows, Table::PolicyAssignment)?,
            budget: all(rows, Table::Budget)?.pop(),
            pipelines: all(rows, Table::Pipeline)?,
        })
    }

    /// The version of a policy that decides.
    pub fn active_version(&self, policy: &PolicyId) -> Option<&PolicyVersion> {
        self.versions.iter().find(|v| &v.policy_id == policy && v.status == VersionStatus::Active)
    }

    /// The open draft of a policy.
    pub fn draft(&self, policy: &PolicyId) -> Option<&PolicyVersion> {
        self.versions.iter().find(|v| &v.policy_id == policy && v.status == VersionStatus::Draft)
    }

    /// All versions of a policy, oldest first.
    pub fn versions_of(&self, policy: &PolicyId) -> Vec<&PolicyVersion> {
        let mut versions: Vec<_> = self.versions.iter().filter(|v| &v.policy_id == policy).collect();
        versions.sort_by_key(|v| v.version_no);
        versions
    }

    /// The scopes that hold for an agent, widest first.
    pub fn scopes_of(&self, agent: &Agent) -> [Scope; 3] {
        let scope = |scope_type, id: &str| Scope { scope_type, scope_id: id.to_owned() };
        [
            scope(ScopeKind::Org, self.organization.org_id.as_str()),
            scope(ScopeKind::Project, agent.project_id.as_str()),
            scope(ScopeKind::Agent, agent.agent_id.as_str()),
        ]
    }

    /// The policies that are assigned to exactly this scope and still in effect.
    pub fn assigned(&self, scope: &Scope, now: Micros) -> impl Iterator<Item = &Policy> {
        let here = self.assignments.iter().filter(move |a| &a.scope == scope);
        let here = here.filter(move |a| a.effective_until.is_none_or(|until| until > now));
        here.filter_map(|a| self.policies.get(&a.policy_id))
    }

    /// The stored pipeline of a scope.
    pub fn pipeline(&self, scope: &Scope) -> Option<&StoredPipeline> {
        self.pipelines.iter().find(|p| &p.scope == scope)
    }

    /// The newest credential for a provider.
    pub fn credential(&self, provider: &str) -> Option<&Credential> {
        self.credentials.iter().filter(|c| c.provider == provider).max_by_key(|c| c.created_at)
    }
}

fn all<T: DeserializeOwned>(rows: &ConfigRows, table: Table) -> Result<Vec<T>, TenantsError> {
    let read = |(id, body): (&str, &str)| {
        serde_json::from_str(body).map_err(|source| TenantsError::Row {
            table: table.name(),
            id: id.to_owned(),
            source,
        })
    };
    rows.of(table).map(read).collect()
}

fn keyed<K: Ord, T>(records: Vec<T>, key: impl Fn(&T) -> K) -> BTreeMap<K, T> {
    records.into_iter().map(|record| (key(&record), record)).collect()
}
