//! The compiled policy of one agent, and its decisions.
//!
//! Owns which question needs the engine at all: a question that no rule touches has a constant answer, any other answer is
//! remembered under exactly the values that the rules read. Never holds a lock while it evaluates. Whatever goes wrong is a
//! refusal with the rule `policy.error`, which is not remembered.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use regorus::Value;
use serde_json::Value as Json;

use super::{
    DEFAULT_RULE, Decision, GUARDRAILS_STEP, PolicyError,
    cascade::Merged,
    compile::{Compiled, Switch, compile},
    memo::Memo,
    programs::{GUARDRAILS, Programs, ROUTING, TOOLS, object, read_decision},
    signals::{Call, Signals, TooLarge, rank},
};
use crate::domain::detection::Classification;

/// The step that acts on decisions about tools.
const TOOLS_STEP: &str = "tool_permissions";

/// Whom to ask, and the step that acts on the answer.
const GUARDRAILS_ENTRY: Entry = (GUARDRAILS, GUARDRAILS_STEP);
const TOOLS_ENTRY: Entry = (TOOLS, TOOLS_STEP);
const ROUTING_ENTRY: Entry = (ROUTING, "model_routing");

type Entry = (&'static str, &'static str);

/// An agent's policy, ready to decide. Never changes but for its memo; lives inside a snapshot.
pub struct AgentPolicy {
    programs: Arc<Programs>,
    compiled: Compiled,
    constants: Constants,
    reads_tools: bool,
    memo: Memo,
}

/// The answers that depend on nothing.
struct Constants {
    guardrails: Option<Decision>,
    tools: Option<Decision>,
    models: Option<Decision>,
}

impl AgentPolicy {
    /// Compiles merged policies: builds the agent's document and evaluates what does not depend on a request.
    pub fn compile(programs: &Arc<Programs>, merged: &Merged) -> Result<Self, PolicyError> {
        let compiled = compile(programs, merged)?;
        // Untouched by the rules, these answers are the same for every agent: the first one asked pays for all.
        let constant = |needed: bool, known: &OnceLock<Decision>, entry, request| match (needed, known.get()) {
            (true, _) => Ok(None),
            (false, Some(decision)) => Ok(Some(decision.clone())),
            (false, None) => {
                let decision = evaluate(programs, &compiled, entry, request)?;
                Ok::<_, PolicyError>(Some(known.get_or_init(|| decision).clone()))
            }
        };
        let known = &programs.constants;
        let model = object([("model", "".into()), ("rank", 0_u64.into())]);
        let tool = object([("tool", "".into())]);
        let constants = Constants {
            guardrails: constant(compiled.has_conditionals, &known.guardrails, GUARDRAILS_ENTRY, object([]))?,
            tools: constant(compiled.has_tools, &known.tools, TOOLS_ENTRY, tool)?,
            models: constant(compiled.has_models, &known.models, ROUTING_ENTRY, model)?,
        };
        let reads_tools = compiled.reads.iter().any(|read| read.signal.is_about_tools());
        Ok(Self { programs: Arc::clone(programs), compiled, constants, reads_tools, memo: Memo::default() })
    }

    /// The steps that the policy switches on; computed once.
    pub fn switches(&self) -> &[Switch] {
        &self.compiled.switches
    }

    /// Decides the conditional rules over a request, once its detections are known.
    pub fn decide(&self, signals: &Signals<'_>) -> Decision {
        match &self.constants.guardrails {
            Some(constant) => constant.clone(),
            None => self.judge(signals, None),
        }
    }

    /// Decides one tool. Without `arguments` it is a definition: only tool rules speak. With them it is a call (`Json::Null`
    /// where it has none): the conditional rules that look at tools are asked too, with this call in place of `tools`.
    pub fn decide_tool(&self, tool: &str, arguments: Option<&Json>, signals: &Signals<'_>) -> Decision {
        let named = match &self.constants.tools {
            Some(constant) => constant.clone(),
            None => {
                self.remembered(&[b"t", tool.as_bytes()].concat(), TOOLS_ENTRY, || Ok(object([("tool", tool.into())])))
            }
        };
        if named.is_block() || !self.reads_tools || arguments.is_none() {
            return named;
        }
        let judged = self.judge(signals, Some(Call { tool, arguments }));
        let shadow = named.shadow.iter().chain(&*judged.shadow).cloned().collect();
        let decisive = if judged.is_block() || &*named.rule == DEFAULT_RULE { judged } else { named };
        Decision { shadow, step: TOOLS_STEP, ..decisive }
    }

    /// Decides whether the agent may use this model for data of this classification.
    pub fn decide_model(&self, model: &str, classification: Classification) -> Decision {
        if let Some(constant) = &self.constants.models {
            return constant.clone();
        }
        let rank = rank(classification);
        self.remembered(&[b"m", [rank].as_slice(), model.as_bytes()].concat(), ROUTING_ENTRY, || {
            Ok(object([("model", model.into()), ("rank", u64::from(rank).into())]))
        })
    }

    /// How many decisions are remembered.
    #[cfg(test)]
    pub(super) fn remembered_decisions(&self) -> usize {
        self.memo.len()
    }

    fn judge(&self, signals: &Signals<'_>, call: Option<Call<'_>>) -> Decision {
        let mut key = Vec::with_capacity(128);
        key.push(if call.is_some() { b'c' } else { b'g' });
        for read in &self.compiled.reads {
            let Ok(seen) = read.signal.read(signals, call) else {
                let reason = Arc::from("a tool argument is too large, or has no shape, to be judged");
                return Decision { reason, ..Decision::refused_by_error(GUARDRAILS_STEP) };
            };
            seen.append_key(&read.thresholds, &mut key);
        }
        self.remembered(&key, GUARDRAILS_ENTRY, || {
            let mut input = BTreeMap::new();
            for read in &self.compiled.reads {
                if let Some(values) = read.signal.read(signals, call)?.into_values() {
                    input.insert(read.name.clone(), Value::from(values));
                }
            }
            Ok(input.into())
        })
    }

    /// Looks a decision up, or evaluates it over the request that `input` makes.
    fn remembered(&self, key: &[u8], entry: Entry, input: impl FnOnce() -> Result<Value, TooLarge>) -> Decision {
        if let Some(decision) = self.memo.find(key) {
            return decision;
        }
        let Ok(request) = input() else { return Decision::refused_by_error(entry.1) };
        let Ok(decision) = evaluate(&self.programs, &self.compiled, entry, request) else {
            // The engine's words may quote the input, so they stay out of the log.
            tracing::error!(policy.entry = entry.0, "policy could not be evaluated");
            return Decision::refused_by_error(entry.1);
        };
        self.memo.insert(key, decision.clone());
        decision
    }
}

fn evaluate(programs: &Programs, compiled: &Compiled, entry: Entry, request: Value) -> Result<Decision, PolicyError> {
    let answer = programs.evaluate(entry.0, object([("agent", compiled.document.clone()), ("request", request)]))?;
    read_decision(entry, &answer, Some(&compiled.notes))
}

impl fmt::Debug for AgentPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentPolicy").field("switches", &self.compiled.switches).finish_non_exhaustive()
    }
}
