//! One text, two drivers: values that go into a statement and rows that come out of it.
//!
//! Owns the three types that the tables are made of (text, 64-bit integer, bytes) and running a statement on either
//! database. Statements are prepared and kept. Never builds a text out of values, and never retries.

use sqlx::{
    Postgres, Row as _, SqlStr, Sqlite,
    postgres::{PgArguments, PgRow},
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

/// A value for `$1`, `$2`, ….
#[derive(Clone, Copy)]
pub(super) enum Arg<'a> {
    Text(&'a str),
    Int(i64),
    Bytes(&'a [u8]),
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Arg<'_> {
    fn from(number: u64) -> Self {
        Self::Int(super::signed(number))
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Arg<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// The values of a statement.
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::storage::sql::driver::Arg::from($value)),*] };
}
pub(super) use args;

/// A row of either database.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! column {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&self, column: usize) -> Result<$type, sqlx::Error> {
            match self {
                Self::Sqlite(row) => row.try_get(column),
                Self::Postgres(row) => row.try_get(column),
            }
        }
    };
}

impl Row {
    column!(text, String);
    column!(int, i64);
    column!(bytes, Vec<u8>);

    /// An unsigned number; below zero the row does not make sense.
    pub(super) fn count(&self, table: &'static str, column: usize) -> Result<u64, super::StorageError> {
        super::unsigned(table, self.int(column)?)
    }

    /// A text where it stands, without a copy.
    pub(super) fn str(&self, column: usize) -> Result<&str, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    /// Bytes where they stand, without a copy.
    pub(super) fn slice(&self, column: usize) -> Result<&[u8], sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

fn on_sqlite<'q>(text: SqlStr, args: &'q [Arg<'q>]) -> Query<'q, Sqlite, SqliteArguments> {
    args.iter().fold(sqlx::query(text), |query, arg| match *arg {
        Arg::Text(text) => query.bind(text),
        Arg::Int(number) => query.bind(number),
        Arg::Bytes(bytes) => query.bind(bytes),
    })
}

fn on_postgres<'q>(text: SqlStr, args: &'q [Arg<'q>]) -> Query<'q, Postgres, PgArguments> {
    args.iter().fold(sqlx::query(text), |query, arg| match *arg {
        Arg::Text(text) => query.bind(text),
        Arg::Int(number) => query.bind(number),
        Arg::Bytes(bytes) => query.bind(bytes),
    })
}

/// All rows, from SQLite.
pub(super) async fn sqlite_rows<'e>(
    on: impl sqlx::Executor<'e, Database = Sqlite>,
    text: SqlStr,
    args: &[Arg<'_>],
) -> Result<Vec<Row>, sqlx::Error> {
    Ok(on_sqlite(text, args).fetch_all(on).await?.into_iter().map(Row::Sqlite).collect())
}

/// All rows, from Postgres.
pub(super) async fn postgres_rows<'e>(
    on: impl sqlx::Executor<'e, Database = Postgres>,
    text: SqlStr,
    args: &[Arg<'_>],
) -> Result<Vec<Row>, sqlx::Error> {
    Ok(on_postgres(text, args).fetch_all(on).await?.into_iter().map(Row::Postgres).collect())
}
