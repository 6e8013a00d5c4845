//! SQL: the embedded SQLite database.
//!
//! Owns connections, migrations and errors; one file per table below. One writer connection takes every write
//! transaction (`BEGIN IMMEDIATE`), a pool of readers takes the rest. WAL with full sync: what is committed survives a
//! power cut. Never retries by itself.

mod appends;
mod batches;
mod boots;
mod checkpoints;
mod config_rows;
mod entries;
mod heads;
mod holds;
mod keys;
mod stamps;

use std::{path::Path, time::Duration};

pub use appends::Locked;
pub use batches::BatchRow;
pub use checkpoints::CheckpointRow;
pub use entries::{EntryRow, NewEntry};
pub use heads::Head;
pub use holds::{Hold, Spending};
pub use keys::{DataKeyRecord, SigningKeyRecord};
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// Why the database did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing was written; asking again later may help.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The commit's outcome is unknown: ask again under the same id.
    #[error("the outcome of a commit is unknown")]
    Unknown(#[source] sqlx::Error),
    /// A row does not make sense.
    #[error("table `{table}` holds a row that does not make sense")]
    Inconsistent {
        /// Which table.
        table: &'static str,
    },
    /// The schema could not be brought up to date.
    #[error("the database could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The schema is newer or older than this binary.
    #[error("the database has no schema that this binary knows; run `tappass migrate`")]
    Schema,
}

impl StorageError {
    /// Whether the database as a whole cannot be written (no connection, disk full, read-only, busy, an I/O error), as
    /// opposed to one statement that it refuses.
    pub fn is_outage(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(error)) = self else {
            return !matches!(self, Self::Inconsistent { .. });
        };
        let code: u32 = error.code().and_then(|code| code.parse().ok()).unwrap_or(0);
        // SQLite's primary codes BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN.
        matches!(code & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14)
    }
}

impl StorageError {
    /// Whether a start may wait for it: the database is elsewhere and cannot be reached. None of SQLite's errors is such a
    /// one, since a file that does not open stays so until somebody sees to it.
    pub fn heals_by_itself(&self) -> bool {
        matches!(self, Self::Unavailable(sqlx::Error::Io(_)))
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error)
    }
}

/// The database.
#[derive(Clone)]
pub struct Sql {
    writer: SqlitePool,
    readers: SqlitePool,
}

const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "spine", include_str!("../../../migrations/sqlite/0001_spine.sql"))];

impl Sql {
    /// Opens (or creates) the database file and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        let sql = Self::pools(path, true).await?;
        let migrations = MIGRATIONS.iter().map(|(version, name, text)| {
            let text = sqlx::SqlStr::from_static(text);
            Migration::new(*version, (*name).into(), MigrationType::Simple, text, false)
        });
        let migrator = Migrator { migrations: migrations.collect::<Vec<_>>().into(), ..Migrator::DEFAULT };
        migrator.run(&sql.writer).await.map_err(StorageError::Migrate)?;
        Ok(sql)
    }

    /// Opens an existing database to read it, beside a running gateway or without one.
    pub async fn open_to_read(path: &Path) -> Result<Self, StorageError> {
        let sql = Self::pools(path, false).await?;
        sqlx::query("SELECT org_id FROM audit_head LIMIT 1")
            .fetch_optional(&sql.readers)
            .await
            .map_err(|_| StorageError::Schema)?;
        Ok(sql)
    }

    async fn pools(path: &Path, create: bool) -> Result<Self, StorageError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .read_only(!create)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(1_000)
            .foreign_keys(true);
        let options = if create {
            options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full)
        } else {
            options
        };
        let pool = |most| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .min_connections(1)
                .test_before_acquire(false)
                .idle_timeout(None)
                .max_lifetime(None)
                .acquire_timeout(Duration::from_secs(2))
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        let readers = pool(4).min_connections(0).connect_lazy_with(options);
        Ok(Self { writer, readers })
    }

    /// Opens a write transaction. Only `admission` calls this for anything that touches a chain head.
    ///
    /// SQLite ends a transaction by itself on a full disk or an I/O error; the driver then takes the connection for one that
    /// is inside a transaction for ever. So a connection that cannot begin is closed, and a new one is tried.
    pub async fn begin(&self) -> Result<WriteTx, StorageError> {
        if let Ok(tx) = self.writer.begin_with("BEGIN IMMEDIATE").await {
            return Ok(WriteTx { tx });
        }
        self.writer.acquire().await?.close().await?;
        Ok(WriteTx { tx: self.writer.begin_with("BEGIN IMMEDIATE").await? })
    }

    /// Opens a read transaction: everything read in it is of one moment.
    pub async fn begin_read(&self) -> Result<ReadTx, StorageError> {
        Ok(ReadTx { tx: self.readers.begin().await? })
    }

    /// Closes every connection; the last one checkpoints the write-ahead log.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A write transaction; dropped without `commit`, it leaves nothing.
pub struct WriteTx {
    tx: Transaction<'static, Sqlite>,
}

impl WriteTx {
    /// Commits. A failure here is of unknown outcome.
    pub async fn commit(self) -> Result<(), StorageError> {
        self.tx.commit().await.map_err(StorageError::Unknown)
    }
}

/// A read transaction.
pub struct ReadTx {
    tx: Transaction<'static, Sqlite>,
}

/// Numbers are unsigned in Rust and 64-bit signed in SQL.
fn unsigned(table: &'static str, number: i64) -> Result<u64, StorageError> {
    u64::try_from(number).map_err(|_| StorageError::Inconsistent { table })
}

/// The other way; counters never come near the bound.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
