//! What the database did not do, and what it said about an entry.
//!
//! Owns telling a failure that left nothing behind from one whose outcome is unknown, and an outage from a statement that is
//! refused.

use sqlx::migrate::MigrateError;

use crate::domain::money::NanoUsd;

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
    Migrate(#[source] MigrateError),
    /// The schema is newer or older than this binary.
    #[error("the database has no schema that this binary knows; run `tappass migrate`")]
    Schema,
    /// A setting of the server loses what was acknowledged.
    #[error("the Postgres setting `{setting}` is off: what is acknowledged would not survive a crash; switch it on")]
    NotDurable {
        /// Which.
        setting: &'static str,
    },
    /// The address of the server.
    #[error("`DATABASE_URL` is not a Postgres address such as postgres://user:password@host:5432/name")]
    Url(#[source] sqlx::Error),
}

impl StorageError {
    /// Whether the database as a whole cannot be written (no connection, disk full, read-only, busy, an I/O error), as
    /// opposed to one statement that it refuses.
    pub fn is_outage(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(error)) = self else {
            return !matches!(self, Self::Inconsistent { .. });
        };
        let Some(code) = error.code() else { return false };
        if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
            // Connections, resources, an operator's doing, the system; locks and statements that took too long;
            // read-only servers.
            return ["08", "53", "57", "58", "55P03", "25006", "40"].iter().any(|class| code.starts_with(class));
        }
        let code: u32 = code.parse().unwrap_or(0);
        // SQLite's primary codes BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN.
        matches!(code & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14)
    }

    /// Whether a head stayed locked for longer than a statement may wait.
    pub fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Unavailable(sqlx::Error::Database(error)) if error.code().is_some_and(|c| c == "55P03"))
    }

    /// Whether waiting may help at start: a server that does not answer yet. A file that cannot be opened stays so.
    pub fn heals_by_itself(&self) -> bool {
        let error = match self {
            Self::Unavailable(error)
            | Self::Unknown(error)
            | Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => error,
            Self::Inconsistent { .. } | Self::Migrate(_) | Self::Schema | Self::NotDurable { .. } | Self::Url(_) => {
                return false;
            }
        };
        if let sqlx::Error::Database(error) = error {
            let postgres = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some();
            let starting = ["57P", "53", "08"];
            return postgres && error.code().is_some_and(|code| starting.iter().any(|class| code.starts_with(class)));
        }
        matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_))
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error)
    }
}

/// What was said about one entry under the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored, by this commit. Of an admission: the names of the windows that hold its money, between spaces.
    Stored(String),
    /// Its id was stored before, as this kind.
    Taken(String),
    /// Its boot is closed.
    Fenced,
    /// The configuration is another.
    Stale,
    /// The decision has ended meanwhile: a key expired.
    Expired,
    /// The budget has only so much room.
    Short(NanoUsd),
    /// It belongs to an admission that is not open.
    NotOpen,
    /// The head was locked by somebody else; nothing was tried.
    Busy,
    /// The chain is not the one that this boot has seen: the database lost what it had acknowledged.
    HistoryLost,
}

impl Verdict {
    /// Whether it is stored, by this commit.
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }
}
