//! Under the lock: what becomes of each entry of a group.
//!
//! Owns the rules of admission.md section 2 for the embedded database, per item and in their order: id taken, boot closed,
//! same chain, version equal, decision not over, room. On Postgres `tappass_append_v1` does the same in one trip, and a
//! property compares the two. One item that fails never fails its group. Items see each other's sums. Everything is read
//! after the lock is held.

use crate::{
    audit::chain,
    domain::{
        clock::Micros,
        digest::Digest,
        ids::{EntryId, OrgId},
        money::NanoUsd,
        stamp::ConfigStamp,
    },
    storage::{
        Sql, StorageError, WriteTx,
        sql::{Act, Appended, Appending, Group, Head, Hold, Item, NewEntry, Seen, Spending, Verdict, Window},
    },
};

/// Appends every group in one transaction, or in one trip. `wait`: for heads that somebody else has locked.
pub(super) async fn append(
    sql: &Sql,
    groups: &mut [Group<'_>],
    wait: bool,
    now: Micros,
) -> Result<Vec<Appended>, StorageError> {
    let Some(mut tx) = sql.begin().await? else { return sql.append(groups, wait).await };
    let mut appended = Vec::with_capacity(groups.len());
    for group in groups {
        appended.push(group_of(&mut tx, group, now).await?);
    }
    tx.commit().await?;
    Ok(appended)
}

async fn group_of(tx: &mut WriteTx, group: &Group<'_>, now: Micros) -> Result<Appended, StorageError> {
    let kid = group.batch.kid.clone();
    let begin = || Head { seq: 0, link: Digest::ZERO, stamp: ConfigStamp::NONE, kid };
    let (head, mut lock) = Under::read(tx, group, now).await?;
    let mut head = head.unwrap_or_else(begin);
    let mut verdicts = Vec::with_capacity(group.items.len());
    for item in &group.items {
        verdicts.push(lock.judge(tx, group, item).await?);
    }
    // A completion that wrote nothing, because its id was taken, took nothing away either.
    lock.holds.append(&mut lock.closing);
    let mut batch = group.batch.clone();
    batch.unwritten = unwritten(group, &verdicts);
    let ids: Vec<EntryId> = group.items.iter().map(|item| id_of(group, item)).collect();
    let stored = link(&mut head, group, &ids, &verdicts);
    let is_new = !stored.is_empty() || !lock.holds.is_empty();
    let (org, batch, entries, holds) = (group.org, &batch, &stored[..], &lock.holds[..]);
    let windows = if is_new { &lock.spending[..] } else { &[] };
    tx.append(&Appending { org, batch, entries, head: &head, holds, windows }).await?;
    Ok(Appended { verdicts, head: Some((head.seq, head.link)) })
}

fn id_of(group: &Group<'_>, item: &Item<'_>) -> EntryId {
    EntryId { org: group.org.clone(), boot: group.boot.clone(), counter: item.counter }
}

/// Whether the chain is still the one whose last entry this boot saw (rule 24).
pub(super) async fn is_same_chain(
    tx: &mut WriteTx,
    org: &OrgId,
    seen: Seen,
    head: Option<&Head>,
) -> Result<bool, StorageError> {
    let Seen { seq, link } = seen;
    let Some(head) = head else { return Ok(seq == 0) };
    Ok(match seq {
        0 => true,
        seq if seq > head.seq => false,
        seq if seq == head.seq => link == head.link,
        // Retention may have taken it away.
        seq => tx.link_at(org, seq).await?.is_none_or(|stored| stored == link),
    })
}

/// The counters that were signed and are not written.
fn unwritten(group: &Group<'_>, verdicts: &[Verdict]) -> String {
    let verdicts = group.items.iter().zip(verdicts);
    let left = verdicts.filter(|(_, verdict)| !verdict.is_stored());
    let mut counters: Vec<u64> = left.map(|(item, _)| item.counter).collect();
    counters.sort_unstable();
    crate::audit::batch::render_counters(&counters)
}

/// Links what is stored, in order of arrival.
fn link<'a>(head: &mut Head, group: &'a Group<'_>, ids: &'a [EntryId], verdicts: &[Verdict]) -> Vec<NewEntry<'a>> {
    let mut stored = Vec::with_capacity(group.items.len());
    for ((item, id), verdict) in group.items.iter().zip(ids).zip(verdicts) {
        if !verdict.is_stored() {
            continue;
        }
        head.kid.clone_from(&group.batch.kid);
        head.seq += 1;
        head.link = chain::link(&head.link, head.seq, &item.digest);
        let (seq, link) = (head.seq, head.link);
        stored.push(NewEntry { seq, id, kind: item.kind, body: item.body, digest: item.digest, link });
    }
    stored
}

