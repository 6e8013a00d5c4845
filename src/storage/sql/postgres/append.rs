//! One append and one change, each in one round trip.
//!
//! Owns handing the groups over to `tappass_append_v1` and `tappass_change_v1` (`migrations/postgres/0002_append.sql`) and
//! reading their answers. The functions lock, judge, link and write; here nothing is decided. An error of the server means
//! that nothing was written, every other one that nobody knows.

use sqlx::{Row as _, postgres::PgRow};

use super::{Postgres, is_lost};
use crate::{
    domain::{
        digest::Digest,
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        rows::Write,
        stamp::ConfigStamp,
    },
    storage::sql::{BatchRow, NewEntry, StorageError, Verdict, signed, unsigned},
};

/// A window of a budget that an admission reserves in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its name; `{day}` and `{month}` stand for the database's own date.
    pub name: String,
    /// The most that it may hold, if it has a limit.
    pub limit: Option<NanoUsd>,
}

/// What an item does besides being recorded.
#[derive(Clone, Copy, Debug)]
pub enum Act<'a> {
    /// Nothing.
    Plain,
    /// It was decided under this configuration.
    Refusal(ConfigStamp),
    /// It was decided under this configuration, until then, and reserves.
    Admission {
        /// Under which configuration.
        stamp: ConfigStamp,
        /// How much.
        amount: NanoUsd,
        /// Where.
        windows: &'a [Window],
        /// When the decision ends, in microseconds; 0: never.
        until: i64,
    },
    /// It closes an admission.
    Completion {
        /// Which.
        admission: &'a EntryId,
        /// What it cost.
        settle: NanoUsd,
    },
    /// It reserves more for an open admission.
    Extension {
        /// Which.
        admission: &'a EntryId,
        /// How much more.
        amount: NanoUsd,
    },
    /// It corrects what was settled for an admission whose boot had been closed.
    Late {
        /// By how much; below zero gives back.
        by: NanoUsd,
        /// Where, by full name.
        windows: &'a [Window],
    },
}

/// The head that a boot saw last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Sequence number; 0: none.
    pub seq: u64,
    /// Its link.
    pub link: Digest,
}

/// One item of a group.
pub struct Item<'a> {
    /// The boot's counter.
    pub counter: u64,
    /// The entry's kind.
    pub kind: &'a str,
    /// Its canonical text.
    pub body: &'a str,
    /// Its digest.
    pub digest: Digest,
    /// An earlier attempt may have been stored.
    pub may_be_stored: bool,
    /// What else it does.
    pub act: Act<'a>,
}

/// What one boot appends to one chain.
pub struct Group<'a> {
    /// Which chain.
    pub org: &'a OrgId,
    /// Which boot.
    pub boot: &'a BootId,
    /// The signature over the items.
    pub batch: &'a BatchRow,
    /// The head that the boot saw last.
    pub seen: Seen,
    /// In order of arrival.
    pub items: Vec<Item<'a>>,
}

/// What became of a group.
#[derive(Debug, Default)]
pub struct Appended {
    /// One per item.
    pub verdicts: Vec<Verdict>,
    /// The head after it; `None`: it was busy, and nothing was tried.
    pub head: Option<(u64, Digest)>,
}

/// One change.
pub struct ChangeRow<'a> {
    /// The entry; its place and link are the database's to say.
    pub entry: &'a NewEntry<'a>,
    /// The signature over it.
    pub batch: &'a BatchRow,
    /// The head that the boot saw last.
    pub seen: Seen,
    /// What it was computed from.
    pub from: ConfigStamp,
    /// The digest that the rows have afterwards.
    pub produced: Digest,
    /// The rows.
    pub writes: &'a [Write],
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It stands at this place with this link, by this attempt or an earlier one.
    Stored(u64, Digest),
    /// The configuration is another by now: compute it again.
    Stale,
    /// Its boot is closed.
    Fenced,
    /// The chain is not the one that the boot knew.
    HistoryLost,
}

