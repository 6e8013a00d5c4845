//! One decision: the steps before the call, then the conditional rules.
//!
//! Owns the order, ceilings, fail modes, actions and modes; steps only report. Pure computation, so that it can be made
//! again under a newer snapshot, and moved off the async threads for a large body.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    Services,
    before::{detectors, tools},
    budget,
    exchange::{Exchange, Judgement},
    quota,
    refusal::{Refusal, RefusalKind},
    step::{Run, StepError, StepReport, Verdict},
};
use crate::{
    admission::{Snapshot, SnapshotError},
    domain::{
        detection::Action,
        money::NanoUsd,
        plan::{
            PlannedStep, Source, StepOptions,
            flags::{Flags, Mode},
        },
        steps::{self, FailMode, StepSpec},
    },
    policy::Signals,
    tenants::{Agent, AgentStatus},
};

/// The longest that one step may take.
const CEILING: Duration = Duration::from_secs(30);

/// Decides an exchange under a snapshot. `room`: some window of a budget was found to have only so much.
pub(super) fn decide(
    services: &Services,
    exchange: &mut Exchange,
    snapshot: &Arc<Snapshot>,
    agent: &Agent,
    room: Option<NanoUsd>,
) -> Result<Judgement, SnapshotError> {
    let view = snapshot.view(agent)?;
    let unlocked: BTreeSet<String> = snapshot.config.organization.unlocked_flags.iter().cloned().collect();
    let mut flags = exchange.flags.apply(&view.plan, &unlocked);
    // Known flags that no step of this build acts on are named like locked ones: nothing silently does nothing.
    let Flags { files, db, email, .. } = &exchange.flags;
    let idle = [("files", files.is_some()), ("db", db.is_some()), ("email", email.is_some())];
    let idle = idle.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag);
    flags.ignored.extend(idle.filter(|flag| !flags.ignored.contains(flag)).collect::<Vec<_>>());
    let mut judgement = Judgement::new(Arc::clone(snapshot), Arc::clone(&view), flags);
    if agent.status == AgentStatus::Suspended {
        judgement.refusal = Some(Refusal::by_step("agent_status", "the agent is suspended"));
        return Ok(judgement);
    }
    for step in &view.plan.steps {
        match super::binding(step.spec.id) {
            Some(Run::Before(run)) => one(services, step, run, exchange, &mut judgement),
            Some(Run::AtAdmission(says)) => {
                services.metrics.observe_step(step.spec, Duration::ZERO);
                let message = says(step, &judgement);
                let report = StepReport::new(step.spec.id, None, Duration::ZERO);
                judgement.reports.push(StepReport { message, ..report });
            }
            Some(Run::InCall | Run::OnAnswer) | None => {}
        }
        if judgement.refusal.is_some() {
            // The refusal names how confidential the prompt is, although `classify_data` comes later.
            if view.plan.step("classify_data").is_some() {
                detectors::classified(exchange, &mut judgement);
            }
            return Ok(judgement);
        }
    }
    // A caller may forbid itself tools where the plan has no step for them.
    if judgement.flags.effective.tools.is_some()
        && view.plan.step("filter_tools").is_none()
        && let Some(spec) = steps::get("filter_tools")
    {
        let options = StepOptions::default();
        let source = Source::Policy(Arc::from("flag.tools"));
        let step = PlannedStep { spec, action: Action::Log, threshold: None, options, source };
        one(services, &step, tools::filter_tools, exchange, &mut judgement);
        if judgement.refusal.is_some() {
            return Ok(judgement);
        }
    }
    // The limits of keys and organizations are not the plan's, so they hold without its step as well.
    judgement.refusal = quota::refusal(exchange).filter(|_| view.plan.step("rate_limit").is_none());
    if judgement.refusal.is_some() {
        return Ok(judgement);
    }
    guardrails(services, exchange, &mut judgement);
    if judgement.refusal.is_none() {
        let short = |room| budget::short(services, exchange, &judgement, room);
        judgement.refusal = budget::beyond_one_call(services, exchange, &judgement).or_else(|| room.map(short));
    }
    Ok(judgement)
}

type BeforeStep = fn(&Services, &PlannedStep, &mut Exchange, &mut Judgement) -> Result<Verdict, StepError>;

/// Runs one step and applies what it says.
fn one(services: &Services, step: &PlannedStep, run: BeforeStep, exchange: &mut Exchange, judgement: &mut Judgement) {
    let span = tracing::debug_span!("pipeline.step", step = step.spec.id);
    let _in_span = span.enter();
    let began = Instant::now();
    judgement.strongest = None;
    let verdict = run(services, step, exchange, judgement);
    let took = began.elapsed();
    services.metrics.observe_step(step.spec, took);
    let strongest = detected(step, judgement);
    let (found, refusal) = weigh(step.spec, verdict, took, strongest);
    if judgement.refusal.is_none() {
        judgement.refusal = refusal;
    }
    judgement.reports.push(StepReport::new(step.spec.id, found, took));
}

