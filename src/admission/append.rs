//! Under the lock: what becomes of each entry of a group.
//!
//! Owns the rules of admission.md section 2, per item and in their order: id taken, boot closed, version equal, room. One
//! item that fails never fails its group. Items see each other's sums. Everything is read after the lock is held.

use super::{
    outbox::Outbox,
    question::{Answer, OpenAdmission},
    writer::{Append, What},
};
use crate::{
    audit::{Head as ChainHead, chain},
    crypto::SigningKey,
    domain::{
        digest::Digest,
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        stamp::ConfigStamp,
    },
    storage::{
        Sql, StorageError, WriteTx,
        sql::{BatchRow, Head, Hold, NewEntry, Spending},
    },
};

/// What the database said about one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is stored, by this commit.
    Stored,
    /// Its id was stored before, as this kind.
    Taken(String),
    /// Its boot is closed.
    Fenced,
    /// The configuration is another.
    Stale,
    /// The budget has only so much room.
    Short(NanoUsd),
    /// It completes an admission that is not open.
    NotOpen,
}

/// The entries of one chain in one commit.
pub(super) struct Group {
    pub(super) org: OrgId,
    boot: BootId,
    batch: BatchRow,
    appends: Vec<Append>,
    verdicts: Vec<Verdict>,
    head: ChainHead,
}

impl Group {
    pub(super) fn new(org: OrgId, boot: BootId, batch: BatchRow, appends: Vec<Append>) -> Self {
        Self { org, boot, batch, appends, verdicts: Vec::new(), head: ChainHead::START }
    }

    /// Where the chain ends after the commit.
    pub(super) fn head_after(&self) -> ChainHead {
        self.head
    }

    pub(super) fn into_appends(self) -> impl Iterator<Item = Append> {
        self.appends.into_iter()
    }

    pub(super) fn into_verdicts(self) -> impl Iterator<Item = (Append, Verdict)> {
        self.appends.into_iter().zip(self.verdicts)
    }
}

/// One commit.
pub(super) struct Commit<'a> {
    pub(super) sql: &'a Sql,
    pub(super) key: &'a SigningKey,
}

impl Commit<'_> {
    /// Appends every group in one transaction.
    pub(super) async fn run(&self, groups: &mut [Group]) -> Result<(), StorageError> {
        let mut tx = self.sql.begin().await?;
        for group in groups.iter_mut() {
            self.append(&mut tx, group).await?;
        }
        tx.commit().await
    }

    async fn append(&self, tx: &mut WriteTx, group: &mut Group) -> Result<(), StorageError> {
        let kid = self.key.public().kid().to_owned();
        let begin = || Head { seq: 0, link: Digest::ZERO, stamp: ConfigStamp::NONE, kid };
        let (head, mut lock) = Under::read(tx, group).await?;
        let mut head = head.unwrap_or_else(begin);
        group.verdicts.clear();
        for append in &group.appends {
            let verdict = lock.judge(tx, append).await?;
            group.verdicts.push(verdict);
        }
        group.batch.unwritten = unwritten(group);
        let stored = link(&mut head, group);
        tx.append(&group.org, &group.batch, &stored, &head).await?;
        if !stored.is_empty() {
            tx.settle(&group.org, &lock.holds, &lock.spending).await?;
        }
        group.head = ChainHead { seq: head.seq, link: head.link };
        Ok(())
    }
}

/// The counters that were signed and are not written.
fn unwritten(group: &Group) -> String {
    let verdicts = group.appends.iter().zip(&group.verdicts);
    let left = verdicts.filter(|(_, verdict)| **verdict != Verdict::Stored);
    let mut counters: Vec<u64> = left.map(|(append, _)| append.id().counter).collect();
    counters.sort_unstable();
    crate::audit::batch::render_counters(&counters)
}

/// Links what is stored, in order of arrival.
fn link<'a>(head: &mut Head, group: &'a Group) -> Vec<NewEntry<'a>> {
    let mut stored = Vec::with_capacity(group.appends.len());
    for (append, verdict) in group.appends.iter().zip(&group.verdicts) {
        if *verdict != Verdict::Stored {
            continue;
        }
        let digest = append.entry.digest;
        head.seq += 1;
        head.link = chain::link(&head.link, head.seq, &digest);
        let (seq, link) = (head.seq, head.link);
        stored.push(NewEntry { seq, id: append.id(), kind: append.kind(), body: &append.entry.body, digest, link });
    }
    stored
}

/// What was read under the lock, and what it becomes.
struct Under {
    stamp: ConfigStamp,
    boot_open: bool,
    spending: Vec<(u64, Spending)>,
    closing: Vec<Hold>,
    holds: Vec<Hold>,
}

