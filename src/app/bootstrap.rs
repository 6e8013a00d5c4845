//! What a gateway has before anybody clicked: an organization, an agent, a provider's key.
//!
//! Owns making them at the first start, from the environment or (in development) from chance. A second start changes
//! nothing that is there. Never prints a key: `dev` does, where it is meant to be seen.

use std::{net::SocketAddr, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::wiring::AppError;
use crate::{
    admission::{
        Admission, ChangeError, ChangeRefused, ChangeSet, Records, Snapshot, SnapshotError, found_organization,
    },
    auth::{AdminKey, KeyText, hash_key},
    config::{Config, Secrets},
    domain::{
        clock::Micros,
        digest::Digest,
        ids::{AgentId, CredentialId, KeyId, OrgId, ProjectId, base32},
        rows::{Table, Write},
    },
    storage::Sql,
    tenants::{Agent, AgentKey, AgentStatus, Credential, OrgConfig, Scope, ScopeKind, StoredPipeline},
    vault::SecretText,
};

/// The name of the first agent.
const AGENT: &str = "bootstrap-agent";

/// What is to be there.
pub(super) struct Plan {
    secrets: Secrets,
    base_url_is_local: bool,
    /// Development: make an agent with a key of our own form if there is none, and store a generous rate limit.
    development: bool,
}

/// What is there now.
pub struct Started {
    /// Where the gateway listens.
    pub address: SocketAddr,
    /// The first organization.
    pub org_id: OrgId,
    /// Its first agent, if it has one.
    pub agent_id: Option<AgentId>,
    /// The agent's key, if it was made just now.
    pub agent_key: Option<KeyText>,
}

impl Plan {
    pub(super) fn new(config: &Config, secrets: Secrets) -> Result<Self, AppError> {
        check("TAPPASS_ADMIN_KEY", secrets.admin_key.as_ref())?;
        check("TAPPASS_BOOTSTRAP_AGENT_KEY", secrets.agent_key.as_ref())?;
        let url = &config.providers.openai.base_url;
        let base_url_is_local = url.starts_with("http://");
        Ok(Self { secrets, base_url_is_local, development: false })
    }

    /// Development also makes an agent, and lifts the preset's hundred calls an hour.
    pub(super) fn for_development(&mut self) {
        self.development = true;
    }

    /// The administrator's key.
    pub(super) fn admin_key(&self) -> AdminKey {
        AdminKey::new(self.secrets.admin_key.as_ref())
    }

    /// The hash of the agent's key from the environment.
    pub(super) fn agent_hash(&self) -> Option<Digest> {
        self.secrets.agent_key.as_ref().map(|key| hash_key(key.expose_secret()))
    }

    /// The first organization's id: the one that is there, or a new one.
    pub(super) async fn organization(&self, sql: &Sql) -> Result<OrgId, AppError> {
        match Records::new(sql.clone()).first_organization().await? {
            Some(org) => Ok(org),
            None => OrgId::parse(&random("org")?).map_err(|_| AppError::Record),
        }
    }

    /// Makes what is missing.
    pub(super) async fn run(
        &self,
        admission: &Admission,
        org: &OrgId,
        address: SocketAddr,
    ) -> Result<Started, AppError> {
        let now = admission.outbox.clock().now();
        if loaded(admission, org).await?.is_none() {
            let founding = found_organization(org.clone(), "default".to_owned(), now);
            match admission.change(org, founding).await {
                Ok(_) | Err(ChangeError::Refused(ChangeRefused::Conflict { .. })) => {}
                // Its rows were edited: it cannot be served, but the gateway starts and says so.
                Err(ChangeError::Tampered) => {
                    return Ok(Started { address, org_id: org.clone(), agent_id: None, agent_key: None });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let (agent_id, agent_key) = self.agent(admission, org, now).await?;
        if let Some(key) = &self.secrets.openai_key {
            self.provider_key(admission, org, key, now).await?;
        }
        Ok(Started { address, org_id: org.clone(), agent_id, agent_key })
    }

    async fn agent(
        &self,
        admission: &Admission,
        org: &OrgId,
        now: Micros,
    ) -> Result<(Option<AgentId>, Option<KeyText>), AppError> {
        let Some(snapshot) = loaded(admission, org).await? else { return Ok((None, None)) };
        let existing = snapshot.config.agents.values().find(|agent| agent.slug == AGENT);
        let known = |hash: &Digest| snapshot.key(hash, now).is_some();
        let (hash, prefix, made) = match (&self.secrets.agent_key, self.development) {
            (Some(key), _) if known(&hash_key(key.expose_secret())) => {
                return Ok((existing.map(|agent| agent.agent_id.clone()), None));
            }
            (Some(key), _) => {
                let prefix = key.expose_secret().chars().take(7).collect();
                (hash_key(key.expose_secret()), prefix, None)
            }
            (None, true) if existing.is_none() => {
                let key = KeyText::make(org).map_err(AppError::Random)?;
                (key.hash(), key.prefix(), Some(key))
            }
            (None, _) => return Ok((existing.map(|agent| agent.agent_id.clone()), None)),
        };
        let agent_id = match existing {
            Some(agent) => agent.agent_id.clone(),
            None => AgentId::parse(&random("agt")?).map_err(|_| AppError::Record)?,
        };
        let key_id = KeyId::parse(&random("key")?).map_err(|_| AppError::Record)?;
        let key = AgentKey { key_id, agent_id: agent_id.clone(), hash, prefix, created_at: now, expires_at: None };
        let development = self.development;
        let id = agent_id.clone();
        admission.change(org, move |config| first_agent(config, &id, &key, development, now)).await?;
        Ok((Some(agent_id), made))
    }

    /// Stores the provider's key from the environment, unless the stored one is the same.
    async fn provider_key(
        &self,
        admission: &Admission,
        org: &OrgId,
        key: &SecretString,
        now: Micros,
    ) -> Result<(), AppError> {
        let Some(snapshot) = loaded(admission, org).await? else { return Ok(()) };
        if let Some(stored) = snapshot.config.credential("openai") {
            let opened = admission.credentials.open(org, stored).await?;
            if crate::crypto::is_same_secret(opened.expose().as_bytes(), key.expose_secret().as_bytes()) {
                return Ok(());
            }
        }
        let id = CredentialId::parse(&random("cred")?).map_err(|_| AppError::Record)?;
        let clear = SecretText::new(key.expose_secret().trim().to_owned());
        let characters: Vec<char> = clear.expose().chars().collect();
        let last_four = characters.get(characters.len().saturating_sub(4)..).unwrap_or_default().iter().collect();
        let (data_key_id, sealed) = admission.credentials.seal(org, &id, &clear).await?;
        let credential = Credential {
            credential_id: id,
            provider: "openai".to_owned(),
            last_four,
            data_key_id,
            sealed,
            created_by: "environment".to_owned(),
            created_at: now,
        };
        tracing::info!(provider.name = "openai", local = self.base_url_is_local, "the provider's key was stored");
        admission.change(org, move |config| store(config, &credential)).await?;
        Ok(())
    }
}

fn first_agent(
    config: Option<&OrgConfig>,
    agent_id: &AgentId,
    key: &AgentKey,
    development: bool,
    now: Micros,
) -> Result<ChangeSet, ChangeRefused> {
    let config = config.ok_or_else(|| ChangeRefused::NotFound("the organization".to_owned()))?;
    let mut writes = vec![Write::put(Table::AgentKey, key.key_id.as_str(), key)?];
    if !config.agents.contains_key(agent_id) {
        let agent = Agent {
            agent_id: agent_id.clone(),
            slug: AGENT.to_owned(),
            project_id: ProjectId::parse("default").map_err(|_| ChangeRefused::Internal)?,
            owner_email: String::new(),
            description: "made at the first start".to_owned(),
            framework: String::new(),
            status: AgentStatus::Active,
            created_at: now,
            public_key: String::new(),
        };
        writes.push(Write::put(Table::Agent, agent_id.as_str(), &agent)?);
    }
    if development && config.pipelines.is_empty() {
        let scope_id = config.organization.org_id.as_str().to_owned();
        let spec = json!({ "preset": "starter", "overrides": { "rate_limit": { "max_calls": DEVELOPMENT_CALLS } } });
        let stored = StoredPipeline { scope: Scope { scope_type: ScopeKind::Org, scope_id }, spec };
        writes.push(Write::put(Table::Pipeline, "org", &stored)?);
    }
    Ok(ChangeSet {
        kind: "agent.onboarded",
        content: json!({ "agent": agent_id, "key": key.key_id, "project": "default", "slug": AGENT }),
        writes,
    })
}

/// The organization, if it is there and makes sense. A database that does not answer says nothing about that.
async fn loaded(admission: &Admission, org: &OrgId) -> Result<Option<Arc<Snapshot>>, AppError> {
    match admission.snapshots.get(org).await {
        Ok(snapshot) => Ok(snapshot),
        Err(SnapshotError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Calls per hour of a development gateway: the preset's hundred would end the first afternoon.
const DEVELOPMENT_CALLS: u64 = 1_000_000_000;

fn store(config: Option<&OrgConfig>, credential: &Credential) -> Result<ChangeSet, ChangeRefused> {
    let config = config.ok_or_else(|| ChangeRefused::NotFound("the organization".to_owned()))?;
    let before = config.credentials.iter().filter(|c| c.provider == credential.provider);
    let mut writes: Vec<Write> =
        before.map(|c| Write::delete(Table::ProviderCredential, c.credential_id.as_str())).collect();
    writes.push(Write::put(Table::ProviderCredential, credential.credential_id.as_str(), credential)?);
    let content = json!({ "credential": credential.credential_id, "provider": credential.provider });
    Ok(ChangeSet { kind: "credential.stored", content, writes })
}

fn check(name: &'static str, key: Option<&SecretString>) -> Result<(), AppError> {
    let short = key.is_some_and(|key| key.expose_secret().chars().count() < AdminKey::MIN_CHARS);
    if short {
        return Err(AppError::Setting(name, format!("must have at least {} characters", AdminKey::MIN_CHARS)));
    }
    Ok(())
}

fn random(prefix: &str) -> Result<String, AppError> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(AppError::Random)?;
    Ok(format!("{prefix}_{}", base32(&bytes)))
}
