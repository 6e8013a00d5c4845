//! A session's advisory lock, on a connection of its own.
//!
//! Owns taking and giving back. The connection is never pooled: a pool would keep the lock of a future that was dropped in
//! flight, or unlock on another session. What it gives is quick release when a process dies; it fences nothing (a failover
//! frees every lock at once), which is the lease row's work.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection, Row as _};

use super::{Postgres, StorageError, timed_out};

/// Longest that giving a lock back, or asking whether it is still held, may take.
const BOUND: Duration = Duration::from_secs(5);

/// Whoever holds such a lock asks it every five seconds whether it is held. A holder that is frozen, or whose network is gone,
/// asks nothing: its session ends, or nobody else would ever get the lock.
const QUIET: &str = "SET idle_session_timeout = '15s'; SET tcp_keepalives_idle = 10; \
                     SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// A lock that is held. Dropped, its connection is closed, and with it the lock.
pub struct Lock {
    connection: PgConnection,
    key: i64,
}

/// 64 bits of a hash over the name, which no other application's names run into.
fn key(name: &str) -> i64 {
    let hash: [u8; 32] = Sha256::digest(format!("tappass/lock/{name}")).into();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(hash.split_at(8).0);
    i64::from_be_bytes(bytes)
}

impl Postgres {
    /// Takes the lock if nobody has it.
    pub(in crate::storage::sql) async fn try_lock(&self, name: &str) -> Result<Option<Lock>, StorageError> {
        let mut connection = self.own_connection().await?;
        let key = key(name);
        let asked = async {
            sqlx::raw_sql(QUIET).execute(&mut connection).await?;
            sqlx::query("SELECT pg_try_advisory_lock($1)").bind(key).fetch_one(&mut connection).await
        };
        let row = tokio::time::timeout(BOUND, asked).await.unwrap_or(Err(timed_out()))?;
        let taken: bool = row.try_get(0)?;
        Ok(taken.then_some(Lock { connection, key }))
    }

    /// Waits for the lock.
    pub(in crate::storage::sql) async fn lock(&self, name: &str) -> Result<Lock, StorageError> {
        let mut connection = self.own_connection().await?;
        let key = key(name);
        // A holder that freezes is not to stop every start after it; what a start makes is made once anyhow.
        sqlx::raw_sql(QUIET).execute(&mut connection).await?;
        sqlx::query("SELECT pg_advisory_lock($1)").bind(key).execute(&mut connection).await?;
        Ok(Lock { connection, key })
    }
}

impl Lock {
    /// Whether the session that holds it still answers.
    pub async fn is_held(&mut self) -> bool {
        let asked = sqlx::query("SELECT 1").execute(&mut self.connection);
        matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(_)))
    }

    /// Gives it back; if that is not certain within its bound the connection is closed, which does the same.
    pub async fn release(mut self) {
        let asked = sqlx::query("SELECT pg_advisory_unlock($1)").bind(self.key).fetch_one(&mut self.connection);
        let unlocked = match tokio::time::timeout(BOUND, asked).await {
            Ok(Ok(row)) => row.try_get::<bool, _>(0).unwrap_or(false),
            Ok(Err(_)) | Err(_) => false,
        };
        if !unlocked {
            tracing::warn!("an advisory lock was not given back in time: its connection is closed");
            return;
        }
        if let Err(error) = self.connection.close().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a lock's connection did not close");
        }
    }
}
