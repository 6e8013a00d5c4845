//! What happens to a request, from top to bottom.
//!
//! ```text
//! http/api/chat_completions   reads the request and renders what comes of it
//! pipeline::Pipeline::handle  charge → decide → admit → call → answer
//!   quota                     what the call counts against; the only wait before the decision
//!   runner::decide            the steps before the call, then the conditional rules; no I/O
//!   admission                 the durable record, and the permit
//!   call::call                the provider's key, the call, the answer or its stream; cut when `watch` says so
//!   after / streaming         the answer's steps; the completion, whatever happens
//! ```
//!
//! Owns the order of phases and the binding of step ids to functions (below: the page of steps). Never touches storage and
//! never renders HTTP. A request whose configuration changed meanwhile is decided again; whatever ends it, its admission
//! gets exactly one completion.

mod after;
mod before;
mod budget;
mod call;
mod entries;
mod exchange;
mod live;
mod outcome;
mod quota;
mod refusal;
mod runner;
mod scan;
mod session;
mod step;
mod streaming;
mod watch;

use std::{sync::Arc, time::Duration};

pub use exchange::{Caller, Exchange, Names};
pub use outcome::{AnswerHead, Links, Outcome, WholeAnswer};
pub use quota::PerMinute;
pub use refusal::{Failure, Refusal, RefusalKind, Refused};
use step::Run;
pub use step::StepReport;
pub use streaming::{GovernedStream, StreamAborted};
use tokio::time::Instant;

use crate::{
    admission::{self, Admission, Answer, OpenAdmission, Permit, Question, Reserve, Snapshot, SnapshotError},
    detect::Scanner,
    domain::{clock::Clock, money::NanoUsd, steps},
    limits::Limiter,
    providers::Providers,
    sessions::Sessions,
    telemetry::Metrics,
    usage::Prices,
};
use call::placeholder as call_placeholder;
use entries::{admission_content, refusal_content};
use exchange::Judgement;
use outcome::head;

/// The page of steps: which of the registry's this build has, and what each is bound to.
const STEPS: [(&str, Run); 15] = [
    ("validate_input", Run::Before(before::gates::validate_input)),
    ("rate_limit", Run::Before(before::gates::rate_limit)),
    ("budget", Run::AtAdmission(budget::budget)),
    ("session_budget", Run::AtAdmission(budget::session_budget)),
    ("detect_pii", Run::Before(before::detectors::detect)),
    ("detect_secrets", Run::Before(before::detectors::detect)),
    ("detect_unicode", Run::Before(before::detectors::detect)),
    ("classify_data", Run::Before(before::detectors::classify_data)),
    ("detect_injection", Run::Before(before::detectors::detect)),
    ("filter_tools", Run::Before(before::tools::filter_tools)),
    ("call_llm", Run::InCall),
    ("call_tool", Run::InCall),
    ("tool_permissions", Run::OnAnswer),
    ("scan_output", Run::OnAnswer),
    ("cost_tracking", Run::OnAnswer),
];

/// Options of the registry that no step of this build reads: storing one would silently do nothing, so it is refused.
pub const UNREAD_OPTIONS: [(&str, &str); 7] = [
    ("detect_pii", "block_entities"),
    ("detect_pii", "allow_list"),
    ("detect_pii", "custom_patterns"),
    ("detect_secrets", "custom_patterns"),
    ("classify_data", "custom_patterns"),
    ("classify_data", "use_llm_judge"),
    ("call_llm", "timeout_seconds"),
];

/// Whether this build has a step.
pub fn has_step(id: &str) -> bool {
    binding(id).is_some()
}

fn binding(id: &str) -> Option<Run> {
    STEPS.iter().find(|(step, _)| *step == id).map(|(_, run)| *run)
}

/// Numbers that the pipeline goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Work that scanning one prompt may take, in bytes looked at.
    pub scan_budget: u64,
    /// Bodies larger than this are decided off the async threads.
    pub offload_bytes: usize,
    /// Answer tokens reserved where the request names no bound.
    pub default_max_tokens: u64,
    /// Limits of keys and organizations.
    pub per_minute: PerMinute,
    /// Largest answer that is collected.
    pub max_answer_bytes: usize,
    /// A silent stream is kept open with a comment after so long.
    pub heartbeat: Duration,
    /// Where callers find us, for links.
    pub public_url: String,
}

