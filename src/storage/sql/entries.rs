//! Table `audit_entry`: the record.
//!
//! Owns inserting and reading entries. Never updates or deletes one. Bodies go in and out as the exact bytes.

use super::{ReadTx, Row, Sql, StorageError, WriteTx, args};
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
    /// The kind of the entry that has this id, if one has.
    pub async fn find_entry(&mut self, id: &EntryId) -> Result<Option<(String, u64, Digest)>, StorageError> {
        let text = "SELECT kind, seq, link FROM audit_entry WHERE org_id = $1 AND boot = $2 AND counter = $3";
        let rows = self.rows(text, args![id.org.as_str(), id.boot.as_str(), id.counter]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let link = Digest::from_slice(row.slice(2)?).ok_or(StorageError::Inconsistent { table: "audit_entry" })?;
        Ok(Some((row.text(0)?, row.count("audit_entry", 1)?, link)))
    }

    /// The link of an entry by its place.
    pub async fn link_at(&mut self, org: &OrgId, seq: u64) -> Result<Option<Digest>, StorageError> {
        let text = "SELECT link FROM audit_entry WHERE org_id = $1 AND seq = $2";
        let rows = self.rows(text, args![org.as_str(), seq]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Digest::from_slice(row.slice(0)?))
    }
}

const PAGE: &str = "SELECT seq, boot, counter, kind, body, digest, link FROM audit_entry \
                    WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

fn read(row: &Row) -> Result<EntryRow, StorageError> {
    // A hash of another length was tampered with; the verifier is to name its entry, so it is read as a wrong hash.
    let digest = |column| row.slice(column).map(|bytes| Digest::from_slice(bytes).unwrap_or(Digest::ZERO));
    Ok(EntryRow {
        seq: row.count("audit_entry", 0)?,
        boot: row.text(1)?,
        counter: row.count("audit_entry", 2)?,
        kind: row.text(3)?,
        body: row.text(4)?,
        digest: digest(5)?,
        link: digest(6)?,
    })
}

impl ReadTx {
    /// At most `most` entries after `after`, in order.
    pub async fn entries_after(&mut self, org: &OrgId, after: u64, most: u32) -> Result<Vec<EntryRow>, StorageError> {
        self.rows(PAGE, args![org.as_str(), after, i64::from(most)]).await?.iter().map(read).collect()
    }
}

impl Sql {
    /// An entry by its id.
    pub async fn entry(&self, id: &EntryId) -> Result<Option<EntryRow>, StorageError> {
        let text = "SELECT seq, boot, counter, kind, body, digest, link FROM audit_entry \
                    WHERE org_id = $1 AND boot = $2 AND counter = $3";
        let rows = self.read_admin(text, args![id.org.as_str(), id.boot.as_str(), id.counter]).await?;
        rows.first().map(read).transpose()
    }

    /// The bodies of a chain's entries of one kind; for kinds that are rare.
    pub async fn bodies_of_kind(&self, org: &OrgId, kind: &str) -> Result<Vec<String>, StorageError> {
        let text = "SELECT body FROM audit_entry WHERE org_id = $1 AND kind = $2 ORDER BY seq";
        self.read(text, args![org.as_str(), kind]).await?.iter().map(|row| Ok(row.text(0)?)).collect()
    }

    /// Which of a boot's counters have an entry.
    pub async fn counters_of(&self, org: &OrgId, boot: &str) -> Result<Vec<u64>, StorageError> {
        let text = "SELECT counter FROM audit_entry WHERE org_id = $1 AND boot = $2 ORDER BY counter";
        self.read(text, args![org.as_str(), boot]).await?.iter().map(|row| row.count("audit_entry", 0)).collect()
    }

    /// Digests of entries after `after`, in order, for checkpoints. They come as one text: as rows they would wake the reader
    /// thousands of times a second.
    pub async fn digests_after(&self, org: &OrgId, after: u64, most: u32) -> Result<Vec<Digest>, StorageError> {
        let text = match self.postgres() {
            Some(_) => {
                "SELECT coalesce(string_agg(encode(digest, 'hex'), '' ORDER BY seq), ''), \
                 count(*) FILTER (WHERE length(digest) <> 32) FROM (SELECT seq, digest FROM audit_entry \
                 WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) page"
            }
            None => {
                "SELECT coalesce(group_concat(hex(digest), '' ORDER BY seq), ''), \
                 count(*) FILTER (WHERE length(digest) <> 32) FROM (SELECT seq, digest FROM audit_entry \
                 WHERE org_id = $1 AND seq > $2 ORDER BY seq LIMIT $3)"
            }
        };
        let strange = || StorageError::Inconsistent { table: "audit_entry" };
        let rows = self.read(text, args![org.as_str(), after, i64::from(most)]).await?;
        let row = rows.first().filter(|row| matches!(row.int(1), Ok(0))).ok_or_else(strange)?;
        let bytes = hex::decode(row.str(0)?).map_err(|_| strange())?;
        bytes.chunks(32).map(|digest| Digest::from_slice(digest).ok_or_else(strange)).collect()
    }
}

/// An id read from its parts.
pub(super) fn entry_id(org: &OrgId, boot: &str, counter: u64) -> Result<EntryId, StorageError> {
    let boot = BootId::parse(boot).map_err(|_| StorageError::Inconsistent { table: "audit_entry" })?;
    Ok(EntryId { org: org.clone(), boot, counter })
}
