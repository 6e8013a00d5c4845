//! The configuration stamps of many organizations at once.
//!
//! Owns the one statement that every instance asks each second while calls are under way, whatever their number. Reads
//! the heads only, never the rows behind them.

use super::{Row, Sql, StorageError, args};
use crate::domain::{digest::Digest, ids::OrgId, stamp::ConfigStamp};

impl Sql {
    /// Which configuration decides in each of these organizations; one without a head is left out.
    pub async fn stamps(&self, orgs: &[OrgId]) -> Result<Vec<(OrgId, ConfigStamp)>, StorageError> {
        let text = match self.postgres() {
            Some(_) => {
                "SELECT org_id, config_version, config_tag, config_digest FROM audit_head \
                 WHERE org_id IN (SELECT json_array_elements_text($1::JSON))"
            }
            None => {
                "SELECT org_id, config_version, config_tag, config_digest FROM audit_head \
                 WHERE org_id IN (SELECT value FROM json_each($1))"
            }
        };
        let names = serde_json::json!(orgs).to_string();
        self.read(text, args![names.as_str()]).await?.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<(OrgId, ConfigStamp), StorageError> {
    const WRONG: StorageError = StorageError::Inconsistent { table: "audit_head" };
    let digest = |column| -> Result<Digest, StorageError> { Digest::from_slice(row.slice(column)?).ok_or(WRONG) };
    let org = OrgId::parse(row.str(0)?).map_err(|_| WRONG)?;
    Ok((org, ConfigStamp { version: row.count("audit_head", 1)?, tag: digest(2)?, digest: digest(3)? }))
}
