//! The registry of the 49 steps, as data: what each is, when it acts, what it may be told, what the presets make of it.
//!
//! Owns ids, positions, options and the presets' cells; ids are public API and never change. Never runs a step and
//! never knows which of them this build has: the pipeline does, and a test compares the two lists. Nothing here can
//! fail; an unknown id is `None`, and [`hint`] names the nearest valid one for the error that the caller makes.

mod table;

use serde::Serialize;
use table::TABLE;

use crate::domain::{detection::Action, money::NanoUsd, nearest::nearest};

/// Where in the life of a request a step acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// On the prompt.
    Before,
    /// Around the provider and tools.
    Call,
    /// On the answer.
    After,
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Who may do how much.
    AccessControl,
    /// Personal data, secrets, business.
    DataProtection,
    /// Attacks.
    ThreatDetection,
    /// What the request is.
    ClassifyAndPrepare,
    /// Provider and tools.
    RouteAndExecute,
    /// The answer.
    ResponseSafety,
    /// What is recorded.
    Tracking,
}

impl Category {
    /// All seven, in the order of the reference.
    pub const ALL: [Self; 7] = [
        Self::AccessControl,
        Self::DataProtection,
        Self::ThreatDetection,
        Self::ClassifyAndPrepare,
        Self::RouteAndExecute,
        Self::ResponseSafety,
        Self::Tracking,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessControl => "access_control",
            Self::DataProtection => "data_protection",
            Self::ThreatDetection => "threat_detection",
            Self::ClassifyAndPrepare => "classify_and_prepare",
            Self::RouteAndExecute => "route_and_execute",
            Self::ResponseSafety => "response_safety",
            Self::Tracking => "tracking",
        }
    }

    /// Reads the word.
    pub fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.as_str() == word)
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// May refuse.
    Gate,
    /// Yields detections and never decides.
    Detector,
    /// Changes the message.
    Transform,
    /// Does work or records.
    Effect,
}

/// What an error of a step does to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailMode {
    /// Refuses it, naming the step.
    Closed,
    /// Leaves a mark in the audit entry.
    Open,
}

/// How much of the answer an `after` step must see before it can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// One match; released as soon as nothing open remains.
    Match,
    /// A window of words.
    Window,
    /// All of it.
    Whole,
    /// Nothing: it speaks when the answer is out.
    AfterTheFact,
}

/// The three presets, from loose to tight: each later one has every step of the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Eleven steps.
    Starter,
    /// Forty steps.
    Standard,
    /// All of them.
    Regulated,
}

impl Preset {
    /// All three, from loose to tight.
    pub const ALL: [Self; 3] = [Self::Starter, Self::Standard, Self::Regulated];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starter => "starter",
            Self::Standard => "standard",
            Self::Regulated => "regulated",
        }
    }

    /// Reads the word.
    pub fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == word)
    }
}

/// A value that stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lit {
    /// A whole number.
    Integer(i64),
    /// An amount.
    Money(NanoUsd),
    /// Yes or no.
    Bool(bool),
    /// One of the words of an [`OptionKind::Enum`].
    Word(&'static str),
    /// A list.
    Strings(&'static [&'static str]),
    /// `required_for`: (`classification` or `tool`, value).
    Needs(&'static [(&'static str, &'static str)]),
}

/// What one preset makes of one step.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    /// The step is not part of the preset.
    Absent,
    /// It runs; there is no action to choose.
    Runs,
    /// It acts so, by default.
    Acts {
        /// What is done about a finding or a breach.
        action: Action,
        /// Basis points; only scored detectors have one.
        threshold: Option<u16>,
        /// Where the preset differs from the options' own defaults.
        options: &'static [(&'static str, Lit)],
    },
}

impl Cell {
    /// Basis points, where the cell says.
    pub fn threshold(&self) -> Option<u16> {
        if let Self::Acts { threshold, .. } = self { *threshold } else { None }
    }

    /// Its options, where they differ from the options' own defaults.
    pub fn options(&self) -> &'static [(&'static str, Lit)] {
        if let Self::Acts { options, .. } = self { options } else { &[] }
    }
}

/// What values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionKind {
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// US dollars, written as a number.
    Money,
    /// `true` or `false`.
    Bool,
    /// A list of texts.
    Strings,
    /// One of these words, the loosest first.
    Enum(&'static [&'static str]),
    /// A list of `{name, pattern, level}`; the level is one of these words.
    Patterns(&'static [&'static str]),
    /// A list of `{classification: …}` or `{tool: glob}`.
    Needs,
    /// `{scope: [tool, …]}`.
    Scopes,
    /// `{tool: {argument: constraint}}`; the step knows the constraints.
    Constraints,
}

