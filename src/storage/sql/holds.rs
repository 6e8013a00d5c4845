//! Tables `hold` and `spending`: money that open admissions have reserved, and money that was spent.
//!
//! Owns the rows. Never decides whether there is room: `admission` does, under the head's lock.

use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{Arg, Row, Sql, StorageError, Window, WriteTx, args, entries::entry_id};
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
    /// The windows that settle it, and what each could hold when the call was admitted.
    pub windows: Vec<Window>,
}

/// An open admission of a boot that is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The admission.
    pub id: EntryId,
    /// How much it reserved.
    pub amount: NanoUsd,
}

/// What one window has spent and reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// Spent.
    pub settled: NanoUsd,
    /// Reserved by open admissions.
    pub held: NanoUsd,
}

/// Ends a statement that takes holds away: the columns that `read` reads.
pub(super) const RETURNING: &str = ") RETURNING boot, counter, config_version, amount_nano, windows";

const SPENDING: &str = "SELECT settled_nano, held_nano FROM spending WHERE org_id = $1 AND spending_window = $2";

fn spending(rows: &[Row]) -> Result<Spending, StorageError> {
    let Some(row) = rows.first() else { return Ok(Spending::default()) };
    Ok(Spending { settled: NanoUsd(row.int(0)?), held: NanoUsd(row.int(1)?) })
}

/// Windows as the embedded database keeps them: `[[name, limit or null], …]`.
pub(super) fn render(windows: &[Window]) -> String {
    let pairs: Vec<(&str, Option<NanoUsd>)> = windows.iter().map(|w| (w.name.as_str(), w.limit)).collect();
    serde_json::to_string(&pairs).unwrap_or_else(|_| "[]".to_owned())
}

fn parse(text: &str) -> Result<Vec<Window>, StorageError> {
    let pairs: Vec<(String, Option<NanoUsd>)> =
        serde_json::from_str(text).map_err(|_| StorageError::Inconsistent { table: "hold" })?;
    Ok(pairs.into_iter().map(|(name, limit)| Window { name, limit }).collect())
}

impl WriteTx {
    /// What a window has spent; zero if it has not begun.
    pub async fn spending(&mut self, org: &OrgId, window: &str) -> Result<Spending, StorageError> {
        spending(&self.rows(SPENDING, args![org.as_str(), window]).await?)
    }

    /// Takes the holds of these admissions away and answers those that were there.
    pub async fn take_holds(&mut self, ids: &[&EntryId]) -> Result<Vec<Hold>, StorageError> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let mut text = String::from("DELETE FROM hold WHERE org_id = ? AND (boot, counter) IN (VALUES ");
        let mut args = vec![Arg::Text(first.org.as_str())];
        for (row, id) in ids.iter().enumerate() {
            text.push_str(if row == 0 { "(?,?)" } else { ",(?,?)" });
            args.extend([Arg::from(id.boot.as_str()), Arg::from(id.counter)]);
        }
        text.push_str(RETURNING);
        let rows = self.run(AssertSqlSafe(text).into_sql_str(), &args).await?;
        rows.iter().map(|row| read(&first.org, row)).collect()
    }
}

impl Sql {
    /// Open holds of boots that are closed: what recovery has to close.
    pub async fn orphaned_holds(&self, most: u32) -> Result<Vec<Orphan>, StorageError> {
        let text = "SELECT h.org_id, h.boot, h.counter, h.amount_nano FROM hold h JOIN boot b ON b.id = h.boot \
                    WHERE b.closed <> 0 ORDER BY h.org_id, h.boot, h.counter LIMIT $1";
        let read = |row: &Row| {
            let org = OrgId::parse(row.str(0)?).map_err(|_| StorageError::Inconsistent { table: "hold" })?;
            let id = entry_id(&org, row.str(1)?, row.count("hold", 2)?)?;
            Ok(Orphan { id, amount: NanoUsd(row.int(3)?) })
        };
        self.read(text, args![i64::from(most)]).await?.iter().map(read).collect()
    }

    /// What a window has spent, outside any transaction; `{day}` and `{month}` by the database's clock.
    pub async fn spending(&self, org: &OrgId, window: &str) -> Result<Spending, StorageError> {
        let text = match self.postgres() {
            Some(_) => {
                "SELECT settled_nano, held_nano FROM spending WHERE org_id = $1 AND spending_window = tappass_window($2)"
            }
            None => {
                "SELECT settled_nano, held_nano FROM spending WHERE org_id = $1 AND spending_window = \
                 replace(replace($2, '{day}', strftime('%Y-%m-%d', 'now')), '{month}', strftime('%Y-%m', 'now'))"
            }
        };
        spending(&self.read_admin(text, args![org.as_str(), window]).await?)
    }

    /// How many admissions of an organization are open, and how many of them under an older configuration.
    pub async fn open_holds(&self, org: &OrgId, version: u64) -> Result<(u64, u64), StorageError> {
        let text = "SELECT count(*), count(*) FILTER (WHERE config_version < $2) FROM hold WHERE org_id = $1";
        let rows = self.read_admin(text, args![org.as_str(), version]).await?;
        let row = rows.first().ok_or(StorageError::Inconsistent { table: "hold" })?;
        Ok((row.count("hold", 0)?, row.count("hold", 1)?))
    }
}

pub(super) fn read(org: &OrgId, row: &Row) -> Result<Hold, StorageError> {
    Ok(Hold {
        id: entry_id(org, row.str(0)?, row.count("hold", 1)?)?,
        config_version: row.count("hold", 2)?,
        amount: NanoUsd(row.int(3)?),
        windows: parse(row.str(4)?)?,
    })
}