/// The columns of all items of all groups.
#[derive(Default)]
struct Items<'a> {
    counter: Vec<i64>,
    kind: Vec<&'a str>,
    body: Vec<&'a str>,
    digest: Vec<&'a [u8]>,
    what: Vec<i32>,
    maybe: Vec<bool>,
    version: Vec<i64>,
    tag: Vec<&'a [u8]>,
    config: Vec<&'a [u8]>,
    amount: Vec<i64>,
    until: Vec<i64>,
    boot: Vec<Option<&'a str>>,
    target: Vec<i64>,
    windows: Vec<i32>,
    window_names: Vec<&'a str>,
    window_limits: Vec<Option<i64>>,
}

impl<'a> Items<'a> {
    fn push(&mut self, item: &'a Item<'a>) {
        const NO_WINDOWS: &[Window] = &[];
        self.counter.push(signed(item.counter));
        self.kind.push(item.kind);
        self.body.push(item.body);
        self.digest.push(&item.digest.0);
        self.maybe.push(item.may_be_stored);
        let (what, stamp, amount, until, target, windows) = match &item.act {
            Act::Plain => (0, None, NanoUsd::ZERO, 0, None, NO_WINDOWS),
            Act::Refusal(stamp) => (1, Some(stamp), NanoUsd::ZERO, 0, None, NO_WINDOWS),
            Act::Admission { stamp, amount, windows, until } => (2, Some(stamp), *amount, *until, None, *windows),
            Act::Completion { admission, settle } => (3, None, *settle, 0, Some(*admission), NO_WINDOWS),
            Act::Extension { admission, amount } => (4, None, *amount, 0, Some(*admission), NO_WINDOWS),
            Act::Late { by, windows } => (5, None, *by, 0, None, *windows),
        };
        self.what.push(what);
        self.version.push(stamp.map_or(0, |stamp| signed(stamp.version)));
        self.tag.push(stamp.map_or(&[], |stamp| &stamp.tag.0[..]));
        self.config.push(stamp.map_or(&[], |stamp| &stamp.digest.0[..]));
        self.amount.push(amount.0);
        self.until.push(until);
        self.boot.push(target.map(|id| id.boot.as_str()));
        self.target.push(target.map_or(0, |id| signed(id.counter)));
        self.windows.push(i32::try_from(windows.len()).unwrap_or(0));
        for window in windows {
            self.window_names.push(&window.name);
            self.window_limits.push(window.limit.map(|limit| limit.0));
        }
    }
}

const APPEND: &str = "SELECT item, grp, verdict, detail, room, seq, link FROM tappass_append_v1(\
    $1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21,$22,$23,$24,$25,$26)";

const CHANGE: &str = "SELECT verdict, seq, link FROM tappass_change_v1(\
    $1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19)";

