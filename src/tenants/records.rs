//! The records of an organization, as they are stored and as the control API shows them.
//!
//! Owns field names, which are the same in JSON, SQL and code. Never holds a secret in clear: keys are hashes,
//! credentials are sealed.

use serde::{Deserialize, Serialize};

use crate::domain::{
    clock::Micros,
    digest::Digest,
    ids::{AgentId, CredentialId, KeyId, OrgId, PolicyId, ProjectId},
    money::NanoUsd,
};

/// The customer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Organization {
    /// Its id.
    pub org_id: OrgId,
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    pub created_at: Micros,
    /// Flags that agents of this organization may loosen; see pipeline.md.
    #[serde(default)]
    pub unlocked_flags: Vec<String>,
}

/// A part of an organization.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub project_id: ProjectId,
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    pub created_at: Micros,
}

/// Whether an agent may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// It may.
    Active,
    /// It may not, until it is activated.
    Suspended,
}

/// A program that calls models.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Its id, unique for ever.
    pub agent_id: AgentId,
    /// The name its owner gave it, unique in the organization.
    pub slug: String,
    /// Its project.
    pub project_id: ProjectId,
    /// Who answers for it.
    pub owner_email: String,
    /// What it is for.
    pub description: String,
    /// What it is built with.
    pub framework: String,
    /// Whether it may call.
    pub status: AgentStatus,
    /// When it was onboarded.
    pub created_at: Micros,
    /// Ed25519 public key for signed requests, 64 hexadecimal digits.
    pub public_key: String,
}

/// A key of an agent. The key itself is shown once and not kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentKey {
    /// Its id.
    pub key_id: KeyId,
    /// Whose it is.
    pub agent_id: AgentId,
    /// SHA-256 over the whole key.
    pub hash: Digest,
    /// Its visible beginning.
    pub prefix: String,
    /// When it was made.
    pub created_at: Micros,
    /// When it ends, if it does.
    #[serde(default)]
    pub expires_at: Option<Micros>,
}

/// A provider's key, sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credential {
    /// Its id; a rolled key is a new credential.
    pub credential_id: CredentialId,
    /// Which provider.
    pub provider: String,
    /// The last four characters, for people.
    pub last_four: String,
    /// The data key it is sealed under, 32 hexadecimal digits.
    pub data_key_id: String,
    /// Ciphertext in base64.
    pub sealed: String,
    /// Who stored it.
    pub created_by: String,
    /// When.
    pub created_at: Micros,
}

/// A policy; its rules stand in its versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// Its id.
    pub policy_id: PolicyId,
    /// Its name, unique in the organization.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Who answers for it.
    pub owner: String,
    /// When it was made.
    pub created_at: Micros,
}

/// Where a version stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionStatus {
    /// May be edited; decides nothing.
    Draft,
    /// Decides.
    Active,
    /// Decided once.
    Retired,
}

/// One version of a policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Whose.
    pub policy_id: PolicyId,
    /// Counts from 1.
    pub version_no: u32,
    /// Its life.
    pub status: VersionStatus,
    /// `[{kind, ordinal, payload}]`, as written.
    pub rules: serde_json::Value,
    /// Why it was made.
    pub change_note: String,
    /// When it was made.
    pub created_at: Micros,
    /// When it became active.
    #[serde(default)]
    pub published_at: Option<Micros>,
}

/// How wide something applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScopeKind {
    /// The whole organization.
    Org,
    /// One project.
    Project,
    /// One agent.
    Agent,
}

/// To whom something applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// How wide.
    pub scope_type: ScopeKind,
    /// Which one.
    pub scope_id: String,
}

/// That a policy applies to a scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// Its id.
    pub assignment_id: String,
    /// Which policy; its active version decides.
    pub policy_id: PolicyId,
    /// To whom.
    #[serde(flatten)]
    pub scope: Scope,
    /// Until when, if it ends.
    #[serde(default)]
    pub effective_until: Option<Micros>,
    /// When it was made.
    pub created_at: Micros,
}

/// What an organization may spend. A limit that is absent is none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Budget {
    /// The most until the next reset.
    #[serde(default)]
    pub limit_nano: Option<NanoUsd>,
    /// The most that one call may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_nano: Option<NanoUsd>,
    /// The most in one session of one agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_nano: Option<NanoUsd>,
    /// The most in a day (UTC, by the database's clock).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_nano: Option<NanoUsd>,
    /// The most in a month (likewise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month_nano: Option<NanoUsd>,
    /// Counts the resets: each opens new windows of every kind.
    pub window: u64,
}

impl Budget {
    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        let limits = [self.limit_nano, self.call_nano, self.session_nano, self.day_nano, self.month_nano];
        limits.iter().any(Option::is_some)
    }
}

/// A stored pipeline of an organization or an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredPipeline {
    /// Whose.
    #[serde(flatten)]
    pub scope: Scope,
    /// `{preset, overrides}` as imported.
    pub spec: serde_json::Value,
}
