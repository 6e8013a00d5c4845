//! What one commit appends to one chain, in as few trips to the database's thread as it takes.
//!
//! Owns one read under the lock and two writes. Each trip wakes a thread and is waited for, which is most of what a small
//! statement costs; so several statements share one text. The driver caches one prepared text per number of rows.

use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{Arg, BatchRow, Head, Hold, NewEntry, Spending, StorageError, WriteTx, args, heads, holds};
use crate::domain::{
    ids::{BootId, OrgId},
    money::NanoUsd,
};

/// What is read under the lock before anything is judged.
#[derive(Clone, Debug)]
pub struct Locked {
    /// The chain's head, if it has begun.
    pub head: Option<Head>,
    /// Whether the boot may append; an unknown one may not.
    pub boot_is_open: bool,
    /// What the window has spent.
    pub spending: Spending,
}

const LOCKED: &str = "SELECT h.seq, h.link, h.config_version, h.config_tag, h.config_digest, h.kid, \
    coalesce((SELECT closed FROM boot WHERE id = $2), 1), coalesce(s.settled_nano, 0), coalesce(s.held_nano, 0), \
    h.org_id IS NOT NULL \
    FROM (SELECT 1) LEFT JOIN audit_head h ON h.org_id = $1 \
    LEFT JOIN spending s ON s.org_id = $1 AND s.spending_window = $3";

impl WriteTx {
    /// Head, boot and one window, in one trip.
    pub async fn locked(&mut self, org: &OrgId, boot: &BootId, window: &str) -> Result<Locked, StorageError> {
        let rows = self.rows(LOCKED, args![org.as_str(), boot.as_str(), window]).await?;
        let row = rows.first().ok_or(StorageError::Inconsistent { table: "audit_head" })?;
        Ok(Locked {
            head: (row.int(9)? != 0).then(|| heads::read(row)).transpose()?,
            boot_is_open: row.int(6)? == 0,
            spending: Spending { settled: NanoUsd(row.int(7)?), held: NanoUsd(row.int(8)?) },
        })
    }

    /// The batch, its entries and the head after them.
    pub async fn append(
        &mut self,
        org: &OrgId,
        batch: &BatchRow,
        entries: &[NewEntry<'_>],
        head: &Head,
    ) -> Result<(), StorageError> {
        let mut text = String::with_capacity(700 + entries.len() * 18);
        text.push_str(
            "INSERT INTO audit_batch (org_id, boot, number, message, kid, signature, unwritten) \
             VALUES (?,?,?,?,?,?,?);",
        );
        let mut args: Vec<Arg<'_>> = Vec::with_capacity(14 + entries.len() * 8);
        let BatchRow { boot, number, message, kid, signature, unwritten } = batch;
        args.extend_from_slice(args![org.as_str(), boot.as_str(), *number, message, kid.as_str(), signature]);
        args.push(Arg::Text(unwritten));
        if !entries.is_empty() {
            text.push_str("INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link) VALUES ");
            rows(&mut text, entries.len(), "(?,?,?,?,?,?,?,?)");
            text.push(';');
            text.push_str(heads::PUT);
            for NewEntry { seq, id, kind, body, digest, link } in entries {
                let place = args![id.org.as_str(), *seq, id.boot.as_str(), id.counter, *kind, *body];
                args.extend_from_slice(place);
                args.extend([Arg::Bytes(&digest.0), Arg::Bytes(&link.0)]);
            }
            let stamp = &head.stamp;
            args.extend([Arg::Text(org.as_str()), Arg::from(head.seq), Arg::Bytes(&head.link.0)]);
            args.extend([Arg::from(stamp.version), Arg::Bytes(&stamp.tag.0), Arg::Bytes(&stamp.digest.0)]);
            args.push(Arg::Text(&head.kid));
        }
        self.run(AssertSqlSafe(text).into_sql_str(), &args).await?;
        Ok(())
    }

    /// New holds, and what windows have spent by now.
    pub async fn settle(
        &mut self,
        org: &OrgId,
        holds: &[Hold],
        windows: &[(String, Spending)],
    ) -> Result<(), StorageError> {
        if holds.is_empty() && windows.is_empty() {
            return Ok(());
        }
        let mut text = String::with_capacity(400 + holds.len() * 14);
        let mut args: Vec<Arg<'_>> = Vec::with_capacity(holds.len() * 6 + windows.len() * 4);
        let rendered: Vec<String> = holds.iter().map(|hold| holds::render(&hold.windows)).collect();
        if !holds.is_empty() {
            text.push_str("INSERT INTO hold (org_id, boot, counter, config_version, amount_nano, windows) VALUES ");
            rows(&mut text, holds.len(), "(?,?,?,?,?,?)");
            text.push(';');
        }
        for (hold, windows) in holds.iter().zip(&rendered) {
            let id = &hold.id;
            args.extend([Arg::Text(id.org.as_str()), Arg::Text(id.boot.as_str()), Arg::from(id.counter)]);
            args.extend([Arg::from(hold.config_version), Arg::Int(hold.amount.0), Arg::Text(windows)]);
        }
        for (window, spending) in windows {
            text.push_str(
                "INSERT INTO spending (org_id, spending_window, settled_nano, held_nano) VALUES (?,?,?,?) \
                 ON CONFLICT (org_id, spending_window) DO UPDATE SET settled_nano = excluded.settled_nano, \
                 held_nano = excluded.held_nano;",
            );
            args.extend([Arg::Text(org.as_str()), Arg::Text(window)]);
            args.extend([Arg::Int(spending.settled.0), Arg::Int(spending.held.0)]);
        }
        self.run(AssertSqlSafe(text).into_sql_str(), &args).await?;
        Ok(())
    }

    /// Today and this month, by the database's clock, in UTC.
    pub async fn today(&mut self) -> Result<(String, String), StorageError> {
        let rows = self.rows("SELECT strftime('%Y-%m-%d', 'now'), strftime('%Y-%m', 'now')", args![]).await?;
        let row = rows.first().ok_or(StorageError::Inconsistent { table: "spending" })?;
        Ok((row.text(0)?, row.text(1)?))
    }
}

fn rows(text: &mut String, count: usize, row: &str) {
    for number in 0..count {
        if number > 0 {
            text.push(',');
        }
        text.push_str(row);
    }
}
