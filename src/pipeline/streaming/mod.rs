//! A streamed answer: events as they come, governed.
//!
//! Owns the stream's life: what is forwarded untouched, what is added to its first chunk, what is held, how it ends. Where
//! nothing may still change, an event is released in the poll that received it, as the bytes that came. A plan that may
//! redact or refuse the answer holds it whole, with heartbeats; a tool call under `tool_permissions` is held from its
//! first fragment. An event that nothing is held for waits until more is reserved, and the provider with it (`purse`). It
//! ends normally only if the provider said so: anything else is an error frame and then an aborted
//! connection, since a clean end would be taken for a whole answer. Cut in the poll after `watch` says so. Dropping it
//! cancels the call and completes it.

mod events;
mod frames;
mod purse;
mod texts;

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use frames::first_members;
use http_body::Frame;
use purse::Purse;
use serde_json::json;
use texts::Text;
use tokio::time::{Instant, Sleep};

use super::{
    Links, Services,
    after::output,
    call::failure,
    live::{Live, Rules},
    refusal::{Failure, Refusal, Refused},
    watch::{Cut, Watch},
};
use crate::{
    admission::CoverageRecord,
    domain::json::line_safe,
    providers::{
        UpstreamBody,
        openai::ChatChunk,
        sse::{Event, Splitter},
    },
};

/// Most bytes of answer text that are kept to be scanned at the end; beyond them text is uncovered.
const MOST_TEXT: usize = 4 << 20;

/// How long an error frame has to leave before its connection is cut.
const FLUSH: Duration = Duration::from_millis(15);

/// The connection to the caller is to be cut: the error frame has been sent.
#[derive(Debug, thiserror::Error)]
#[error("the stream ended in an error")]
pub struct StreamAborted;

/// How far the stream is.
enum State {
    Running,
    /// What is queued is the last; then the connection ends normally.
    Done,
    /// What is queued is the last; then the connection is cut, once it has had time to leave.
    Aborting,
}

/// An event that has been read and collected and may not go on yet.
struct Unpaid {
    event: Event,
    chunk: ChatChunk,
    /// Whether a tool call speaks in it.
    tools: bool,
}

/// A governed stream; an HTTP body.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the stream, not a mode")]
pub struct GovernedStream {
    services: Arc<Services>,
    watch: Watch,
    upstream: Option<UpstreamBody>,
    /// The provider's connection has ended; there may be events of it left.
    ended: bool,
    splitter: Splitter,
    live: Option<Live>,
    purse: Purse,
    /// The event that waits for money.
    unpaid: Option<Box<Unpaid>>,
    rules: Rules,
    state: State,
    out: VecDeque<Bytes>,
    /// Events that may not be released yet.
    held: Vec<Event>,
    held_bytes: usize,
    holding: bool,
    /// Members for the first chunk.
    first: Option<Vec<(&'static str, Vec<u8>)>>,
    texts: Vec<Text>,
    text_bytes: usize,
    unseen_bytes: u64,
    include_usage: bool,
    /// Whether any step looks at the answer's texts.
    inspects: bool,
    saw_done: bool,
    released: bool,
    heartbeat: Duration,
    /// When the caller last saw something.
    seen: Instant,
    beat: Pin<Box<Sleep>>,
}

impl GovernedStream {
    pub(super) fn new(
        services: &Arc<Services>,
        upstream: UpstreamBody,
        live: Live,
        rules: Rules,
        watch: Watch,
        links: &Links,
    ) -> Self {
        let heartbeat = services.settings.heartbeat;
        let holding = output::must_hold(&rules);
        Self {
            services: Arc::clone(services),
            watch,
            upstream: Some(upstream),
            ended: false,
            splitter: Splitter::default(),
            purse: Purse::new(&live, &rules, services.admission.deadline),
            unpaid: None,
            live: Some(live),
            include_usage: rules.exchange.request.include_usage,
            inspects: output::judges_tools(&rules) || rules.judgement.view.plan.step("scan_output").is_some(),
            rules,
            state: State::Running,
            out: VecDeque::new(),
            held: Vec::new(),
            held_bytes: 0,
            holding,
            first: Some(first_members(links, holding)),
            texts: Vec::new(),
            text_bytes: 0,
            unseen_bytes: 0,
            saw_done: false,
            released: false,
            heartbeat,
            seen: Instant::now(),
            beat: Box::pin(tokio::time::sleep(heartbeat)),
        }
    }

