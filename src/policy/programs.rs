//! The embedded Rego packages and the engine that runs them.
//!
//! Owns `Programs`, the engine's settings, and the reading of answers. All agents share one prepared engine, and an agent's
//! own part is a small document that each evaluation puts in place with `with`: measured here, an engine of its own would
//! cost an agent 268 KiB and 0.5 ms, the `with` costs 6 µs per evaluation. An answer that is undefined, incomplete or not
//! out of the closed list is a `PolicyError`, which callers turn into a refusal.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use regorus::{Engine, Value};

use super::{Decision, Outcome, PolicyError, Shadow, glob};

/// The packages, by name.
pub(super) const PACKAGES: [(&str, &str); 6] = [
    ("tappass.authz", include_str!("../../policies/authz.rego")),
    ("tappass.breakglass", include_str!("../../policies/breakglass.rego")),
    ("tappass.guardrails", include_str!("../../policies/guardrails.rego")),
    ("tappass.pipeline", include_str!("../../policies/pipeline.rego")),
    ("tappass.routing", include_str!("../../policies/routing.rego")),
    ("tappass.tools", include_str!("../../policies/tools.rego")),
];

/// Puts an agent's document and a request's input in place for the packages that read both.
const ENTRY: &str = "package tappass.entry
guardrails := x if { x := data.tappass.guardrails.decision with input as input.request with data.tappass.agent as input.agent }
pipeline := x if { x := data.tappass.pipeline.decision with data.tappass.agent as input.agent }
routing := x if { x := data.tappass.routing.decision with input as input.request with data.tappass.agent as input.agent }
tools := x if { x := data.tappass.tools.decision with input as input.request with data.tappass.agent as input.agent }
";

/// The rules that are asked for a decision.
pub(super) const AUTHZ: &str = "data.tappass.authz.decision";
pub(super) const BREAKGLASS: &str = "data.tappass.breakglass.decision";
pub(super) const GUARDRAILS: &str = "data.tappass.entry.guardrails";
pub(super) const PIPELINE: &str = "data.tappass.entry.pipeline";
pub(super) const ROUTING: &str = "data.tappass.entry.routing";
pub(super) const TOOLS: &str = "data.tappass.entry.tools";

/// The packages, parsed and analysed once; an evaluation works on a cheap clone.
pub struct Programs {
    engine: Engine,
    /// Answers that no rule touches.
    pub(super) constants: Constants,
}

/// Filled by the first agent that asks.
#[derive(Default)]
pub(super) struct Constants {
    pub(super) guardrails: OnceLock<Decision>,
    pub(super) tools: OnceLock<Decision>,
    pub(super) models: OnceLock<Decision>,
}

impl Programs {
    /// Parses and analyses the embedded packages.
    pub fn load() -> Result<Arc<Self>, PolicyError> {
        Self::load_from(&PACKAGES)
    }

