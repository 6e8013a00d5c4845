//! Hints between instances: what changed, and who has loaded it.
//!
//! Owns one connection that listens, and saying what this instance has loaded. Nothing is decided by either: a hint that is
//! lost costs the next request one retry, and a receipt then counts one instance less. Without a shared database there is
//! nobody to tell.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, Snapshots},
    domain::ids::OrgId,
    storage::Sql,
};

/// After a connection was lost.
const AGAIN: Duration = Duration::from_secs(1);

/// Loads early what others changed, until stopped.
pub(super) async fn hear(sql: &Sql, snapshots: &Snapshots, wanted: bool, stop: CancellationToken) {
    if !wanted || !sql.is_shared() {
        return;
    }
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = listen(sql, snapshots) => heard,
        };
        tracing::warn!(
            error = &heard as &dyn std::error::Error,
            "changes of other instances are not heard of; each is found at the next call"
        );
        if tokio::time::timeout(AGAIN, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Listens until the connection is lost. Loads run beside one another: a slow one delays no other.
async fn listen(sql: &Sql, snapshots: &Snapshots) -> crate::storage::StorageError {
    let mut listener = match sql.listen().await {
        Ok(Some(listener)) => listener,
        Ok(None) => return std::future::pending().await,
        Err(error) => return error,
    };
    let mut loads = FuturesUnordered::new();
    loop {
        tokio::select! {
            changed = listener.changed() => match changed {
                Ok(Some(org)) if snapshots.current(&org).is_some() => loads.push(load(snapshots, org)),
                Ok(_) => {}
                Err(error) => return error,
            },
            Some(()) = loads.next() => {}
        }
    }
}

async fn load(snapshots: &Snapshots, org: OrgId) {
    if let Err(error) = snapshots.refresh_if_newer(&org).await {
        tracing::warn!(org.id = %org, error = &error as &dyn std::error::Error, "a change was not loaded early");
    }
}

/// Says what this instance has loaded, until stopped.
pub(super) async fn tell(sql: &Sql, admission: &Admission, stop: CancellationToken) {
    if !sql.is_shared() {
        return;
    }
    loop {
        let loaded = tokio::select! {
            () = stop.cancelled() => return,
            loaded = admission.snapshots.loaded() => loaded,
        };
        let boot = admission.outbox.boot();
        for (org, version) in loaded {
            if let Err(error) = sql.note_loaded(&boot, &org, version).await {
                tracing::debug!(org.id = %org, error = &error as &dyn std::error::Error, "what is loaded was not noted");
            }
        }
    }
}
