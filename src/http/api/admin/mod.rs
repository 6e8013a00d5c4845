//! The control plane: agents, provider keys, policies, pipelines, budgets, organizations.
//!
//! Owns the shapes that the published command line reads. Every write is one change; its answer carries the receipt.

pub(in crate::http) mod agents;
pub(in crate::http) mod audit;
pub(in crate::http) mod budget;
pub(in crate::http) mod llm_keys;
pub(in crate::http) mod organizations;
pub(in crate::http) mod pipeline;
pub(in crate::http) mod policies;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    admission::{ChangeRefused, ChangeSet, Receipt, Snapshot},
    domain::ids::OrgId,
    http::{error::ApiError, middleware::Identified, state::State},
    tenants::OrgConfig,
};

/// The configuration that the caller's organization has now, at least as new as the database's.
async fn configuration(state: &State, who: &Identified) -> Result<Arc<Snapshot>, ApiError> {
    let found = state.admission.snapshots.refresh_if_newer(who.principal.org()).await?;
    found.ok_or_else(|| ApiError::not_found("the organization"))
}

/// Commits a change of the caller's organization.
async fn change(
    state: &State,
    who: &Identified,
    make: impl FnOnce(&OrgConfig) -> Result<ChangeSet, ChangeRefused> + Clone + Send + Sync + 'static,
) -> Result<Receipt, ApiError> {
    let org = who.principal.org().clone();
    let make = move |config: Option<&OrgConfig>| {
        make(config.ok_or_else(|| ChangeRefused::NotFound("the organization".to_owned()))?)
    };
    let waits = waits(who)?;
    let mut receipt = state.admission.change(&org, make).await?;
    if waits {
        drained(state, &org, &mut receipt).await;
    }
    Ok(receipt)
}

/// Whether older calls are waited for, asked before anything is written.
fn waits(who: &Identified) -> Result<bool, ApiError> {
    match who.wait.as_deref() {
        None => Ok(false),
        Some("drained") => Ok(true),
        Some(_) => Err(ApiError::invalid("`wait` can only be `drained`").with_param(Some("wait".to_owned()))),
    }
}

/// How long a change is held back at most for calls that were admitted before it, and how often they are counted.
const DRAINED: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(100);

/// Waits until no call runs that was admitted before a change. What is left when the time or the process ends is told.
async fn drained(state: &State, org: &OrgId, receipt: &mut Receipt) {
    let until = tokio::time::Instant::now() + DRAINED;
    let is_over = || tokio::time::Instant::now() >= until || state.readiness.draining.load(Ordering::Acquire);
    while receipt.older_calls != Some(0) && !is_over() {
        tokio::time::sleep(LOOK).await;
        receipt.older_calls = state.admission.older_calls(org, receipt).await;
    }
}

/// What an acknowledged change is told by: the configuration that decides from now on, and the entry that proves it.
fn receipt(receipt: &Receipt) -> Value {
    json!({
        "config_version": receipt.stamp.version,
        "config_digest": receipt.stamp.digest,
        "entry": { "boot": receipt.entry.boot, "counter": receipt.entry.counter, "seq": receipt.seq },
        "live_on": receipt.live.1,
        "instances": receipt.live.0,
        "older_calls": receipt.older_calls,
    })
}

/// Puts fields beside a receipt.
fn with_receipt(fields: Value, from: &Receipt) -> Value {
    let mut fields = fields;
    if let Some(object) = fields.as_object_mut() {
        object.insert("receipt".to_owned(), receipt(from));
        object.insert("config_version".to_owned(), json!(from.stamp.version));
        object.insert("config_digest".to_owned(), json!(from.stamp.digest));
    }
    fields
}

/// Random bytes for an id; the system without randomness cannot serve.
fn random_id(prefix: &str) -> Result<String, ApiError> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|_| ApiError::internal())?;
    Ok(format!("{prefix}_{}", crate::domain::ids::base32(&bytes)))
}

/// A text that a person wrote: trimmed, not empty, bounded, without control characters.
fn text(field: &str, value: &str, most: usize) -> Result<String, ApiError> {
    let value = value.trim();
    let fits = (1..=most).contains(&value.chars().count()) && !value.chars().any(char::is_control);
    if fits {
        return Ok(value.to_owned());
    }
    let words = format!("`{field}` must have 1 to {most} characters and no control characters");
    Err(ApiError::invalid(words).with_param(Some(field.to_owned())))
}
