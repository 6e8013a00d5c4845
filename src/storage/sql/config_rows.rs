//! The configuration tables: one JSON document per row, the same shape in each.
//!
//! Owns loading all of an organization's rows in one statement and applying writes. Never looks inside a body.

use super::{ReadTx, Row, StorageError, WriteTx, args};
use crate::domain::{
    ids::OrgId,
    rows::{ConfigRows, Table, Write},
};

/// Every row of an organization, each with its table's name.
const LOAD: &str = "SELECT 'agent', id, body FROM agent WHERE org_id = $1 \
    UNION ALL SELECT 'agent_key', id, body FROM agent_key WHERE org_id = $1 \
    UNION ALL SELECT 'budget', id, body FROM budget WHERE org_id = $1 \
    UNION ALL SELECT 'organization', id, body FROM organization WHERE org_id = $1 \
    UNION ALL SELECT 'pipeline', id, body FROM pipeline WHERE org_id = $1 \
    UNION ALL SELECT 'policy', id, body FROM policy WHERE org_id = $1 \
    UNION ALL SELECT 'policy_assignment', id, body FROM policy_assignment WHERE org_id = $1 \
    UNION ALL SELECT 'policy_version', id, body FROM policy_version WHERE org_id = $1 \
    UNION ALL SELECT 'project', id, body FROM project WHERE org_id = $1 \
    UNION ALL SELECT 'provider_credential', id, body FROM provider_credential WHERE org_id = $1";

macro_rules! texts {
    ($($table:ident => $name:literal),+ $(,)?) => {
        fn put_text(table: Table) -> &'static str {
            match table {
                $(Table::$table => concat!("INSERT INTO ", $name, " (org_id, id, body) VALUES ($1, $2, $3) \
                    ON CONFLICT (org_id, id) DO UPDATE SET body = excluded.body"),)+
            }
        }

        fn delete_text(table: Table) -> &'static str {
            match table {
                $(Table::$table => concat!("DELETE FROM ", $name, " WHERE org_id = $1 AND id = $2"),)+
            }
        }
    };
}

texts! {
    Agent => "agent",
    AgentKey => "agent_key",
    Budget => "budget",
    Organization => "organization",
    Pipeline => "pipeline",
    Policy => "policy",
    PolicyAssignment => "policy_assignment",
    PolicyVersion => "policy_version",
    Project => "project",
    ProviderCredential => "provider_credential",
}

fn collect(rows: &[Row]) -> Result<ConfigRows, StorageError> {
    let mut found = ConfigRows::default();
    for row in rows {
        let table = Table::named(row.str(0)?).ok_or(StorageError::Inconsistent { table: "organization" })?;
        found.insert(table, row.text(1)?, row.text(2)?);
    }
    Ok(found)
}

impl WriteTx {
    /// Applies the writes of one change.
    pub async fn apply(&mut self, org: &OrgId, writes: &[Write]) -> Result<(), StorageError> {
        for write in writes {
            let (org, id) = (org.as_str(), write.id.as_str());
            match &write.body {
                Some(body) => self.rows(put_text(write.table), args![org, id, body.as_str()]).await?,
                None => self.rows(delete_text(write.table), args![org, id]).await?,
            };
        }
        Ok(())
    }
}

impl ReadTx {
    /// All configuration rows of an organization.
    pub async fn config_rows(&mut self, org: &OrgId) -> Result<ConfigRows, StorageError> {
        collect(&self.rows(LOAD, args![org.as_str()]).await?)
    }
}
