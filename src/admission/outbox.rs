//! The way to the writer: gives out ids, renders entries, queues them.
//!
//! Owns this boot's counters and the bounds on what may wait. Never waits itself. A full or latched queue refuses
//! admissions and refusals; completions and withdrawals are always taken, since their number is bounded by what was
//! admitted before.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{
    change::{ChangeError, ChangeJob, MakeChange, Receipt},
    question::{Answer, Question},
    writer::{Append, Item, What},
};
use crate::{
    audit::{Entry, Header},
    domain::{
        clock::Clock,
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        stamp::ConfigStamp,
    },
};

/// Why nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The record cannot be written now.
    #[error("the record cannot be written")]
    Latched,
    /// This instance's lease is over.
    #[error("this instance may not write to the record now")]
    Lease,
    /// Too much waits already.
    #[error("too many requests wait for their record")]
    Busy,
    /// The writer has stopped.
    #[error("the gateway is shutting down")]
    Stopped,
    /// The entry has no canonical form; a defect of ours.
    #[error("the entry cannot be written as it is")]
    Entry,
}

/// What is shared between the writer and those who write to it.
pub(super) struct Shared {
    pub(super) boot: BootId,
    pub(super) clock: Arc<dyn Clock>,
    counters: Mutex<HashMap<OrgId, u64>>,
    pub(super) queued_bytes: AtomicUsize,
    pub(super) latched: AtomicBool,
    most_bytes: usize,
}

/// A handle on the writer.
#[derive(Clone)]
pub struct Outbox {
    pub(super) shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Item>,
}

impl Outbox {
    /// The handle and the writer's end of the queue.
    pub(super) fn new(boot: BootId, clock: Arc<dyn Clock>, most_bytes: usize) -> (Self, mpsc::UnboundedReceiver<Item>) {
        let shared = Shared {
            boot,
            clock,
            counters: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            latched: AtomicBool::new(false),
            most_bytes,
        };
        let (queue, items) = mpsc::unbounded_channel();
        (Self { shared: Arc::new(shared), queue }, items)
    }

    /// This run's id.
    pub fn boot(&self) -> &BootId {
        &self.shared.boot
    }

    /// The clock that entries are stamped by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// Whether the record can be written, as far as the writer knows.
    pub fn is_writable(&self) -> bool {
        !self.shared.latched.load(Ordering::Acquire)
    }

    /// Opens a question: its id will end as an entry.
    pub fn question(&self, org: &OrgId) -> Result<Question, Refused> {
        if !self.is_writable() {
            return Err(Refused::Latched);
        }
        if self.shared.queued_bytes.load(Ordering::Relaxed) > self.shared.most_bytes {
            return Err(Refused::Busy);
        }
        if self.queue.is_closed() {
            return Err(Refused::Stopped);
        }
        Ok(Question::new(self.next_id(org), self.clone()))
    }

    /// Asks for an admission; the answer comes when the database has committed.
    pub fn ask_admission(
        &self,
        question: Question,
        stamp: ConfigStamp,
        content: &impl Serialize,
        reserve: Reserve,
    ) -> Result<oneshot::Receiver<Answer>, Refused> {
        let entry = self.entry(question.id(), crate::audit::kind::ADMISSION, stamp, content)?;
        let (reply, answer) = oneshot::channel();
        self.send(entry, stamp, What::Admission { question, reserve, reply })?;
        Ok(answer)
    }

    /// Asks for a refusal to be recorded.
    pub fn ask_refusal(
        &self,
        question: Question,
        stamp: ConfigStamp,
        content: &impl Serialize,
    ) -> Result<oneshot::Receiver<Answer>, Refused> {
        let entry = self.entry(question.id(), crate::audit::kind::REFUSAL, stamp, content)?;
        let (reply, answer) = oneshot::channel();
        self.send(entry, stamp, What::Refusal { question, reply })?;
        Ok(answer)
    }

    /// Appends a completion. Never refused while the process lives.
    pub(super) fn complete(
        &self,
        admission: &EntryId,
        stamp: ConfigStamp,
        content: &impl Serialize,
        settle: NanoUsd,
    ) -> Result<(), Refused> {
        let id = self.next_id(&admission.org);
        let entry = self.entry(&id, crate::audit::kind::COMPLETION, stamp, content)?;
        self.send(entry, stamp, What::Completion { id, admission: admission.clone(), settle })
    }

    /// Appends an entry that neither decides nor settles anything.
    pub fn note(&self, org: &OrgId, kind: &'static str, content: &impl Serialize) -> Result<(), Refused> {
        let id = self.next_id(org);
        let entry = self.entry(&id, kind, ConfigStamp::NONE, content)?;
        self.send(entry, ConfigStamp::NONE, What::Plain { id, kind })
    }

    /// Ends an id that was given out and not used.
    pub(super) fn withdraw(&self, id: EntryId) {
        let kind = crate::audit::kind::WITHDRAWN;
        let sent = self
            .entry(&id, kind, ConfigStamp::NONE, &serde_json::json!({}))
            .and_then(|entry| self.send(entry, ConfigStamp::NONE, What::Plain { id, kind }));
        if let Err(error) = sent {
            // Only at shutdown, when the boot is closed anyway and the verifier knows its open counters.
            tracing::debug!(error = &error as &dyn std::error::Error, "an id was not withdrawn");
        }
    }

    /// Commits a change; answers when it is known.
    pub(super) async fn change(&self, org: &OrgId, make: MakeChange) -> Result<Receipt, ChangeError> {
        let (reply, receipt) = oneshot::channel();
        let job = ChangeJob { org: org.clone(), make, reply };
        self.queue.send(Item::Change(job)).map_err(|_| ChangeError::Stopped)?;
        receipt.await.unwrap_or(Err(ChangeError::Stopped))
    }

    /// Waits until everything queued before has been committed, or the writer cannot.
    pub async fn flush(&self) -> bool {
        let (reply, done) = oneshot::channel();
        self.queue.send(Item::Flush(reply)).is_ok() && done.await.unwrap_or(false)
    }

    pub(super) fn next_id(&self, org: &OrgId) -> EntryId {
        let mut counters = self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match counters.get_mut(org) {
            Some(counter) => counter,
            None => counters.entry(org.clone()).or_insert(0),
        };
        *counter += 1;
        EntryId { org: org.clone(), boot: self.shared.boot.clone(), counter: *counter }
    }

    fn entry(&self, id: &EntryId, kind: &str, config: ConfigStamp, content: &impl Serialize) -> Result<Entry, Refused> {
        let time = self.shared.clock.now();
        let header = Header { org: &id.org, boot: &id.boot, counter: id.counter, config, kind, time };
        Entry::build(&header, content).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, kind, "an entry cannot be written");
            Refused::Entry
        })
    }

    fn send(&self, entry: Entry, stamp: ConfigStamp, what: What) -> Result<(), Refused> {
        let bytes = entry.body.len();
        self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // An id is withdrawn where its fate is not known, so it is looked up.
        let may_be_stored = matches!(what, What::Plain { kind: crate::audit::kind::WITHDRAWN, .. });
        let item = Item::Append(Append { entry, stamp, what, may_be_stored });
        self.queue.send(item).map_err(|_| {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            Refused::Stopped
        })
    }
}

/// What an admission asks of the budget.
#[derive(Clone, Copy, Debug)]
pub struct Reserve {
    /// The most that the call can cost.
    pub amount: NanoUsd,
    /// The organization's limit, if it has one.
    pub limit: Option<NanoUsd>,
    /// The open window.
    pub window: u64,
}