/// What steps may use.
pub struct Services {
    /// Snapshots, the record, provider keys.
    pub admission: Admission,
    /// All detectors.
    pub scanner: Scanner,
    /// Limits on calls and tokens.
    pub limits: Limiter,
    /// What is remembered of sessions.
    pub sessions: Sessions,
    /// Providers.
    pub providers: Providers,
    /// Prices.
    pub prices: Prices,
    /// Numbers for operators.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub settings: Settings,
    /// Cancelled when streams have to end.
    pub halt: tokio_util::sync::CancellationToken,
}

/// The pipeline.
#[derive(Clone)]
pub struct Pipeline {
    services: Arc<Services>,
}

impl Pipeline {
    /// Over its services.
    pub fn new(services: Services) -> Self {
        Self { services: Arc::new(services) }
    }

    /// Its services, for the door.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Charges, decides, records, calls, answers.
    pub async fn handle(&self, mut exchange: Exchange, mut snapshot: Arc<Snapshot>) -> Outcome {
        let deadline = Instant::now() + self.services.admission.deadline;
        let mut question: Option<Question> = None;
        let mut room = None;
        loop {
            quota::charge(&self.services, &mut exchange, &snapshot).await;
            let began = std::time::Instant::now();
            let judgement = match self.decide(&mut exchange, &snapshot, room) {
                Ok(Some(judgement)) => judgement,
                Ok(None) => return Outcome::Unauthorized,
                Err(error) => return self.undecided(&error, &exchange),
            };
            self.services.metrics.decision.observe(began.elapsed().as_secs_f64());
            let asked = match self.ask(&mut exchange, &judgement, question.take(), deadline).await {
                Ok(asked) => asked,
                Err(failure) => return Outcome::Failed(failure, head(&self.services, &exchange, None)),
            };
            match asked {
                Asked::Admitted(open, permit) => {
                    self.services.metrics.admission.observe(began.elapsed().as_secs_f64());
                    session::note(&self.services, &exchange, &judgement);
                    // By far the largest part of the future: not moved about with the rest of it.
                    return Box::pin(call::call(&self.services, exchange, judgement, open, permit)).await;
                }
                Asked::Refused(refused, id) => {
                    self.services.metrics.count_refusal(&refused.refusal.blocked_by);
                    session::note(&self.services, &exchange, &judgement);
                    return Outcome::Refused(refused, head(&self.services, &exchange, id.as_deref()));
                }
                Asked::Expired => return Outcome::Unauthorized,
                Asked::Short(asking, left) => (question, room) = (Some(asking), Some(left)),
                Asked::Stale(asking) => {
                    question = Some(asking);
                    // The room that was left is another configuration's.
                    room = None;
                    match self.newer(&exchange, deadline).await {
                        Ok(newer) => snapshot = newer,
                        Err(outcome) => return outcome,
                    }
                }
            }
        }
    }

    /// Decides under one snapshot; `None`: its keys do not know this one. Large bodies leave the async threads.
    fn decide(
        &self,
        exchange: &mut Exchange,
        snapshot: &Arc<Snapshot>,
        room: Option<NanoUsd>,
    ) -> Result<Option<Judgement>, SnapshotError> {
        let services = &self.services;
        let offload = exchange.scan.is_none() && exchange.request.body.len() > services.settings.offload_bytes;
        let mut work = || {
            let now = services.clock.now();
            let Some((_, agent)) = snapshot.key(&exchange.caller.key_hash, now) else { return Ok(None) };
            runner::decide(services, exchange, snapshot, agent, room).map(Some)
        };
        if offload { tokio::task::block_in_place(work) } else { work() }
    }

    /// The snapshot after the one that was found stale.
    async fn newer(&self, exchange: &Exchange, deadline: Instant) -> Result<Arc<Snapshot>, Outcome> {
        let failed = |failure| Outcome::Failed(failure, head(&self.services, exchange, None));
        if Instant::now() >= deadline {
            let words = "the configuration changes faster than the request could be decided; ask again";
            return Err(failed(Failure::unavailable("configuration_changing", words)));
        }
        let loaded = self.services.admission.snapshots.refresh_if_newer(&exchange.caller.org);
        match tokio::time::timeout_at(deadline, loaded).await {
            Ok(Ok(Some(snapshot))) => Ok(snapshot),
            Ok(Ok(None)) => Err(Outcome::Unauthorized),
            Ok(Err(error)) => Err(self.undecided(&error, exchange)),
            Err(_) => {
                Err(failed(Failure::unavailable("configuration_loading", "the newer configuration is still loading")))
            }
        }
    }

