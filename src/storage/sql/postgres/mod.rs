//! Postgres: connections, their bounds, and what a server must promise before it is used.
//!
//! Owns three small sets of connections (appends, reads, administration) so that none can starve another, and the check of
//! durability at start. Every use has a time limit of its own; a connection whose use did not end is closed, since
//! nobody knows what it still says. A read on a connection that had gone stale is tried once more on a new one; an append
//! never is: its outcome is unknown.

mod append;
mod connections;
mod listen;
mod lock;

use std::time::Duration;

pub use append::{Act, Appended, ChangeRow, Changed, Group, Item, Seen, Window};
pub(super) use connections::{Connections, Line};
pub use listen::Listener;
pub use lock::Lock;
use sqlx::{
    Connection as _, PgConnection, Row as _, SqlStr,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{PostgresSettings, StorageError, driver, migrations};

/// The longest that a use may take beyond the server's own limit: the network is gone.
const NETWORK: Duration = Duration::from_secs(1);

/// The database.
#[derive(Clone)]
pub(super) struct Postgres {
    pub(super) appends: Connections,
    pub(super) reads: Connections,
    pub(super) admin: Connections,
    options: PgConnectOptions,
    /// The newest migration that this run goes by.
    pub(super) schema: i64,
}

impl Postgres {
    /// Connects, migrates (or checks the schema), and checks what the server promises.
    pub(super) async fn open(settings: &PostgresSettings) -> Result<Self, StorageError> {
        let options = settings.options()?;
        let bounded = options.clone().options([
            ("lock_timeout", settings.lock_timeout.as_millis().to_string()),
            ("statement_timeout", settings.statement_timeout.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", "5000".to_owned()),
            ("client_connection_check_interval", "1000".to_owned()),
        ]);
        let mut line = connect(&options).await?;
        durable(&mut line).await?;
        let schema = schema(&mut line, settings).await?;
        drop(line.close().await);
        let limit = settings.statement_timeout + NETWORK;
        let set = |most| Connections::new(bounded.clone(), most, limit);
        Ok(Self {
            appends: set(settings.append_connections),
            reads: set(settings.read_connections),
            admin: set(settings.admin_connections),
            options,
            schema,
        })
    }

    /// A connection of its own, without the bounds on statements: for locks that are held and for listening.
    pub(super) async fn own_connection(&self) -> Result<PgConnection, StorageError> {
        connect(&self.options).await
    }

    pub(super) async fn rows(
        &self,
        on: &Connections,
        text: SqlStr,
        args: &[driver::Arg<'_>],
    ) -> Result<Vec<driver::Row>, StorageError> {
        loop {
            let mut line = on.take().await?;
            let was_used = line.was_used();
            let result = line.within(async |c| driver::postgres_rows(c, text.clone(), args).await).await;
            match result {
                Err(error) if was_used && is_lost(&error) => {}
                result => return Ok(result?),
            }
        }
    }

    /// A transaction in which everything read is of one moment; a connection that went stale is replaced.
    pub(super) async fn begin_read(&self) -> Result<Line, StorageError> {
        loop {
            let mut line = self.reads.take().await?;
            match line.begin_reading().await {
                Err(error) if line.was_used() && is_lost(&error) => {}
                result => return Ok(result.map(|()| line)?),
            }
        }
    }

    pub(super) async fn close(&self) {
        for set in [&self.appends, &self.reads, &self.admin] {
            set.close().await;
        }
    }
}

/// Whether the connection is gone, as opposed to a statement that was refused.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return true };
    // The server ends the session: shutdown, crash, idle limits.
    error.code().is_some_and(|code| code.starts_with("57P") || code.starts_with("08") || code == "25P03")
}

/// Nothing came back in time.
fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// How long one connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StorageError> {
    match tokio::time::timeout(CONNECT, PgConnection::connect_with(options)).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(StorageError::Unavailable(timed_out())),
    }
}

/// What is acknowledged must survive a crash of the server (admission.md rule 24).
async fn durable(line: &mut PgConnection) -> Result<(), StorageError> {
    for setting in ["synchronous_commit", "fsync", "full_page_writes"] {
        let row = sqlx::query("SELECT current_setting($1)").bind(setting).fetch_one(&mut *line).await?;
        let value: String = row.try_get(0)?;
        if value == "off" {
            return Err(StorageError::NotDurable { setting });
        }
    }
    Ok(())
}

/// Brings the schema up to date, or finds out which one is there.
async fn schema(line: &mut PgConnection, settings: &PostgresSettings) -> Result<i64, StorageError> {
    let newest = migrations::POSTGRES.last().map_or(0, |(version, _, _)| *version);
    if settings.migrate {
        let migrations = migrations::of(migrations::POSTGRES);
        // The version after this one may have migrated already: what it added does not concern us.
        let migrator = Migrator { migrations: migrations.into(), ignore_missing: true, ..Migrator::DEFAULT };
        let target = settings.target.unwrap_or(newest);
        migrator.run_to(target, &mut *line).await.map_err(StorageError::Migrate)?;
        return Ok(target);
    }
    let found = sqlx::query("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(&mut *line).await;
    let found: Option<i64> = match found {
        Ok(row) => row.try_get(0)?,
        // No such table: nothing was ever migrated.
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == "42P01") => None,
        Err(error) => return Err(error.into()),
    };
    let found = found.unwrap_or(0);
    // One version behind is what a rollout looks like from the new side.
    if found >= newest - 1 { Ok(found.min(newest)) } else { Err(StorageError::Schema) }
}

impl PostgresSettings {
    fn options(&self) -> Result<PgConnectOptions, StorageError> {
        let url = secrecy::ExposeSecret::expose_secret(&self.url);
        let options: PgConnectOptions = url.parse().map_err(StorageError::Url)?;
        let options = options.application_name("tappass").statement_cache_capacity(200);
        // Inside a Unix socket there is nothing to encrypt.
        Ok(if options.get_socket().is_some() { options.ssl_mode(PgSslMode::Disable) } else { options })
    }
}

#[cfg(test)]
mod tests;
