//! Agents and their keys: onboard, list, suspend, activate, revoke.
//!
//! Owns their replies. A key is shown once, in the reply that made it; a private signing key likewise.

use axum::{
    Extension,
    extract::{Path, Query, State as Ask},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{change, configuration, random_id, text, with_receipt};
use crate::{
    admission::{ChangeRefused, ChangeSet},
    auth::KeyText,
    crypto::{Seed, SigningKey},
    domain::{
        clock::rfc3339,
        ids::{AgentId, KeyId, OrgId, ProjectId},
        rows::{Table, Write},
    },
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
    tenants::{Agent, AgentKey, AgentStatus, OrgConfig},
};

/// What onboarding is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Onboard {
    agent_id: String,
    #[serde(default)]
    owner_email: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    framework: String,
    #[serde(default)]
    project_id: Option<String>,
    /// The published command line sends these three; the organization is the caller's own.
    #[serde(default)]
    org_id: Option<String>,
    #[serde(default, rename = "declared_capabilities")]
    _declared_capabilities: Value,
    #[serde(default)]
    intended_use: Option<String>,
}

/// Makes an agent with its first key.
pub(in crate::http) async fn onboard(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Json(asked): Json<Onboard>,
) -> Result<Json<Value>, ApiError> {
    let slug = text("agent_id", &asked.agent_id, 96)?;
    AgentId::parse(&slug).map_err(|error| ApiError::invalid(error.to_string()).with_param(Some("agent_id".into())))?;
    let org = who.principal.org().clone();
    if asked.org_id.as_deref().is_some_and(|named| named != org.as_str()) {
        return Err(ApiError::not_found("the organization"));
    }
    let now = state.clock.now();
    let seed = SigningKey::generate().map_err(|_| ApiError::internal())?;
    let signing = SigningKey::from_seed(&seed).map_err(|_| ApiError::internal())?;
    let key = KeyText::make(&org).map_err(|_| ApiError::internal())?;
    let agent_id = AgentId::parse(&random_id("agt")?).map_err(|_| ApiError::internal())?;
    let key_id = KeyId::parse(&random_id("key")?).map_err(|_| ApiError::internal())?;
    let public_key = hex::encode(signing.public().as_bytes());
    let agent = Agent {
        agent_id: agent_id.clone(),
        slug: slug.clone(),
        project_id: ProjectId::parse("default").map_err(|_| ApiError::internal())?,
        owner_email: asked.owner_email,
        description: described(&asked.description, asked.intended_use.as_deref()),
        framework: asked.framework,
        status: AgentStatus::Active,
        created_at: now,
        public_key,
    };
    let stored = AgentKey {
        key_id: key_id.clone(),
        agent_id: agent_id.clone(),
        hash: key.hash(),
        prefix: key.prefix(),
        created_at: now,
        expires_at: None,
    };
    let made =
        change(&state, &who, move |config| onboarding(config, agent, &stored, asked.project_id.as_deref())).await?;
    let made_agent = Onboarded {
        org: &org,
        agent_id: &agent_id,
        slug: &slug,
        key_id: &key_id,
        key: &key,
        seed: &seed,
        signing: &signing,
    };
    let body = onboarded(&state.public_url, &made_agent);
    Ok(Json(with_receipt(body, &made)))
}

/// The agent, in the project that was named, with its first key.
fn onboarding(
    config: &OrgConfig,
    agent: Agent,
    key: &AgentKey,
    project: Option<&str>,
) -> Result<ChangeSet, ChangeRefused> {
    if config.agents.values().any(|other| other.slug == agent.slug) {
        let message = format!("an agent named `{}` exists already", agent.slug);
        return Err(ChangeRefused::Conflict { code: "agent_exists", message });
    }
    let wanted = project.unwrap_or("default");
    let found = config.projects.keys().find(|id| id.as_str() == wanted);
    let project_id = found.ok_or_else(|| ChangeRefused::NotFound(format!("the project `{wanted}`")))?.clone();
    let agent = Agent { project_id, ..agent };
    Ok(ChangeSet {
        kind: "agent.onboarded",
        content: json!({ "agent": agent.agent_id, "key": key.key_id, "project": agent.project_id, "slug": agent.slug }),
        writes: vec![
            Write::put(Table::Agent, agent.agent_id.as_str(), &agent)?,
            Write::put(Table::AgentKey, key.key_id.as_str(), key)?,
        ],
    })
}

