//! The `{when, then}` of a conditional rule.
//!
//! Owns flattening nested `all` and `any` into alternatives, and the fit of signal, operator and value. Never evaluates a
//! condition. Nesting beyond `MAX_DEPTH` and more than `MAX_ALTERNATIVES` are findings; the recursion is bounded by the former.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{
    parse::Parser,
    rules::{
        Condition, Conditional, Literal, MAX_ALTERNATIVES, MAX_DEPTH, MAX_TEXT_BYTES, OPS, Op, Then, classification,
    },
    signals::{CLASSES, Signal, SignalType, rank, signal_names},
};
use crate::domain::detection::Classification;

/// Largest number that a counting signal is compared with: all of them survive a round trip through JSON readers.
const MAX_COUNT: u64 = 1 << 53;
/// The actions that are known and not available yet: fine in a draft, refused at publish.
const LATER_ACTIONS: [&str; 3] = ["require_approval", "route_to_model", "redact"];

impl Parser {
    pub(super) fn conditional(&mut self, payload: &Json, path: &str) -> Option<Conditional> {
        let fields = self.object(payload, path, &["when", "then"])?;
        let mut part = |name: &str| {
            let found = fields.get(name);
            if found.is_none() {
                self.report("missing_field", &format!("{path}.{name}"), format!("`{name}` is missing"));
            }
            found
        };
        let (when, then) = (part("when"), part("then"));
        let when = when.and_then(|when| self.alternatives(when, &format!("{path}.when"), 1));
        let then = then.and_then(|then| self.then(then, &format!("{path}.then")));
        let (then, reason) = then?;
        Some(Conditional { when: when?, then, reason })
    }

    fn then(&mut self, value: &Json, path: &str) -> Option<(Then, Option<Arc<str>>)> {
        let later = value.get("action").and_then(Json::as_str).filter(|action| LATER_ACTIONS.contains(action));
        // An action that this build does not have brings fields of its own.
        if let Some(action) = LATER_ACTIONS.into_iter().find(|known| Some(*known) == later) {
            return Some((Then::Unavailable(action), None));
        }
        let fields = self.object(value, path, &["action", "reason"])?;
        let here = format!("{path}.action");
        let action = match self.text(fields, "action", path)? {
            "block" => Then::Block,
            "allow" => Then::Allow,
            other => {
                let valid = ["block", "allow"].into_iter().chain(LATER_ACTIONS);
                self.unknown(("unknown_value", "action"), &here, other, valid);
                return None;
            }
        };
        let reason = match fields.get("reason") {
            None => None,
            Some(_) => Some(self.plain_text(fields.get("reason"), &format!("{path}.reason"))?),
        };
        Some((action, reason))
    }

    fn plain_text(&mut self, value: Option<&Json>, path: &str) -> Option<Arc<str>> {
        let text = value.and_then(Json::as_str).filter(|text| (1..=MAX_TEXT_BYTES).contains(&text.len()));
        if text.is_none() {
            self.report("wrong_type", path, format!("must be a text of 1 to {MAX_TEXT_BYTES} bytes"));
        }
        text.map(Arc::from)
    }

