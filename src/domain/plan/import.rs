//! Reads a pipeline in the three shapes that presets and stored pipelines are written in.
//!
//! Owns the keys of those shapes. Never guesses: an unknown key, id or word and an impossible value are errors with
//! their path, and all of them are reported at once (up to a bound).

use serde_json::{Map, Value};

use super::{
    OptionValue, PipelineSpec, PlanError, StepOverride,
    error::{hint, shown},
};
use crate::domain::{
    detection::Action,
    steps::{self, Category, Preset, StepSpec},
};

/// Most errors of one report.
const MAX_ERRORS: usize = 64;

/// Reads `{preset, overrides: {<step>: {…}}}`, `{preset, overrides: {categories: {<category>: {on_detection, steps}}}}`
/// or `{categories: {…}}`.
pub fn import(value: &Value) -> Result<PipelineSpec, Vec<PlanError>> {
    let mut reader = Reader { spec: PipelineSpec::default(), errors: Vec::new() };
    reader.pipeline(value);
    reader.errors.truncate(MAX_ERRORS);
    if reader.errors.is_empty() { Ok(reader.spec) } else { Err(reader.errors) }
}

struct Reader {
    spec: PipelineSpec,
    errors: Vec<PlanError>,
}

impl Reader {
    fn pipeline(&mut self, value: &Value) {
        let Some(object) = self.object("pipeline", value) else { return };
        for (key, value) in object {
            match key.as_str() {
                "preset" => self.preset(value),
                "categories" => self.categories(key, value),
                "overrides" => self.overrides(value),
                _ => {
                    let path = shown(key);
                    self.unknown(&path, "key", key, &["preset", "overrides", "categories"]);
                }
            }
        }
    }

    fn preset(&mut self, value: &Value) {
        let Some(word) = self.text("preset", value) else { return };
        self.spec.preset = Preset::find(word);
        if self.spec.preset.is_none() {
            self.unknown("preset", "preset", word, &Preset::ALL.map(Preset::as_str));
        }
    }

    fn overrides(&mut self, value: &Value) {
        let Some(object) = self.object("overrides", value) else { return };
        for (key, value) in object {
            let path = format!("overrides.{}", shown(key));
            if key == "categories" { self.categories(&path, value) } else { self.step(&path, key, value, None) }
        }
    }

    fn categories(&mut self, path: &str, value: &Value) {
        let Some(object) = self.object(path, value) else { return };
        for (key, value) in object {
            let path = format!("{path}.{}", shown(key));
            match Category::find(key) {
                Some(category) => self.category(&path, category, value),
                None => self.unknown(&path, "category", key, &Category::ALL.map(Category::as_str)),
            }
        }
    }

    fn category(&mut self, path: &str, category: Category, value: &Value) {
        let Some(object) = self.object(path, value) else { return };
        for (key, value) in object {
            let path = format!("{path}.{}", shown(key));
            match key.as_str() {
                "on_detection" => self.category_action(&path, category, value),
                "steps" => self.category_steps(&path, category, value),
                _ => self.unknown(&path, "key", key, &["on_detection", "steps"]),
            }
        }
    }

    fn category_action(&mut self, path: &str, category: Category, value: &Value) {
        let Some(action) = self.action(path, value) else { return };
        if !steps::all().iter().any(|step| step.category == category && step.actions.contains(&action)) {
            let why = format!("no step of `{}` can `{}`", category.as_str(), action.as_str());
            self.errors.push(PlanError::impossible(path, why));
        } else if self.spec.categories.insert(category, action).is_some() {
            self.errors.push(PlanError::Twice { path: path.to_owned() });
        }
    }

    fn category_steps(&mut self, path: &str, category: Category, value: &Value) {
        let Some(object) = self.object(path, value) else { return };
        for (key, value) in object {
            self.step(&format!("{path}.{}", shown(key)), key, value, Some(category));
        }
    }

    fn step(&mut self, path: &str, id: &str, value: &Value, within: Option<Category>) {
        let Some(spec) = steps::find(id) else {
            let hint = steps::hint(id);
            self.errors.push(PlanError::Unknown { path: path.to_owned(), what: "step", given: shown(id), hint });
            return;
        };
        if within.is_some_and(|category| category != spec.category) {
            let why = format!("the step belongs to `{}`", spec.category.as_str());
            self.errors.push(PlanError::impossible(path, why));
        }
        let Some(object) = self.object(path, value) else { return };
        let step = self.step_override(path, spec, object);
        if self.spec.overrides.insert(spec.id, step).is_some() {
            self.errors.push(PlanError::Twice { path: path.to_owned() });
        }
    }

