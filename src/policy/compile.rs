//! From merged rules to what the Rego packages read.
//!
//! Owns the shape of `data.tappass.agent`, the list of signals that the rules read, and the steps that they switch on. Never
//! sees a request. A rule that this build cannot carry out is an error here, should it ever get past publishing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use regorus::Value;
use serde::Serialize;

use super::{
    PolicyError,
    cascade::{AssignedPolicy, Merged},
    programs::{GUARDRAILS, Notes, PIPELINE, Programs, RuleNote, field, object},
    rules::{Condition, Conditional, Literal, Mode, Op, Rule, RuleBody, Then},
    signals::{Signal, SignalType, rank},
};
use crate::domain::detection::{Action, Classification};

/// A step that a rule switches on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// Which step.
    pub step: &'static str,
    /// What it does at least with what it finds. `log` means that it must run.
    pub action: Action,
    /// On behalf of which rule.
    pub rule: Arc<str>,
    /// On which side of the call.
    pub scope: Place,
    /// The action is for detections of this family (`pii`, `secret`) only; `None`: for all.
    pub category: Option<&'static str>,
    /// … and within it for these kinds only; empty: for all.
    pub entities: Vec<Arc<str>>,
}

/// Where a step looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// What goes to the provider.
    Input,
    /// Tools.
    Call,
    /// What comes back.
    Output,
}

/// The steps, families and places that `pipeline.rego` may name.
const STEPS: [&str; 8] = [
    "detect_pii",
    "detect_secrets",
    "detect_unicode",
    "classify_data",
    "detect_injection",
    "tool_permissions",
    "filter_tools",
    "scan_output",
];
const CATEGORIES: [(&str, Option<&str>); 3] = [("", None), ("pii", Some("pii")), ("secret", Some("secret"))];
const PLACES: [(&str, Place); 3] = [("input", Place::Input), ("call", Place::Call), ("output", Place::Output)];

/// What an agent's policy looks like to the packages, and what Rust needs to know about it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) document: Value,
    pub(super) notes: Notes,
    pub(super) reads: Vec<Read>,
    pub(super) switches: Vec<Switch>,
    pub(super) has_tools: bool,
    pub(super) has_conditionals: bool,
    pub(super) has_models: bool,
}

/// A signal that the rules read, with the numbers that they compare it with, ascending.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) signal: Signal,
    pub(super) name: Value,
    pub(super) thresholds: Vec<u64>,
}

/// `data.tappass.agent` as tools, guardrails and routing read it.
#[derive(Default, Serialize)]
struct Document {
    tools: Split<ToolEntry>,
    conditionals: Split<ConditionalEntry>,
    models: Vec<Vec<ModelEntry>>,
}

/// Rules per policy: those in force, and all of them for policies that have shadow rules.
#[derive(Serialize)]
struct Split<T> {
    enforced: Vec<Vec<T>>,
    watched: Vec<Vec<T>>,
}

impl<T> Default for Split<T> {
    fn default() -> Self {
        Self { enforced: Vec::new(), watched: Vec::new() }
    }
}

trait Moded: Clone {
    fn mode(&self) -> Mode;
}

impl<T: Moded> Split<T> {
    fn push(&mut self, rules: Vec<T>) {
        let enforced: Vec<T> = rules.iter().filter(|rule| rule.mode() == Mode::Enforce).cloned().collect();
        if enforced.len() < rules.len() {
            self.watched.push(rules);
        }
        if !enforced.is_empty() {
            self.enforced.push(enforced);
        }
    }

    fn is_empty(&self) -> bool {
        self.enforced.is_empty() && self.watched.is_empty()
    }
}

#[derive(Clone, Serialize)]
struct ToolEntry {
    id: Arc<str>,
    effect: &'static str,
    mode: Mode,
    reason: Arc<str>,
    tools: Vec<Arc<str>>,
}

#[derive(Clone, Serialize)]
struct ConditionalEntry {
    id: Arc<str>,
    effect: &'static str,
    mode: Mode,
    reason: Arc<str>,
    when: Vec<Vec<ConditionEntry>>,
}

#[derive(Clone, Serialize)]
struct ConditionEntry {
    signal: Signal,
    op: Op,
    value: Literal,
    over: &'static str,
}

#[derive(Serialize)]
struct ModelEntry {
    id: Arc<str>,
    rank: u8,
    models: Vec<Arc<str>>,
}

