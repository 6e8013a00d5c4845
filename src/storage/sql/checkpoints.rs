//! Table `audit_checkpoint`: signed sizes and roots.
//!
//! Owns inserting and reading checkpoints. Never changes one.

use std::time::Duration;

use super::{ReadTx, Row, Sql, StorageError, args, by_clock};
use crate::domain::{digest::Digest, ids::OrgId};

/// One checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointRow {
    /// Entries that it covers.
    pub size: u64,
    /// The tree's frontier, from which the next one goes on.
    pub frontier: Vec<u8>,
    /// The signed note.
    pub note: String,
}

/// Where a chain ends, and how far its newest checkpoint reaches.
#[derive(Clone, Debug)]
pub struct Tip {
    /// Whose chain.
    pub org: OrgId,
    /// Its last entry.
    pub seq: u64,
    /// That entry's link.
    pub link: Digest,
    /// Entries that the newest checkpoint covers; 0: there is none.
    pub covered: u64,
    /// How old that checkpoint is.
    pub age: Duration,
}

impl Sql {
    /// Writes a checkpoint; one of the same size stays as it is.
    pub async fn insert_checkpoint(&self, org: &OrgId, row: &CheckpointRow) -> Result<(), StorageError> {
        let text = by_clock!(
            self,
            "INSERT INTO audit_checkpoint (org_id, size, frontier, note, at) VALUES ($1, $2, $3, $4, ",
            ") ON CONFLICT (org_id, size) DO NOTHING"
        );
        self.write(text, args![org.as_str(), row.size, &row.frontier, row.note.as_str()]).await?;
        Ok(())
    }

    /// The newest checkpoint of a chain.
    pub async fn last_checkpoint(&self, org: &OrgId) -> Result<Option<CheckpointRow>, StorageError> {
        let text = "SELECT size, frontier, note FROM audit_checkpoint WHERE org_id = $1 ORDER BY size DESC LIMIT 1";
        let rows = self.read(text, args![org.as_str()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let size = row.count("audit_checkpoint", 0)?;
        Ok(Some(CheckpointRow { size, frontier: row.bytes(1)?, note: row.text(2)? }))
    }

    /// Every chain's end and its newest checkpoint, in one question.
    pub async fn tips(&self) -> Result<Vec<Tip>, StorageError> {
        let text = by_clock!(
            self,
            "SELECT h.org_id, h.seq, h.link, coalesce(c.size, 0), coalesce(",
            " - c.at, 0) FROM audit_head h LEFT JOIN audit_checkpoint c ON c.org_id = h.org_id AND c.size = \
             (SELECT max(m.size) FROM audit_checkpoint m WHERE m.org_id = h.org_id) ORDER BY h.org_id"
        );
        let read = |row: &Row| {
            let strange = || StorageError::Inconsistent { table: "audit_head" };
            Ok(Tip {
                org: OrgId::parse(row.str(0)?).map_err(|_| strange())?,
                seq: row.count("audit_head", 1)?,
                link: Digest::from_slice(row.slice(2)?).ok_or_else(strange)?,
                covered: row.count("audit_checkpoint", 3)?,
                age: Duration::from_micros(u64::try_from(row.int(4)?).unwrap_or(0)),
            })
        };
        self.read(text, args![]).await?.iter().map(read).collect()
    }

    /// At most `most` notes of a chain above a size, smallest first.
    pub async fn notes_after(&self, org: &OrgId, size: u64, most: u32) -> Result<Vec<(u64, String)>, StorageError> {
        let text = "SELECT size, note FROM audit_checkpoint WHERE org_id = $1 AND size > $2 ORDER BY size LIMIT $3";
        let read = |row: &Row| Ok((row.count("audit_checkpoint", 0)?, row.text(1)?));
        self.read(text, args![org.as_str(), size, i64::from(most)]).await?.iter().map(read).collect()
    }
}

impl ReadTx {
    /// All notes of a chain, smallest first.
    pub async fn notes(&mut self, org: &OrgId) -> Result<Vec<String>, StorageError> {
        let text = "SELECT note FROM audit_checkpoint WHERE org_id = $1 ORDER BY size";
        self.rows(text, args![org.as_str()]).await?.iter().map(|row| Ok(row.text(0)?)).collect()
    }
}