    pub(super) fn load_from(packages: &[(&'static str, &str)]) -> Result<Arc<Self>, PolicyError> {
        let mut engine = new_engine().map_err(|message| PolicyError::Load { package: "built-ins", message })?;
        for (package, text) in packages.iter().copied().chain([("tappass.entry", ENTRY)]) {
            engine
                .add_policy(package.to_owned(), text.to_owned())
                .map_err(|e| PolicyError::Load { package, message: e.to_string() })?;
        }
        // The first evaluation analyses all modules; without it every clone would do that again.
        engine.set_input(object([]));
        engine
            .eval_rule(BREAKGLASS.to_owned())
            .map_err(|e| PolicyError::Load { package: "all", message: e.to_string() })?;
        Ok(Arc::new(Self { engine, constants: Constants::default() }))
    }

    /// Evaluates one entry point over an input.
    pub(super) fn evaluate(&self, entry: &'static str, input: Value) -> Result<Value, PolicyError> {
        let mut engine = self.engine.clone();
        engine.set_input(input);
        engine.eval_rule(entry.to_owned()).map_err(|e| PolicyError::Evaluate { entry, message: e.to_string() })
    }

    /// Is an emergency grant in force? Both times are microseconds since 1970. In doubt it is not.
    pub fn breakglass_active(&self, level: &str, expires_at: i64, now: i64) -> bool {
        let input = object([("level", level.into()), ("expires_at", expires_at.into()), ("now", now.into())]);
        let answer = self.evaluate(BREAKGLASS, input);
        answer.is_ok_and(|answer| field(BREAKGLASS, &answer, "outcome").is_ok_and(|outcome| &**outcome == "active"))
    }
}

/// An engine with our settings and our one built-in. It has no network and no clock of its own to offer to our packages.
pub(super) fn new_engine() -> Result<Engine, String> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    let glob_matches = |arguments: Vec<Value>| {
        let texts =
            arguments.first().zip(arguments.get(1)).map(|(pattern, text)| (pattern.as_string(), text.as_string()));
        Ok(match texts {
            Some((Ok(pattern), Ok(text))) => Value::from(glob::matches(pattern, text)),
            _ => Value::Undefined,
        })
    };
    engine.add_extension("glob_matches".to_owned(), 2, Box::new(glob_matches)).map_err(|e| e.to_string())?;
    Ok(engine)
}

/// An object for the evaluator.
pub(super) fn object<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect::<BTreeMap<_, _>>().into()
}

/// A text field of an answer.
pub(super) fn field<'a>(
    entry: &'static str,
    answer: &'a Value,
    name: &'static str,
) -> Result<&'a Arc<str>, PolicyError> {
    let object = answer.as_object().map_err(|_| PolicyError::Malformed { entry, field: "decision" })?;
    let value = object.get(&Value::from(name)).and_then(|value| value.as_string().ok());
    value.ok_or(PolicyError::Malformed { entry, field: name })
}

/// What is known about a rule beside its text.
#[derive(Debug)]
pub(super) struct RuleNote {
    pub(super) version: Option<u32>,
    pub(super) reason: Arc<str>,
}

/// The rules that an answer may name.
pub(super) type Notes = HashMap<Arc<str>, RuleNote>;

/// Reads an answer. `notes` are the rules that it may name; without them any rule is taken as it stands.
pub(super) fn read_decision(
    (entry, step): (&'static str, &'static str),
    answer: &Value,
    notes: Option<&Notes>,
) -> Result<Decision, PolicyError> {
    let outcome = outcome(entry, answer)?;
    let (rule, reason) = (field(entry, answer, "rule")?, field(entry, answer, "reason")?);
    let (rule, version, reason) = match notes {
        Some(notes) if &**rule != super::DEFAULT_RULE => {
            let (id, note) = notes.get_key_value(&**rule).ok_or(PolicyError::Malformed { entry, field: "rule" })?;
            (Arc::clone(id), note.version, Arc::clone(&note.reason))
        }
        _ => (Arc::clone(rule), None, Arc::clone(reason)),
    };
    let shadow = read_shadow(entry, answer)?;
    Ok(Decision { outcome, rule, policy_version: version, reason, step, shadow })
}

fn outcome(entry: &'static str, answer: &Value) -> Result<Outcome, PolicyError> {
    match &**field(entry, answer, "outcome")? {
        "allow" => Ok(Outcome::Allow),
        "block" => Ok(Outcome::Block),
        _ => Err(PolicyError::Malformed { entry, field: "outcome" }),
    }
}

/// Packages without shadow rules leave the field out; where it stands it must be whole.
fn read_shadow(entry: &'static str, answer: &Value) -> Result<Arc<[Shadow]>, PolicyError> {
    let Some(list) = answer.as_object().ok().and_then(|object| object.get(&Value::from("shadow"))) else {
        return Ok(Arc::default());
    };
    let list = list.as_array().map_err(|_| PolicyError::Malformed { entry, field: "shadow" })?;
    let read = list.iter().map(|item| {
        let (rule, reason) = (field(entry, item, "rule")?, field(entry, item, "reason")?);
        Ok(Shadow { rule: Arc::clone(rule), outcome: outcome(entry, item)?, reason: Arc::clone(reason) })
    });
    read.collect()
}
