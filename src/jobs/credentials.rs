//! Whether the stored provider keys are good.
//!
//! Owns two jobs of the whole cluster, which ask each provider about the keys in use and about all of them, and a look per
//! instance that brings the results to where calls are made. A key that cannot be opened or judged is `unknown`, which
//! refuses nothing. Never calls on a caller's behalf, never keeps a key. What a run writes carries its token.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::lease::{Cluster, Job};
use crate::{
    admission::Admission,
    config::JobsConfig,
    domain::ids::OrgId,
    providers::{KeyCheck, Providers},
    storage::{Sql, StorageError, sql::JobLease},
    tenants::Credential,
};

/// The longest that a run may take, whatever its period.
const HOLD: Duration = Duration::from_mins(25);

/// Keys that are asked about at once.
const AT_ONCE: usize = 8;

/// Refreshes what calls go by, until stopped.
pub(super) async fn refresh(sql: &Sql, admission: &Admission, trust: Duration, stop: CancellationToken) {
    let period = (trust / 30).clamp(Duration::from_secs(1), Duration::from_mins(1));
    loop {
        if let Err(error) = admission.checks.refresh(sql).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "results about provider keys were not read");
        }
        if tokio::time::timeout(period, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Validates in two scopes, until stopped: both look on their own, since the one over all keys may take long.
pub(super) async fn validate(
    cluster: &Cluster,
    admission: &Admission,
    providers: &Providers,
    config: &JobsConfig,
    stop: CancellationToken,
) {
    let scope = async |name, seconds, used: Option<Duration>| {
        if seconds == 0 {
            return;
        }
        let every = Duration::from_secs(seconds);
        // A refusal of the provider's is no reason to hurry: the cap is below the period whatever that is.
        let job = Job { name, every, hold: HOLD.min(every * 5 / 6) };
        loop {
            let run = async |turn: JobLease| sweep(&cluster.sql, admission, providers, used, turn).await;
            cluster.try_run(job, run).await;
            tokio::time::sleep(job.look()).await;
        }
    };
    let in_use = config.validate_in_use_seconds;
    // Use is noted once a minute, so what counts as use reaches a little further back than the period.
    let scopes = async {
        tokio::join!(
            scope("validate_in_use", in_use, Some(config.trust())),
            scope("validate_all", config.validate_all_seconds, None)
        );
    };
    tokio::select! {
        () = scopes => {}
        () = stop.cancelled() => {}
    }
}

async fn sweep(
    sql: &Sql,
    admission: &Admission,
    providers: &Providers,
    used: Option<Duration>,
    turn: JobLease,
) -> Result<(), StorageError> {
    let rows = sql.credential_rows(used).await?;
    let results = futures_util::stream::iter(rows).map(|(org, body)| async move {
        let Ok(credential) = serde_json::from_str::<Credential>(&body) else {
            // A row that was edited: who loads it is told; here it only is not judged.
            return Ok(true);
        };
        let outcome = ask(admission, providers, &org, &credential).await;
        let noted = sql.put_credential_check(&org, &credential.credential_id, outcome.as_str(), turn.token).await?;
        if noted && outcome == KeyCheck::Invalid {
            let id = &credential.credential_id;
            tracing::warn!(org.id = %org, credential.id = %id, provider.name = credential.provider, "the provider refuses a stored key");
        }
        Ok::<bool, StorageError>(noted)
    });
    let mut results = std::pin::pin!(results.buffer_unordered(AT_ONCE));
    let mut failed = None;
    while let Some(result) = results.next().await {
        // One that was not noted holds up no other.
        failed = result.err().or(failed);
    }
    if used.is_none() {
        sql.forget_credential_checks().await?;
    }
    failed.map_or(Ok(()), Err)
}

async fn ask(admission: &Admission, providers: &Providers, org: &OrgId, credential: &Credential) -> KeyCheck {
    let Some(provider) = providers.named(&credential.provider) else { return KeyCheck::Unknown };
    match admission.credentials.open(org, credential).await {
        Ok(key) => provider.validate(&key).await,
        Err(error) => {
            let id = &credential.credential_id;
            tracing::warn!(org.id = %org, credential.id = %id, error = &error as &dyn std::error::Error, "a provider key does not open, so it is not judged");
            KeyCheck::Unknown
        }
    }
}
