//! What one commit appends to one chain, in as few trips to the database's thread as it takes.
//!
//! Owns one read under the lock and two writes. Each trip wakes a thread and is waited for, which is most of what a small
//! statement costs; so several statements share one text. The driver caches one prepared text per number of rows.

use sqlx::{AssertSqlSafe, Row};

use super::{BatchRow, Head, Hold, NewEntry, Spending, StorageError, WriteTx, heads, signed};
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
    (SELECT closed FROM boot WHERE id = $2), s.settled_nano, s.held_nano \
    FROM (SELECT 1) LEFT JOIN audit_head h ON h.org_id = $1 \
    LEFT JOIN spending s ON s.org_id = $1 AND s.spending_window = $3";

impl WriteTx {
    /// Head, boot and one window, in one trip.
    pub async fn locked(&mut self, org: &OrgId, boot: &BootId, window: u64) -> Result<Locked, StorageError> {
        let row = sqlx::query(LOCKED)
            .bind(org.as_str())
            .bind(boot.as_str())
            .bind(signed(window))
            .fetch_one(&mut *self.tx)
            .await?;
        let begun: Option<i64> = row.try_get(0)?;
        let closed: Option<i64> = row.try_get(6)?;
        let settled: Option<i64> = row.try_get(7)?;
        let held: Option<i64> = row.try_get(8)?;
        Ok(Locked {
            head: begun.map(|_| heads::read(&row)).transpose()?,
            boot_is_open: closed == Some(0),
            spending: Spending { settled: NanoUsd(settled.unwrap_or(0)), held: NanoUsd(held.unwrap_or(0)) },
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
        if !entries.is_empty() {
            text.push_str("INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link) VALUES ");
            rows(&mut text, entries.len(), "(?,?,?,?,?,?,?,?)");
            text.push(';');
            text.push_str(heads::PUT);
        }
        let mut query = sqlx::query(AssertSqlSafe(text))
            .bind(org.as_str())
            .bind(batch.boot.as_str())
            .bind(signed(batch.number))
            .bind(&batch.message[..])
            .bind(batch.kid.as_str())
            .bind(&batch.signature[..])
            .bind(batch.unwritten.as_str());
        for entry in entries {
            query = query
                .bind(entry.id.org.as_str())
                .bind(signed(entry.seq))
                .bind(entry.id.boot.as_str())
                .bind(signed(entry.id.counter))
                .bind(entry.kind)
                .bind(entry.body)
                .bind(entry.digest.0.to_vec())
                .bind(entry.link.0.to_vec());
        }
        if !entries.is_empty() {
            query = query
                .bind(org.as_str())
                .bind(signed(head.seq))
                .bind(&head.link.0[..])
                .bind(signed(head.stamp.version))
                .bind(&head.stamp.tag.0[..])
                .bind(&head.stamp.digest.0[..])
                .bind(head.kid.as_str());
        }
        query.execute(&mut *self.tx).await?;
        Ok(())
    }

    /// New holds, and what windows have spent by now.
    pub async fn settle(
        &mut self,
        org: &OrgId,
        holds: &[Hold],
        windows: &[(u64, Spending)],
    ) -> Result<(), StorageError> {
        if holds.is_empty() && windows.is_empty() {
            return Ok(());
        }
        let mut text = String::with_capacity(400 + holds.len() * 14);
        if !holds.is_empty() {
            text.push_str(
                "INSERT INTO hold (org_id, boot, counter, config_version, amount_nano, spending_window) VALUES ",
            );
            rows(&mut text, holds.len(), "(?,?,?,?,?,?)");
            text.push(';');
        }
        for _ in windows {
            text.push_str(
                "INSERT INTO spending (org_id, spending_window, settled_nano, held_nano) VALUES (?,?,?,?) \
                 ON CONFLICT (org_id, spending_window) DO UPDATE SET settled_nano = excluded.settled_nano, \
                 held_nano = excluded.held_nano;",
            );
        }
        let mut query = sqlx::query(AssertSqlSafe(text));
        for hold in holds {
            query = query
                .bind(hold.id.org.as_str())
                .bind(hold.id.boot.as_str())
                .bind(signed(hold.id.counter))
                .bind(signed(hold.config_version))
                .bind(hold.amount.0)
                .bind(signed(hold.window));
        }
        for (window, spending) in windows {
            query = query.bind(org.as_str()).bind(signed(*window)).bind(spending.settled.0).bind(spending.held.0);
        }
        query.execute(&mut *self.tx).await?;
        Ok(())
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
