//! Merges the levels into a plan.
//!
//! Owns the cascade: an organization composes freely from its preset, an agent may only tighten what stands, rules of
//! policies tighten last. Never picks a winner by order: merging is by maximum, so that the same levels give the same
//! plan. A relaxation, and a step named that this build does not have, is refused by name; all refusals at once.

use std::sync::Arc;

use super::{
    PipelineSpec, Plan, PlanError, PlannedStep, Source, StepOptions, StepOverride, import::refused_action,
    options::OptionValue, options::merge,
};
use crate::domain::{
    detection::Action,
    steps::{self, Cell, Preset, StepSpec},
};

/// What a rule of a policy switches on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySwitch {
    /// Id of the step.
    pub step: String,
    /// The least that it does.
    pub action: Action,
    /// Id of the rule.
    pub rule: Arc<str>,
}

/// The levels of one agent's plan.
#[derive(Clone, Copy, Debug)]
pub struct PlanLayers<'a> {
    /// The organization's pipeline: the floor.
    pub org: &'a PipelineSpec,
    /// The agent's, which may only tighten.
    pub agent: Option<&'a PipelineSpec>,
    /// The rules in force for the agent, in any order.
    pub switches: &'a [PolicySwitch],
}

/// Compiles the plan; `has` tells which steps this build has, by id.
pub fn compile(layers: &PlanLayers<'_>, has: &dyn Fn(&str) -> bool) -> Result<Plan, Vec<PlanError>> {
    let preset = layers.org.preset.unwrap_or(Preset::Starter);
    let mut compiler = Compiler { preset, has, steps: [const { None }; 49], errors: Vec::new() };
    compiler.organization(layers.org);
    if let Some(agent) = layers.agent {
        compiler.agent(agent);
    }
    for switch in layers.switches {
        compiler.switch(switch);
    }
    if !compiler.errors.is_empty() {
        return Err(compiler.errors);
    }
    let (built, missing): (Vec<_>, Vec<_>) = compiler.steps.into_iter().flatten().partition(|step| has(step.spec.id));
    Ok(Plan::new(preset, built, missing.iter().map(|step| step.spec.id).collect()))
}

const ORGANIZATION: &str = "organization";
const AGENT: &str = "agent";

struct Compiler<'a> {
    /// The organization's.
    preset: Preset,
    has: &'a dyn Fn(&str) -> bool,
    /// By number, from 0.
    steps: [Option<PlannedStep>; 49],
    errors: Vec<PlanError>,
}

/// What one level asks of one step.
struct Asked<'a> {
    spec: &'static StepSpec,
    /// From the level's preset; never refused, since a preset is a floor and not a wish.
    cell: Cell,
    /// The action of the step's category, where the step can do it.
    category: Option<Action>,
    /// What the level says about the step by name.
    own: Option<&'a StepOverride>,
    /// The level, or its preset where the level itself says nothing.
    source: Source,
}

impl Asked<'_> {
    fn is_off(&self) -> bool {
        self.own.is_some_and(|own| own.enabled == Some(false))
    }

    /// The action that the level chose itself, apart from its preset.
    fn chosen(&self) -> Option<Action> {
        self.own.and_then(|own| own.on_detection).or(self.category)
    }
}

