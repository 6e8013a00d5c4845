//! What the database said about an entry, told to whoever waits for it.
//!
//! Owns turning a verdict into an answer. Never writes; what it queues (a withdrawal, a late end) waits like all else.

use super::{
    outbox::{Extended, Outbox, Reserve},
    question::{Answer, OpenAdmission, Question},
    queue::{Append, What},
};
use crate::{audit::kind, domain::stamp::ConfigStamp, storage::sql::Verdict};

/// Tells whoever waits what became of an entry.
pub(super) fn answer(append: Append, verdict: Verdict, outbox: &Outbox) {
    let Append { stamp, what, .. } = append;
    // If nobody waits any more, dropping an answer ends what it holds.
    match what {
        What::Admission { question, reserve, reply } => drop(reply.send(admission(question, stamp, &reserve, verdict))),
        What::Refusal { question, reply } => drop(reply.send(refusal(question, &verdict))),
        What::Extension { question, reply, .. } => {
            let extended = match verdict {
                Verdict::Stored(_) | Verdict::Taken(_) => Extended::Reserved,
                Verdict::Short(room) => Extended::Short(room),
                Verdict::Fenced
                | Verdict::Stale
                | Verdict::Expired
                | Verdict::NotOpen
                | Verdict::Busy
                | Verdict::HistoryLost => Extended::Unavailable,
            };
            // What was not reserved left a counter behind, which its question withdraws.
            if extended == Extended::Reserved {
                question.concluded();
            }
            if reply.send(extended).is_err() {
                tracing::debug!("nobody waits for an extension any more");
            }
        }
        What::Completion { id, closing } => match verdict {
            // It was not ours: whoever recovers next finds it open, or closed by now.
            Verdict::Fenced if closing.by_recovery => {}
            Verdict::NotOpen if closing.by_recovery => outbox.withdraw(id),
            // Recovery settled it in full; what it really cost is told once.
            Verdict::Fenced => outbox.correct(closing),
            Verdict::NotOpen => {
                tracing::error!(entry.id = %id, "a completion came for an admission that is closed");
                outbox.withdraw(id);
            }
            Verdict::HistoryLost => lost(id.org.as_str()),
            Verdict::Stored(_)
            | Verdict::Taken(_)
            | Verdict::Stale
            | Verdict::Expired
            | Verdict::Short(_)
            | Verdict::Busy => {}
        },
        What::Late { id, .. } | What::Plain { id, .. } => {
            if verdict == Verdict::HistoryLost {
                lost(id.org.as_str());
            }
        }
    }
}

fn admission(question: Question, stamp: ConfigStamp, reserve: &Reserve, verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Stored(windows) => admitted(question, stamp, reserve, &windows),
        Verdict::Taken(taken) if taken == kind::ADMISSION => admitted(question, stamp, reserve, ""),
        Verdict::Stale => Answer::Stale(question),
        Verdict::Expired => Answer::Expired,
        Verdict::Short(room) => Answer::Short { question, room },
        Verdict::Taken(_) | Verdict::Fenced | Verdict::NotOpen | Verdict::Busy => {
            question.concluded();
            Answer::Unavailable
        }
        Verdict::HistoryLost => {
            lost(question.id().org.as_str());
            question.concluded();
            Answer::Unavailable
        }
    }
}

fn refusal(question: Question, verdict: &Verdict) -> Answer {
    match verdict {
        Verdict::Stored(_) | Verdict::Taken(_) => {
            question.concluded();
            Answer::Recorded
        }
        Verdict::Stale => Answer::Stale(question),
        Verdict::Fenced
        | Verdict::Expired
        | Verdict::Short(_)
        | Verdict::NotOpen
        | Verdict::Busy
        | Verdict::HistoryLost => {
            question.concluded();
            Answer::Unavailable
        }
    }
}

fn admitted(question: Question, stamp: ConfigStamp, reserve: &Reserve, windows: &str) -> Answer {
    let (id, outbox) = question.concluded();
    Answer::Admitted(OpenAdmission::new(id, stamp, reserve, windows, outbox))
}

fn lost(org: &str) {
    tracing::error!(org.id = org, "alarm: history_lost: the database does not hold what it acknowledged earlier");
}
