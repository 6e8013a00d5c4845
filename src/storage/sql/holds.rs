//! Tables `hold` and `spending`: money that open admissions have reserved, and money that was spent.
//!
//! Owns the rows. Never decides whether there is room: `admission` does, under the head's lock.

use sqlx::{AssertSqlSafe, Row};

use super::{Sql, StorageError, WriteTx, entries::entry_id, signed, unsigned};
use crate::domain::{
    ids::{EntryId, OrgId},
    money::NanoUsd,
};

/// What an open admission has reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The admission.
    pub id: EntryId,
    /// Under which configuration.
    pub config_version: u64,
    /// How much; 0 is a hold too.
    pub amount: NanoUsd,
    /// The window that settles it.
    pub window: u64,
}

/// What one window has spent and reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// Spent.
    pub settled: NanoUsd,
    /// Reserved by open admissions.
    pub held: NanoUsd,
}

impl WriteTx {
    /// What a window has spent; zero if it has not begun.
    pub async fn spending(&mut self, org: &OrgId, window: u64) -> Result<Spending, StorageError> {
        let row =
            sqlx::query("SELECT settled_nano, held_nano FROM spending WHERE org_id = $1 AND spending_window = $2")
                .bind(org.as_str())
                .bind(signed(window))
                .fetch_optional(&mut *self.tx)
                .await?;
        let Some(row) = row else { return Ok(Spending::default()) };
        Ok(Spending { settled: NanoUsd(row.try_get(0)?), held: NanoUsd(row.try_get(1)?) })
    }

    /// Takes the holds of these admissions away and answers those that were there.
    pub async fn take_holds(&mut self, ids: &[&EntryId]) -> Result<Vec<Hold>, StorageError> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let mut text = String::from("DELETE FROM hold WHERE org_id = ? AND (boot, counter) IN (VALUES ");
        for row in 0..ids.len() {
            text.push_str(if row == 0 { "(?,?)" } else { ",(?,?)" });
        }
        text.push_str(") RETURNING boot, counter, config_version, amount_nano, spending_window");
        let mut query = sqlx::query(AssertSqlSafe(text)).bind(first.org.as_str());
        for id in ids {
            query = query.bind(id.boot.as_str()).bind(signed(id.counter));
        }
        let rows = query.fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| read(&first.org, row)).collect()
    }
}

impl Sql {
    /// Open holds of boots that are closed: what recovery has to close.
    pub async fn orphaned_holds(&self, most: u32) -> Result<Vec<Hold>, StorageError> {
        let rows = sqlx::query(
            "SELECT h.boot, h.counter, h.config_version, h.amount_nano, h.spending_window, h.org_id FROM hold h \
             JOIN boot b ON b.id = h.boot WHERE b.closed <> 0 ORDER BY h.org_id, h.boot, h.counter LIMIT $1",
        )
        .bind(i64::from(most))
        .fetch_all(&self.readers)
        .await?;
        let read_with_org = |row: &sqlx::sqlite::SqliteRow| {
            let org: String = row.try_get(5)?;
            let org = OrgId::parse(&org).map_err(|_| StorageError::Inconsistent { table: "hold" })?;
            read(&org, row)
        };
        rows.iter().map(read_with_org).collect()
    }

    /// What a window has spent, outside any transaction.
    pub async fn spending(&self, org: &OrgId, window: u64) -> Result<Spending, StorageError> {
        let row =
            sqlx::query("SELECT settled_nano, held_nano FROM spending WHERE org_id = $1 AND spending_window = $2")
                .bind(org.as_str())
                .bind(signed(window))
                .fetch_optional(&self.readers)
                .await?;
        let Some(row) = row else { return Ok(Spending::default()) };
        Ok(Spending { settled: NanoUsd(row.try_get(0)?), held: NanoUsd(row.try_get(1)?) })
    }

    /// How many admissions of an organization are open.
    pub async fn open_holds(&self, org: &OrgId) -> Result<u64, StorageError> {
        let row = sqlx::query("SELECT COUNT(*) FROM hold WHERE org_id = $1")
            .bind(org.as_str())
            .fetch_one(&self.readers)
            .await?;
        unsigned("hold", row.try_get(0)?)
    }
}

fn read(org: &OrgId, row: &sqlx::sqlite::SqliteRow) -> Result<Hold, StorageError> {
    let boot: &str = row.try_get(0)?;
    Ok(Hold {
        id: entry_id(org, boot, unsigned("hold", row.try_get(1)?)?)?,
        config_version: unsigned("hold", row.try_get(2)?)?,
        amount: NanoUsd(row.try_get(3)?),
        window: unsigned("hold", row.try_get(4)?)?,
    })
}
