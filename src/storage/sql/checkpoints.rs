//! Table `audit_checkpoint`: signed sizes and roots.
//!
//! Owns inserting and reading checkpoints. Never changes one.

use super::{ReadTx, Sql, StorageError, args};
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

impl Sql {
    /// Writes a checkpoint; one of the same size stays as it is.
    pub async fn insert_checkpoint(&self, org: &OrgId, row: &CheckpointRow) -> Result<(), StorageError> {
        let text = "INSERT INTO audit_checkpoint (org_id, size, frontier, note, at) VALUES ($1, $2, $3, $4, $5) \
                    ON CONFLICT (org_id, size) DO NOTHING";
        self.write(text, args![org.as_str(), row.size, &row.frontier, row.note.as_str(), row.at]).await?;
        Ok(())
    }

    /// The newest checkpoint of a chain.
    pub async fn last_checkpoint(&self, org: &OrgId) -> Result<Option<CheckpointRow>, StorageError> {
        let text = "SELECT size, frontier, note, at FROM audit_checkpoint WHERE org_id = $1 ORDER BY size DESC LIMIT 1";
        let rows = self.read(text, args![org.as_str()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let size = row.count("audit_checkpoint", 0)?;
        Ok(Some(CheckpointRow { size, frontier: row.bytes(1)?, note: row.text(2)?, at: row.int(3)? }))
    }
}

impl ReadTx {
    /// All notes of a chain, smallest first.
    pub async fn notes(&mut self, org: &OrgId) -> Result<Vec<String>, StorageError> {
        let text = "SELECT note FROM audit_checkpoint WHERE org_id = $1 ORDER BY size";
        self.rows(text, args![org.as_str()]).await?.iter().map(|row| Ok(row.text(0)?)).collect()
    }
}