impl Under {
    async fn read(tx: &mut WriteTx, group: &Group) -> Result<(Option<Head>, Self), StorageError> {
        // All admissions of a batch are nearly always of one window, which comes along with the head.
        let mut windows = group.appends.iter().filter_map(|append| match &append.what {
            What::Admission { reserve, .. } => Some(reserve.window),
            What::Refusal { .. } | What::Completion { .. } | What::Plain { .. } => None,
        });
        let window = windows.next();
        let locked = tx.locked(&group.org, &group.boot, window.unwrap_or(0)).await?;
        let boot_open = locked.boot_is_open;
        let completed = group.appends.iter().filter_map(|append| match &append.what {
            What::Completion { admission, .. } => Some(admission),
            What::Admission { .. } | What::Refusal { .. } | What::Plain { .. } => None,
        });
        let completed: Vec<&EntryId> = completed.collect();
        // A fenced boot takes nothing away: its holds are recovery's to settle.
        let closing = if boot_open { tx.take_holds(&completed).await? } else { Vec::new() };
        let stamp = locked.head.as_ref().map_or(ConfigStamp::NONE, |head| head.stamp);
        let spending = window.map(|window| (window, locked.spending)).into_iter().collect();
        Ok((locked.head, Self { stamp, boot_open, spending, closing, holds: Vec::new() }))
    }

    async fn judge(&mut self, tx: &mut WriteTx, append: &Append) -> Result<Verdict, StorageError> {
        if append.may_be_stored
            && let Some((kind, _, _)) = tx.find_entry(append.id()).await?
        {
            return Ok(Verdict::Taken(kind));
        }
        if !self.boot_open {
            return Ok(Verdict::Fenced);
        }
        match &append.what {
            What::Plain { .. } => Ok(Verdict::Stored),
            What::Refusal { .. } => Ok(if append.stamp == self.stamp { Verdict::Stored } else { Verdict::Stale }),
            What::Completion { admission, settle, .. } => self.close(tx, admission, *settle).await,
            What::Admission { question, reserve, .. } => {
                if append.stamp != self.stamp {
                    return Ok(Verdict::Stale);
                }
                let spending = self.window(tx, &question.id().org, reserve.window).await?;
                let taken = spending.settled.plus(spending.held);
                if let Some(limit) = reserve.limit
                    && taken.plus(reserve.amount) > limit
                {
                    return Ok(Verdict::Short(NanoUsd(limit.0.saturating_sub(taken.0).max(0))));
                }
                spending.held = spending.held.plus(reserve.amount);
                self.holds.push(Hold {
                    id: question.id().clone(),
                    config_version: append.stamp.version,
                    amount: reserve.amount,
                    window: reserve.window,
                });
                Ok(Verdict::Stored)
            }
        }
    }

    async fn close(&mut self, tx: &mut WriteTx, admission: &EntryId, settle: NanoUsd) -> Result<Verdict, StorageError> {
        let Some(at) = self.closing.iter().position(|hold| &hold.id == admission) else {
            return Ok(Verdict::NotOpen);
        };
        let hold = self.closing.swap_remove(at);
        let spending = self.window(tx, &admission.org, hold.window).await?;
        spending.held = NanoUsd(spending.held.0.saturating_sub(hold.amount.0).max(0));
        spending.settled = spending.settled.plus(settle);
        Ok(Verdict::Stored)
    }

    /// The sums of a window, read once under the lock.
    async fn window(&mut self, tx: &mut WriteTx, org: &OrgId, window: u64) -> Result<&mut Spending, StorageError> {
        let known = self.spending.iter().position(|(w, _)| *w == window);
        if known.is_none() {
            self.spending.push((window, tx.spending(org, window).await?));
        }
        let at = known.unwrap_or(self.spending.len() - 1);
        self.spending.get_mut(at).map(|(_, s)| s).ok_or(StorageError::Inconsistent { table: "spending" })
    }
}

/// Tells whoever waits what became of an entry.
pub(super) fn answer(append: Append, verdict: Verdict, outbox: &Outbox) {
    let Append { stamp, what, .. } = append;
    match what {
        What::Admission { question, reserve, reply } => {
            let answer = match verdict {
                Verdict::Stored => admitted(question, stamp, reserve.amount),
                Verdict::Taken(kind) if kind == crate::audit::kind::ADMISSION => {
                    admitted(question, stamp, reserve.amount)
                }
                Verdict::Stale => Answer::Stale(question),
                Verdict::Short(room) => Answer::Short { question, room },
                Verdict::Taken(_) | Verdict::Fenced | Verdict::NotOpen => {
                    question.concluded();
                    Answer::Unavailable
                }
            };
            // If nobody waits any more, dropping the answer ends what it holds.
            drop(reply.send(answer));
        }
        What::Refusal { question, reply } => {
            let answer = match verdict {
                Verdict::Stored | Verdict::Taken(_) => {
                    question.concluded();
                    Answer::Recorded
                }
                Verdict::Stale => Answer::Stale(question),
                Verdict::Fenced | Verdict::Short(_) | Verdict::NotOpen => {
                    question.concluded();
                    Answer::Unavailable
                }
            };
            drop(reply.send(answer));
        }
        What::Completion { id, .. } => {
            if verdict == Verdict::NotOpen {
                tracing::error!(entry.id = %id, "a completion came for an admission that is closed");
                outbox.withdraw(id);
            }
        }
        What::Plain { .. } => {}
    }
}

fn admitted(question: super::question::Question, stamp: ConfigStamp, reserved: NanoUsd) -> Answer {
    let (id, outbox) = question.concluded();
    Answer::Admitted(OpenAdmission::new(id, stamp, reserved, outbox))
}
