//! Table `audit_entry`: the record.
//!
//! Owns inserting and reading entries. Never updates or deletes one. Bodies go in and out as the exact bytes.

use sqlx::Row;

use super::{ReadTx, Sql, StorageError, WriteTx, signed, unsigned};
use crate::domain::{
    digest::Digest,
    ids::{BootId, EntryId, OrgId},
};

/// An entry that is to be written.
pub struct NewEntry<'a> {
    /// Its place in the chain.
    pub seq: u64,
    /// Its id.
    pub id: &'a EntryId,
    /// Its kind, also inside the body.
    pub kind: &'a str,
    /// Canonical JSON.
    pub body: &'a str,
    /// Hash over the body.
    pub digest: Digest,
    /// Link to all before it.
    pub link: Digest,
}

/// An entry that was read.
#[derive(Clone, Debug)]
pub struct EntryRow {
    /// Its place in the chain.
    pub seq: u64,
    /// The boot that made it.
    pub boot: String,
    /// That boot's counter.
    pub counter: u64,
    /// Its kind.
    pub kind: String,
    /// Canonical JSON.
    pub body: String,
    /// Hash over the body, as stored.
    pub digest: Digest,
    /// Link, as stored.
    pub link: Digest,
}

impl WriteTx {
    /// The kind, sequence and link of the entry that has this id, if one has.
    pub async fn find_entry(&mut self, id: &EntryId) -> Result<Option<(String, u64, Digest)>, StorageError> {
        let row =
            sqlx::query("SELECT kind, seq, link FROM audit_entry WHERE org_id = $1 AND boot = $2 AND counter = $3")
                .bind(id.org.as_str())
                .bind(id.boot.as_str())
                .bind(signed(id.counter))
                .fetch_optional(&mut *self.tx)
                .await?;
        let Some(row) = row else { return Ok(None) };
        let link: &[u8] = row.try_get(2)?;
        let link = Digest::from_slice(link).ok_or(StorageError::Inconsistent { table: "audit_entry" })?;
        Ok(Some((row.try_get(0)?, unsigned("audit_entry", row.try_get(1)?)?, link)))
    }
}

const PAGE: &str = "SELECT seq, boot, counter, kind, body, digest, link FROM audit_entry \
                    WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<EntryRow, StorageError> {
    // A hash of another length was tampered with; the verifier is to name its entry, so it is read as a wrong hash.
    let digest = |column: usize| -> Result<Digest, StorageError> {
        let bytes: &[u8] = row.try_get(column)?;
        Ok(Digest::from_slice(bytes).unwrap_or(Digest::ZERO))
    };
    Ok(EntryRow {
        seq: unsigned("audit_entry", row.try_get(0)?)?,
        boot: row.try_get(1)?,
        counter: unsigned("audit_entry", row.try_get(2)?)?,
        kind: row.try_get(3)?,
        body: row.try_get(4)?,
        digest: digest(5)?,
        link: digest(6)?,
    })
}

impl ReadTx {
    /// At most `most` entries after `after`, in order.
    pub async fn entries_after(&mut self, org: &OrgId, after: u64, most: u32) -> Result<Vec<EntryRow>, StorageError> {
        let query = sqlx::query(PAGE).bind(org.as_str()).bind(signed(after)).bind(i64::from(most));
        query.fetch_all(&mut *self.tx).await?.iter().map(read).collect()
    }
}

impl Sql {
    /// An entry by its id.
    pub async fn entry(&self, id: &EntryId) -> Result<Option<EntryRow>, StorageError> {
        let row = sqlx::query(
            "SELECT seq, boot, counter, kind, body, digest, link FROM audit_entry \
             WHERE org_id = $1 AND boot = $2 AND counter = $3",
        )
        .bind(id.org.as_str())
        .bind(id.boot.as_str())
        .bind(signed(id.counter))
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// The bodies of a chain's entries of one kind; for kinds that are rare.
    pub async fn bodies_of_kind(&self, org: &OrgId, kind: &str) -> Result<Vec<String>, StorageError> {
        let rows = sqlx::query("SELECT body FROM audit_entry WHERE org_id = $1 AND kind = $2 ORDER BY seq")
            .bind(org.as_str())
            .bind(kind)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Which of a boot's counters have an entry.
    pub async fn counters_of(&self, org: &OrgId, boot: &str) -> Result<Vec<u64>, StorageError> {
        let rows = sqlx::query("SELECT counter FROM audit_entry WHERE org_id = $1 AND boot = $2 ORDER BY counter")
            .bind(org.as_str())
            .bind(boot)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| unsigned("audit_entry", row.try_get(0)?)).collect()
    }

    /// Digests of entries after `after`, in order, for checkpoints.
    pub async fn digests_after(&self, org: &OrgId, after: u64, most: u32) -> Result<Vec<Digest>, StorageError> {
        let rows = sqlx::query("SELECT digest FROM audit_entry WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
            .bind(org.as_str())
            .bind(signed(after))
            .bind(i64::from(most))
            .fetch_all(&self.readers)
            .await?;
        let digest = |row: &sqlx::sqlite::SqliteRow| {
            let bytes: &[u8] = row.try_get(0)?;
            Digest::from_slice(bytes).ok_or(StorageError::Inconsistent { table: "audit_entry" })
        };
        rows.iter().map(digest).collect()
    }
}

/// An id read from its parts.
pub(super) fn entry_id(org: &OrgId, boot: &str, counter: u64) -> Result<EntryId, StorageError> {
    let boot = BootId::parse(boot).map_err(|_| StorageError::Inconsistent { table: "audit_entry" })?;
    Ok(EntryId { org: org.clone(), boot, counter })
}
