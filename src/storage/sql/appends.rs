//! What one commit appends to one chain, in as few trips to the database's thread as it takes.
//!
//! Owns one read under the lock, which takes closed holds away, and what is written after it. Each trip wakes a thread and
//! is waited for, which is most of what a small statement costs; so several statements share one text. The driver caches one
//! prepared text per number of rows.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{Arg, BatchRow, Head, Hold, NewEntry, Row, Seen, Spending, StorageError, WriteTx, args, heads, holds};
use crate::domain::{
    ids::{BootId, EntryId, OrgId},
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

/// What one commit writes to one chain.
pub struct Appending<'a> {
    /// Whose chain.
    pub org: &'a OrgId,
    /// What was signed.
    pub batch: &'a BatchRow,
    /// What is stored of it.
    pub entries: &'a [NewEntry<'a>],
    /// Where the chain ends then; written only with entries.
    pub head: &'a Head,
    /// New holds.
    pub holds: &'a [Hold],
    /// What windows have spent by now.
    pub windows: &'a [(String, Spending)],
}

const LOCKED: &str = "SELECT h.seq, h.link, h.config_version, h.config_tag, h.config_digest, h.kid, \
    coalesce((SELECT closed FROM boot WHERE id = $2), 1), coalesce(s.settled_nano, 0), coalesce(s.held_nano, 0), \
    h.org_id IS NOT NULL \
    FROM (SELECT 1) LEFT JOIN audit_head h ON h.org_id = $1 \
    LEFT JOIN spending s ON s.org_id = $1 AND s.spending_window = $3";

/// Most entries whose holds and sums go with them.
const FEW: usize = 8;

/// The holds that are closed, where the boot is open and the chain ends where it is known to: what else it is takes a
/// closer look first.
const TAKEN: &str = "; DELETE FROM hold WHERE org_id = $1 AND (SELECT closed FROM boot WHERE id = $2) = 0 AND \
    ($4 = 0 OR EXISTS (SELECT 1 FROM audit_head WHERE org_id = $1 AND seq = $4 AND link = $5)) AND \
    (boot, counter) IN (VALUES ";

impl WriteTx {
    /// Head, boot and one window, in one trip.
    pub async fn locked(&mut self, org: &OrgId, boot: &BootId, window: &str) -> Result<Locked, StorageError> {
        let rows = self.rows(LOCKED, args![org.as_str(), boot.as_str(), window]).await?;
        locked(rows.first())
    }

    /// The same, and the holds of completed admissions taken away if the boot is open and the chain ends where it was last
    /// seen; `None`: it ends elsewhere, and nothing was taken. Where nothing is completed there is nothing to take.
    pub async fn locked_and_taken(
        &mut self,
        (org, boot): (&OrgId, &BootId),
        window: &str,
        seen: Seen,
        completed: &[&EntryId],
    ) -> Result<(Locked, Option<Vec<Hold>>), StorageError> {
        if completed.is_empty() {
            return Ok((self.locked(org, boot, window).await?, Some(Vec::new())));
        }
        let mut args: Vec<Arg<'_>> = Vec::with_capacity(5 + completed.len() * 2);
        args.extend_from_slice(args![org.as_str(), boot.as_str(), window, seen.seq, &seen.link.0[..]]);
        let mut text = String::with_capacity(LOCKED.len() + TAKEN.len() + 80 + completed.len() * 12);
        text.push_str(LOCKED);
        text.push_str(TAKEN);
        for id in completed {
            let (comma, next) = (if args.len() == 5 { "" } else { "," }, args.len() + 1);
            // Writing to a text cannot fail.
            write!(text, "{comma}(${next},${})", next + 1).unwrap_or_default();
            args.extend([Arg::Text(id.boot.as_str()), Arg::from(id.counter)]);
        }
        text.push_str(holds::RETURNING);
        let rows = self.run(AssertSqlSafe(text).into_sql_str(), &args).await?;
        let locked = locked(rows.first())?;
        let ends = locked.head.as_ref().map(|head| (head.seq, head.link));
        if seen.seq > 0 && ends != Some((seen.seq, seen.link)) {
            return Ok((locked, None));
        }
        let holds = rows.iter().skip(1).map(|row| holds::read(org, row)).collect::<Result<_, _>>()?;
        Ok((locked, Some(holds)))
    }

    /// The batch, its entries, the head after them, new holds and sums. In one trip where they are few, in two otherwise: what
    /// a trip costs is shared by many then, and a text for each pair of numbers would not stay prepared.
    pub async fn append(&mut self, appending: &Appending<'_>) -> Result<(), StorageError> {
        let Appending { org, batch, entries, head, holds, windows } = *appending;
        let mut text = String::with_capacity(1_000 + entries.len() * 18 + holds.len() * 14 + windows.len() * 200);
        let mut args: Vec<Arg<'_>> = Vec::with_capacity(14 + entries.len() * 8 + holds.len() * 6 + windows.len() * 4);
        text.push_str(
            "INSERT INTO audit_batch (org_id, boot, number, message, kid, signature, unwritten) \
             VALUES (?,?,?,?,?,?,?);",
        );
        let BatchRow { boot, number, message, kid, signature, unwritten } = batch;
        args.extend_from_slice(args![org.as_str(), boot.as_str(), *number, message, kid.as_str(), signature]);
        args.push(Arg::Text(unwritten));
        if !entries.is_empty() {
            text.push_str("INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link) VALUES ");
            rows(&mut text, entries.len(), "(?,?,?,?,?,?,?,?)");
            text.push(';');
            text.push_str(heads::PUT);
            text.push(';');
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
        if entries.len() > FEW {
            self.run(AssertSqlSafe(std::mem::take(&mut text)).into_sql_str(), &args).await?;
            args.clear();
        }
        if !holds.is_empty() {
            text.push_str("INSERT INTO hold (org_id, boot, counter, config_version, amount_nano, windows) VALUES ");
            rows(&mut text, holds.len(), "(?,?,?,?,?,?)");
            text.push(';');
        }
        let rendered: Vec<String> = holds.iter().map(|hold| holds::render(&hold.windows)).collect();
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
        if !text.is_empty() {
            self.run(AssertSqlSafe(text).into_sql_str(), &args).await?;
        }
        Ok(())
    }

    /// Today and this month, by the database's clock, in UTC.
    pub async fn today(&mut self) -> Result<(String, String), StorageError> {
        let rows = self.rows("SELECT strftime('%Y-%m-%d', 'now'), strftime('%Y-%m', 'now')", args![]).await?;
        let row = rows.first().ok_or(StorageError::Inconsistent { table: "spending" })?;
        Ok((row.text(0)?, row.text(1)?))
    }
}

fn locked(row: Option<&Row>) -> Result<Locked, StorageError> {
    let row = row.ok_or(StorageError::Inconsistent { table: "audit_head" })?;
    Ok(Locked {
        head: (row.int(9)? != 0).then(|| heads::read(row)).transpose()?,
        boot_is_open: row.int(6)? == 0,
        spending: Spending { settled: NanoUsd(row.int(7)?), held: NanoUsd(row.int(8)?) },
    })
}

fn rows(text: &mut String, count: usize, row: &str) {
    for number in 0..count {
        if number > 0 {
            text.push(',');
        }
        text.push_str(row);
    }
}
