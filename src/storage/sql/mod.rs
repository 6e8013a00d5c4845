//! SQL: the embedded SQLite database, or Postgres for many instances.
//!
//! Owns connections, migrations and errors; one file per table below, one text for both databases wherever both accept it.
//! SQLite: one writer connection takes every write (`BEGIN IMMEDIATE`), a pool of readers takes the rest; WAL with full
//! sync, so that what is committed survives a power cut. Postgres: see `postgres`. Never retries a write by itself.
//!
//! A statement that may open a connection is awaited in a box: it is by far the largest future there is, and unboxed it
//! would be a part of every future that may have to read, calls that never do among them.

mod appends;
mod batches;
mod boots;
mod checkpoints;
mod config_rows;
mod credential_checks;
mod driver;
mod entries;
mod error;
mod heads;
mod holds;
mod job_leases;
mod keys;
mod migrations;
mod postgres;
mod sqlite;
mod stamps;

use std::{path::Path, sync::Arc, time::Duration};

pub use appends::{Appending, Locked};
pub use batches::BatchRow;
pub use boots::LiveBoot;
pub use checkpoints::{CheckpointRow, Tip};
pub use credential_checks::CredentialCheck;
use driver::{Arg, Row, args};
pub use entries::{EntryRow, NewEntry};
pub use error::{StorageError, Verdict};
pub use heads::Head;
pub use holds::{Hold, Orphan, Spending};
pub use job_leases::{JobLease, JobState};
pub use keys::{DataKeyRecord, SigningKeyRecord};
pub use postgres::{Act, Appended, ChangeRow, Changed, Group, Item, Listener, Lock, Seen, Window};
use postgres::{Line, Postgres};
use sqlite::Sqlite;
pub use sqlite::WriteTx;
use sqlx::SqlStr;

/// Where a Postgres is and how much of it may be used.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `postgres://…`; it may carry a password.
    pub url: secrecy::SecretString,
    /// Connections for appends.
    pub append_connections: usize,
    /// Connections for reading configuration and the like.
    pub read_connections: usize,
    /// Connections for the control plane: changes, and reads for people.
    pub admin_connections: usize,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// Whether to bring the schema up to date; otherwise it may be one version behind.
    pub migrate: bool,
    /// Migrate up to this version only.
    pub target: Option<i64>,
}

/// The database; a handle.
#[derive(Clone)]
pub struct Sql(Arm);

#[derive(Clone)]
enum Arm {
    Sqlite(Sqlite),
    Postgres(Arc<Postgres>),
}

/// One of two texts: what stands between the parts is the database's clock, in microseconds.
macro_rules! by_clock {
    ($sql:expr, $first:literal $(, $next:literal)+ $(,)?) => {
        if $sql.postgres().is_some() {
            concat!($first $(, "tappass_now()", $next)+)
        } else {
            concat!($first $(, "CAST(unixepoch('subsec') * 1000000 AS INTEGER)", $next)+)
        }
    };
}
use by_clock;

