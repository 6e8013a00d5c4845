//! Table `audit_batch`: what one boot appended to one chain in one commit, signed.
//!
//! Owns inserting and reading batches. Never changes one.

use super::{ReadTx, Row, Sql, StorageError, args};
use crate::domain::ids::OrgId;

/// One batch.
#[derive(Clone, Debug)]
pub struct BatchRow {
    /// The boot that signed it.
    pub boot: String,
    /// Counts the batches of that boot for the organization, from 1.
    pub number: u64,
    /// The signed bytes, whole.
    pub message: Vec<u8>,
    /// Which key.
    pub kid: String,
    /// Ed25519.
    pub signature: Vec<u8>,
    /// Counters that were signed but not written, as a JSON array.
    pub unwritten: String,
}

impl Sql {
    /// Closed boots that signed something which a commit of theirs left out, and how many such batches each has.
    pub async fn closed_boots_with_unwritten(&self) -> Result<Vec<(String, u64)>, StorageError> {
        let text = "SELECT a.boot, count(*) FROM audit_batch a JOIN boot b ON b.id = a.boot \
                    WHERE a.unwritten <> '[]' AND b.closed <> 0 GROUP BY a.boot";
        let read = |row: &Row| Ok((row.text(0)?, row.count("audit_batch", 1)?));
        self.read(text, args![]).await?.iter().map(read).collect()
    }

    /// The lists of unwritten counters of a boot, per chain, without the empty ones.
    pub async fn unwritten_of(&self, boot: &str) -> Result<Vec<(OrgId, String)>, StorageError> {
        let text = "SELECT org_id, unwritten FROM audit_batch WHERE boot = $1 AND unwritten <> '[]'";
        let read = |row: &Row| {
            let org = OrgId::parse(row.str(0)?).map_err(|_| StorageError::Inconsistent { table: "audit_batch" })?;
            Ok((org, row.text(1)?))
        };
        self.read(text, args![boot]).await?.iter().map(read).collect()
    }
}

impl ReadTx {
    /// At most `most` batches after (boot, number), in that order.
    pub async fn batches_after(
        &mut self,
        org: &OrgId,
        after: (&str, u64),
        most: u32,
    ) -> Result<Vec<BatchRow>, StorageError> {
        let text = "SELECT boot, number, message, kid, signature, unwritten FROM audit_batch \
                    WHERE org_id = $1 AND (boot, number) > ($2, $3) ORDER BY boot, number LIMIT $4";
        let read = |row: &Row| {
            Ok(BatchRow {
                boot: row.text(0)?,
                number: row.count("audit_batch", 1)?,
                message: row.bytes(2)?,
                kid: row.text(3)?,
                signature: row.bytes(4)?,
                unwritten: row.text(5)?,
            })
        };
        let args = args![org.as_str(), after.0, after.1, i64::from(most)];
        self.rows(text, args).await?.iter().map(read).collect()
    }
}
