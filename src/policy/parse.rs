//! JSON to typed rules, with every mistake named at once.
//!
//! Owns the shape of `{kind, ordinal, payload, mode?}`; `conditions` reads `{when, then}`. Never guesses: an unknown word, a field too
//! many or a value of the wrong type is a finding with its path and the nearest valid word. Work is bounded by the
//! limits in `rules`.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value as Json};

use super::{
    glob,
    rules::{MAX_CONDITIONS, MAX_ITEMS, MAX_PATTERNS, MAX_RULES, Mode, Rule, RuleBody, RuleFinding, Scope},
};
use crate::domain::nearest::nearest;

/// Most findings that one answer lists.
const MAX_FINDINGS: usize = 100;

/// The kinds that this build carries out.
const KINDS: [&str; 5] = ["BlockTool", "AllowTool", "BlockPII", "BlockSecrets", "Conditional"];
/// The kinds that are known and not available yet: fine in a draft, refused at publish.
const LATER_KINDS: [&str; 5] =
    ["RequireApproval", "RedactToolArg", "PerToolRateLimit", "BlockIdentifiers", "AllowCapabilities"];

/// Reads the rules of one policy; the result is in order of `ordinal`.
pub fn parse_rules(value: &Json) -> Result<Vec<Rule>, Vec<RuleFinding>> {
    let mut parser = Parser::default();
    let Json::Array(items) = value else {
        parser.report("wrong_type", "rules", "rules must be a list".into());
        return Err(parser.findings);
    };
    if items.len() > MAX_RULES {
        parser.report("too_many", "rules", format!("a policy has at most {MAX_RULES} rules"));
        return Err(parser.findings);
    }
    let mut rules: Vec<Rule> =
        items.iter().enumerate().filter_map(|(i, item)| parser.rule(item, &format!("rules[{i}]"))).collect();
    parser.check_work(&rules);
    if !parser.findings.is_empty() {
        return Err(parser.findings);
    }
    rules.sort_by_key(|rule| rule.ordinal);
    Ok(rules)
}

/// Collects findings while it reads.
#[derive(Default)]
pub(super) struct Parser {
    findings: Vec<RuleFinding>,
    ordinals: HashMap<u32, String>,
}

impl Parser {
    /// Bounds what one decision has to look at.
    fn check_work(&mut self, rules: &[Rule]) {
        let (mut conditions, mut patterns) = (0, 0);
        for rule in rules {
            match &rule.body {
                RuleBody::Conditional(conditional) => {
                    conditions += conditional.when.iter().map(Vec::len).sum::<usize>();
                }
                RuleBody::BlockTool { tools } | RuleBody::AllowTool { tools } => patterns += tools.len(),
                RuleBody::BlockPII { .. } | RuleBody::BlockSecrets { .. } | RuleBody::Unavailable { .. } => {}
            }
        }
        if conditions > MAX_CONDITIONS {
            let message = format!("the conditions of a policy come to more than {MAX_CONDITIONS} when flattened");
            self.report("too_large", "rules", message);
        }
        if patterns > MAX_PATTERNS {
            self.report("too_large", "rules", format!("a policy has at most {MAX_PATTERNS} patterns for tools"));
        }
    }

    pub(super) fn report(&mut self, code: &'static str, path: &str, message: String) {
        self.report_with(code, path, message, None);
    }

    pub(super) fn report_with(&mut self, code: &'static str, path: &str, message: String, suggestion: Option<&str>) {
        if self.findings.len() < MAX_FINDINGS {
            let suggestion = suggestion.map(str::to_owned);
            self.findings.push(RuleFinding { code, path: path.to_owned(), message, suggestion });
        }
    }

    /// An unknown word and the nearest of the valid ones.
    pub(super) fn unknown<'a>(
        &mut self,
        (code, what): (&'static str, &str),
        path: &str,
        word: &str,
        valid: impl IntoIterator<Item = &'a str>,
    ) {
        let shown: String = word.chars().take(80).collect();
        self.report_with(code, path, format!("unknown {what} `{shown}`"), nearest(word, valid));
    }