impl Sql {
    /// Opens (or creates) the database file and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StorageError> {
        Ok(Self(Arm::Sqlite(Sqlite::open(path).await?)))
    }

    /// Opens an existing database file to read it, beside a running gateway or without one.
    pub async fn open_to_read(path: &Path) -> Result<Self, StorageError> {
        Ok(Self(Arm::Sqlite(Sqlite::open_to_read(path).await?)))
    }

    /// Connects to a Postgres.
    pub async fn connect(settings: &PostgresSettings) -> Result<Self, StorageError> {
        Ok(Self(Arm::Postgres(Arc::new(Postgres::open(settings).await?))))
    }

    /// What it is, in a word.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Arm::Sqlite(_) => "sqlite",
            Arm::Postgres(_) => "postgres",
        }
    }

    /// The schema's version that this run goes by.
    pub fn schema(&self) -> i64 {
        let newest = migrations::SQLITE.last().map_or(0, |(version, _, _)| *version);
        self.postgres().map_or(newest, |postgres| postgres.schema)
    }

    /// Whether other processes may use it too.
    pub fn is_shared(&self) -> bool {
        self.postgres().is_some()
    }

    /// Opens the write transaction of the embedded database; `None` where the database is shared: there a group is appended in
    /// one trip. Only `admission` calls this.
    pub async fn begin(&self) -> Result<Option<WriteTx>, StorageError> {
        match &self.0 {
            Arm::Sqlite(sqlite) => sqlite.begin().await.map(Some),
            Arm::Postgres(_) => Ok(None),
        }
    }

    /// Appends groups in one trip, to a shared database. `wait`: for heads that are locked, else they are `Busy`.
    pub async fn append(&self, groups: &[Group<'_>], wait: bool) -> Result<Vec<Appended>, StorageError> {
        match self.postgres() {
            Some(postgres) => Box::pin(postgres.append(groups, wait)).await,
            None => Err(StorageError::Inconsistent { table: "audit_entry" }),
        }
    }

    /// Makes a change in one trip, on a shared database.
    pub async fn change(&self, change: &ChangeRow<'_>) -> Result<Changed, StorageError> {
        match self.postgres() {
            Some(postgres) => Box::pin(postgres.change(change)).await,
            None => Err(StorageError::Inconsistent { table: "audit_entry" }),
        }
    }

    /// Opens a read transaction: everything read in it is of one moment.
    pub async fn begin_read(&self) -> Result<ReadTx, StorageError> {
        match &self.0 {
            Arm::Sqlite(sqlite) => Ok(ReadTx(Reading::Sqlite(sqlite.begin_read().await?))),
            Arm::Postgres(postgres) => Ok(ReadTx(Reading::Postgres(Box::pin(postgres.begin_read()).await?))),
        }
    }

    /// Waits for a lock that spans processes; at start, so that two instances do not found the same things.
    pub async fn lock(&self, name: &str) -> Result<Option<Lock>, StorageError> {
        match self.postgres() {
            Some(postgres) => postgres.lock(name).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes a lock that spans processes if nobody has it. Where one process owns the database it is always free.
    pub async fn try_lock(&self, name: &str) -> Result<TryLock, StorageError> {
        let Some(postgres) = self.postgres() else { return Ok(TryLock::Free) };
        Ok(postgres.try_lock(name).await?.map_or(TryLock::Taken, TryLock::Held))
    }

    /// Closes every connection; SQLite's last one checkpoints the write-ahead log.
    pub async fn close(&self) {
        match &self.0 {
            Arm::Sqlite(sqlite) => sqlite.close().await,
            Arm::Postgres(postgres) => postgres.close().await,
        }
    }

    fn postgres(&self) -> Option<&Postgres> {
        match &self.0 {
            Arm::Sqlite(_) => None,
            Arm::Postgres(postgres) => Some(postgres),
        }
    }

    async fn read(&self, text: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>, StorageError> {
        let text = SqlStr::from_static(text);
        match &self.0 {
            Arm::Sqlite(sqlite) => Ok(Box::pin(driver::sqlite_rows(&sqlite.readers, text, args)).await?),
            Arm::Postgres(postgres) => Box::pin(postgres.rows(&postgres.reads, text, args)).await,
        }
    }

    /// For people: on connections of their own, so that no page starves the data plane.
    async fn read_admin(&self, text: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>, StorageError> {
        match &self.0 {
            Arm::Sqlite(_) => self.read(text, args).await,
            Arm::Postgres(postgres) => Box::pin(postgres.rows(&postgres.admin, SqlStr::from_static(text), args)).await,
        }
    }

    /// One statement that writes, by itself; it may be made twice.
    async fn write(&self, text: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>, StorageError> {
        match &self.0 {
            Arm::Sqlite(sqlite) => {
                Ok(Box::pin(driver::sqlite_rows(&sqlite.writer, SqlStr::from_static(text), args)).await?)
            }
            Arm::Postgres(_) => self.read(text, args).await,
        }
    }
}

/// What became of asking for a lock.
pub enum TryLock {
    /// Nobody else can want it.
    Free,
    /// It is held until it is given back or dropped.
    Held(Lock),
    /// Somebody else has it.
    Taken,
}

/// A read transaction.
pub struct ReadTx(Reading);

enum Reading {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(Line),
}

impl ReadTx {
    async fn rows(&mut self, text: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>, StorageError> {
        let text = SqlStr::from_static(text);
        Ok(match &mut self.0 {
            Reading::Sqlite(tx) => driver::sqlite_rows(&mut **tx, text, args).await?,
            Reading::Postgres(line) => line.within(async |c| driver::postgres_rows(c, text, args).await).await?,
        })
    }

    /// Ends it. Dropped instead, its connection is closed, which is right for one that failed.
    pub async fn end(self) {
        if let Reading::Postgres(line) = self.0 {
            line.end_reading().await;
        }
    }
}

/// A time span as statements take it.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
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
pub(crate) mod tests;
