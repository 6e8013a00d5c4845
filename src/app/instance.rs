//! This process among others: where the shared database is, under which boot it writes, by which lease.
//!
//! Owns registering a boot and its lease, at the start and after it was taken for dead. Never serves.

use std::{sync::Arc, time::Duration};

use super::wiring::AppError;
use crate::{
    admission::{Lease, Reborn},
    config::{Config, Secrets, VERSION},
    domain::{
        clock::Clock,
        ids::{BootId, base32},
    },
    jobs,
    storage::{Sql, StorageError, sql::PostgresSettings},
};

/// Where the Postgres is, if there is to be one.
pub(super) fn postgres(config: &Config, secrets: &Secrets) -> Result<Option<PostgresSettings>, AppError> {
    use secrecy::ExposeSecret as _;
    let database = &config.database;
    let url = match &secrets.database_url {
        Some(url) => url.clone(),
        None if database.url.is_empty() => return Ok(None),
        None => secrecy::SecretString::from(database.url.as_str()),
    };
    let scheme = url.expose_secret().split("://").next().unwrap_or_default().to_owned();
    if scheme != "postgres" && scheme != "postgresql" {
        let right = "must be a Postgres address such as postgres://user:password@host:5432/name".to_owned();
        return Err(AppError::Setting("DATABASE_URL", right));
    }
    Ok(Some(PostgresSettings {
        url,
        append_connections: database.append_connections,
        read_connections: database.read_connections,
        admin_connections: database.admin_connections,
        lock_timeout: Duration::from_millis(database.lock_timeout_ms),
        statement_timeout: Duration::from_millis(database.statement_timeout_ms),
        migrate: database.migrate,
        target: None,
    }))
}

/// A new boot id: random, new at every start.
pub(super) fn boot_id() -> Result<BootId, AppError> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(AppError::Random)?;
    BootId::parse(&format!("boot_{}", base32(&bytes))).map_err(|_| AppError::Record)
}

/// Registers this boot. Where one process owns the database it closes all others, which is right because it holds the
/// lock on the folder.
pub(super) async fn register_boot(
    sql: &Sql,
    boot: &BootId,
    lease: &Lease,
    holds: Duration,
) -> Result<(), StorageError> {
    let sent_at = lease.clock().running();
    sql.register_boot(boot, VERSION, holds).await?;
    if sql.is_shared() {
        lease.renewed(sent_at, holds.saturating_sub(jobs::LEASE_MARGIN));
        return Ok(());
    }
    let closed = sql.close_other_boots(boot).await?;
    if closed > 0 {
        tracing::warn!(boots = closed, "an earlier run did not end by itself");
    }
    Ok(())
}

/// The right to admit: without an end where one process owns the database.
pub(super) fn lease(sql: &Sql, clock: &Arc<dyn Clock>) -> Lease {
    if sql.is_shared() { Lease::new(Arc::clone(clock)) } else { Lease::unlimited(Arc::clone(clock)) }
}

/// How this process registers again after it was taken for dead: first everything under way is cut.
pub(super) fn reborn(sql: &Sql, lease: &Lease, config: &Config) -> Reborn {
    let (sql, lease, holds) = (sql.clone(), lease.clone(), config.database.lease());
    Box::new(move || {
        let (sql, lease) = (sql.clone(), lease.clone());
        Box::pin(async move {
            lease.fence();
            let boot = boot_id().map_err(|_| StorageError::Inconsistent { table: "boot" })?;
            register_boot(&sql, &boot, &lease, holds).await?;
            Ok(boot)
        })
    })
}

/// Closes this boot at the end; if that fails the next start does it.
pub(super) async fn close_boot(sql: &Sql, boot: &BootId) {
    if let Err(error) = sql.close_boot(boot).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "this boot was not closed; the next start closes it");
    }
}
