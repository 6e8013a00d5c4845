//! The configuration stamps of many organizations at once.
//!
//! Owns the one statement that every instance asks each second while calls are under way, whatever their number. Reads
//! the heads only, never the rows behind them.

use sqlx::Row;

use super::{Sql, StorageError, unsigned};
use crate::domain::{digest::Digest, ids::OrgId, stamp::ConfigStamp};

const SELECT: &str = "SELECT org_id, config_version, config_tag, config_digest FROM audit_head \
    WHERE org_id IN (SELECT value FROM json_each($1))";

impl Sql {
    /// Which configuration decides in each of these organizations; one without a head is left out.
    pub async fn stamps(&self, orgs: &[OrgId]) -> Result<Vec<(OrgId, ConfigStamp)>, StorageError> {
        let names = serde_json::json!(orgs).to_string();
        let rows = sqlx::query(SELECT).bind(names).fetch_all(&self.readers).await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<(OrgId, ConfigStamp), StorageError> {
    const WRONG: StorageError = StorageError::Inconsistent { table: "audit_head" };
    let digest = |column: usize| {
        let bytes: &[u8] = row.try_get(column)?;
        Digest::from_slice(bytes).ok_or(WRONG)
    };
    let org = OrgId::parse(row.try_get(0)?).map_err(|_| WRONG)?;
    let version = unsigned("audit_head", row.try_get(1)?)?;
    Ok((org, ConfigStamp { version, tag: digest(2)?, digest: digest(3)? }))
}
