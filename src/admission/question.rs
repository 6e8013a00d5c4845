//! Who answers for an id: the question before its commit, the open admission after it.
//!
//! Owns the promise that an id which was given out ends as an entry, and an admission in exactly one closing entry: both
//! are values whose drop keeps it, wherever the value is when its holder goes away (in a handler's future that was
//! dropped, in the writer's queue, in an answer that nobody read). Never blocks; drop only queues.

use tokio::sync::oneshot;

use super::{
    content::{CompletionContent, UsageRecord},
    outbox::{Closing, Extended, Outbox, Refused, Reserve},
};
use crate::{
    audit::EntryRef,
    domain::{ids::EntryId, money::NanoUsd, stamp::ConfigStamp},
    storage::sql::Window,
};

/// An id that waits for what becomes of it. Dropped before that, it is withdrawn.
pub struct Question {
    id: Option<EntryId>,
    fallback: EntryId,
    outbox: Outbox,
}

impl Question {
    pub(super) fn new(id: EntryId, outbox: Outbox) -> Self {
        Self { fallback: id.clone(), id: Some(id), outbox }
    }

    /// The id.
    pub fn id(&self) -> &EntryId {
        &self.fallback
    }

    /// The id has become an entry: nothing is left to withdraw.
    pub(super) fn concluded(mut self) -> (EntryId, Outbox) {
        self.id = None;
        (self.fallback.clone(), self.outbox.clone())
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.outbox.withdraw(id);
        }
    }
}

/// What the writer answers.
pub enum Answer {
    /// Stored: the request counts, and this value answers for its end.
    Admitted(OpenAdmission),
    /// Stored: the refusal may be given.
    Recorded,
    /// The configuration changed meanwhile: decide again, under the same id.
    Stale(Question),
    /// The budget has less room than asked for: refuse, under the same id.
    Short {
        /// The question, to be asked again as a refusal.
        question: Question,
        /// What is left.
        room: NanoUsd,
    },
    /// The caller's key expired before the record was reached.
    Expired,
    /// Nothing was stored.
    Unavailable,
}

/// An admission without its end. Dropped before its `end`, it is completed as `client_closed`: its caller left.
pub struct OpenAdmission {
    id: EntryId,
    stamp: ConfigStamp,
    reserved: NanoUsd,
    windows: Vec<Window>,
    outbox: Outbox,
    open: bool,
}

impl OpenAdmission {
    /// `windows`: the names of those that hold its money, between spaces.
    pub(super) fn new(id: EntryId, stamp: ConfigStamp, reserve: &Reserve, windows: &str, outbox: Outbox) -> Self {
        let windows = windows.split_whitespace().map(|name| Window { name: name.to_owned(), limit: None });
        Self { id, stamp, reserved: reserve.amount, windows: windows.collect(), outbox, open: true }
    }

    /// The admission's id.
    pub fn id(&self) -> &EntryId {
        &self.id
    }

    /// How a completion names it.
    pub fn reference(&self) -> EntryRef {
        EntryRef { boot: self.id.boot.clone(), counter: self.id.counter }
    }

    /// What it reserved.
    pub fn reserved(&self) -> NanoUsd {
        self.reserved
    }

    /// Asks for more; the answer comes once it is on record. Whoever hears `Reserved` says so with `extended`. An answer
    /// that nobody waits for loses nothing: the end closes all that is held.
    pub fn ask_more(&self, by: NanoUsd) -> Result<oneshot::Receiver<Extended>, Refused> {
        self.outbox.ask_extension(&self.id, self.stamp, by)
    }

    /// It holds so much more.
    pub fn extended(&mut self, by: NanoUsd) {
        self.reserved = self.reserved.plus(by);
    }

    /// Ends it; a second end is none.
    pub fn end(&mut self, content: &CompletionContent<'_>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let closing = Closing {
            admission: self.id.clone(),
            stamp: self.stamp,
            settle: content.settled_nano,
            reserved: self.reserved,
            windows: std::mem::take(&mut self.windows),
            by_recovery: false,
        };
        let mut sent = self.outbox.complete(closing.clone(), content);
        if sent == Err(Refused::Entry) {
            // Too large, for whatever reason: the end itself matters more than its particulars.
            let short = CompletionContent { detections: &[], reason: None, step_errors: &[], ..content.brief() };
            sent = self.outbox.complete(closing, &short);
        }
        if let Err(error) = sent {
            // Recovery closes it as `unknown` once this boot is closed.
            tracing::error!(error = &error as &dyn std::error::Error, "a completion was not queued");
        }
    }
}

impl Drop for OpenAdmission {
    fn drop(&mut self) {
        if self.open {
            let content = never_called(self.reference());
            self.end(&content);
        }
    }
}

/// The completion of a call whose caller left before it began: nothing was sent, nothing is owed.
fn never_called(admission: EntryRef) -> CompletionContent<'static> {
    CompletionContent {
        admission,
        bytes_released: 0,
        cost_nano: NanoUsd::ZERO,
        coverage: None,
        detections: &[],
        duration_us: 0,
        outcome: "client_closed",
        provider_request: None,
        provider_status: None,
        reason: Some("the caller left before the call began"),
        settled_nano: NanoUsd::ZERO,
        step_errors: &[],
        usage: UsageRecord::default(),
    }
}
