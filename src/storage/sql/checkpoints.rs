//! Table `audit_checkpoint`: signed sizes and roots.
//!
//! Owns inserting and reading checkpoints. Never changes one.

use sqlx::Row;

use super::{ReadTx, Sql, StorageError, WriteTx, signed, unsigned};
use crate::domain::{clock::Micros, ids::OrgId};

/// One checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointRow {
    /// Entries that it covers.
    pub size: u64,
    /// The tree's frontier, from which the next one goes on.
    pub frontier: Vec<u8>,
    /// The signed note.
    pub note: String,
    /// When it was made.
    pub at: Micros,
}

impl WriteTx {
    /// Writes a checkpoint; one of the same size stays as it is.
    pub async fn insert_checkpoint(&mut self, org: &OrgId, row: &CheckpointRow) -> Result<(), StorageError> {
        sqlx::query(
            "INSERT INTO audit_checkpoint (org_id, size, frontier, note, at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (org_id, size) DO NOTHING",
        )
        .bind(org.as_str())
        .bind(signed(row.size))
        .bind(&row.frontier[..])
        .bind(row.note.as_str())
        .bind(row.at)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}

impl Sql {
    /// The newest checkpoint of a chain.
    pub async fn last_checkpoint(&self, org: &OrgId) -> Result<Option<CheckpointRow>, StorageError> {
        let row = sqlx::query(
            "SELECT size, frontier, note, at FROM audit_checkpoint WHERE org_id = $1 ORDER BY size DESC LIMIT 1",
        )
        .bind(org.as_str())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let size = unsigned("audit_checkpoint", row.try_get(0)?)?;
        Ok(Some(CheckpointRow { size, frontier: row.try_get(1)?, note: row.try_get(2)?, at: row.try_get(3)? }))
    }
}

impl ReadTx {
    /// All notes of a chain, smallest first.
    pub async fn notes(&mut self, org: &OrgId) -> Result<Vec<String>, StorageError> {
        let rows = sqlx::query("SELECT note FROM audit_checkpoint WHERE org_id = $1 ORDER BY size")
            .bind(org.as_str())
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}
