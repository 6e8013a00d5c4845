//! Who is whose: organizations, projects, agents and everything that is configured for them.
//!
//! Owns the records and how they are read from rows. Never stores anything itself and never decides: a change is a list
//! of row writes that `admission` commits. A row that does not read back as its record is a `TenantsError` that names
//! table and id.

mod config;
mod records;

pub use config::{OrgConfig, TenantsError};
pub use records::{
    Agent, AgentKey, AgentStatus, Assignment, Budget, Credential, Organization, Policy, PolicyVersion, Project, Scope,
    ScopeKind, StoredPipeline, VersionStatus,
};