impl Compiler<'_> {
    fn organization(&mut self, pipeline: &PipelineSpec) {
        self.check_built(ORGANIZATION, pipeline);
        for asked in self.resolve(&Source::Organization, pipeline, Some(self.preset)) {
            if !asked.is_off() {
                self.put(compose(&asked, self.preset));
            }
        }
    }

    fn agent(&mut self, pipeline: &PipelineSpec) {
        self.check_built(AGENT, pipeline);
        if let Some(preset) = pipeline.preset.filter(|preset| *preset < self.preset) {
            self.errors.push(PlanError::impossible(
                "preset",
                format!(
                    "the agent's `{}` is looser than the organization's `{}`",
                    preset.as_str(),
                    self.preset.as_str()
                ),
            ));
        }
        for asked in self.resolve(&Source::Agent, pipeline, pipeline.preset) {
            match self.steps[usize::from(asked.spec.number) - 1].take() {
                Some(held) => {
                    let step = self.tighten(held, &asked);
                    self.put(step);
                }
                None if asked.is_off() => {}
                None => self.put(compose(&asked, self.preset)),
            }
        }
    }

    fn switch(&mut self, switch: &PolicySwitch) {
        let path = format!("rule {}", switch.rule);
        let Some(spec) = steps::find(&switch.step) else {
            let (given, hint) = (super::error::shown(&switch.step), steps::hint(&switch.step));
            return self.errors.push(PlanError::Unknown { path, what: "step", given, hint });
        };
        if !(self.has)(spec.id) {
            return self.errors.push(PlanError::NotBuilt { path, step: spec.id, level: "policy" });
        }
        // `log` on a step without actions says that it runs.
        let runs = spec.actions.is_empty() && switch.action == Action::Log;
        if let Some(why) = refused_action(spec, switch.action).filter(|_| !runs) {
            return self.errors.push(PlanError::impossible(&path, why));
        }
        let source = Source::Policy(Arc::clone(&switch.rule));
        let Some(step) = &mut self.steps[usize::from(spec.number) - 1] else {
            let step = PlannedStep { action: switch.action, ..of_cell(spec, spec.cell_from(self.preset), source) };
            return self.put(step);
        };
        // Of two rules with equal effect the lesser id is named, whatever their order.
        let first = matches!(&step.source, Source::Policy(rule) if switch.rule < *rule) && switch.action == step.action;
        if switch.action > step.action || first {
            (step.action, step.source) = (switch.action, source);
        }
    }

    fn put(&mut self, step: PlannedStep) {
        let place = usize::from(step.spec.number) - 1;
        self.steps[place] = Some(step);
    }

    /// A preset may name what this build does not have; a person may not, since they would wait for it in vain.
    fn check_built(&mut self, level: &'static str, pipeline: &PipelineSpec) {
        for step in pipeline.overrides.keys().copied().filter(|id| !(self.has)(id)) {
            self.errors.push(PlanError::NotBuilt { path: format!("overrides.{step}"), step, level });
        }
    }

    /// What the level asks, step by step; a category's action that meets no step of the plan is an error.
    fn resolve<'p>(&mut self, level: &Source, pipeline: &'p PipelineSpec, preset: Option<Preset>) -> Vec<Asked<'p>> {
        let mut asked = Vec::with_capacity(49);
        for spec in steps::all() {
            let cell = preset.map_or(Cell::Absent, |preset| spec.cell(preset));
            let own = pipeline.overrides.get(spec.id);
            let held = self.steps[usize::from(spec.number) - 1].is_some();
            let category = pipeline.categories.get(&spec.category).copied();
            let category = category.filter(|action| spec.actions.contains(action));
            let is_named = !matches!(cell, Cell::Absent) || own.is_some();
            if is_named || (held && category.is_some()) {
                let says_nothing = own.is_none() && category.is_none();
                let source = preset.filter(|_| says_nothing).map_or_else(|| level.clone(), Source::Preset);
                asked.push(Asked { spec, cell, category, own, source });
            }
        }
        for (category, action) in &pipeline.categories {
            if !asked.iter().any(|step| step.spec.category == *category && step.category.is_some()) {
                let path = format!("overrides.categories.{}.on_detection", category.as_str());
                let why = format!("the {level}'s plan has no step of that category that can `{}`", action.as_str());
                self.errors.push(PlanError::impossible(&path, why));
            }
        }
        asked
    }

    /// The held step, at least as tight; what the agent chose itself must not be looser.
    fn tighten(&mut self, mut held: PlannedStep, asked: &Asked<'_>) -> PlannedStep {
        if asked.is_off() {
            self.relaxed("enabled", &held, "`false`".to_owned(), "`true`".to_owned());
            return held;
        }
        let wish = compose(asked, self.preset);
        let says_action = asked.chosen().is_some() || matches!(asked.cell, Cell::Acts { .. });
        if let Some(chosen) = asked.chosen().filter(|chosen| *chosen < held.action) {
            self.relaxed("on_detection", &held, quoted(chosen.as_str()), quoted(held.action.as_str()));
        }
        let before = held.clone();
        if says_action {
            held.action = held.action.max(wish.action);
        }
        self.tighten_threshold(&mut held, asked, wish.threshold);
        self.tighten_options(&mut held, asked);
        if (held.action, held.threshold, &held.options) != (before.action, before.threshold, &before.options) {
            held.source = wish.source;
        }
        held
    }

    /// No threshold lets every finding count, so it is the tightest.
    fn tighten_threshold(&mut self, held: &mut PlannedStep, asked: &Asked<'_>, wish: Option<u16>) {
        if let Some(own) =
            asked.own.and_then(|own| own.threshold).filter(|own| held.threshold.is_none_or(|at| *own > at))
        {
            let holds = held.threshold.map_or_else(|| "none".to_owned(), percent);
            self.relaxed("threshold", held, percent(own), holds);
        }
        let says_threshold = asked.own.is_some_and(|own| own.threshold.is_some()) || asked.cell.threshold().is_some();
        if let (Some(wish), Some(at), true) = (wish, held.threshold, says_threshold) {
            held.threshold = Some(at.min(wish));
        }
    }

    fn tighten_options(&mut self, held: &mut PlannedStep, asked: &Asked<'_>) {
        let of_cell = asked.cell.options().iter().map(|(name, lit)| (*name, OptionValue::of(*lit), false));
        let own = asked.own.into_iter().flat_map(|own| own.options.iter());
        let own: Vec<_> = own.map(|(name, value)| (name, value.clone(), true)).collect();
        // What the agent says itself replaces what its own preset says.
        let of_cell = of_cell.filter(|(name, ..)| !own.iter().any(|(said, ..)| said == name)).collect::<Vec<_>>();
        for (name, wish, chosen) in of_cell.into_iter().chain(own) {
            let Some(option) = held.spec.option(name) else { continue };
            let merged = merge(option, held.options.get(name), &wish);
            if merged.looser && chosen {
                let holds = held.options.get(name).map_or_else(|| "none".to_owned(), |value| quoted(&value.shown()));
                self.relaxed(name, held, quoted(&wish.shown()), holds);
            }
            if let Some(value) = merged.value {
                held.options.set(option.name, value);
            }
        }
    }

    fn relaxed(&mut self, key: &str, held: &PlannedStep, asked: String, holds: String) {
        let (step, owner) = (held.spec.id, held.source.to_string());
        let path = format!("overrides.{step}.{key}");
        self.errors.push(PlanError::Relaxed { path, step, level: AGENT, asked, holds, owner });
    }
}

