//! Plans: which steps act on an agent's requests, how, and who said so.
//!
//! Owns what is stored ([`PipelineSpec`]), its import in the three accepted shapes, the merge of levels into a
//! [`Plan`], and the per-call [`flags`]. Never runs a step, never does I/O, never lets a level loosen what a higher one
//! set. Every mistake in a configuration is an error with its path and the nearest valid word, all of them at once. A
//! plan is compiled when a snapshot is built; reading it on the request path allocates nothing.

pub mod flags;

mod compile;
mod error;
mod import;
mod options;
mod spec;
mod yaml;

use std::{fmt, sync::Arc};

pub use compile::{PlanLayers, PolicySwitch, compile};
pub use error::PlanError;
pub use import::import;
pub use options::{Need, OptionValue, Pattern, StepOptions};
pub use spec::{PipelineSpec, StepOverride};
pub use yaml::import_yaml;

use crate::domain::{
    detection::Action,
    steps::{self, Phase, Preset, Span, StepSpec},
};

/// Who set what a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The organization's preset, or the agent's where it is the tighter one.
    Preset(Preset),
    /// The organization's stored pipeline.
    Organization,
    /// The agent's stored pipeline.
    Agent,
    /// A rule of a policy, by its id.
    Policy(Arc<str>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(preset) => write!(f, "preset {}", preset.as_str()),
            Self::Organization => f.write_str("organization"),
            Self::Agent => f.write_str("agent"),
            Self::Policy(rule) => write!(f, "policy {rule}"),
        }
    }
}

/// A step as this plan has it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// Its row in the registry.
    pub spec: &'static StepSpec,
    /// What is done about a detection or a breach; `log` where the step simply runs.
    pub action: Action,
    /// Basis points; findings below do not count. `None`: all count.
    pub threshold: Option<u16>,
    /// Its options, defaults included.
    pub options: StepOptions,
    /// Who said so last.
    pub source: Source,
}

impl PlannedStep {
    /// Whether it can change an answer before the caller has it.
    fn changes_answer(&self) -> bool {
        let in_time = self.spec.span.is_some_and(|span| span != Span::AfterTheFact);
        in_time && self.action >= Action::Redact
    }
}

/// What acts on the requests of one agent, in order of acting.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The organization's preset.
    pub preset: Preset,
    /// In order of acting: `filter_tools` just before `call_llm`.
    pub steps: Vec<PlannedStep>,
    /// Steps that a preset names and this build does not have.
    pub missing: Vec<&'static str>,
    /// By number in the registry: place in `steps`, counted from 1; 0 is absent.
    index: [u8; 50],
}

impl Plan {
    fn new(preset: Preset, mut steps: Vec<PlannedStep>, missing: Vec<&'static str>) -> Self {
        steps.sort_by_key(|step| step.spec.acts_at());
        let mut index = [0; 50];
        for (step, place) in steps.iter().zip(1..) {
            index[usize::from(step.spec.number)] = place;
        }
        Self { preset, steps, missing, index }
    }

    /// The step with exactly this id, if it is in the plan.
    pub fn step(&self, id: &str) -> Option<&PlannedStep> {
        self.at(steps::get(id)?)
    }

    /// The same for a row of the registry, in constant time.
    pub fn at(&self, spec: &StepSpec) -> Option<&PlannedStep> {
        let place = usize::from(*self.index.get(usize::from(spec.number))?);
        self.steps.get(place.checked_sub(1)?)
    }

    /// The steps of one phase, in order of acting.
    pub fn phase(&self, phase: Phase) -> &[PlannedStep] {
        let first = self.steps.partition_point(|step| step.spec.phase < phase);
        let end = self.steps.partition_point(|step| step.spec.phase <= phase);
        self.steps.get(first..end).unwrap_or_default()
    }

    /// Whether the answer must be held: some step may change it before the caller has it. (This build holds the whole
    /// answer for any such step, also for one that would need a match only.) Flags may add to it:
    /// [`flags::FlagEffects::holds_stream`].
    pub fn holds_stream(&self) -> bool {
        self.phase(Phase::After).iter().any(PlannedStep::changes_answer)
    }
}

#[cfg(test)]
mod tests;