/// What onboarding shows, once.
struct Onboarded<'a> {
    org: &'a OrgId,
    agent_id: &'a AgentId,
    slug: &'a str,
    key_id: &'a KeyId,
    key: &'a KeyText,
    seed: &'a Seed,
    signing: &'a SigningKey,
}

fn onboarded(public_url: &str, made: &Onboarded<'_>) -> Value {
    let Onboarded { org, agent_id, slug, key_id, key, seed, signing } = made;
    json!({
        "id": agent_id, "agent_uuid": agent_id, "agent_id": slug, "slug": slug, "org_id": org,
        "spiffe_id": format!("spiffe://tappass/{org}/{agent_id}"),
        "pipeline_id": agent_id,
        "signing_key": {
            "private_key": hex::encode(seed.as_slice()), "public_key": hex::encode(signing.public().as_bytes()),
            "fingerprint": signing.public().kid(), "algorithm": "ed25519",
        },
        "api_key": { "key_id": key_id, "api_key": key.reveal(), "expires_at": null },
        "base_url": format!("{public_url}/v1"),
        "status": "onboarded",
    })
}

/// The purpose stands in the description, where people look.
fn described(description: &str, intended_use: Option<&str>) -> String {
    let words = [Some(description), intended_use].into_iter().flatten().filter(|text| !text.trim().is_empty());
    words.collect::<Vec<_>>().join(" — ").chars().take(2_000).collect()
}

/// How a list is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Listing {
    #[serde(default)]
    q: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<String>,
}

/// Agents in order of their ids, a page at a time.
pub(in crate::http) async fn list(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Query(asked): Query<Listing>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let matches = |agent: &&Agent| asked.q.as_ref().is_none_or(|q| agent.slug.contains(q.as_str()));
    let all: Vec<&Agent> = snapshot.config.agents.values().filter(matches).collect();
    let total = all.len();
    let limit = asked.limit.unwrap_or(100).clamp(1, 500);
    let after = |agent: &&&Agent| asked.cursor.as_ref().is_none_or(|cursor| agent.agent_id.as_str() > cursor.as_str());
    let page: Vec<&&Agent> = all.iter().filter(after).take(limit).collect();
    let next = (page.len() == limit).then(|| page.last().map(|agent| agent.agent_id.clone())).flatten();
    let data: Vec<Value> = page.iter().map(|agent| shown(agent, who.principal.org().as_str())).collect();
    Ok(Json(json!({ "data": data, "page": { "cursor_next": next, "total": total } })))
}

/// One agent.
pub(in crate::http) async fn get(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let agent = find(&snapshot.config, &id).ok_or_else(|| ApiError::not_found("the agent"))?;
    Ok(Json(shown(agent, who.principal.org().as_str())))
}

/// No call of the agent is admitted from the acknowledgement on.
pub(in crate::http) async fn suspend(
    state: Ask<State>,
    who: Extension<Identified>,
    id: Path<String>,
) -> Result<Json<Value>, ApiError> {
    set_status(state, who, id, AgentStatus::Suspended, "agent.suspended").await
}

/// It may call again.
pub(in crate::http) async fn activate(
    state: Ask<State>,
    who: Extension<Identified>,
    id: Path<String>,
) -> Result<Json<Value>, ApiError> {
    set_status(state, who, id, AgentStatus::Active, "agent.activated").await
}

async fn set_status(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
    status: AgentStatus,
    kind: &'static str,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let agent = find(&snapshot.config, &id).ok_or_else(|| ApiError::not_found("the agent"))?;
    let wanted = agent.agent_id.clone();
    let made = change(&state, &who, move |config| {
        let agent = config.agents.get(&wanted).ok_or_else(|| ChangeRefused::NotFound("the agent".to_owned()))?;
        let agent = Agent { status, ..agent.clone() };
        Ok(ChangeSet {
            kind,
            content: json!({ "agent": agent.agent_id }),
            writes: vec![Write::put(Table::Agent, agent.agent_id.as_str(), &agent)?],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "id": agent.agent_id, "slug": agent.slug, "status": status }), &made)))
}

