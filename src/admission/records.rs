//! Reading what is on record: single entries, spending, organizations.
//!
//! Owns reads for people and tools. Never part of a decision: what decides is read under the lock.

use crate::{
    domain::{
        ids::{EntryId, OrgId},
        money::NanoUsd,
    },
    storage::{Sql, StorageError, sql::EntryRow},
    tenants::Organization,
};

/// What an organization's open window has spent.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Spent.
    pub settled: NanoUsd,
    /// Reserved by calls under way.
    pub held: NanoUsd,
    /// How many are under way.
    pub open: u64,
}

/// Reads.
#[derive(Clone)]
pub struct Records {
    sql: Sql,
}

impl Records {
    /// Over a database.
    pub fn new(sql: Sql) -> Self {
        Self { sql }
    }

    /// An entry by its id.
    pub async fn entry(&self, id: &EntryId) -> Result<Option<EntryRow>, StorageError> {
        self.sql.entry(id).await
    }

    /// What a window has spent.
    pub async fn spending(&self, org: &OrgId, window: &str) -> Result<Spent, StorageError> {
        let spending = self.sql.spending(org, window).await?;
        let (open, _) = self.sql.open_holds(org, 0).await?;
        Ok(Spent { settled: spending.settled, held: spending.held, open })
    }

    /// Every organization, without the system's own chain.
    pub async fn organizations(&self) -> Result<Vec<OrgId>, StorageError> {
        let mut all = self.sql.chains().await?;
        all.retain(|org| org.as_str() != super::SYSTEM);
        Ok(all)
    }

    /// The organization that was made first.
    pub async fn first_organization(&self) -> Result<Option<OrgId>, StorageError> {
        let rows = self.sql.organization_rows().await?;
        let read = rows.iter().filter_map(|body| serde_json::from_str::<Organization>(body).ok());
        let oldest = read.min_by_key(|organization| organization.created_at);
        match oldest {
            Some(organization) => Ok(Some(organization.org_id)),
            // Rows that do not read are refused when they are loaded; the chain still knows who there is.
            None => Ok(self.organizations().await?.into_iter().next()),
        }
    }
}
