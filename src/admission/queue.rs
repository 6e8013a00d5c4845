//! What waits for the writer.
//!
//! Owns the shapes: an entry with what it does besides being recorded and who waits for it, and the entries of one boot on
//! one chain that are signed together. Never decides and never waits.

use tokio::sync::oneshot;

use super::{
    outbox::{Closing, Extended, Reserve},
    question::{Answer, Question},
};
use crate::{
    audit::{Entry, Head},
    domain::{
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        stamp::ConfigStamp,
    },
    storage::sql::{Act, BatchRow, Group, Item as Row, Seen, Window},
};

/// Something that waits for the writer.
#[expect(clippy::large_enum_variant, reason = "nearly every item is an append; boxing each would cost more")]
pub(super) enum Item {
    Append(Append),
    Closed(BootId),
    Flush(oneshot::Sender<bool>),
}

/// An entry that waits for its commit.
pub(super) struct Append {
    pub(super) entry: Entry,
    pub(super) stamp: ConfigStamp,
    pub(super) what: What,
    /// An earlier attempt may have been committed: look the id up first.
    pub(super) may_be_stored: bool,
    /// Its head was locked by somebody else: the next attempt waits for it.
    pub(super) was_busy: bool,
}

/// What an entry does besides being recorded, and who waits for it.
pub(super) enum What {
    Admission { question: Question, reserve: Reserve, reply: oneshot::Sender<Answer> },
    Refusal { question: Question, reply: oneshot::Sender<Answer> },
    Completion { id: EntryId, closing: Closing },
    Extension { question: Question, admission: EntryId, amount: NanoUsd, reply: oneshot::Sender<Extended> },
    Late { id: EntryId, by: NanoUsd, windows: Vec<Window> },
    Plain { id: EntryId, kind: &'static str },
}

impl Append {
    pub(super) fn id(&self) -> &EntryId {
        match &self.what {
            What::Admission { question, .. } | What::Refusal { question, .. } | What::Extension { question, .. } => {
                question.id()
            }
            What::Completion { id, .. } | What::Late { id, .. } | What::Plain { id, .. } => id,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match &self.what {
            What::Admission { .. } => crate::audit::kind::ADMISSION,
            What::Refusal { .. } => crate::audit::kind::REFUSAL,
            What::Completion { .. } => crate::audit::kind::COMPLETION,
            What::Extension { .. } => crate::audit::kind::EXTENSION,
            What::Late { .. } => crate::audit::kind::LATE,
            What::Plain { kind, .. } => kind,
        }
    }

    /// Whether somebody waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self.what, What::Admission { .. } | What::Refusal { .. } | What::Extension { .. })
    }

    fn act(&self) -> Act<'_> {
        match &self.what {
            What::Admission { reserve, .. } => Act::Admission {
                stamp: self.stamp,
                amount: reserve.amount,
                windows: &reserve.windows,
                until: reserve.until,
            },
            What::Refusal { .. } => Act::Refusal(self.stamp),
            What::Completion { closing, .. } => {
                Act::Completion { admission: &closing.admission, settle: closing.settle }
            }
            What::Extension { admission, amount, .. } => Act::Extension { admission, amount: *amount },
            What::Late { by, windows, .. } => Act::Late { by: *by, windows },
            What::Plain { .. } => Act::Plain,
        }
    }
}

/// The entries of one boot on one chain, in one commit.
pub(super) struct Together {
    pub(super) org: OrgId,
    pub(super) boot: BootId,
    pub(super) batch: BatchRow,
    pub(super) seen: Head,
    pub(super) appends: Vec<Append>,
}

impl Together {
    pub(super) fn group(&self) -> Group<'_> {
        Group {
            org: &self.org,
            boot: &self.boot,
            batch: &self.batch,
            seen: Seen { seq: self.seen.seq, link: self.seen.link },
            items: self.appends.iter().map(row).collect(),
        }
    }
}

fn row(append: &Append) -> Row<'_> {
    Row {
        counter: append.id().counter,
        kind: append.kind(),
        body: &append.entry.body,
        digest: append.entry.digest,
        may_be_stored: append.may_be_stored,
        act: append.act(),
    }
}

/// What one round of the writer handles.
#[derive(Default)]
pub(super) struct Round {
    pub(super) appends: Vec<Append>,
    pub(super) closed: Option<BootId>,
    pub(super) flushes: Vec<oneshot::Sender<bool>>,
    /// Somebody waits for an answer.
    pub(super) urgent: bool,
}