/// How the values of two levels become one that is never looser than either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tighter {
    /// The lower number wins; absent is unbounded.
    Lower,
    /// The higher number or the later word wins: the same bound over a longer window, a tag that lives longer.
    Higher,
    /// `true` wins.
    On,
    /// `false` wins.
    Off,
    /// The lists are united; absent is an empty list (deny lists, further patterns).
    United,
    /// The lists are united; absent is everything, so that a list where there was none is looser.
    UnitedOfAll,
    /// The lists are intersected; absent is everything (allow lists).
    Intersected,
    /// The lists are intersected; absent is an empty list, so that a list where there was none is looser (exceptions).
    Exceptions,
    /// Both hold, name by name.
    ByName,
}

/// One option of one step.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its key.
    pub name: &'static str,
    /// What it takes.
    pub kind: OptionKind,
    /// How levels are merged.
    pub tighter: Tighter,
    /// What holds when nobody says otherwise.
    pub default: Option<Lit>,
    /// One line for a person.
    pub help: &'static str,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct StepSpec {
    /// Its number in the reference, from 1.
    pub number: u8,
    /// Its name for ever.
    pub id: &'static str,
    /// Names that an import accepts too.
    pub aliases: &'static [&'static str],
    /// Its public position.
    pub position: u16,
    /// Whether the position is a published one.
    pub published: bool,
    /// When it acts.
    pub phase: Phase,
    /// What it is for.
    pub category: Category,
    /// What it does.
    pub kind: Kind,
    /// How much of the answer it must see; `None` outside [`Phase::After`].
    pub span: Option<Span>,
    /// The actions that `on_detection` may name, loosest first; none where the step simply runs.
    pub actions: &'static [Action],
    /// Whether it takes a `threshold`.
    pub scored: bool,
    /// Its own options.
    pub options: &'static [OptionSpec],
    /// What `starter`, `standard` and `regulated` make of it.
    pub cells: [Cell; 3],
    /// One line for a person.
    pub description: &'static str,
}

/// A row is its number.
impl PartialEq for StepSpec {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for StepSpec {}

impl StepSpec {
    /// Only what tracks may fail open: a request is never let through because a guard broke.
    pub fn fail_mode(&self) -> FailMode {
        if self.category == Category::Tracking { FailMode::Open } else { FailMode::Closed }
    }

    /// Its place in the order of acting: its position, but `filter_tools` acts just before `call_llm`, since the
    /// provider must not see what the agent may not.
    pub fn acts_at(&self) -> u16 {
        if self.id == "filter_tools" { 599 } else { self.position }
    }

    /// What the preset makes of it.
    pub fn cell(&self, preset: Preset) -> Cell {
        self.cells[preset as usize]
    }

    /// What it does by default when something else than the preset switches it on: the preset's cell, or that of the
    /// next tighter preset that has it.
    pub fn cell_from(&self, preset: Preset) -> Cell {
        let mut cells = self.cells.into_iter().skip(preset as usize);
        cells.find(|cell| !matches!(cell, Cell::Absent)).unwrap_or(Cell::Runs)
    }

    /// Whether it can be switched off: a request without structure or without a call is none.
    pub fn is_optional(&self) -> bool {
        !matches!(self.id, "validate_input" | "call_llm")
    }

    /// One of its own options.
    pub fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        self.options.iter().find(|option| option.name == name)
    }
}

/// All rows, by number. Positions ascend, so this is also the order of acting but for `filter_tools`.
pub fn all() -> &'static [StepSpec] {
    &TABLE
}

/// The row with this id or alias.
pub fn find(id_or_alias: &str) -> Option<&'static StepSpec> {
    get(id_or_alias).or_else(|| TABLE.iter().find(|step| step.aliases.contains(&id_or_alias)))
}

/// The row with exactly this id.
pub fn get(id: &str) -> Option<&'static StepSpec> {
    TABLE.iter().find(|step| step.id == id)
}

/// The end of an error about an unknown id: the nearest valid one, or where they are listed.
pub fn hint(unknown: &str) -> String {
    let names = TABLE.iter().flat_map(|step| std::iter::once(step.id).chain(step.aliases.iter().copied()));
    match nearest(unknown, names) {
        Some(id) => format!("did you mean `{id}`?"),
        None => "`GET /api/pipeline/steps` lists them".to_owned(),
    }
}

#[cfg(test)]
mod tests;
