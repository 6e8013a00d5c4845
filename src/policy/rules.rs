//! Rules, typed: what an admin may write, and what of it may be published.
//!
//! Owns the kinds of rule, the operators, the limits and the findings. Never reads JSON (that is `parse`) and never
//! decides a request. A rule that this build cannot carry out, or that can never act, is refused at publish by name.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{
    glob,
    signals::{Signal, SignalType},
};
use crate::domain::{detection::Classification, nearest::nearest};

/// Most rules in one policy.
pub const MAX_RULES: usize = 400;
/// Most alternatives of one condition after flattening.
pub const MAX_ALTERNATIVES: usize = 64;
/// Deepest nesting of `all` and `any`.
pub const MAX_DEPTH: usize = 8;
/// Most single conditions in one policy after flattening: it bounds the work of one decision (12 ms measured, once per
/// combination of values).
pub const MAX_CONDITIONS: usize = 1_000;
/// Most patterns for tools in one policy, for the same reason.
pub const MAX_PATTERNS: usize = 2_000;
/// Most items of a list in a rule.
pub const MAX_ITEMS: usize = 200;
/// Longest text in a rule, in bytes.
pub const MAX_TEXT_BYTES: usize = 1_000;

/// One thing that is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleFinding {
    /// What kind of mistake, e.g. `unknown_field`.
    pub code: &'static str,
    /// Where, e.g. `rules[2].payload.when.all[0].op`.
    pub path: String,
    /// Words for a person.
    pub message: String,
    /// The nearest word that would be valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// Does a rule act, or is it only watched?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It decides.
    Enforce,
    /// It is evaluated and recorded, and refuses nothing.
    Shadow,
}

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Its place among the rules of its policy; unique there.
    pub ordinal: u32,
    /// Does it act?
    pub mode: Mode,
    /// What it says.
    pub body: RuleBody,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum RuleBody {
    /// These tools may not be used, unless an earlier rule of the policy allows them.
    BlockTool {
        /// Patterns.
        tools: Vec<Arc<str>>,
    },
    /// These tools are not refused by later rules of the same policy.
    AllowTool {
        /// Patterns.
        tools: Vec<Arc<str>>,
    },
    /// Personal data is refused.
    BlockPII {
        /// Where.
        scope: Scope,
        /// Only these kinds; empty means all.
        entities: Vec<Arc<str>>,
    },
    /// Secrets are refused.
    BlockSecrets {
        /// Where.
        scope: Scope,
    },
    /// A condition and its consequence.
    Conditional(Conditional),
    /// Known, and not available in this build.
    Unavailable {
        /// The kind as written.
        kind: &'static str,
    },
}

impl RuleBody {
    /// The kind as admins write it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BlockTool { .. } => "BlockTool",
            Self::AllowTool { .. } => "AllowTool",
            Self::BlockPII { .. } => "BlockPII",
            Self::BlockSecrets { .. } => "BlockSecrets",
            Self::Conditional(_) => "Conditional",
            Self::Unavailable { kind } => kind,
        }
    }
}

/// Which side of the call a data rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// What goes to the provider.
    Input,
    /// What comes back.
    Output,
    /// Both.
    Both,
}

impl Scope {
    /// The sides, as the pipeline package names them.
    pub(super) fn sides(self) -> &'static [&'static str] {
        match self {
            Self::Input => &["input"],
            Self::Output => &["output"],
            Self::Both => &["input", "output"],
        }
    }
}

/// `when` in disjunctive normal form, and `then`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conditional {
    /// Alternatives; one suffices, and within one all conditions must hold.
    pub when: Vec<Vec<Condition>>,
    /// What follows.
    pub then: Then,
    /// Words for the caller.
    pub reason: Option<Arc<str>>,
}

/// What follows when a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Then {
    /// Refuse.
    Block,
    /// Let pass the later conditional rules of this policy.
    Allow,
    /// Known, and not available in this build.
    Unavailable(&'static str),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// What is looked at.
    pub signal: Signal,
    /// How.
    pub op: Op,
    /// With what.
    pub value: Literal,
}

/// A constant in a condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Literal {
    /// A text or a pattern.
    Text(Arc<str>),
    /// A number.
    Number(serde_json::Number),
    /// True or false.
    Flag(bool),
    /// A classification, as its place in the order.
    Rank(u8),
    /// Several, for `in` and `not_in`.
    List(Vec<Literal>),
}