    /// Flattens nested `all` and `any` into alternatives. `depth` bounds the recursion.
    fn alternatives(&mut self, value: &Json, path: &str, depth: usize) -> Option<Vec<Vec<Condition>>> {
        let group = ["all", "any"].into_iter().find(|name| value.get(name).is_some());
        let Some(group) = group else {
            return self.condition(value, path).map(|condition| vec![vec![condition]]);
        };
        if depth > MAX_DEPTH {
            self.report("too_deep", path, format!("conditions nest at most {MAX_DEPTH} deep"));
            return None;
        }
        let fields = self.object(value, path, &[group])?;
        let here = format!("{path}.{group}");
        let items = self.items(fields.get(group)?, &here)?;
        let read: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(i, item)| self.alternatives(item, &format!("{here}[{i}]"), depth + 1))
            .collect();
        let parts: Vec<_> = read.into_iter().collect::<Option<_>>()?;
        let flat = if group == "any" { Some(parts.concat()) } else { product(&parts) };
        let flat = flat.filter(|flat| flat.len() <= MAX_ALTERNATIVES);
        if flat.is_none() {
            let message = format!("the condition has more than {MAX_ALTERNATIVES} alternatives when flattened");
            self.report("too_large", path, message);
        }
        flat
    }

    fn condition(&mut self, value: &Json, path: &str) -> Option<Condition> {
        let fields = self.object(value, path, &["signal", "op", "value"])?;
        let (signal, op) = (self.text(fields, "signal", path), self.text(fields, "op", path));
        let signal = signal.and_then(|word| {
            let signal = Signal::parse(word);
            if signal.is_none() {
                self.unknown(("unknown_signal", "signal"), &format!("{path}.signal"), word, signal_names());
            }
            signal
        });
        let op = op.and_then(|word| {
            let op = OPS.iter().find(|(name, _)| *name == word).map(|(_, op)| *op);
            if op.is_none() {
                let words = OPS.iter().map(|(name, _)| *name);
                self.unknown(("unknown_operator", "operator"), &format!("{path}.op"), word, words);
            }
            op
        });
        let (signal, op) = (signal?, op?);
        if !op.fits(signal.kind()) {
            let fitting = OPS.iter().filter(|(_, op)| op.fits(signal.kind())).map(|(word, _)| *word);
            let message = format!(
                "`{}` does not apply to `{}`; valid are {}",
                op.as_str(),
                signal.name(),
                fitting.collect::<Vec<_>>().join(", ")
            );
            self.report("operator_mismatch", &format!("{path}.op"), message);
            return None;
        }
        let value = self.literal(fields.get("value"), &format!("{path}.value"), op, signal.kind())?;
        Some(Condition { signal, op, value })
    }

    fn literal(&mut self, value: Option<&Json>, path: &str, op: Op, kind: SignalType) -> Option<Literal> {
        let Some(value) = value else {
            if op == Op::Exists {
                return Some(Literal::Flag(true));
            }
            self.report("missing_field", path, "`value` is missing".into());
            return None;
        };
        match op {
            Op::Exists => self.scalar(value, path, SignalType::Flag),
            Op::Matches => self.pattern(value, path).map(Literal::Text),
            Op::Contains => self.scalar(value, path, SignalType::Text),
            Op::In | Op::NotIn => {
                let items = self.items(value, path)?;
                let read = items.iter().enumerate().map(|(i, item)| self.scalar(item, &format!("{path}[{i}]"), kind));
                read.collect::<Vec<_>>().into_iter().collect::<Option<_>>().map(Literal::List)
            }
            Op::Gt | Op::Gte | Op::Lt | Op::Lte if kind == SignalType::Any && !value.is_number() => {
                self.report("wrong_type", path, "must be a number".into());
                None
            }
            Op::Eq | Op::Ne | Op::Gt | Op::Gte | Op::Lt | Op::Lte => self.scalar(value, path, kind),
        }
    }

    fn scalar(&mut self, value: &Json, path: &str, kind: SignalType) -> Option<Literal> {
        let expected = match (kind, value) {
            (SignalType::Text | SignalType::Texts, _) | (SignalType::Any, Json::String(_)) => {
                return self.plain_text(Some(value), path).map(Literal::Text);
            }
            (SignalType::Flag | SignalType::Any, Json::Bool(flag)) => return Some(Literal::Flag(*flag)),
            (SignalType::Any, Json::Number(number)) => return Some(Literal::Number(number.clone())),
            (SignalType::Number, Json::Number(number)) if number.as_u64().is_some_and(|n| n <= MAX_COUNT) => {
                return Some(Literal::Number(number.clone()));
            }
            (SignalType::Rank, Json::String(word)) => {
                let class = classification(word);
                if class.is_none() {
                    self.unknown(("unknown_value", "classification"), path, word, CLASSES.map(Classification::as_str));
                }
                return class.map(|class| Literal::Rank(rank(class)));
            }
            (SignalType::Flag, _) => "true or false",
            (SignalType::Number, _) => "a whole number from 0",
            (SignalType::Rank, _) => "a classification such as `RESTRICTED`",
            (SignalType::Any, _) => "a text, a number, true or false",
        };
        self.report("wrong_type", path, format!("must be {expected}"));
        None
    }
}

/// Every choice of one alternative from each part, joined; `None` where there would be too many.
fn product(parts: &[Vec<Vec<Condition>>]) -> Option<Vec<Vec<Condition>>> {
    let mut joined = vec![Vec::new()];
    for part in parts {
        if joined.len() * part.len() > MAX_ALTERNATIVES {
            return None;
        }
        joined = joined
            .iter()
            .flat_map(|left: &Vec<Condition>| part.iter().map(move |right| [left.as_slice(), right].concat()))
            .collect();
    }
    Some(joined)
}