/// What was read under the lock, and what it becomes.
struct Under {
    stamp: ConfigStamp,
    boot_open: bool,
    same_chain: bool,
    now: Micros,
    /// Today and this month, once somebody asks.
    today: Option<(String, String)>,
    spending: Vec<(String, Spending)>,
    closing: Vec<Hold>,
    holds: Vec<Hold>,
}

impl Under {
    async fn read(tx: &mut WriteTx, group: &Group<'_>, now: Micros) -> Result<(Option<Head>, Self), StorageError> {
        // All admissions of a batch are nearly always of one window, which comes along with the head.
        let mut windows = group.items.iter().filter_map(|item| match &item.act {
            Act::Admission { windows, .. } => windows.first().filter(|window| !window.name.contains('{')),
            Act::Plain | Act::Refusal(_) | Act::Completion { .. } | Act::Extension { .. } | Act::Late { .. } => None,
        });
        let window = windows.next().map_or("", |window| &window.name);
        let completed = group.items.iter().filter_map(|item| match &item.act {
            Act::Completion { admission, .. } => Some(*admission),
            Act::Plain | Act::Refusal(_) | Act::Admission { .. } | Act::Extension { .. } | Act::Late { .. } => None,
        });
        let completed: Vec<&EntryId> = completed.collect();
        let (locked, taken) = tx.locked_and_taken((group.org, group.boot), window, group.seen, &completed).await?;
        let boot_open = locked.boot_is_open;
        let same_chain = is_same_chain(tx, group.org, group.seen, locked.head.as_ref()).await?;
        // A fenced boot takes nothing away: its holds are recovery's to settle.
        let closing = match taken {
            Some(taken) => taken,
            None if boot_open && same_chain => tx.take_holds(&completed).await?,
            None => Vec::new(),
        };
        let stamp = locked.head.as_ref().map_or(ConfigStamp::NONE, |head| head.stamp);
        let spending = if window.is_empty() { Vec::new() } else { vec![(window.to_owned(), locked.spending)] };
        let under = Self { stamp, boot_open, same_chain, now, today: None, spending, closing, holds: Vec::new() };
        Ok((locked.head, under))
    }

    async fn judge(&mut self, tx: &mut WriteTx, group: &Group<'_>, item: &Item<'_>) -> Result<Verdict, StorageError> {
        if item.may_be_stored
            && let Some((kind, _, _)) = tx.find_entry(&id_of(group, item)).await?
        {
            return Ok(Verdict::Taken(kind));
        }
        if !self.boot_open {
            return Ok(Verdict::Fenced);
        }
        if !self.same_chain {
            return Ok(Verdict::HistoryLost);
        }
        match item.act {
            Act::Refusal(stamp) if stamp != self.stamp => Ok(Verdict::Stale),
            Act::Plain | Act::Refusal(_) => Ok(Verdict::Stored(String::new())),
            Act::Completion { admission, settle } => self.close(tx, admission, settle).await,
            Act::Extension { admission, amount } => self.extend(tx, admission, amount).await,
            Act::Late { by, windows } => {
                for window in windows {
                    let spending = self.window(tx, &group.org.clone(), &window.name).await?;
                    spending.settled = spending.settled.plus(by);
                }
                Ok(Verdict::Stored(String::new()))
            }
            Act::Admission { stamp, .. } if stamp != self.stamp => Ok(Verdict::Stale),
            Act::Admission { until, .. } if until > 0 && until <= self.now => Ok(Verdict::Expired),
            Act::Admission { stamp, amount, windows, .. } => {
                let windows = self.named(tx, windows).await?;
                let hold = Hold { id: id_of(group, item), config_version: stamp.version, amount, windows };
                self.reserve(tx, hold).await
            }
        }
    }

    /// The windows by their names of today.
    async fn named(&mut self, tx: &mut WriteTx, windows: &[Window]) -> Result<Vec<Window>, StorageError> {
        let mut named = windows.to_vec();
        for window in named.iter_mut().filter(|window| window.name.contains('{')) {
            if self.today.is_none() {
                self.today = Some(tx.today().await?);
            }
            if let Some((day, month)) = &self.today {
                window.name = window.name.replace("{day}", day).replace("{month}", month);
            }
        }
        Ok(named)
    }

