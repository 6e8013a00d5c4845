//! Values of options: read, merged, handed out typed.
//!
//! Owns their types, bounds and the merge of two levels. Never knows what a step does with them. A value that the
//! option cannot have is refused with words that say what it can.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::error::{hint, shown};
use crate::domain::{
    detection::Classification,
    money::NanoUsd,
    steps::{Lit, OptionKind, OptionSpec, Tighter},
};

/// Most items of a list, most keys of a map.
const MAX_ITEMS: usize = 1_000;
/// Longest item, in bytes.
const MAX_TEXT: usize = 1_024;
/// Largest `constraints`, in bytes of JSON.
const MAX_CONSTRAINTS: usize = 64 * 1024;
/// Largest amount, in dollars: read as a float and still exact to the cent.
const MAX_DOLLARS: f64 = 1e9;

/// A pattern that an organization adds to a detector. Whether it compiles is the detector's to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    /// What a detection is called.
    pub name: String,
    /// A regular expression.
    pub pattern: String,
    /// One of the words that the option knows: severities or classifications.
    pub level: Option<&'static str>,
}

/// What needs a person's approval.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Requests of this classification.
    Classification(Classification),
    /// Calls of the tools that this glob names.
    Tool(String),
}

/// A value of an option. Lists are sorted and hold nothing twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// A whole number.
    Integer(i64),
    /// An amount.
    Money(NanoUsd),
    /// Yes or no.
    Bool(bool),
    /// One of the option's words.
    Word(&'static str),
    /// A list.
    Strings(Vec<String>),
    /// Further patterns.
    Patterns(Vec<Pattern>),
    /// What needs approval.
    Needs(Vec<Need>),
    /// Tools by scope of end user.
    Scopes(BTreeMap<String, Vec<String>>),
    /// Constraints by tool and argument.
    Constraints(Map<String, Value>),
}

impl OptionValue {
    /// Reads a value; the error says what would be valid.
    pub(super) fn read(spec: &OptionSpec, value: &Value) -> Result<Self, String> {
        Ok(match spec.kind {
            OptionKind::Integer { min, max } => {
                let number = value.as_i64().filter(|number| (min..=max).contains(number));
                Self::Integer(number.ok_or_else(|| format!("must be a whole number from {min} to {max}"))?)
            }
            OptionKind::Money => {
                let dollars = value.as_f64().filter(|dollars| *dollars <= MAX_DOLLARS);
                let amount = dollars.and_then(NanoUsd::from_dollars);
                Self::Money(amount.ok_or_else(|| format!("must be a number of dollars from 0 to {MAX_DOLLARS}"))?)
            }
            OptionKind::Bool => Self::Bool(value.as_bool().ok_or("must be `true` or `false`")?),
            OptionKind::Enum(words) => Self::Word(read_word(words, value)?),
            OptionKind::Strings => {
                let list = read_strings(value)?;
                if list.is_empty() && spec.tighter == Tighter::UnitedOfAll {
                    return Err("an empty list would look for nothing; say `enabled: false` instead".to_owned());
                }
                Self::Strings(list)
            }
            OptionKind::Patterns(levels) => Self::Patterns(read_list(value, |item| read_pattern(levels, item))?),
            OptionKind::Needs => Self::Needs(read_list(value, read_need)?),
            OptionKind::Scopes => {
                let scopes = read_map(value)?.iter().map(|(scope, tools)| Ok((scope.clone(), read_strings(tools)?)));
                Self::Scopes(scopes.collect::<Result<_, String>>()?)
            }
            OptionKind::Constraints => {
                let map = read_map(value)?;
                if map.values().any(|arguments| !arguments.is_object()) || value.to_string().len() > MAX_CONSTRAINTS {
                    return Err(format!("must be `{{tool: {{argument: …}}}}` of at most {MAX_CONSTRAINTS} bytes"));
                }
                Self::Constraints(map.clone())
            }
        })
    }