/// How a condition compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// One of a list.
    In,
    /// None of a list.
    NotIn,
    /// A text has a part, or a set has a member.
    Contains,
    /// A text follows a pattern.
    Matches,
    /// The signal is there.
    Exists,
}

/// Every operator with its word.
pub(super) const OPS: [(&str, Op); 11] = [
    ("eq", Op::Eq),
    ("ne", Op::Ne),
    ("gt", Op::Gt),
    ("gte", Op::Gte),
    ("lt", Op::Lt),
    ("lte", Op::Lte),
    ("in", Op::In),
    ("not_in", Op::NotIn),
    ("contains", Op::Contains),
    ("matches", Op::Matches),
    ("exists", Op::Exists),
];

impl Op {
    /// The word that rules write.
    pub fn as_str(self) -> &'static str {
        OPS.iter().find(|(_, op)| *op == self).map_or("", |(word, _)| word)
    }

    /// May it compare values of this type?
    pub(super) fn fits(self, kind: SignalType) -> bool {
        match self {
            Self::Eq | Self::Ne | Self::Exists => true,
            Self::Gt | Self::Gte | Self::Lt | Self::Lte => {
                matches!(kind, SignalType::Number | SignalType::Rank | SignalType::Any)
            }
            Self::In | Self::NotIn => kind != SignalType::Flag,
            Self::Contains | Self::Matches => matches!(kind, SignalType::Text | SignalType::Texts | SignalType::Any),
        }
    }
}

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// May these rules be published? Each finding names its rule.
///
/// Refused are kinds and actions that this build does not have, and rules that an earlier one always precedes.
pub fn publishable(rules: &[Rule]) -> Result<(), Vec<RuleFinding>> {
    let mut findings = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let missing = match &rule.body {
            RuleBody::Unavailable { kind } => Some(format!("`{kind}`")),
            RuleBody::Conditional(Conditional { then: Then::Unavailable(action), .. }) => {
                Some(format!("`Conditional` with the action `{action}`"))
            }
            RuleBody::BlockTool { .. }
            | RuleBody::AllowTool { .. }
            | RuleBody::BlockPII { .. }
            | RuleBody::BlockSecrets { .. }
            | RuleBody::Conditional(_) => None,
        };
        if let Some(what) = missing {
            let message = format!("rule {}: {what} is not available in this build", rule.ordinal);
            findings.push(RuleFinding {
                code: "not_available",
                path: format!("rules[{i}]"),
                message,
                suggestion: None,
            });
        } else if let Some(earlier) = rules.iter().take(i).find(|earlier| precedes(earlier, rule)) {
            let (ordinal, first) = (rule.ordinal, earlier.ordinal);
            let message = format!("rule {ordinal} can never act: rule {first} always decides before it");
            findings.push(RuleFinding { code: "unreachable", path: format!("rules[{i}]"), message, suggestion: None });
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// Does the earlier rule decide whenever the later one could? Only a rule in force can take a place away.
fn precedes(earlier: &Rule, later: &Rule) -> bool {
    if earlier.mode == Mode::Shadow {
        return false;
    }
    match (&earlier.body, &later.body) {
        (
            RuleBody::BlockTool { tools: first } | RuleBody::AllowTool { tools: first },
            RuleBody::BlockTool { tools } | RuleBody::AllowTool { tools },
        ) => tools.iter().all(|tool| first.iter().any(|outer| glob::covers(outer, tool))),
        (RuleBody::Conditional(first), RuleBody::Conditional(second)) => first.when == second.when,
        _ => false,
    }
}

/// Names the kinds of personal data in `BlockPII` rules that no detector of this build knows.
///
/// `known` are the words that the detectors use; the caller has them, this module does not.
pub fn unknown_entities(rules: &[Rule], known: &[&str]) -> Vec<RuleFinding> {
    let mut findings = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let RuleBody::BlockPII { entities, .. } = &rule.body else { continue };
        for (j, entity) in entities.iter().enumerate().filter(|(_, entity)| !known.contains(&&***entity)) {
            let suggestion = nearest(entity, known.iter().copied()).map(str::to_owned);
            let (path, message) = (format!("rules[{i}].payload.entities[{j}]"), format!("unknown entity `{entity}`"));
            findings.push(RuleFinding { code: "unknown_value", path, message, suggestion });
        }
    }
    findings
}

/// The classification that a word names.
pub(super) fn classification(word: &str) -> Option<Classification> {
    super::signals::CLASSES.into_iter().find(|class| class.as_str() == word)
}
