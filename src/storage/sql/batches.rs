//! Table `audit_batch`: what one boot appended to one chain in one commit, signed.
//!
//! Owns inserting and reading batches. Never changes one.

use sqlx::Row;

use super::{ReadTx, Sql, StorageError, signed, unsigned};
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
    /// Closed boots that signed something which a commit of theirs left out.
    pub async fn closed_boots_with_unwritten(&self) -> Result<Vec<String>, StorageError> {
        let rows = sqlx::query(
            "SELECT DISTINCT a.boot FROM audit_batch a JOIN boot b ON b.id = a.boot \
             WHERE a.unwritten <> '[]' AND b.closed <> 0",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The lists of unwritten counters of a boot, per chain, without the empty ones.
    pub async fn unwritten_of(&self, boot: &str) -> Result<Vec<(OrgId, String)>, StorageError> {
        let rows = sqlx::query("SELECT org_id, unwritten FROM audit_batch WHERE boot = $1 AND unwritten <> '[]'")
            .bind(boot)
            .fetch_all(&self.readers)
            .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let org: String = row.try_get(0)?;
            let org = OrgId::parse(&org).map_err(|_| StorageError::Inconsistent { table: "audit_batch" })?;
            Ok((org, row.try_get(1)?))
        };
        rows.iter().map(read).collect()
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
        let rows = sqlx::query(
            "SELECT boot, number, message, kid, signature, unwritten FROM audit_batch \
             WHERE org_id = $1 AND (boot, number) > ($2, $3) ORDER BY boot, number LIMIT $4",
        )
        .bind(org.as_str())
        .bind(after.0)
        .bind(signed(after.1))
        .bind(i64::from(most))
        .fetch_all(&mut *self.tx)
        .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(BatchRow {
                boot: row.try_get(0)?,
                number: unsigned("audit_batch", row.try_get(1)?)?,
                message: row.try_get(2)?,
                kid: row.try_get(3)?,
                signature: row.try_get(4)?,
                unwritten: row.try_get(5)?,
            })
        };
        rows.iter().map(read).collect()
    }
}