    /// Waits for the first bytes, or until the caller has to be kept waiting with a comment. An error until then is an
    /// ordinary answer, since nothing was forwarded.
    pub(super) async fn prime(&mut self) -> Result<(), Early> {
        std::future::poll_fn(|cx| self.poll_prime(cx)).await
    }

    fn poll_prime(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Early>> {
        loop {
            if !self.out.is_empty() || !matches!(self.state, State::Running) {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(cut) = self.watch.poll_cut(cx) {
                return Poll::Ready(self.stop(cut.into()));
            }
            match self.poll_upstream(cx) {
                Poll::Pending if self.is_silent(cx) => self.keep_alive(),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(early)) => return Poll::Ready(Err(early)),
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    /// Takes one piece from the provider and works on the events in it. `Err` only while nothing was released.
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Early>> {
        let result = if self.purse.is_asking() {
            // Nothing more is taken from the provider meanwhile.
            ready!(self.poll_money(cx))
        } else if self.ended {
            self.end()
        } else {
            let Some(upstream) = &mut self.upstream else { return Poll::Ready(Ok(())) };
            match ready!(upstream.poll_piece(cx)) {
                Some(Ok(piece)) => {
                    self.splitter.push(piece);
                    self.events()
                }
                Some(Err(error)) => Err(Stop::cut("provider_cut", failure(&error))),
                None => {
                    self.ended = true;
                    self.end()
                }
            }
        };
        Poll::Ready(match result {
            Ok(()) => Ok(()),
            Err(stop) => self.stop(stop),
        })
    }

    /// Waits until the event that nothing was held for is paid, and goes on with it and with what came after it.
    fn poll_money(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if let Some(live) = &mut self.live {
            ready!(self.purse.poll(cx, live))?;
        }
        Poll::Ready(self.paid())
    }

    fn release(&mut self, bytes: Bytes) {
        if let Some(live) = &mut self.live {
            live.bytes_released += bytes.len() as u64;
        }
        self.released = true;
        self.out.push_back(bytes);
    }

    fn keep_alive(&mut self) {
        self.released = true;
        self.out.push_back(Bytes::from_static(b": keepalive\n\n"));
        self.seen = Instant::now();
        self.beat.as_mut().reset(self.seen + self.heartbeat);
    }

    /// The provider's connection ended.
    fn end(&mut self) -> Result<(), Stop> {
        while !self.purse.is_asking()
            && let Some(event) = self.splitter.finish()
        {
            let Ok(event) = event else { break };
            self.event(event)?;
        }
        if self.saw_done || self.purse.is_asking() {
            return Ok(());
        }
        let words = "the provider's stream ended before it was complete";
        Err(Stop::cut("provider_cut", Failure::new(502, "provider_stream_cut", words)))
    }

    /// Ends the stream early: an ordinary error while nothing was released, else an error frame and an aborted connection.
    fn stop(&mut self, stop: Stop) -> Result<(), Early> {
        self.held.clear();
        self.unpaid = None;
        let (outcome, body, early) = match stop {
            Stop::Cut { outcome, failure } => {
                if let Some(live) = &mut self.live {
                    live.fails(outcome, failure.code);
                }
                let error = json!({"error": {"message": failure.message, "type": "upstream_error", "code": failure.code, "param": null}});
                (outcome, error, Early::Failed(failure))
            }
            Stop::Refused(refusal) => {
                if let Some(live) = &mut self.live {
                    live.fails("refused", refusal.reason.clone());
                    live.count_refusal(&refusal.blocked_by);
                }
                let error = json!({
                    "error": {"message": refusal.reason, "type": "policy_block", "code": "policy_block", "param": null},
                    "decision": "policy_block", "blocked_by": refusal.blocked_by, "reason": refusal.reason,
                });
                let classification = self.rules.judgement.classification;
                ("refused", error, Early::Refused(Box::new(Refused { refusal, classification })))
            }
        };
        if !self.released {
            self.complete(outcome, false);
            return Err(early);
        }
        // The frame is one line: JSON from serde has no raw line separators that matter once they are escaped.
        let body = body.to_string().into_bytes();
        let body = line_safe(&body).unwrap_or(body);
        self.out.push_back(Bytes::from([b"data: ", &body[..], b"\n\n"].concat()));
        self.complete(outcome, false);
        Ok(())
    }

    /// Whether the caller has seen nothing for a heartbeat.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        while self.beat.as_mut().poll(cx).is_ready() {
            let due = self.seen + self.heartbeat;
            if Instant::now() >= due {
                return true;
            }
            // Armed anew only when it rings too early: moving it with every event would cost more than the event.
            self.beat.as_mut().reset(due);
        }
        false
    }

    /// Completes the call; dropping what is under way does the rest.
    fn complete(&mut self, outcome: &'static str, clean: bool) {
        self.upstream = None;
        if let Some(mut live) = self.live.take() {
            live.ends(outcome);
            Self::uninspected(&mut live);
        }
        self.state = if clean { State::Done } else { State::Aborting };
        // The server drops what it has buffered when a body fails, so the frame must be out before.
        self.beat.as_mut().reset(Instant::now() + FLUSH);
    }

    /// What came and was not inspected, because the stream ended before its end, is uncovered.
    fn uninspected(live: &mut Live) {
        if live.coverage.is_none() && live.answer_bytes > 0 {
            live.coverage = Some(CoverageRecord { seen: 0, uncovered: live.answer_bytes });
        }
    }
}

impl Drop for GovernedStream {
    fn drop(&mut self) {
        if let Some(mut live) = self.live.take() {
            Self::uninspected(&mut live);
        }
    }
}

impl http_body::Body for GovernedStream {
    type Data = Bytes;
    type Error = StreamAborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamAborted>>> {
        let this = self.get_mut();
        if matches!(this.state, State::Running)
            && let Poll::Ready(cut) = this.watch.poll_cut(cx)
        {
            this.released = true;
            // What is released is stopped by a frame, which cannot fail.
            drop(this.stop(cut.into()));
        }
        loop {
            if let Some(bytes) = this.out.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match this.state {
                State::Done => return Poll::Ready(None),
                State::Aborting => return this.beat.as_mut().poll(cx).map(|()| Some(Err(StreamAborted))),
                State::Running => {}
            }
            match this.poll_upstream(cx) {
                Poll::Ready(Ok(())) => {
                    // Only what the caller sees keeps the caller waiting; what is held does not.
                    if !this.out.is_empty() {
                        this.seen = Instant::now();
                    }
                }
                // After the first byte every stop is a frame, so this ends a stream that released nothing.
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(StreamAborted))),
                Poll::Pending if this.is_silent(cx) => this.keep_alive(),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A stream that ends before anything of it was released: an ordinary answer can still say so.
pub(super) enum Early {
    Failed(Failure),
    Refused(Box<Refused>),
}

/// Why a stream ends early.
enum Stop {
    Cut { outcome: &'static str, failure: Failure },
    Refused(Refusal),
}

impl From<Cut> for Stop {
    fn from(cut: Cut) -> Self {
        Self::Cut { outcome: cut.outcome, failure: cut.failure }
    }
}

impl Stop {
    fn cut(outcome: &'static str, failure: Failure) -> Self {
        Self::Cut { outcome, failure }
    }
}
