//! The bodies: a small state machine that paces, breaks or inflates what it sends.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    shape::Events,
    spec::{Fault, Spec},
    stats::InFlight,
};

pub const FOREVER: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Aborted;
impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("mock fault: connection cut")
    }
}
impl std::error::Error for Aborted {}

enum Kind {
    /// One piece, its length known.
    Whole(Bytes),
    /// Events made as they fall due.
    Stream {
        events: Events,
        number: u32,
    },
    /// Pieces made beforehand, sent `gap` apart; then the end or a cut.
    Pieces {
        left: VecDeque<Bytes>,
        cut: bool,
    },
    /// `head`, then `filler` over and over for `left` bytes, then `tail`.
    Huge {
        head: Bytes,
        filler: Bytes,
        left: u64,
        tail: Bytes,
    },
    Done,
}

enum Step {
    Send(Bytes),
    Last(Bytes),
    Wait(Instant),
    End,
    Abort,
}

pub struct Reply {
    kind: Kind,
    spec: Arc<Spec>,
    due: Instant,
    waited: bool,
    aborting: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    guard: InFlight,
}

impl Reply {
    fn new(kind: Kind, spec: Arc<Spec>, guard: InFlight) -> Self {
        Reply { kind, spec, due: Instant::now(), waited: true, aborting: false, sleep: None, guard }
    }

    pub fn whole(bytes: Bytes, guard: InFlight) -> Self {
        Self::new(Kind::Whole(bytes), Arc::default(), guard)
    }

    pub fn stream(events: Events, spec: Arc<Spec>, guard: InFlight) -> Self {
        Self::new(Kind::Stream { events, number: 0 }, spec, guard)
    }

    /// Half of a body whose whole length was announced.
    pub fn cut(body: &str, guard: InFlight) -> Self {
        let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
        Self::new(Kind::Pieces { left: VecDeque::from([half]), cut: true }, Arc::default(), guard)
    }

    pub fn drip(body: &[u8], spec: Arc<Spec>, guard: InFlight) -> Self {
        let left = body.iter().map(|&b| Bytes::copy_from_slice(&[b])).collect();
        Self::new(Kind::Pieces { left, cut: false }, spec, guard)
    }

    /// Every piece but the last ends inside a multi-byte character.
    pub fn split(body: &str, spec: Arc<Spec>, guard: InFlight) -> Self {
        let mut left = VecDeque::new();
        let (mut from, mut wide) = (0, 0usize);
        for (at, c) in body.char_indices().filter(|(_, c)| !c.is_ascii()) {
            wide += 1;
            // A new place in each event: every third wide character, after each of its bytes in turn.
            if wide.is_multiple_of(3) {
                let cut = at + 1 + (wide / 3) % (c.len_utf8() - 1);
                left.push_back(Bytes::copy_from_slice(&body.as_bytes()[from..cut]));
                from = cut;
            }
        }
        left.push_back(Bytes::copy_from_slice(&body.as_bytes()[from..]));
        Self::new(Kind::Pieces { left, cut: false }, spec, guard)
    }

    pub fn huge(head: Bytes, len: u64, tail: Bytes, guard: InFlight) -> Self {
        let filler = Bytes::from(crate::shape::text(64 * 1024));
        Self::new(Kind::Huge { head, filler, left: len, tail }, Arc::default(), guard)
    }

    fn pace(&mut self, gap: Duration) -> Option<Step> {
        if self.waited || gap.is_zero() {
            self.waited = false;
            return None;
        }
        self.waited = true;
        self.due += gap;
        Some(Step::Wait(self.due))
    }

    fn step(&mut self) -> Step {
        let gap = self.spec.gap;
        let gap = match (&self.kind, self.spec.fault) {
            (Kind::Pieces { .. }, Fault::Drip | Fault::Split) if gap.is_zero() => Duration::from_millis(1),
            (Kind::Stream { .. } | Kind::Pieces { .. }, _) => gap,
            _ => Duration::ZERO,
        };
        if let Some(wait) = self.pace(gap) {
            return wait;
        }
        match &mut self.kind {
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Done;
                Step::Last(bytes)
            }
            Kind::Stream { events, number } => {
                let (n, spec) = (*number, &self.spec);
                if n > spec.after && spec.fault == Fault::Cut {
                    return Step::Abort;
                }
                if n > spec.after && spec.fault == Fault::Stall {
                    return Step::Wait(Instant::now() + FOREVER);
                }
                *number += 1;
                if n > spec.chunks {
                    let end = events.close(spec.chunks, spec.fault != Fault::NoDone);
                    self.kind = Kind::Done;
                    return Step::Last(end.into());
                }
                let mut bytes = Vec::new();
                if n == 0 {
                    bytes.extend_from_slice(events.open().as_bytes());
                }
                if n > 0 || spec.chunks > 0 {
                    // The opening event and the first text leave together, as real servers do.
                    *number = n.max(1) + 1;
                    bytes.extend_from_slice(events.chunk(n.max(1), spec).as_bytes());
                }
                if spec.fault == Fault::Malformed {
                    bytes.extend_from_slice(Events::broken(n));
                }
                Step::Send(bytes.into())
            }
            Kind::Pieces { left, cut } => match (left.pop_front(), *cut) {
                (Some(b), false) if left.is_empty() => {
                    self.kind = Kind::Done;
                    Step::Last(b)
                }
                (Some(b), _) => Step::Send(b),
                (None, true) => Step::Abort,
                (None, false) => Step::End,
            },
            Kind::Huge { head, filler, left, tail } => {
                if !head.is_empty() {
                    Step::Send(std::mem::take(head))
                } else if *left > 0 {
                    let n = (filler.len() as u64).min(*left);
                    *left -= n;
                    Step::Send(filler.slice(..n as usize))
                } else {
                    let tail = std::mem::take(tail);
                    self.kind = Kind::Done;
                    Step::Last(tail)
                }
            }
            Kind::Done => Step::End,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let this = &mut *self;
        loop {
            if let Some(sleep) = &mut this.sleep {
                ready!(sleep.as_mut().poll(cx));
                this.sleep = None;
            }
            match this.step() {
                Step::Wait(until) => this.sleep = Some(Box::pin(sleep_until(until))),
                Step::Send(bytes) => {
                    this.guard.sent();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Step::Last(bytes) => {
                    this.guard.sent();
                    this.guard.complete();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Step::End => {
                    this.guard.complete();
                    return Poll::Ready(None);
                }
                // What was sent before the cut must leave first: an error at once would discard it.
                Step::Abort if !this.aborting => {
                    this.aborting = true;
                    this.sleep = Some(Box::pin(sleep_until(Instant::now() + Duration::from_millis(5))));
                }
                Step::Abort => {
                    this.guard.complete();
                    return Poll::Ready(Some(Err(Aborted)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(b) => SizeHint::with_exact(b.len() as u64),
            Kind::Done => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