/// One rule as `pipeline.rego` reads it.
#[derive(Serialize)]
struct StepEntry {
    id: Arc<str>,
    kind: &'static str,
    scopes: &'static [&'static str],
    mode: Mode,
}

impl Moded for ToolEntry {
    fn mode(&self) -> Mode {
        self.mode
    }
}

impl Moded for ConditionalEntry {
    fn mode(&self) -> Mode {
        self.mode
    }
}

/// Builds the documents and evaluates once what depends on nothing but the rules.
pub(super) fn compile(programs: &Programs, merged: &Merged) -> Result<Compiled, PolicyError> {
    let mut build = Build::default();
    for (_, policy) in &merged.policies {
        build.policy(policy)?;
    }
    build.models(merged);
    let Build { document, steps, notes, entities, reads } = build;
    let switches = if steps.is_empty() { Vec::new() } else { switches(programs, &steps, &notes, &entities)? };
    let reads = reads.into_iter().map(|(signal, mut thresholds)| {
        thresholds.sort_unstable();
        thresholds.dedup();
        Read { name: Value::from(&*signal.name()), signal, thresholds }
    });
    Ok(Compiled {
        reads: reads.collect(),
        has_tools: !document.tools.is_empty(),
        has_conditionals: !document.conditionals.is_empty(),
        has_models: !document.models.is_empty(),
        document: to_value(GUARDRAILS, &document)?,
        notes,
        switches,
    })
}

#[derive(Default)]
struct Build {
    document: Document,
    steps: Vec<StepEntry>,
    notes: Notes,
    entities: HashMap<Arc<str>, Vec<Arc<str>>>,
    reads: BTreeMap<Signal, Vec<u64>>,
}

impl Build {
    fn policy(&mut self, policy: &AssignedPolicy) -> Result<(), PolicyError> {
        let (mut tools, mut conditionals) = (Vec::new(), Vec::new());
        for rule in &*policy.rules {
            let id: Arc<str> = Arc::from(policy.rule_id(rule));
            let (mode, reason) = (rule.mode, reason(policy, rule));
            let note = RuleNote { version: Some(policy.version_no), reason: Arc::clone(&reason) };
            self.notes.insert(Arc::clone(&id), note);
            let mut step = |kind, scopes| self.steps.push(StepEntry { id: Arc::clone(&id), kind, scopes, mode });
            match &rule.body {
                RuleBody::BlockTool { tools: named } | RuleBody::AllowTool { tools: named } => {
                    step("tools", &["call"]);
                    let effect = if matches!(rule.body, RuleBody::BlockTool { .. }) { "block" } else { "allow" };
                    tools.push(ToolEntry { id, effect, mode, reason, tools: named.clone() });
                }
                RuleBody::BlockPII { scope, entities } => {
                    step("BlockPII", scope.sides());
                    self.entities.insert(id, entities.clone());
                }
                RuleBody::BlockSecrets { scope } => step("BlockSecrets", scope.sides()),
                RuleBody::Conditional(Conditional { when, then, .. }) if !matches!(then, Then::Unavailable(_)) => {
                    let effect = if *then == Then::Block { "block" } else { "allow" };
                    for (family, scopes) in families(when) {
                        step(family, scopes);
                    }
                    let when = when.iter().map(|all| all.iter().map(|c| self.condition(c, *then)).collect()).collect();
                    conditionals.push(ConditionalEntry { id, effect, mode, reason, when });
                }
                RuleBody::Conditional(_) | RuleBody::Unavailable { .. } => {
                    return Err(PolicyError::Unavailable { rule: id.to_string() });
                }
            }
        }
        self.document.tools.push(tools);
        self.document.conditionals.push(conditionals);
        Ok(())
    }

    fn condition(&mut self, condition: &Condition, then: Then) -> ConditionEntry {
        let thresholds = self.reads.entry(condition.signal.clone()).or_default();
        let literals =
            if let Literal::List(items) = &condition.value { items } else { std::slice::from_ref(&condition.value) };
        thresholds.extend(literals.iter().filter_map(|literal| match literal {
            Literal::Number(number) => number.as_u64(),
            Literal::Text(_) | Literal::Flag(_) | Literal::Rank(_) | Literal::List(_) => None,
        }));
        let is_member = condition.op == Op::Contains && condition.signal.kind() == SignalType::Texts;
        ConditionEntry {
            signal: condition.signal.clone(),
            op: if is_member { Op::Eq } else { condition.op },
            value: condition.value.clone(),
            // The stricter reading of many values: one is enough to refuse, an exception needs all of them.
            over: if is_member || then == Then::Block { "any" } else { "all" },
        }
    }

