//! Table `credential_check`: what was found out about provider credentials, and when each was used last.
//!
//! Owns the rows, all by the database's clock. A result that comes with an older token than the stored one is refused: its
//! job had lost its lease. Never sees a key; the sealed rows are handed over as they stand.

use std::time::Duration;

use super::{Row, Sql, StorageError, args, by_clock, micros};
use crate::domain::{
    clock::Micros,
    ids::{CredentialId, OrgId},
};

/// What is known about one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialCheck {
    /// Whose.
    pub org: OrgId,
    /// Which.
    pub credential: CredentialId,
    /// `valid`, `invalid` or `unknown`; empty where it was used and not checked yet.
    pub outcome: String,
    /// When it was checked.
    pub checked_at: Micros,
    /// How long ago that was.
    pub age: Duration,
}

impl Sql {
    /// Notes a result. False: a newer run has written already.
    pub async fn put_credential_check(
        &self,
        org: &OrgId,
        credential: &CredentialId,
        outcome: &str,
        token: u64,
    ) -> Result<bool, StorageError> {
        let text = by_clock!(
            self,
            "INSERT INTO credential_check AS c (org_id, credential_id, checked_at, used_at, outcome, token) \
             VALUES ($1, $2, ",
            ", 0, $3, $4) ON CONFLICT (org_id, credential_id) DO UPDATE SET checked_at = excluded.checked_at, \
             outcome = excluded.outcome, token = excluded.token WHERE c.token <= excluded.token RETURNING 1"
        );
        Ok(!self.write(text, args![org.as_str(), credential.as_str(), outcome, token]).await?.is_empty())
    }

    /// Notes that a credential is in use.
    pub async fn note_credential_used(&self, org: &OrgId, credential: &CredentialId) -> Result<(), StorageError> {
        let text = by_clock!(
            self,
            "INSERT INTO credential_check (org_id, credential_id, checked_at, used_at, outcome, token) \
             VALUES ($1, $2, 0, ",
            ", '', 0) ON CONFLICT (org_id, credential_id) DO UPDATE SET used_at = excluded.used_at"
        );
        self.write(text, args![org.as_str(), credential.as_str()]).await?;
        Ok(())
    }

    /// Every credential that was checked.
    pub async fn credential_checks(&self) -> Result<Vec<CredentialCheck>, StorageError> {
        let text = by_clock!(
            self,
            "SELECT org_id, credential_id, outcome, checked_at, ",
            " - checked_at FROM credential_check WHERE checked_at > 0"
        );
        let strange = || StorageError::Inconsistent { table: "credential_check" };
        let read = |row: &Row| {
            Ok(CredentialCheck {
                org: OrgId::parse(row.str(0)?).map_err(|_| strange())?,
                credential: CredentialId::parse(row.str(1)?).map_err(|_| strange())?,
                outcome: row.text(2)?,
                checked_at: row.int(3)?,
                age: Duration::from_micros(u64::try_from(row.int(4)?).unwrap_or(0)),
            })
        };
        self.read(text, args![]).await?.iter().map(read).collect()
    }

    /// The stored credentials, sealed; of those that were used within `used`, or of all.
    pub async fn credential_rows(&self, used: Option<Duration>) -> Result<Vec<(OrgId, String)>, StorageError> {
        let rows = match used {
            None => self.read("SELECT org_id, body FROM provider_credential ORDER BY org_id, id", args![]).await?,
            Some(used) => {
                let text = by_clock!(
                    self,
                    "SELECT p.org_id, p.body FROM provider_credential p JOIN credential_check c \
                     ON c.org_id = p.org_id AND c.credential_id = p.id WHERE c.used_at > ",
                    " - $1 ORDER BY p.org_id, p.id"
                );
                self.read(text, args![micros(used)]).await?
            }
        };
        let strange = |_| StorageError::Inconsistent { table: "provider_credential" };
        rows.iter().map(|row| Ok((OrgId::parse(row.str(0)?).map_err(strange)?, row.text(1)?))).collect()
    }

    /// Forgets what was found out about credentials that are no longer stored.
    pub async fn forget_credential_checks(&self) -> Result<(), StorageError> {
        let text = "DELETE FROM credential_check WHERE NOT EXISTS (SELECT 1 FROM provider_credential p \
                    WHERE p.org_id = credential_check.org_id AND p.id = credential_check.credential_id)";
        self.write(text, args![]).await?;
        Ok(())
    }
}