/// What a verdict means: what is reported, and whether it refuses. An error refuses where the step fails closed, and leaves
/// its mark where it fails open; so does a step that took longer than the ceiling.
fn weigh(
    spec: &'static StepSpec,
    verdict: Result<Verdict, StepError>,
    took: Duration,
    strongest: Action,
) -> (Option<(Action, String)>, Option<Refusal>) {
    let id = spec.id;
    let closed = spec.fail_mode() == FailMode::Closed;
    let (found, refusal) = match verdict {
        Ok(Verdict::Pass) => (None, None),
        Ok(Verdict::Detected(message)) => {
            let refusal = (strongest == Action::Block).then(|| Refusal::by_step(id, message.clone()));
            (Some((strongest, message)), refusal)
        }
        Ok(Verdict::Refuse(refusal)) => (Some((Action::Block, refusal.reason.clone())), Some(*refusal)),
        Err(error) if closed => {
            tracing::error!(
                step = id,
                error = &error as &dyn std::error::Error,
                "a step failed: the request is refused"
            );
            let refusal = Refusal::by_step(id, format!("the step `{id}` could not do its work"));
            (Some((Action::Block, error.to_string())), Some(refusal))
        }
        Err(error) => (Some((Action::Log, error.to_string())), None),
    };
    let slow = took > CEILING && closed && refusal.is_none();
    let late = slow.then(|| Refusal::by_step(id, format!("the step `{id}` took longer than {CEILING:?}")));
    (found, refusal.or(late))
}

/// What is done about what a step found: the strongest action that it recorded, or its own if it keeps no findings.
fn detected(step: &PlannedStep, judgement: &Judgement) -> Action {
    match judgement.strongest {
        Some(action) => action,
        None if judgement.flags.effective.mode == Mode::Lockdown => judgement.flags.effective.action(step),
        None => Action::Log,
    }
}

/// The conditional rules, once the detections are known.
fn guardrails(services: &Services, exchange: &Exchange, judgement: &mut Judgement) {
    let decision = judgement.view.policy.decide(&signals(services, exchange, judgement));
    if decision.is_block() {
        judgement.refusal = Some(Refusal {
            blocked_by: Cow::Borrowed("policy"),
            rule: Some(Arc::clone(&decision.rule)),
            reason: decision.reason.to_string(),
            kind: RefusalKind::Policy,
            details: json!({ "rule": &*decision.rule, "policy_version": decision.policy_version }),
        });
    }
    judgement.decision = Some(decision);
}

/// What rules may look at.
pub(super) fn signals<'a>(services: &'a Services, exchange: &'a Exchange, judgement: &'a Judgement) -> Signals<'a> {
    let request = &exchange.request;
    let config = &judgement.snapshot.config;
    let agent = config.agents.get(&exchange.caller.agent);
    let kept = request.tools.iter().enumerate().filter(|(place, _)| !judgement.dropped_tools.contains(place));
    Signals {
        model: &request.model,
        provider: Some(services.providers.of(&request.model).0.name()),
        stream: request.stream,
        tools: kept.map(|(_, tool)| tool.name.as_str()).collect(),
        messages: request.messages as u64,
        bytes: request.body.len() as u64,
        max_tokens: request.max_tokens,
        classification: judgement.classification,
        categories: judgement.categories.iter().copied().collect(),
        detections: judgement.found,
        agent_id: exchange.caller.agent.as_str(),
        framework: agent.map(|agent| agent.framework.as_str()).filter(|framework| !framework.is_empty()),
        project_id: Some(exchange.caller.project.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const FAST: Duration = Duration::from_millis(1);

    fn broken() -> Result<Verdict, StepError> {
        Err(StepError("out of order".into()))
    }

    fn spec(id: &str) -> &'static StepSpec {
        steps::get(id).unwrap()
    }

    #[test]
    fn a_broken_gate_detector_or_transform_refuses_and_names_itself() {
        for id in ["rate_limit", "detect_secrets", "filter_tools"] {
            let (found, refusal) = weigh(spec(id), broken(), FAST, Action::Log);
            assert_eq!(refusal.unwrap().blocked_by, id);
            assert_eq!(found.unwrap().0, Action::Block);
        }
    }

    #[test]
    fn a_broken_tracking_step_lets_pass_and_leaves_its_mark() {
        let (found, refusal) = weigh(spec("cost_tracking"), broken(), FAST, Action::Log);
        assert!(refusal.is_none());
        assert_eq!(found.unwrap(), (Action::Log, "out of order".to_owned()));
    }

    #[test]
    fn a_step_beyond_the_ceiling_refuses_unless_it_fails_open() {
        let slow = CEILING + FAST;
        assert!(weigh(spec("detect_pii"), Ok(Verdict::Pass), CEILING, Action::Log).1.is_none());
        assert!(
            weigh(spec("detect_pii"), Ok(Verdict::Pass), slow, Action::Log).1.unwrap().reason.contains("detect_pii")
        );
        assert!(weigh(spec("cost_tracking"), Ok(Verdict::Pass), slow, Action::Log).1.is_none());
    }

    #[test]
    fn a_detector_refuses_only_where_its_strongest_action_is_to_block() {
        for (action, refuses) in
            [(Action::Log, false), (Action::Notify, false), (Action::Redact, false), (Action::Block, true)]
        {
            let verdict = Ok(Verdict::Detected("found something".to_owned()));
            let (found, refusal) = weigh(spec("detect_pii"), verdict, FAST, action);
            assert_eq!((refusal.is_some(), found.unwrap().0), (refuses, action));
        }
    }
}
