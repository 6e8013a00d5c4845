//! Who is calling: before routing, methods and bodies.
//!
//! Owns turning a key into a principal, and the limits on addresses. Nonsense is refused by its form and costs no read; a
//! well-formed key that the snapshot does not know is looked up once more under the newest configuration before its 401.
//! When the configuration cannot be read the answer is 503, never 401. Notes beside the principal what a change's caller
//! wants to wait for; only a change reads it, and refuses what it does not know.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State as Ask},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Remote;
use crate::{
    admission::Snapshot,
    auth::{PresentedKey, Principal},
    domain::{digest::Digest, ids::OrgId},
    http::{PUBLIC, error::ApiError, state::State},
    limits::{Charges, Rate, Subject, Unit},
};

/// A known caller.
#[derive(Clone)]
pub(crate) struct Identified {
    pub(crate) principal: Principal,
    pub(crate) key_hash: Digest,
    /// The caller's organization as it was when the key was found; absent for administrators.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// What a change's caller wants to wait for (`?wait=`), as it was asked.
    pub(crate) wait: Option<String>,
}

pub(super) async fn identify(Ask(state): Ask<State>, mut request: Request, next: Next) -> Response {
    if PUBLIC.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let address = request.extensions().get::<Remote>().map(|remote| remote.0.ip());
    if let Some(error) = too_fast(&state, address).await {
        return error.into_response();
    }
    // What hangs does not answer: a caller is not kept waiting for longer than a decision may take.
    let found = tokio::time::timeout(state.admission.deadline, find(&state, request.headers())).await;
    let found = found.unwrap_or_else(|_| Err(ApiError::database()));
    match found {
        Ok(mut identified) => {
            identified.wait = wait(request.uri().query());
            request.extensions_mut().insert(identified.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(identified);
            response
        }
        Err(error) => {
            let response = error.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                return unauthenticated(&state, address, response).await;
            }
            response
        }
    }
}

fn wait(query: Option<&str>) -> Option<String> {
    query?.split('&').find_map(|pair| pair.strip_prefix("wait=")).map(str::to_owned)
}

async fn too_fast(state: &State, address: Option<IpAddr>) -> Option<ApiError> {
    let calls = u64::from(state.config.limits.address_calls_per_minute);
    let address = address.filter(|_| calls > 0)?;
    let charge = Charges::one(Subject::Address(address), Unit::Calls, Rate::per_seconds(calls, 60), 1);
    let refused = state.addresses.charge(&charge).await.refused?;
    Some(ApiError::too_many(refused.retry_after.div_ceil(1_000_000_000)))
}

/// Counts a 401; an address that causes too many gets 429.
async fn unauthenticated(state: &State, address: Option<IpAddr>, response: Response) -> Response {
    state.metrics.unauthenticated.inc();
    state.admission.aggregates.count_unowned("unauthenticated");
    let most = u64::from(state.config.limits.address_failures_per_minute);
    let Some(address) = address.filter(|_| most > 0) else { return response };
    let charge = Charges::one(Subject::Failures(address), Unit::Calls, Rate::per_seconds(most, 60), 1);
    let Some(refused) = state.failures.charge(&charge).await.refused else { return response };
    ApiError::too_many(refused.retry_after.div_ceil(1_000_000_000)).into_response()
}

async fn find(state: &State, headers: &HeaderMap) -> Result<Identified, ApiError> {
    let key = presented(headers).ok_or_else(ApiError::unauthenticated)?;
    match PresentedKey::read(key) {
        PresentedKey::Agent { org, hash } => agent(state, org, hash).await,
        PresentedKey::Other { hash } if state.admin_key.matches(&hash) => admin(state, headers, hash).await,
        PresentedKey::Other { hash } => match &state.bootstrap_agent {
            Some((own, org)) if *own == hash => agent(state, org.clone(), hash).await,
            _ => Err(ApiError::unauthenticated()),
        },
    }
}

/// The key in `Authorization: Bearer`, or without that header the one in `x-api-key`. A header that stands twice is none:
/// proxies in front of us may have looked at the other one.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let one = |name: &str| {
        let mut all = headers.get_all(name).iter();
        let first = all.next()?;
        Some(if all.next().is_some() { "" } else { first.to_str().unwrap_or_default() })
    };
    let key = match one(header::AUTHORIZATION.as_str()) {
        None => one("x-api-key")?,
        Some(text) => {
            let (scheme, key) = text.split_once(' ').unwrap_or_default();
            if scheme.eq_ignore_ascii_case("bearer") { key.trim() } else { "" }
        }
    };
    Some(key).filter(|key| !key.is_empty())
}

async fn agent(state: &State, org: OrgId, hash: Digest) -> Result<Identified, ApiError> {
    let snapshots = &state.admission.snapshots;
    let now = state.clock.now();
    let known = |snapshot: &Arc<Snapshot>| {
        snapshot.key(&hash, now).map(|(key, agent)| Principal::Agent {
            org: org.clone(),
            agent: agent.agent_id.clone(),
            key: key.key_id.clone(),
        })
    };
    let Some(snapshot) = snapshots.get(&org).await? else { return Err(ApiError::unauthenticated()) };
    if let Some(principal) = known(&snapshot) {
        return Ok(Identified { principal, key_hash: hash, snapshot: Some(snapshot), wait: None });
    }
    let Some(snapshot) = snapshots.refresh_if_newer(&org).await? else { return Err(ApiError::unauthenticated()) };
    let principal = known(&snapshot).ok_or_else(ApiError::unauthenticated)?;
    Ok(Identified { principal, key_hash: hash, snapshot: Some(snapshot), wait: None })
}

/// The administrator acts in the organization that `X-Org-Id` names, or in the first one.
async fn admin(state: &State, headers: &HeaderMap, hash: Digest) -> Result<Identified, ApiError> {
    let org = match headers.get("x-org-id") {
        None => state.default_org.clone(),
        Some(named) => {
            let named = named.to_str().ok().and_then(|text| OrgId::parse(text).ok());
            let named = named.ok_or_else(|| ApiError::invalid("`X-Org-Id` is not an organization's id"))?;
            let there = state.admission.snapshots.get(&named).await?;
            there.ok_or_else(|| ApiError::not_found("the organization of `X-Org-Id`"))?;
            named
        }
    };
    Ok(Identified { principal: Principal::Admin { org }, key_hash: hash, snapshot: None, wait: None })
}
