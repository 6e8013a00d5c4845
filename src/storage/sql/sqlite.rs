//! SQLite: the embedded database.
//!
//! Owns its two pools. What it commits is on disk.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlStr, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Arg, Row, StorageError, driver, migrations};

/// Pages in the write-ahead log (16 MiB) after which they are moved into the database file. The same pages are written again
/// and again; a longer log moves each of them less often.
const WAL_PAGES: &str = "4000";

/// What the writer keeps of the file: 8 MiB, once it has touched that much. Readers do with the default of 2.
const CACHE: &str = "-8000";

/// The database file.
#[derive(Clone)]
pub(super) struct Sqlite {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> Result<Self, StorageError> {
        let sqlite = Self::pools(path, true).await?;
        let migrations = migrations::of(migrations::SQLITE);
        let migrator = Migrator { migrations: migrations.into(), ..Migrator::DEFAULT };
        migrator.run(&sqlite.writer).await.map_err(StorageError::Migrate)?;
        Ok(sqlite)
    }

    pub(super) async fn open_to_read(path: &Path) -> Result<Self, StorageError> {
        let sqlite = Self::pools(path, false).await?;
        sqlx::query("SELECT windows FROM hold LIMIT 1")
            .fetch_optional(&sqlite.readers)
            .await
            .map_err(|_| StorageError::Schema)?;
        Ok(sqlite)
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
            options
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .pragma("wal_autocheckpoint", WAL_PAGES)
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
        let writer = pool(1).connect_with(options.clone().pragma("cache_size", CACHE)).await?;
        let readers = pool(4).min_connections(0).connect_lazy_with(options);
        Ok(Self { writer, readers })
    }

    /// SQLite ends a transaction by itself on a full disk or an I/O error; the driver then takes the connection for one that
    /// is inside a transaction for ever. So a connection that cannot begin is closed, and a new one is tried.
    pub(super) async fn begin(&self) -> Result<WriteTx, StorageError> {
        if let Ok(tx) = self.writer.begin_with("BEGIN IMMEDIATE").await {
            return Ok(WriteTx { tx });
        }
        self.writer.acquire().await?.close().await?;
        Ok(WriteTx { tx: self.writer.begin_with("BEGIN IMMEDIATE").await? })
    }

    pub(super) async fn begin_read(&self) -> Result<Transaction<'static, sqlx::Sqlite>, StorageError> {
        Ok(self.readers.begin().await?)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A write transaction; dropped without `commit`, it leaves nothing.
pub struct WriteTx {
    pub(super) tx: Transaction<'static, sqlx::Sqlite>,
}

impl WriteTx {
    /// Commits. A failure here is of unknown outcome.
    pub async fn commit(self) -> Result<(), StorageError> {
        self.tx.commit().await.map_err(StorageError::Unknown)
    }

    pub(super) async fn rows(&mut self, text: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>, StorageError> {
        self.run(SqlStr::from_static(text), args).await
    }

    pub(super) async fn run(&mut self, text: SqlStr, args: &[Arg<'_>]) -> Result<Vec<Row>, StorageError> {
        Ok(driver::sqlite_rows(&mut *self.tx, text, args).await?)
    }
}
