//! The way to the writer: gives out ids, renders entries, queues them.
//!
//! Owns this boot's counters and the bounds on what may wait. Never waits itself. A full or latched queue refuses
//! admissions and refusals; completions and withdrawals are always taken, since their number is bounded by what was
//! admitted before.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{
    question::{Answer, Question},
    queue::{Append, Item, What},
    run::Run,
};
use crate::{
    audit::{Entry, EntryRef, Header},
    domain::{
        clock::Clock,
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        stamp::ConfigStamp,
    },
    storage::sql::Window,
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
    /// The boot that ids are given out under; another one after this one was closed by recovery.
    run: ArcSwap<Run>,
    pub(super) clock: Arc<dyn Clock>,
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
            run: ArcSwap::from_pointee(Run::new(boot)),
            clock,
            queued_bytes: AtomicUsize::new(0),
            latched: AtomicBool::new(false),
            most_bytes,
        };
        let (queue, items) = mpsc::unbounded_channel();
        (Self { shared: Arc::new(shared), queue }, items)
    }

    /// The boot that this process writes under now.
    pub fn boot(&self) -> BootId {
        self.run().boot().clone()
    }

    pub(super) fn run(&self) -> Arc<Run> {
        self.shared.run.load_full()
    }

    /// From now on ids are given out under another boot.
    pub(super) fn goes_on_as(&self, run: Run) {
        self.shared.run.store(Arc::new(run));
    }

    /// Tells the writer that a boot was found closed; it goes on under a new one.
    pub fn was_closed(&self, boot: BootId) {
        if self.queue.send(Item::Closed(boot)).is_err() {
            tracing::debug!("the writer has ended already");
        }
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
    pub(super) fn complete(&self, closing: Closing, content: &impl Serialize) -> Result<(), Refused> {
        let id = self.next_id(&closing.admission.org);
        let entry = self.entry(&id, crate::audit::kind::COMPLETION, closing.stamp, content)?;
        self.send(entry, closing.stamp, What::Completion { id, closing })
    }

    /// Asks for more money for an open admission.
    pub(super) fn ask_extension(
        &self,
        admission: &EntryId,
        stamp: ConfigStamp,
        amount: NanoUsd,
    ) -> Result<oneshot::Receiver<Extended>, Refused> {
        let id = self.next_id(&admission.org);
        let reference = EntryRef { boot: admission.boot.clone(), counter: admission.counter };
        let content = serde_json::json!({ "admission": reference, "reserved_nano": amount });
        let entry = self.entry(&id, crate::audit::kind::EXTENSION, stamp, &content)?;
        let (reply, answer) = oneshot::channel();
        let question = Question::new(id, self.clone());
        self.send(entry, stamp, What::Extension { question, admission: admission.clone(), amount, reply })?;
        Ok(answer)
    }

    /// Corrects what recovery settled for an admission of a boot that was closed while it lived: once, under the new boot.
    pub(super) fn correct(&self, closing: Closing) {
        let by = NanoUsd(closing.settle.0 - closing.reserved.0);
        let id = self.next_id(&closing.admission.org);
        let reference = EntryRef { boot: closing.admission.boot.clone(), counter: closing.admission.counter };
        let content = serde_json::json!({
            "admission": reference, "by_nano": by, "settled_nano": closing.settle,
        });
        let sent = self
            .entry(&id, crate::audit::kind::LATE, ConfigStamp::NONE, &content)
            .and_then(|entry| self.send(entry, ConfigStamp::NONE, What::Late { id, by, windows: closing.windows }));
        if let Err(error) = sent {
            tracing::error!(error = &error as &dyn std::error::Error, "a late end was not recorded");
        }
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

    /// Waits until everything queued before has been committed, or the writer cannot.
    pub async fn flush(&self) -> bool {
        let (reply, done) = oneshot::channel();
        self.queue.send(Item::Flush(reply)).is_ok() && done.await.unwrap_or(false)
    }

    pub(super) fn next_id(&self, org: &OrgId) -> EntryId {
        self.run().next_id(org)
    }

    pub(super) fn entry(
        &self,
        id: &EntryId,
        kind: &str,
        config: ConfigStamp,
        content: &impl Serialize,
    ) -> Result<Entry, Refused> {
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
        let item = Item::Append(Append { entry, stamp, what, may_be_stored, was_busy: false });
        self.queue.send(item).map_err(|_| {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            Refused::Stopped
        })
    }
}

/// What an admission asks of the budget.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The most that the call can cost.
    pub amount: NanoUsd,
    /// Where it is reserved, with the limits that hold there.
    pub windows: Vec<Window>,
    /// When the decision ends, in microseconds; 0: never.
    pub until: i64,
}

/// How an admission ends.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    pub(super) admission: EntryId,
    pub(super) stamp: ConfigStamp,
    /// What it cost.
    pub(super) settle: NanoUsd,
    /// What it had reserved.
    pub(super) reserved: NanoUsd,
    /// Where, by full name; empty where that is not known.
    pub(super) windows: Vec<Window>,
    /// Recovery's, of somebody else's admission.
    pub(super) by_recovery: bool,
}

/// What became of asking for more money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// It is reserved.
    Reserved,
    /// There is only so much left.
    Short(NanoUsd),
    /// The record cannot be written, or the admission is closed.
    Unavailable,
}
