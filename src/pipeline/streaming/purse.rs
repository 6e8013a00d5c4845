//! What a stream may still cost, and how it gets more.
//!
//! Owns the one bound that every event is compared with, in bytes of text, and the question for more money when an event
//! lies beyond it: nothing of the answer is released that nothing is held for. Asks for chunks, so that a long answer asks
//! seldom, and for what is left where a chunk does not fit. Never waits: the stream polls. No room ends the stream; a record
//! that does not answer ends it too where anything is limited, and else is no reason to.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Timeout, timeout},
};

use super::Stop;
use crate::{
    admission::Extended,
    domain::money::NanoUsd,
    pipeline::{
        budget::Limits,
        live::{Live, Rules},
        refusal::Failure,
    },
};

/// Answer tokens that an extension pays for at least.
const LEAST_TOKENS: u64 = 1_000;
/// An extension is at least this part of what is held already, so that their number grows with the logarithm of the cost.
const PART: i64 = 4;

/// The money of one stream.
pub(super) struct Purse {
    /// Bytes of answer text that are paid for.
    bytes: u64,
    is_limited: bool,
    per_call: Option<(NanoUsd, &'static str)>,
    /// What the record could not be asked for, where nothing is limited.
    unrecorded: NanoUsd,
    /// How long an answer is waited for.
    patience: Duration,
    asked: Option<Asked>,
}

/// A question for more.
struct Asked {
    by: NanoUsd,
    /// What the waiting event needs at least.
    needs: NanoUsd,
    /// It asks for what was left, so that there is nothing less to ask for.
    is_last: bool,
    answer: Pin<Box<Timeout<oneshot::Receiver<Extended>>>>,
}

impl Purse {
    pub(super) fn new(live: &Live, rules: &Rules, patience: Duration) -> Self {
        let limits = Limits::of(&rules.judgement);
        Self {
            bytes: live.bytes_for(live.reserved()),
            is_limited: limits.are_any(),
            per_call: limits.per_call(),
            unrecorded: NanoUsd::ZERO,
            patience,
            asked: None,
        }
    }

    /// Whether so much text is paid for.
    pub(super) fn covers(&self, answer_bytes: u64) -> bool {
        answer_bytes <= self.bytes
    }

    /// Whether more has been asked for and nobody has answered.
    pub(super) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// What is held, or what the provider says that it used, is another.
    pub(super) fn counts_anew(&mut self, live: &Live) {
        self.bytes = live.bytes_for(live.reserved().plus(self.unrecorded));
    }

    /// Asks for what pays for all that has come, and some more.
    pub(super) fn ask(&mut self, live: &Live) -> Result<(), Stop> {
        let held = live.reserved().plus(self.unrecorded);
        let needs = NanoUsd(live.cost_so_far().0.saturating_sub(held.0));
        let chunk = NanoUsd(held.0 / PART).max(live.price_of(LEAST_TOKENS)).max(needs);
        let by = match self.per_call {
            Some((limit, _)) => chunk.min(NanoUsd(limit.0.saturating_sub(held.0))),
            None => chunk,
        };
        match self.per_call {
            Some((limit, whose)) if by < needs => {
                Err(no_room(format!("the answer would cost more than {whose} limit of {limit} per call")))
            }
            _ => self.send(live, by, needs, false),
        }
    }

    fn send(&mut self, live: &Live, by: NanoUsd, needs: NanoUsd, is_last: bool) -> Result<(), Stop> {
        match live.ask_more(by) {
            Ok(answer) => {
                let answer = Box::pin(timeout(self.patience, answer));
                self.asked = Some(Asked { by, needs, is_last, answer });
                Ok(())
            }
            Err(_) => self.unavailable(live, by),
        }
    }

    /// Waits for the answer; ready with nothing to say where nothing was asked.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, live: &mut Live) -> Poll<Result<(), Stop>> {
        while let Some(asked) = &mut self.asked {
            let answer = ready!(asked.answer.as_mut().poll(cx));
            let Some(Asked { by, needs, is_last, .. }) = self.asked.take() else { break };
            match answer {
                Ok(Ok(Extended::Reserved)) => {
                    live.extended(by);
                    self.counts_anew(live);
                }
                Ok(Ok(Extended::Short(room))) if !is_last && needs <= room => self.send(live, room, needs, true)?,
                Ok(Ok(Extended::Short(_))) => {
                    return Poll::Ready(Err(no_room("the budget has no room for more of this answer".to_owned())));
                }
                Ok(Ok(Extended::Unavailable) | Err(_)) | Err(_) => self.unavailable(live, by)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The record does not say. Where nothing is limited it could only have said yes.
    fn unavailable(&mut self, live: &Live, by: NanoUsd) -> Result<(), Stop> {
        if self.is_limited {
            let words = "the record cannot be written now, so no more can be reserved for this answer";
            return Err(Stop::cut("record_unavailable", Failure::unavailable("record_unavailable", words)));
        }
        self.unrecorded = self.unrecorded.plus(by);
        self.counts_anew(live);
        Ok(())
    }
}

fn no_room(words: String) -> Stop {
    Stop::cut("budget", Failure::new(403, "budget", words))
}
