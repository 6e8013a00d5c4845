//! Provider keys: store, list, remove. A key goes in and never comes out.
//!
//! Owns their replies: provider, last four characters, dates, and what the provider last said of the key. The key is sealed before the change that stores it.

use axum::{
    Extension,
    extract::{Path, State as Ask},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{change, configuration, random_id, with_receipt};
use crate::{
    admission::{ChangeRefused, ChangeSet, CredentialStatus},
    domain::{
        clock::rfc3339,
        ids::CredentialId,
        nearest::nearest,
        rows::{Table, Write},
    },
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
    tenants::Credential,
    vault::SecretText,
};

/// A key to store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewCredential {
    provider: String,
    api_key: String,
    /// The published command line may send these; only plain keys are known here.
    #[serde(default)]
    auth_type: Option<String>,
    #[serde(default)]
    auth_config: Option<Value>,
}

/// The shortest key that is taken for one.
const MIN_CHARS: usize = 8;

/// Providers with a stored key.
pub(in crate::http) async fn list(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let providers: Vec<Value> = snapshot
        .config
        .credentials
        .iter()
        .map(|c| {
            let (org, id) = (&snapshot.org, &c.credential_id);
            let status = state.admission.checks.status(org, id);
            let checked_at = state.admission.checks.checked_at(org, id).map(rfc3339);
            let verified_at = checked_at.clone().filter(|_| status == CredentialStatus::Valid);
            json!({
                "provider": c.provider, "last_four": c.last_four, "verified_at": verified_at,
                "checked_at": checked_at, "status": status.as_str(), "created_by": c.created_by, "updated_at": rfc3339(c.created_at), "credential_id": c.credential_id,
            })
        })
        .collect();
    Ok(Json(json!({ "providers": providers, "supported": supported(&state) })))
}

/// Stores a provider's key; an earlier one of the same provider is replaced by a new credential.
pub(in crate::http) async fn store(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Json(asked): Json<NewCredential>,
) -> Result<Json<Value>, ApiError> {
    let supported = supported(&state);
    if !supported.contains(&asked.provider.as_str()) {
        let hint = nearest(&asked.provider, supported.iter().copied()).unwrap_or("openai");
        let words = format!("unknown provider; did you mean `{hint}`? supported: {}", supported.join(", "));
        return Err(ApiError::invalid(words).with_param(Some("provider".to_owned())));
    }
    let plain = asked.auth_type.as_deref().is_none_or(|kind| kind == "api_key") && asked.auth_config.is_none();
    if !plain {
        let words = "`auth_type` may be `api_key` only in this build, without `auth_config`";
        return Err(ApiError::invalid(words).with_param(Some("auth_type".to_owned())));
    }
    let key = SecretText::new(asked.api_key.trim().to_owned());
    let shape = key.expose();
    if shape.chars().count() < MIN_CHARS || !shape.bytes().all(|b| b.is_ascii_graphic()) {
        let words = format!("`api_key` must have at least {MIN_CHARS} printable ASCII characters");
        return Err(ApiError::invalid(words).with_param(Some("api_key".to_owned())));
    }
    let provider = asked.provider;
    let last_four = last_four(&key);
    let id = CredentialId::parse(&random_id("cred")?).map_err(|_| ApiError::internal())?;
    let sealed = state.admission.credentials.seal(who.principal.org(), &id, &key).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a provider key was not sealed");
        ApiError::unavailable("vault_unavailable", "the key was not stored: the vault cannot seal now")
    })?;
    drop(key);
    let (data_key_id, sealed) = sealed;
    let credential = Credential {
        credential_id: id,
        provider: provider.clone(),
        last_four: last_four.clone(),
        data_key_id,
        sealed,
        created_by: who.principal.name(),
        created_at: state.clock.now(),
    };
    let made = change(&state, &who, move |config| {
        let before = config.credentials.iter().filter(|c| c.provider == credential.provider);
        let mut writes: Vec<Write> =
            before.map(|c| Write::delete(Table::ProviderCredential, c.credential_id.as_str())).collect();
        writes.push(Write::put(Table::ProviderCredential, credential.credential_id.as_str(), &credential)?);
        Ok(ChangeSet {
            kind: "credential.stored",
            content: json!({ "credential": credential.credential_id, "provider": credential.provider }),
            writes,
        })
    })
    .await?;
    let detail = "stored; it is verified by its first use";
    let body = json!({ "provider": provider, "last_four": last_four, "verified": false, "verify_detail": detail });
    Ok(Json(with_receipt(body, &made)))
}

/// Takes a provider's key away.
pub(in crate::http) async fn remove(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(provider): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let made = change(&state, &who, move |config| {
        let own: Vec<&Credential> = config.credentials.iter().filter(|c| c.provider == provider).collect();
        if own.is_empty() {
            return Err(ChangeRefused::NotFound("a key of this provider".to_owned()));
        }
        let ids: Vec<&str> = own.iter().map(|c| c.credential_id.as_str()).collect();
        Ok(ChangeSet {
            kind: "credential.removed",
            content: json!({ "credentials": ids, "provider": provider }),
            writes: ids.iter().map(|id| Write::delete(Table::ProviderCredential, *id)).collect(),
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "removed": true }), &made)))
}

/// Providers that take a key.
fn supported(state: &State) -> Vec<&'static str> {
    let providers = state.pipeline.services().providers.all();
    providers.into_iter().map(|provider| provider.name()).filter(|name| *name != "tappass").collect()
}

/// The last four characters of a key that is long enough to have four to spare.
pub(crate) fn last_four(key: &SecretText) -> String {
    let characters: Vec<char> = key.expose().chars().collect();
    let from = characters.len().saturating_sub(4);
    characters.get(from..).unwrap_or_default().iter().collect()
}