/// The step as one level alone would have it.
fn compose(asked: &Asked<'_>, floor: Preset) -> PlannedStep {
    let base = if matches!(asked.cell, Cell::Absent) { asked.spec.cell_from(floor) } else { asked.cell };
    let mut step = of_cell(asked.spec, base, asked.source.clone());
    step.action = asked.chosen().unwrap_or(step.action);
    if let Some(own) = asked.own {
        step.threshold = own.threshold.or(step.threshold);
        for (name, value) in own.options.iter() {
            step.options.set(name, value.clone());
        }
    }
    step
}

fn of_cell(spec: &'static StepSpec, cell: Cell, source: Source) -> PlannedStep {
    let mut options = StepOptions::default();
    for option in spec.options {
        if let Some(lit) = option.default {
            options.set(option.name, OptionValue::of(lit));
        }
    }
    for (name, lit) in cell.options() {
        options.set(name, OptionValue::of(*lit));
    }
    let action = if let Cell::Acts { action, .. } = cell { action } else { Action::Log };
    PlannedStep { spec, action, threshold: cell.threshold(), options, source }
}

fn quoted(text: &str) -> String {
    format!("`{text}`")
}

fn percent(basis_points: u16) -> String {
    format!("`{}`", f64::from(basis_points) / 10_000.0)
}
