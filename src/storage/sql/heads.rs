//! Table `audit_head`: where each chain ends and which configuration decides.
//!
//! Owns reading and moving heads. Never moves one without being told sequence, link and stamp together.

use sqlx::Row;

use super::{ReadTx, Sql, StorageError, WriteTx, unsigned};
use crate::domain::{digest::Digest, ids::OrgId, stamp::ConfigStamp};

/// One chain's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the last entry; 0: none yet.
    pub seq: u64,
    /// Its link.
    pub link: Digest,
    /// The configuration that decides.
    pub stamp: ConfigStamp,
    /// The signing key that is active.
    pub kid: String,
}

const SELECT: &str =
    "SELECT seq, link, config_version, config_tag, config_digest, kid FROM audit_head WHERE org_id = $1";

/// Moves a head, or begins a chain: seven parameters.
pub(super) const PUT: &str = "INSERT INTO audit_head (org_id, seq, link, config_version, config_tag, config_digest, kid) \
    VALUES (?,?,?,?,?,?,?) ON CONFLICT (org_id) DO UPDATE SET seq = excluded.seq, link = excluded.link, \
    config_version = excluded.config_version, config_tag = excluded.config_tag, \
    config_digest = excluded.config_digest, kid = excluded.kid";

/// A head out of the first six columns of a row.
pub(super) fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Head, StorageError> {
    let digest = |column: usize| {
        let bytes: &[u8] = row.try_get(column)?;
        Digest::from_slice(bytes).ok_or(StorageError::Inconsistent { table: "audit_head" })
    };
    let stamp = ConfigStamp { version: unsigned("audit_head", row.try_get(2)?)?, tag: digest(3)?, digest: digest(4)? };
    Ok(Head { seq: unsigned("audit_head", row.try_get(0)?)?, link: digest(1)?, stamp, kid: row.try_get(5)? })
}

impl WriteTx {
    /// The head of a chain, if it has begun.
    pub async fn head(&mut self, org: &OrgId) -> Result<Option<Head>, StorageError> {
        let row = sqlx::query(SELECT).bind(org.as_str()).fetch_optional(&mut *self.tx).await?;
        row.as_ref().map(read).transpose()
    }
}

impl ReadTx {
    /// The head of a chain, if it has begun.
    pub async fn head(&mut self, org: &OrgId) -> Result<Option<Head>, StorageError> {
        let row = sqlx::query(SELECT).bind(org.as_str()).fetch_optional(&mut *self.tx).await?;
        row.as_ref().map(read).transpose()
    }
}

impl Sql {
    /// Every chain there is.
    pub async fn chains(&self) -> Result<Vec<OrgId>, StorageError> {
        let rows = sqlx::query("SELECT org_id FROM audit_head ORDER BY org_id").fetch_all(&self.readers).await?;
        let id = |row: &sqlx::sqlite::SqliteRow| {
            let text: String = row.try_get(0)?;
            OrgId::parse(&text).map_err(|_| StorageError::Inconsistent { table: "audit_head" })
        };
        rows.iter().map(id).collect()
    }

    /// Every organization's own row.
    pub async fn organization_rows(&self) -> Result<Vec<String>, StorageError> {
        let rows = sqlx::query("SELECT body FROM organization ORDER BY org_id").fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The head of a chain outside any transaction.
    pub async fn head(&self, org: &OrgId) -> Result<Option<Head>, StorageError> {
        let row = sqlx::query(SELECT).bind(org.as_str()).fetch_optional(&self.readers).await?;
        row.as_ref().map(read).transpose()
    }
}
