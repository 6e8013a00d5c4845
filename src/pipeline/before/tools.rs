//! `filter_tools`: the provider does not see what the agent may not use.
//!
//! Owns which definitions are dropped. A tool that the request insists on and that may not be used is a refusal, since the
//! request cannot be answered as it stands.

use crate::{
    domain::plan::{PlannedStep, flags::ToolsFlag},
    pipeline::{
        Services,
        exchange::{Exchange, Judgement},
        refusal::Refusal,
        runner::signals,
        step::{StepError, Verdict},
    },
    policy::{Decision, Signals, pattern_matches},
};

/// `filter_tools`.
#[expect(clippy::unnecessary_wraps, reason = "every step has the shape that the page of steps binds")]
pub(in crate::pipeline) fn filter_tools(
    services: &Services,
    _: &PlannedStep,
    exchange: &mut Exchange,
    judgement: &mut Judgement,
) -> Result<Verdict, StepError> {
    let mut dropped = Vec::new();
    let signals = signals(services, exchange, judgement);
    for (place, tool) in exchange.request.tools.iter().enumerate() {
        if let Some(refused) = refused(judgement, &tool.name, None, &signals) {
            dropped.push((place, tool.name.clone(), refused));
        }
    }
    let forced = exchange.request.forced_tool();
    let insisted = forced.as_ref().and_then(|forced| dropped.iter().find(|(_, name, _)| name == forced));
    if let Some((_, name, (rule, reason))) = insisted {
        let mut refusal = Refusal::by_step("tool_permissions", format!("the tool `{name}` may not be used: {reason}"));
        refusal.rule = Some(rule.clone());
        return Ok(Verdict::Refuse(Box::new(refusal)));
    }
    if dropped.is_empty() {
        return Ok(Verdict::Pass);
    }
    judgement.dropped_tools.extend(dropped.iter().map(|(place, _, _)| *place));
    let names: Vec<&str> = dropped.iter().map(|(_, name, _)| name.as_str()).collect();
    Ok(Verdict::Detected(format!("not shown to the provider: {}", names.join(", "))))
}

/// Why a tool may not be used: the rule and a reason. With `arguments` it is a call, without a definition.
pub(in crate::pipeline) fn refused(
    judgement: &Judgement,
    tool: &str,
    arguments: Option<&serde_json::Value>,
    signals: &Signals<'_>,
) -> Option<(std::sync::Arc<str>, String)> {
    let decision: Decision = judgement.view.policy.decide_tool(tool, arguments, signals);
    if decision.is_block() {
        return Some((decision.rule, decision.reason.to_string()));
    }
    by_plan(judgement, tool)
}

/// The plan's lists and the caller's flag.
fn by_plan(judgement: &Judgement, tool: &str) -> Option<(std::sync::Arc<str>, String)> {
    let among = |list: &[String]| list.iter().any(|pattern| pattern_matches(pattern, tool));
    let no = |rule: &str, reason: &str| Some((std::sync::Arc::from(rule), reason.to_owned()));
    let step = judgement.view.plan.step("tool_permissions");
    let flag = judgement.flags.effective.tools.as_ref();
    if step.and_then(|step| step.options.strings("deny")).is_some_and(among) {
        return no("tool_permissions.deny", "it is on the agent's deny list");
    }
    let replaced = flag.is_some_and(|flag| flag.replaces);
    let allow = step.and_then(|step| step.options.strings("allow")).filter(|list| !list.is_empty());
    if !replaced && allow.is_some_and(|list| !among(list)) {
        return no("tool_permissions.allow", "it is not on the agent's allow list");
    }
    match flag.map(|flag| &flag.rule) {
        Some(ToolsFlag::Allow(list)) if !among(list) => no("flag.tools", "the call's own flag does not allow it"),
        Some(ToolsFlag::Deny(list)) if among(list) => no("flag.tools", "the call's own flag denies it"),
        Some(ToolsFlag::Block) => no("flag.tools", "the call's own flag denies every tool"),
        _ => None,
    }
}