    /// What stands in the table.
    pub(super) fn of(value: Lit) -> Self {
        match value {
            Lit::Integer(number) => Self::Integer(number),
            Lit::Money(amount) => Self::Money(amount),
            Lit::Bool(yes) => Self::Bool(yes),
            Lit::Word(word) => Self::Word(word),
            Lit::Strings(list) => Self::Strings(sorted(list.iter().map(|item| (*item).to_owned()))),
            Lit::Needs(needs) => {
                let read = |(key, word): &(&str, &str)| read_need(&json!({ *key: word })).ok();
                Self::Needs(sorted(needs.iter().filter_map(read)))
            }
        }
    }

    /// As it was read.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Integer(number) => (*number).into(),
            Self::Money(amount) if amount.0 % 1_000_000_000 == 0 => (amount.0 / 1_000_000_000).into(),
            Self::Money(amount) => amount.dollars().into(),
            Self::Bool(yes) => (*yes).into(),
            Self::Word(word) => (*word).into(),
            Self::Strings(list) => json!(list),
            Self::Patterns(list) => list.iter().map(pattern_to_json).collect(),
            Self::Needs(list) => list.iter().map(need_to_json).collect(),
            Self::Scopes(scopes) => json!(scopes),
            Self::Constraints(map) => Value::Object(map.clone()),
        }
    }

    /// A few characters of it, for messages.
    pub(super) fn shown(&self) -> String {
        shown(&self.to_json().to_string())
    }
}

fn read_word(words: &'static [&'static str], value: &Value) -> Result<&'static str, String> {
    let given = value.as_str().ok_or_else(|| format!("must be one of `{}`", words.join("`, `")))?;
    let found = words.iter().copied().find(|word| *word == given);
    found.ok_or_else(|| format!("unknown value `{}`; {}", shown(given), hint(given, words.iter().copied())))
}

fn read_text(value: &Value) -> Result<String, String> {
    let text = value.as_str().filter(|text| (1..=MAX_TEXT).contains(&text.len()));
    text.map(str::to_owned).ok_or_else(|| format!("must hold texts of 1 to {MAX_TEXT} bytes"))
}

fn read_list<T: Ord>(value: &Value, read: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    let list = value.as_array().filter(|list| list.len() <= MAX_ITEMS);
    let items = list.ok_or_else(|| format!("must be a list of at most {MAX_ITEMS} items"))?.iter().map(read);
    Ok(sorted(items.collect::<Result<Vec<T>, String>>()?))
}

fn read_strings(value: &Value) -> Result<Vec<String>, String> {
    read_list(value, read_text)
}

fn read_map(value: &Value) -> Result<&Map<String, Value>, String> {
    let map = value.as_object().filter(|map| map.len() <= MAX_ITEMS);
    map.ok_or_else(|| format!("must be a map of at most {MAX_ITEMS} keys"))
}

fn read_pattern(levels: &'static [&'static str], value: &Value) -> Result<Pattern, String> {
    let map = value.as_object().ok_or("must hold maps of `name`, `pattern` and `level`")?;
    if let Some(key) = map.keys().find(|key| !matches!(key.as_str(), "name" | "pattern" | "level")) {
        return Err(format!("unknown key `{}`; {}", shown(key), hint(key, ["name", "pattern", "level"])));
    }
    let field = |key: &str| map.get(key).map_or_else(|| Err(format!("`{key}` is missing")), read_text);
    let level = map.get("level").map(|level| read_word(levels, level)).transpose()?;
    Ok(Pattern { name: field("name")?, pattern: field("pattern")?, level })
}

fn pattern_to_json(pattern: &Pattern) -> Value {
    let mut value = json!({ "name": pattern.name, "pattern": pattern.pattern });
    if let (Some(map), Some(level)) = (value.as_object_mut(), pattern.level) {
        map.insert("level".to_owned(), level.into());
    }
    value
}

