//! Table `audit_head`: where each chain ends and which configuration decides.
//!
//! Owns reading and moving heads. Never moves one without being told sequence, link and stamp together.

use super::{ReadTx, Row, Sql, StorageError, args};
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
pub(super) fn read(row: &Row) -> Result<Head, StorageError> {
    let digest = |column| -> Result<Digest, StorageError> {
        Digest::from_slice(row.slice(column)?).ok_or(StorageError::Inconsistent { table: "audit_head" })
    };
    let stamp = ConfigStamp { version: row.count("audit_head", 2)?, tag: digest(3)?, digest: digest(4)? };
    Ok(Head { seq: row.count("audit_head", 0)?, link: digest(1)?, stamp, kid: row.text(5)? })
}

impl ReadTx {
    /// The head of a chain, if it has begun.
    pub async fn head(&mut self, org: &OrgId) -> Result<Option<Head>, StorageError> {
        self.rows(SELECT, args![org.as_str()]).await?.first().map(read).transpose()
    }
}

impl Sql {
    /// Every chain there is.
    pub async fn chains(&self) -> Result<Vec<OrgId>, StorageError> {
        let id = |row: &Row| OrgId::parse(row.str(0)?).map_err(|_| StorageError::Inconsistent { table: "audit_head" });
        self.read("SELECT org_id FROM audit_head ORDER BY org_id", args![]).await?.iter().map(id).collect()
    }

    /// Every organization's own row.
    pub async fn organization_rows(&self) -> Result<Vec<String>, StorageError> {
        let text = "SELECT body FROM organization ORDER BY org_id";
        self.read(text, args![]).await?.iter().map(|row| Ok(row.text(0)?)).collect()
    }

    /// The head of a chain outside any transaction.
    pub async fn head(&self, org: &OrgId) -> Result<Option<Head>, StorageError> {
        self.read(SELECT, args![org.as_str()]).await?.first().map(read).transpose()
    }
}