    /// What is left for an amount where it does not fit.
    async fn short(
        &mut self,
        tx: &mut WriteTx,
        id: &EntryId,
        windows: &[Window],
        amount: NanoUsd,
    ) -> Result<Option<NanoUsd>, StorageError> {
        let mut room = None;
        for window in windows {
            let spending = self.window(tx, &id.org, &window.name).await?;
            let taken = spending.settled.plus(spending.held);
            let limit = window.limit.unwrap_or(NanoUsd(i64::MAX));
            // What is no number any more is beyond every limit, also where there is none: a sum that stopped at the end of
            // its type could not be taken back.
            let sums = [taken, spending.held].map(|sum| sum.0.checked_add(amount.0));
            if taken.plus(amount) > limit || sums.contains(&None) {
                let left = NanoUsd(limit.0.saturating_sub(taken.0).max(0));
                room = Some(room.map_or(left, |room: NanoUsd| room.min(left)));
            }
        }
        Ok(room)
    }

    async fn reserve(&mut self, tx: &mut WriteTx, hold: Hold) -> Result<Verdict, StorageError> {
        if let Some(room) = self.short(tx, &hold.id, &hold.windows, hold.amount).await? {
            return Ok(Verdict::Short(room));
        }
        for window in &hold.windows {
            let spending = self.window(tx, &hold.id.org, &window.name).await?;
            spending.held = spending.held.plus(hold.amount);
        }
        let names: Vec<&str> = hold.windows.iter().map(|window| window.name.as_str()).collect();
        let names = names.join(" ");
        self.holds.push(hold);
        Ok(Verdict::Stored(names))
    }

    async fn close(&mut self, tx: &mut WriteTx, admission: &EntryId, settle: NanoUsd) -> Result<Verdict, StorageError> {
        let Some(hold) = take(&mut self.closing, admission).or_else(|| take(&mut self.holds, admission)) else {
            return Ok(Verdict::NotOpen);
        };
        for window in &hold.windows {
            let spending = self.window(tx, &admission.org, &window.name).await?;
            spending.held = NanoUsd(spending.held.0.saturating_sub(hold.amount.0).max(0));
            spending.settled = spending.settled.plus(settle);
        }
        Ok(Verdict::Stored(String::new()))
    }

    async fn extend(&mut self, tx: &mut WriteTx, admission: &EntryId, by: NanoUsd) -> Result<Verdict, StorageError> {
        // Its completion may stand in the same group, after it.
        let among = |holds: &mut Vec<Hold>| take(holds, admission);
        let (hold, is_closing) = match among(&mut self.closing) {
            Some(hold) => (Some(hold), true),
            None => (among(&mut self.holds), false),
        };
        let hold = match hold {
            Some(hold) => Some(hold),
            None => tx.take_holds(&[admission]).await?.pop(),
        };
        let Some(mut hold) = hold else { return Ok(Verdict::NotOpen) };
        let room = self.short(tx, admission, &hold.windows, by).await?;
        if room.is_none() {
            for window in &hold.windows {
                let spending = self.window(tx, &admission.org, &window.name).await?;
                spending.held = spending.held.plus(by);
            }
            hold.amount = hold.amount.plus(by);
        }
        if is_closing {
            self.closing.push(hold);
        } else {
            self.holds.push(hold);
        }
        Ok(room.map_or(Verdict::Stored(String::new()), Verdict::Short))
    }

    /// The sums of a window, read once under the lock.
    async fn window(&mut self, tx: &mut WriteTx, org: &OrgId, window: &str) -> Result<&mut Spending, StorageError> {
        let known = self.spending.iter().position(|(w, _)| w == window);
        if known.is_none() {
            self.spending.push((window.to_owned(), tx.spending(org, window).await?));
        }
        let at = known.unwrap_or(self.spending.len() - 1);
        self.spending.get_mut(at).map(|(_, s)| s).ok_or(StorageError::Inconsistent { table: "spending" })
    }
}

fn take(holds: &mut Vec<Hold>, admission: &EntryId) -> Option<Hold> {
    let at = holds.iter().position(|hold| &hold.id == admission)?;
    Some(holds.swap_remove(at))
}