impl Postgres {
    /// Appends the groups, which stand in order of their organizations. `wait`: for heads that are locked.
    pub(in crate::storage::sql) async fn append(
        &self,
        groups: &[Group<'_>],
        wait: bool,
    ) -> Result<Vec<Appended>, StorageError> {
        let mut items = Items::default();
        for item in groups.iter().flat_map(|group| &group.items) {
            items.push(item);
        }
        let column = |read: fn(&Group<'_>) -> i64| groups.iter().map(read).collect::<Vec<i64>>();
        let counts: Vec<i32> = groups.iter().map(|g| i32::try_from(g.items.len()).unwrap_or(0)).collect();
        let query = sqlx::query(APPEND)
            .bind(wait)
            .bind(groups.iter().map(|g| g.org.as_str()).collect::<Vec<_>>())
            .bind(groups.iter().map(|g| g.boot.as_str()).collect::<Vec<_>>())
            .bind(counts)
            .bind(column(|g| signed(g.batch.number)))
            .bind(groups.iter().map(|g| &g.batch.message[..]).collect::<Vec<_>>())
            .bind(groups.iter().map(|g| g.batch.kid.as_str()).collect::<Vec<_>>())
            .bind(groups.iter().map(|g| &g.batch.signature[..]).collect::<Vec<_>>())
            .bind(column(|g| signed(g.seen.seq)))
            .bind(groups.iter().map(|g| &g.seen.link.0[..]).collect::<Vec<_>>())
            .bind(items.counter)
            .bind(items.kind)
            .bind(items.body)
            .bind(items.digest)
            .bind(items.what)
            .bind(items.maybe)
            .bind(items.version)
            .bind(items.tag)
            .bind(items.config)
            .bind(items.amount)
            .bind(items.until)
            .bind(items.boot)
            .bind(items.target)
            .bind(items.windows)
            .bind(items.window_names)
            .bind(items.window_limits);
        let mut line = self.appends.take().await?;
        let rows = line.within(async |c| query.fetch_all(c).await).await.map_err(unknown)?;
        read(&rows, groups)
    }

    /// Makes a change.
    pub(in crate::storage::sql) async fn change(&self, change: &ChangeRow<'_>) -> Result<Changed, StorageError> {
        let ChangeRow { entry, batch, seen, from, produced, writes } = change;
        let query = sqlx::query(CHANGE)
            .bind(entry.id.org.as_str())
            .bind(entry.id.boot.as_str())
            .bind(signed(entry.id.counter))
            .bind(entry.kind)
            .bind(entry.body)
            .bind(&entry.digest.0[..])
            .bind(signed(batch.number))
            .bind(&batch.message[..])
            .bind(batch.kid.as_str())
            .bind(&batch.signature[..])
            .bind(signed(seen.seq))
            .bind(&seen.link.0[..])
            .bind(signed(from.version))
            .bind(&from.tag.0[..])
            .bind(&from.digest.0[..])
            .bind(&produced.0[..])
            .bind(writes.iter().map(|write| write.table.name()).collect::<Vec<_>>())
            .bind(writes.iter().map(|write| write.id.as_str()).collect::<Vec<_>>())
            .bind(writes.iter().map(|write| write.body.as_deref()).collect::<Vec<_>>());
        let mut line = self.admin.take().await?;
        let row = line.within(async |c| query.fetch_one(c).await).await.map_err(unknown)?;
        match row.try_get(0)? {
            "stored" | "taken" => Ok(Changed::Stored(unsigned("audit_head", row.try_get(1)?)?, digest(&row, 2)?)),
            "stale" => Ok(Changed::Stale),
            "fenced" => Ok(Changed::Fenced),
            "history_lost" => Ok(Changed::HistoryLost),
            _ => Err(StorageError::Inconsistent { table: "tappass_change_v1" }),
        }
    }
}

/// An error of the server rolled everything back; every other one leaves the outcome open.
fn unknown(error: sqlx::Error) -> StorageError {
    if matches!(error, sqlx::Error::Database(_)) && !is_lost(&error) {
        return StorageError::Unavailable(error);
    }
    StorageError::Unknown(error)
}

fn digest(row: &PgRow, column: usize) -> Result<Digest, StorageError> {
    let bytes: &[u8] = row.try_get(column)?;
    Digest::from_slice(bytes).ok_or(StorageError::Inconsistent { table: "audit_head" })
}

/// The answer's rows, which come in order.
fn read(rows: &[PgRow], groups: &[Group<'_>]) -> Result<Vec<Appended>, StorageError> {
    const WRONG: StorageError = StorageError::Inconsistent { table: "tappass_append_v1" };
    let mut appended: Vec<Appended> = groups.iter().map(|_| Appended::default()).collect();
    for row in rows {
        let (item, group): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
        let slot = usize::try_from(group - 1).ok().and_then(|at| appended.get_mut(at)).ok_or(WRONG)?;
        if item == 0 {
            slot.head = Some((unsigned("audit_head", row.try_get(5)?)?, digest(row, 6)?));
            continue;
        }
        let detail: Option<String> = row.try_get(3)?;
        slot.verdicts.push(match row.try_get(2)? {
            "stored" => Verdict::Stored(detail.unwrap_or_default()),
            "taken" => Verdict::Taken(detail.unwrap_or_default()),
            "fenced" => Verdict::Fenced,
            "stale" => Verdict::Stale,
            "expired" => Verdict::Expired,
            "short" => Verdict::Short(NanoUsd(row.try_get::<Option<i64>, _>(4)?.unwrap_or(0))),
            "not_open" => Verdict::NotOpen,
            "busy" => Verdict::Busy,
            "history_lost" => Verdict::HistoryLost,
            _ => return Err(WRONG),
        });
    }
    let whole = appended.iter().zip(groups).all(|(a, group)| a.verdicts.len() == group.items.len());
    if whole { Ok(appended) } else { Err(WRONG) }
}