fn read_need(value: &Value) -> Result<Need, String> {
    const CLASSES: [Classification; 5] = [
        Classification::Public,
        Classification::Internal,
        Classification::Confidential,
        Classification::Restricted,
        Classification::TopSecret,
    ];
    let entry = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.iter().next());
    let (key, value) = entry.ok_or("must hold `{classification: …}` or `{tool: …}`")?;
    let text = read_text(value)?;
    match key.as_str() {
        "tool" => Ok(Need::Tool(text)),
        "classification" => {
            let class = CLASSES.into_iter().find(|class| class.as_str() == text);
            let unknown = || {
                format!(
                    "unknown classification `{}`; {}",
                    shown(&text),
                    hint(&text, CLASSES.map(Classification::as_str))
                )
            };
            class.map(Need::Classification).ok_or_else(unknown)
        }
        _ => Err(format!("unknown key `{}`; {}", shown(key), hint(key, ["classification", "tool"]))),
    }
}

fn need_to_json(need: &Need) -> Value {
    match need {
        Need::Classification(class) => json!({ "classification": class.as_str() }),
        Need::Tool(glob) => json!({ "tool": glob }),
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    items.into_iter().collect::<BTreeSet<T>>().into_iter().collect()
}

/// The options of one step, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepOptions(Vec<(&'static str, OptionValue)>);

/// One accessor per type; `None` where the option has no value, an empty list where a list has none.
impl StepOptions {
    /// A whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        if let Some(OptionValue::Integer(number)) = self.get(name) { Some(*number) } else { None }
    }

    /// An amount.
    pub fn money(&self, name: &str) -> Option<NanoUsd> {
        if let Some(OptionValue::Money(amount)) = self.get(name) { Some(*amount) } else { None }
    }

    /// Yes or no; no where nothing is said.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.get(name), Some(OptionValue::Bool(true)))
    }

    /// A word of an enumeration.
    pub fn word(&self, name: &str) -> Option<&'static str> {
        if let Some(OptionValue::Word(word)) = self.get(name) { Some(word) } else { None }
    }

    /// A list, sorted; `None` where nothing is said, which for an allow list is everything.
    pub fn strings(&self, name: &str) -> Option<&[String]> {
        if let Some(OptionValue::Strings(list)) = self.get(name) { Some(list) } else { None }
    }

    /// `custom_patterns`.
    pub fn patterns(&self) -> &[Pattern] {
        if let Some(OptionValue::Patterns(list)) = self.get("custom_patterns") { list } else { &[] }
    }

    /// `required_for`.
    pub fn needs(&self) -> &[Need] {
        if let Some(OptionValue::Needs(list)) = self.get("required_for") { list } else { &[] }
    }

    /// `scopes`.
    pub fn scopes(&self) -> Option<&BTreeMap<String, Vec<String>>> {
        if let Some(OptionValue::Scopes(scopes)) = self.get("scopes") { Some(scopes) } else { None }
    }

    /// `constraints`.
    pub fn constraints(&self) -> Option<&Map<String, Value>> {
        if let Some(OptionValue::Constraints(map)) = self.get("constraints") { Some(map) } else { None }
    }

    /// Any value.
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All values that are set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &OptionValue)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    pub(super) fn set(&mut self, name: &'static str, value: OptionValue) {
        match self.0.binary_search_by_key(&name, |(key, _)| key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.0.insert(place, (name, value)),
        }
    }
}

/// Two levels in one.
pub(super) struct Merged {
    /// Never looser than either; `None` where nothing is said, in the tighter sense of nothing.
    pub(super) value: Option<OptionValue>,
    /// Whether the second level asked for less than the first holds.
    pub(super) looser: bool,
}