/// The keys of an agent, without the keys.
pub(in crate::http) async fn list_keys(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let agent = find(&snapshot.config, &id).ok_or_else(|| ApiError::not_found("the agent"))?;
    let keys = snapshot.config.keys.values().filter(|key| key.agent_id == agent.agent_id);
    let data: Vec<Value> = keys
        .map(|key| {
            let expires_at = key.expires_at.map(rfc3339);
            json!({ "key_id": key.key_id, "prefix": key.prefix, "created_at": rfc3339(key.created_at), "expires_at": expires_at })
        })
        .collect();
    Ok(Json(json!({ "data": data, "page": { "cursor_next": null, "total": data.len() } })))
}

/// What a further key is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewKey {
    #[serde(default)]
    expires_days: Option<u32>,
}

/// Makes a further key for an agent. Without a body it does not expire.
pub(in crate::http) async fn create_key(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
    asked: Option<Json<NewKey>>,
) -> Result<Json<Value>, ApiError> {
    let expires_days = asked.and_then(|Json(asked)| asked.expires_days);
    if expires_days == Some(0) {
        return Err(ApiError::invalid("`expires_days` must be at least 1").with_param(Some("expires_days".to_owned())));
    }
    let now = state.clock.now();
    let key = KeyText::make(who.principal.org()).map_err(|_| ApiError::internal())?;
    let key_id = KeyId::parse(&random_id("key")?).map_err(|_| ApiError::internal())?;
    let expires_at = expires_days.map(|days| now + i64::from(days) * 86_400_000_000);
    let (hash, prefix, stored_id) = (key.hash(), key.prefix(), key_id.clone());
    let made = change(&state, &who, move |config| {
        let agent = find(config, &id).ok_or_else(|| ChangeRefused::NotFound("the agent".to_owned()))?;
        let agent_id = agent.agent_id.clone();
        let stored = AgentKey { key_id: stored_id, agent_id, hash, prefix, created_at: now, expires_at };
        Ok(ChangeSet {
            kind: "key.created",
            content: json!({ "agent": stored.agent_id, "key": stored.key_id }),
            writes: vec![Write::put(Table::AgentKey, stored.key_id.as_str(), &stored)?],
        })
    })
    .await?;
    let body = json!({ "key_id": key_id, "api_key": key.reveal(), "expires_at": expires_at.map(rfc3339) });
    Ok(Json(with_receipt(body, &made)))
}

/// No call with the key is admitted from the acknowledgement on.
pub(in crate::http) async fn revoke_key(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path((id, key)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let wanted = key.clone();
    let made = change(&state, &who, move |config| {
        let agent = find(config, &id).ok_or_else(|| ChangeRefused::NotFound("the agent".to_owned()))?;
        let owned = config.keys.values().find(|k| k.key_id.as_str() == wanted && k.agent_id == agent.agent_id);
        let owned = owned.ok_or_else(|| ChangeRefused::NotFound("the key".to_owned()))?;
        Ok(ChangeSet {
            kind: "key.revoked",
            content: json!({ "agent": agent.agent_id, "key": owned.key_id }),
            writes: vec![Write::delete(Table::AgentKey, owned.key_id.as_str())],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "key_id": key, "removed": true }), &made)))
}

/// An agent by its id or by its name.
pub(super) fn find<'c>(config: &'c OrgConfig, id: &str) -> Option<&'c Agent> {
    let by_id = config.agents.values().find(|agent| agent.agent_id.as_str() == id);
    by_id.or_else(|| config.agents.values().find(|agent| agent.slug == id))
}

fn shown(agent: &Agent, org: &str) -> Value {
    json!({
        "id": agent.agent_id, "agent_uuid": agent.agent_id, "agent_id": agent.slug, "slug": agent.slug,
        "org_id": org, "project_id": agent.project_id, "owner_email": agent.owner_email,
        "description": agent.description, "framework": agent.framework, "status": agent.status,
        "active": agent.status == AgentStatus::Active, "registered_at": rfc3339(agent.created_at),
    })
}