    pub(super) fn object<'a>(&mut self, value: &'a Json, path: &str, known: &[&str]) -> Option<&'a Map<String, Json>> {
        let Json::Object(object) = value else {
            self.report("wrong_type", path, "must be an object".into());
            return None;
        };
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            let shown: String = name.chars().take(80).collect();
            self.unknown(("unknown_field", "field"), &format!("{path}.{shown}"), name, known.iter().copied());
        }
        Some(object)
    }

    fn rule(&mut self, value: &Json, path: &str) -> Option<Rule> {
        let object = self.object(value, path, &["kind", "ordinal", "payload", "mode"])?;
        let ordinal = self.ordinal(object.get("ordinal"), path);
        let mode = self.word(object.get("mode"), &format!("{path}.mode"), "mode", &MODES);
        let body = self.body(object, path);
        Some(Rule { ordinal: ordinal?, mode: mode?.unwrap_or(Mode::Enforce), body: body? })
    }

    fn ordinal(&mut self, value: Option<&Json>, path: &str) -> Option<u32> {
        let here = format!("{path}.ordinal");
        let Some(ordinal) = value.and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok()) else {
            let code = if value.is_none() { "missing_field" } else { "wrong_type" };
            self.report(code, &here, "`ordinal` must be a whole number from 0".into());
            return None;
        };
        if let Some(first) = self.ordinals.insert(ordinal, path.to_owned()) {
            self.report("duplicate_ordinal", &here, format!("ordinal {ordinal} is already that of `{first}`"));
        }
        Some(ordinal)
    }

    fn body(&mut self, object: &Map<String, Json>, path: &str) -> Option<RuleBody> {
        let kind = self.text(object, "kind", path)?;
        let empty = Json::Object(Map::new());
        let (payload, here) = (object.get("payload").unwrap_or(&empty), format!("{path}.payload"));
        if let Some(kind) = LATER_KINDS.into_iter().find(|later| *later == kind) {
            return Some(RuleBody::Unavailable { kind });
        }
        match kind {
            "BlockTool" => Some(RuleBody::BlockTool { tools: self.tools(payload, &here)? }),
            "AllowTool" => Some(RuleBody::AllowTool { tools: self.tools(payload, &here)? }),
            "BlockPII" => {
                let fields = self.object(payload, &here, &["scope", "entities"])?;
                let scope = self.scope(fields, &here);
                let entities = fields.get("entities");
                let entities =
                    entities.map_or(Some(Vec::new()), |list| self.entities(list, &format!("{here}.entities")));
                Some(RuleBody::BlockPII { scope: scope?, entities: entities? })
            }
            "BlockSecrets" => {
                let fields = self.object(payload, &here, &["scope"])?;
                Some(RuleBody::BlockSecrets { scope: self.scope(fields, &here)? })
            }
            "Conditional" => self.conditional(payload, &here).map(RuleBody::Conditional),
            other => {
                let valid = KINDS.into_iter().chain(LATER_KINDS);
                self.unknown(("unknown_kind", "kind of rule"), &format!("{path}.kind"), other, valid);
                None
            }
        }
    }

    pub(super) fn text<'a>(&mut self, object: &'a Map<String, Json>, name: &str, path: &str) -> Option<&'a str> {
        let value = object.get(name);
        let text = value.and_then(Json::as_str);
        if text.is_none() {
            let code = if value.is_none() { "missing_field" } else { "wrong_type" };
            self.report(code, &format!("{path}.{name}"), format!("`{name}` must be a text"));
        }
        text
    }

    /// An optional word out of a closed list. The outer `None` is a finding, the inner one "not given".
    #[expect(clippy::option_option, reason = "absent and wrong are different things here")]
    fn word<T: Copy>(
        &mut self,
        value: Option<&Json>,
        path: &str,
        what: &str,
        words: &[(&'static str, T)],
    ) -> Option<Option<T>> {
        let Some(value) = value else { return Some(None) };
        let Some(text) = value.as_str() else {
            self.report("wrong_type", path, format!("a {what} must be a text"));
            return None;
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            self.unknown(("unknown_value", what), path, text, words.iter().map(|(word, _)| *word));
        }
        found.map(Some)
    }

    fn scope(&mut self, fields: &Map<String, Json>, path: &str) -> Option<Scope> {
        let scope = self.word(fields.get("scope"), &format!("{path}.scope"), "scope", &SCOPES)?;
        Some(scope.unwrap_or(Scope::Both))
    }

    pub(super) fn items<'a>(&mut self, value: &'a Json, path: &str) -> Option<&'a [Json]> {
        match value {
            Json::Array(items) if items.is_empty() => self.report("empty_list", path, "the list is empty".into()),
            Json::Array(items) if items.len() > MAX_ITEMS => {
                self.report("too_many", path, format!("a list has at most {MAX_ITEMS} items"));
            }
            Json::Array(items) => return Some(items),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
                self.report("wrong_type", path, "must be a list".into());
            }
        }
        None
    }

    fn tools(&mut self, payload: &Json, path: &str) -> Option<Vec<Arc<str>>> {
        let fields = self.object(payload, path, &["tools"])?;
        let here = format!("{path}.tools");
        let Some(list) = fields.get("tools") else {
            self.report("missing_field", &here, "`tools` is missing".into());
            return None;
        };
        let items = self.items(list, &here)?;
        let read = items.iter().enumerate().map(|(i, item)| self.pattern(item, &format!("{here}[{i}]")));
        read.collect::<Vec<_>>().into_iter().collect()
    }

    pub(super) fn pattern(&mut self, value: &Json, path: &str) -> Option<Arc<str>> {
        let Some(text) = value.as_str() else {
            self.report("wrong_type", path, "a pattern must be a text".into());
            return None;
        };
        if let Err(why) = glob::check(text) {
            self.report("bad_pattern", path, why);
            return None;
        }
        Some(Arc::from(text))
    }

    fn entities(&mut self, value: &Json, path: &str) -> Option<Vec<Arc<str>>> {
        let items = self.items(value, path)?;
        let mut entities = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.';
            let fits = |text: &&str| (1..=64).contains(&text.len()) && text.bytes().all(plain);
            match item.as_str().filter(fits) {
                Some(entity) => entities.push(Arc::from(entity)),
                None => self.report("wrong_type", &format!("{path}[{i}]"), "must be a name such as `email`".into()),
            }
        }
        (entities.len() == items.len()).then_some(entities)
    }
}

const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];
const SCOPES: [(&str, Scope); 3] = [("input", Scope::Input), ("output", Scope::Output), ("both", Scope::Both)];