    fn step_override(&mut self, path: &str, spec: &'static StepSpec, object: &Map<String, Value>) -> StepOverride {
        let mut step = StepOverride::default();
        for (key, value) in object {
            let path = format!("{path}.{}", shown(key));
            match key.as_str() {
                "enabled" => step.enabled = self.enabled(&path, spec, value),
                "on_detection" => step.on_detection = self.step_action(&path, spec, value),
                "threshold" => step.threshold = self.threshold(&path, spec, value),
                _ => {
                    if let Some((name, value)) = self.option(&path, spec, key, value) {
                        step.options.set(name, value);
                    }
                }
            }
        }
        step
    }

    fn option(&mut self, path: &str, spec: &StepSpec, key: &str, value: &Value) -> Option<(&'static str, OptionValue)> {
        let Some(option) = spec.option(key) else {
            let common = ["enabled", "on_detection", "threshold"].into_iter();
            let common = common.filter(|key| *key != "threshold" || spec.scored);
            let valid: Vec<&str> = common.chain(spec.options.iter().map(|option| option.name)).collect();
            self.unknown(path, "option", key, &valid);
            return None;
        };
        match OptionValue::read(option, value) {
            Ok(value) => Some((option.name, value)),
            Err(why) => {
                self.errors.push(PlanError::impossible(path, why));
                None
            }
        }
    }

    fn enabled(&mut self, path: &str, spec: &StepSpec, value: &Value) -> Option<bool> {
        let why = match value.as_bool() {
            Some(false) if !spec.is_optional() => format!("`{}` cannot be switched off", spec.id),
            Some(enabled) => return Some(enabled),
            None => "must be `true` or `false`".to_owned(),
        };
        self.errors.push(PlanError::impossible(path, why));
        None
    }

    fn step_action(&mut self, path: &str, spec: &StepSpec, value: &Value) -> Option<Action> {
        let action = self.action(path, value)?;
        let refusal = refused_action(spec, action);
        self.errors.extend(refusal.iter().map(|why| PlanError::impossible(path, why)));
        refusal.is_none().then_some(action)
    }

    fn action(&mut self, path: &str, value: &Value) -> Option<Action> {
        let word = self.text(path, value)?;
        let action = Action::parse(word).ok();
        if action.is_none() {
            self.unknown(path, "action", word, &["log", "notify", "redact", "block", "continue"]);
        }
        action
    }

    fn threshold(&mut self, path: &str, spec: &StepSpec, value: &Value) -> Option<u16> {
        if !spec.scored {
            self.errors.push(PlanError::impossible(path, format!("`{}` has no threshold: it has no scores", spec.id)));
            return None;
        }
        let basis_points = value.as_f64().and_then(basis_points);
        if basis_points.is_none() {
            self.errors.push(PlanError::impossible(path, "must be a number from 0.0 to 1.0"));
        }
        basis_points
    }

    fn unknown(&mut self, path: &str, what: &'static str, given: &str, valid: &[&str]) {
        let (path, hint) = (path.to_owned(), hint(given, valid.iter().copied()));
        self.errors.push(PlanError::Unknown { path, what, given: shown(given), hint });
    }

    fn text<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v str> {
        let text = value.as_str();
        if text.is_none() {
            self.errors.push(PlanError::impossible(path, "must be a text"));
        }
        text
    }

    fn object<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let object = value.as_object();
        if object.is_none() {
            self.errors.push(PlanError::impossible(path, "must be a map of keys and values"));
        }
        object
    }
}

/// Why the step cannot take this action, if it cannot.
pub(super) fn refused_action(spec: &StepSpec, action: Action) -> Option<String> {
    if spec.actions.contains(&action) {
        return None;
    }
    let possible: Vec<&str> = spec.actions.iter().map(|action| action.as_str()).collect();
    Some(if possible.is_empty() {
        format!("`{}` has no action: it simply runs", spec.id)
    } else {
        format!("`{}` cannot `{}`; it can `{}`", spec.id, action.as_str(), possible.join("`, `"))
    })
}

/// A score as basis points.
fn basis_points(score: f64) -> Option<u16> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked here")]
    (0.0..=1.0).contains(&score).then_some((score * 10_000.0).round() as u16)
}
