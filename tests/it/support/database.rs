//! The database file, edited behind the product's back.
//!
//! Owns the statements of an attacker with write access to the disk, and the sums of an accountant. Never writes while a
//! gateway runs on the file; it may look at it, or hold its lock.

use std::path::Path;

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions,
};

/// A connection of our own to a stopped gateway's database.
pub struct Database(SqliteConnection);

impl Database {
    pub async fn open(path: &Path) -> Self {
        Self(SqliteConnectOptions::new().filename(path).foreign_keys(false).connect().await.unwrap())
    }

    /// A connection that only reads, also beside a running gateway.
    pub async fn look(path: &Path) -> Self {
        Self(SqliteConnectOptions::new().filename(path).read_only(true).connect().await.unwrap())
    }

    /// Runs one statement and says how many rows it touched.
    pub async fn run(&mut self, sql: &str) -> u64 {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.0)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
            .rows_affected()
    }

    pub async fn number(&mut self, sql: &str) -> i64 {
        sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut self.0).await.unwrap_or_else(|e| panic!("{sql}: {e}")).get(0)
    }

    /// Every table with its columns.
    pub async fn tables(&mut self) -> Vec<(String, Vec<String>)> {
        let sql = "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'";
        let rows = sqlx::query(sql).fetch_all(&mut self.0).await.unwrap();
        let mut tables: Vec<(String, Vec<String>)> = Vec::new();
        for row in rows {
            let (table, column): (String, String) = (row.get(0), row.get(1));
            match tables.iter_mut().find(|(known, _)| *known == table) {
                Some((_, columns)) => columns.push(column),
                None => tables.push((table, vec![column])),
            }
        }
        tables
    }

    /// A column of every row that a statement finds.
    pub async fn texts(&mut self, sql: &str) -> Vec<String> {
        let rows =
            sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.0).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Replaces a text wherever a cell of a table whose name matches holds it; says how many cells changed.
    pub async fn replace(&mut self, table_like: &str, from: &str, to: &str) -> u64 {
        let mut cells = 0;
        for (table, columns) in self.tables().await.into_iter().filter(|(name, _)| name.contains(table_like)) {
            for column in columns {
                // A blob stays a blob, a text a text: only the bytes change.
                let cell = format!("CAST(\"{column}\" AS TEXT)");
                let sql = format!(
                    "UPDATE \"{table}\" SET \"{column}\" = CASE typeof(\"{column}\") \
                     WHEN 'blob' THEN CAST(replace({cell}, '{from}', '{to}') AS BLOB) \
                     ELSE replace({cell}, '{from}', '{to}') END \
                     WHERE instr({cell}, '{from}') > 0"
                );
                cells += self.run(&sql).await;
            }
        }
        cells
    }

    /// No hold is open and nothing is held: every reservation was given back or spent.
    pub async fn assert_nothing_held(&mut self) {
        assert_eq!(self.number("SELECT count(*) FROM hold").await, 0, "open holds");
        assert_eq!(self.number("SELECT coalesce(sum(held_nano), 0) FROM spending").await, 0, "held money");
    }

    pub async fn close(self) {
        self.0.close().await.unwrap();
    }
}