/// Merges what a lower level asks for into what a higher one holds.
pub(super) fn merge(spec: &OptionSpec, held: Option<&OptionValue>, asked: &OptionValue) -> Merged {
    let Some(held) = held else {
        let looser = matches!(spec.tighter, Tighter::UnitedOfAll | Tighter::Exceptions);
        return Merged { value: (!looser).then(|| asked.clone()), looser };
    };
    match (held, asked) {
        (OptionValue::Strings(held), OptionValue::Strings(asked)) => merge_lists(spec.tighter, held, asked),
        (OptionValue::Patterns(held), OptionValue::Patterns(asked)) => {
            tight(OptionValue::Patterns(sorted(held.iter().chain(asked).cloned())))
        }
        (OptionValue::Needs(held), OptionValue::Needs(asked)) => {
            tight(OptionValue::Needs(sorted(held.iter().chain(asked).cloned())))
        }
        (OptionValue::Scopes(held), OptionValue::Scopes(asked)) => {
            let both = held.iter().filter_map(|(scope, tools)| Some((scope, tools, asked.get(scope)?)));
            tight(OptionValue::Scopes(both.map(|(scope, a, b)| (scope.clone(), overlap(a, b))).collect()))
        }
        (OptionValue::Constraints(held), OptionValue::Constraints(asked)) => merge_constraints(held, asked),
        _ => {
            let looser = is_looser(spec, held, asked);
            Merged { value: Some(if looser { held } else { asked }.clone()), looser }
        }
    }
}

fn tight(value: OptionValue) -> Merged {
    Merged { value: Some(value), looser: false }
}

fn is_looser(spec: &OptionSpec, held: &OptionValue, asked: &OptionValue) -> bool {
    let rank = |value: &OptionValue| match (value, spec.kind) {
        (OptionValue::Integer(number), _) => *number,
        (OptionValue::Money(amount), _) => amount.0,
        (OptionValue::Bool(yes), _) => i64::from(*yes),
        (OptionValue::Word(word), OptionKind::Enum(words)) => {
            words.iter().zip(0..).find_map(|(known, rank)| (known == word).then_some(rank)).unwrap_or(0)
        }
        _ => 0,
    };
    let lower_wins = matches!(spec.tighter, Tighter::Lower | Tighter::Off);
    if lower_wins { rank(asked) > rank(held) } else { rank(asked) < rank(held) }
}

fn merge_lists(tighter: Tighter, held: &[String], asked: &[String]) -> Merged {
    if tighter == Tighter::Intersected {
        return tight(OptionValue::Strings(overlap(held, asked)));
    }
    if tighter == Tighter::Exceptions {
        let (both, more): (Vec<String>, Vec<String>) = asked.iter().cloned().partition(|item| held.contains(item));
        return Merged { value: Some(OptionValue::Strings(both)), looser: !more.is_empty() };
    }
    tight(OptionValue::Strings(sorted(held.iter().chain(asked).cloned())))
}

/// Tools of both levels are united; two different sets of constraints on one tool cannot be compared.
fn merge_constraints(held: &Map<String, Value>, asked: &Map<String, Value>) -> Merged {
    let mut both = asked.clone();
    both.extend(held.clone());
    let looser = asked.iter().any(|(tool, arguments)| both.get(tool) != Some(arguments));
    Merged { value: Some(OptionValue::Constraints(both)), looser }
}

/// What both lists of globs allow. Exact where the globs are names or end in their only `*`; other globs only meet
/// their equal, which is tighter, never looser.
fn overlap(a: &[String], b: &[String]) -> Vec<String> {
    let within = |inner: &String, outer: &[String]| outer.iter().any(|glob| covers(glob, inner));
    let from_a = a.iter().filter(|glob| within(glob, b));
    let from_b = b.iter().filter(|glob| within(glob, a));
    sorted(from_a.chain(from_b).cloned())
}

fn covers(outer: &str, inner: &str) -> bool {
    let prefix = outer.strip_suffix('*').filter(|prefix| !prefix.contains(['*', '?', '[', '{', '\\', '!']));
    outer == inner || prefix.is_some_and(|prefix| inner.starts_with(prefix))
}