    /// Puts the decision on record and waits until it is.
    async fn ask(
        &self,
        exchange: &mut Exchange,
        judgement: &Judgement,
        question: Option<Question>,
        deadline: Instant,
    ) -> Result<Asked, Failure> {
        let admission = &self.services.admission;
        if let Some(refusal) = &judgement.refusal
            && let RefusalKind::RateLimited { .. } = refusal.kind
        {
            admission.aggregates.count_limited(&exchange.caller.org, &exchange.caller.agent);
            return Ok(Asked::Refused(Box::new(refused(refusal.clone(), judgement)), None));
        }
        let question = match question {
            Some(question) => question,
            None => admission.question(&exchange.caller.org).map_err(unwritten)?,
        };
        let id = format!("{}-{}", question.id().boot, question.id().counter);
        let permit = Permit::from_now(&admission.lease, admission.permit);
        let stamp = judgement.snapshot.stamp;
        let answer = if let Some(refusal) = &judgement.refusal {
            admission.outbox.ask_refusal(question, stamp, &refusal_content(exchange, judgement, refusal))
        } else {
            let snapshot = &judgement.snapshot;
            let limits = budget::Limits::of(judgement);
            let amount = budget::worst_case(&self.services, exchange, &limits);
            let caller = &exchange.caller;
            let windows = snapshot.windows(&caller.agent, &exchange.names.session, limits.plan, limits.bounds);
            let until = snapshot.config.keys.get(&caller.key).and_then(|key| key.expires_at).unwrap_or(0);
            let reserve = Reserve { amount, windows, until };
            let content = admission_content(&self.services, exchange, judgement, amount);
            admission.outbox.ask_admission(question, stamp, &content, reserve)
        };
        let answer = answer.map_err(unwritten)?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(Answer::Admitted(open))) => Ok(Asked::Admitted(open, permit)),
            Ok(Ok(Answer::Recorded)) => match &judgement.refusal {
                Some(refusal) => Ok(Asked::Refused(Box::new(refused(refusal.clone(), judgement)), Some(id))),
                None => Err(Failure::new(500, "internal", "an admission was answered as a refusal")),
            },
            Ok(Ok(Answer::Stale(question))) => Ok(Asked::Stale(question)),
            Ok(Ok(Answer::Short { question, room })) => Ok(Asked::Short(question, room)),
            Ok(Ok(Answer::Expired)) => Ok(Asked::Expired),
            Ok(Ok(Answer::Unavailable) | Err(_)) => Err(Failure::unavailable(
                "record_unavailable",
                "the record cannot be written now, so nothing is admitted",
            )),
            Err(_) => {
                Err(Failure::unavailable("record_slow", "the record was not written in time, so nothing is admitted"))
            }
        }
    }

    /// No decision could be made: the organization's configuration is not usable, or not there.
    fn undecided(&self, error: &SnapshotError, exchange: &Exchange) -> Outcome {
        tracing::error!(org.id = %exchange.caller.org, error = error as &dyn std::error::Error, "a request could not be decided");
        let failure = match error {
            SnapshotError::Tampered { .. } => Failure::unavailable("configuration_tampered", error.to_string()),
            SnapshotError::Compile(_) | SnapshotError::Tenants(_) => {
                Failure::new(403, "policy_error", "the agent's policy cannot be evaluated, so nothing is allowed")
            }
            SnapshotError::Missing => return Outcome::Unauthorized,
            SnapshotError::Storage(_) => {
                Failure::unavailable("database_unavailable", "the configuration cannot be read now")
            }
        };
        Outcome::Failed(failure, head(&self.services, exchange, None))
    }
}

/// What the record answered.
enum Asked {
    Admitted(OpenAdmission, Permit),
    Refused(Box<Refused>, Option<String>),
    Stale(Question),
    Short(Question, NanoUsd),
    Expired,
}

/// The record takes nothing now.
fn unwritten(why: admission::Refused) -> Failure {
    if why == admission::Refused::Lease {
        return Failure::lease_lost();
    }
    Failure::unavailable("record_unavailable", "the record cannot be written now, so nothing is admitted")
}

fn refused(refusal: Refusal, judgement: &Judgement) -> Refused {
    Refused { refusal, classification: judgement.classification }
}

/// Whether every bound step stands in the registry; compared by a test.
pub fn bound_steps() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|(id, _)| *id).filter(|id| steps::get(id).is_some())
}

#[cfg(test)]
mod tests;