    fn models(&mut self, merged: &Merged) {
        for source in &merged.models {
            let lists = source.allowed.iter().map(|(class, models)| self.model_list(&source.source, *class, models));
            let lists: Vec<_> = lists.collect();
            if !lists.is_empty() {
                self.document.models.push(lists);
            }
        }
    }

    fn model_list(&mut self, source: &str, class: Classification, models: &[Arc<str>]) -> ModelEntry {
        let id: Arc<str> = Arc::from(format!("{source}#{}", class.as_str()));
        let reason = format!("`{source}` lists the models for {} data", class.as_str());
        self.notes.insert(Arc::clone(&id), RuleNote { version: None, reason: Arc::from(reason) });
        ModelEntry { id, rank: rank(class), models: models.to_vec() }
    }
}

fn reason(policy: &AssignedPolicy, rule: &Rule) -> Arc<str> {
    let name = &policy.name;
    Arc::from(match &rule.body {
        RuleBody::Conditional(Conditional { reason: Some(reason), .. }) => return Arc::clone(reason),
        RuleBody::BlockTool { .. } => format!("the policy `{name}` blocks this tool"),
        RuleBody::AllowTool { .. } => format!("the policy `{name}` allows this tool"),
        RuleBody::BlockPII { .. } => format!("the policy `{name}` blocks personal data"),
        RuleBody::BlockSecrets { .. } => format!("the policy `{name}` blocks secrets"),
        RuleBody::Conditional(Conditional { then: Then::Allow, .. }) => format!("the policy `{name}` allows this"),
        RuleBody::Conditional(_) | RuleBody::Unavailable { .. } => format!("the policy `{name}` forbids this"),
    })
}

/// The families of signals that a condition reads, as `pipeline.rego` names them.
fn families(when: &[Vec<Condition>]) -> Vec<(&'static str, &'static [&'static str])> {
    let reads = |wanted: fn(&Signal) -> bool| when.iter().flatten().any(|condition| wanted(&condition.signal));
    let mut found: Vec<(&'static str, &'static [&'static str])> = Vec::new();
    if reads(Signal::is_about_tools) {
        found.push(("reads_tools", &["call"]));
    }
    if reads(|signal| *signal == Signal::Classification) {
        found.push(("reads_classification", &["input"]));
    }
    if reads(|signal| matches!(signal, Signal::Category | Signal::Detections)) {
        found.push(("reads_detections", &["input"]));
    }
    found
}

fn switches(
    programs: &Programs,
    steps: &[StepEntry],
    notes: &Notes,
    entities: &HashMap<Arc<str>, Vec<Arc<str>>>,
) -> Result<Vec<Switch>, PolicyError> {
    let malformed = |field| PolicyError::Malformed { entry: PIPELINE, field };
    let input = object([("agent", object([("steps", to_value(PIPELINE, steps)?)]))]);
    let answer = programs.evaluate(PIPELINE, input)?;
    if &**field(PIPELINE, &answer, "outcome")? != "plan" {
        return Err(malformed("outcome"));
    }
    let list = answer.as_object().ok().and_then(|object| object.get(&Value::from("switches")));
    let list = list.and_then(|list| list.as_array().ok()).ok_or(malformed("switches"))?;
    let read = list.iter().map(|item| {
        let text = |name| field(PIPELINE, item, name);
        let (rule, _) = notes.get_key_value(&**text("rule")?).ok_or(malformed("rule"))?;
        Ok(Switch {
            step: STEPS.into_iter().find(|step| text("step").is_ok_and(|t| **t == **step)).ok_or(malformed("step"))?,
            action: Action::parse(text("action")?).map_err(|_| malformed("action"))?,
            scope: known(&PLACES, text("scope")?).ok_or(malformed("scope"))?,
            category: known(&CATEGORIES, text("category")?).ok_or(malformed("category"))?,
            entities: entities.get(rule).cloned().unwrap_or_default(),
            rule: Arc::clone(rule),
        })
    });
    read.collect()
}

fn known<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    words.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning)
}

fn to_value(entry: &'static str, from: &(impl Serialize + ?Sized)) -> Result<Value, PolicyError> {
    let text = serde_json::to_string(from).map_err(|_| PolicyError::Malformed { entry, field: "data" })?;
    Value::from_json_str(&text).map_err(|_| PolicyError::Malformed { entry, field: "data" })
}
