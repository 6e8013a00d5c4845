//! What an organization or an agent stores: a preset and what differs from it.
//!
//! Owns the value and its JSON. Never holds anything that the registry does not know: reading goes through the import,
//! so that a stored pipeline that no longer fits is an error when it is loaded.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value, json};

use super::{OptionValue, StepOptions, import};
use crate::domain::{
    detection::Action,
    steps::{Category, Preset},
};

/// One level's pipeline. Written as `{preset, overrides: {categories: {…}, <step>: {…}}}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineSpec {
    /// What it starts from. An organization without one starts from `starter`, an agent from its organization.
    pub preset: Option<Preset>,
    /// The action of those steps of a category that can do it, unless an override says otherwise.
    pub categories: BTreeMap<Category, Action>,
    /// By step id. Naming a step switches it on, unless `enabled` says otherwise.
    pub overrides: BTreeMap<&'static str, StepOverride>,
}

/// What one level says about one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepOverride {
    /// Whether it is part of the plan.
    pub enabled: Option<bool>,
    /// Its action.
    pub on_detection: Option<Action>,
    /// Basis points.
    pub threshold: Option<u16>,
    /// Its own options.
    pub options: StepOptions,
}

impl StepOverride {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        if let Some(enabled) = self.enabled {
            object.insert("enabled".to_owned(), enabled.into());
        }
        if let Some(action) = self.on_detection {
            object.insert("on_detection".to_owned(), action.as_str().into());
        }
        if let Some(threshold) = self.threshold {
            object.insert("threshold".to_owned(), (f64::from(threshold) / 10_000.0).into());
        }
        object.extend(self.options.iter().map(|(name, value)| (name.to_owned(), OptionValue::to_json(value))));
        Value::Object(object)
    }
}

impl PipelineSpec {
    /// As it is stored.
    pub fn to_json(&self) -> Value {
        let mut overrides = Map::new();
        if !self.categories.is_empty() {
            let of = |(category, action): (&Category, &Action)| {
                (category.as_str().to_owned(), json!({ "on_detection": action.as_str() }))
            };
            overrides.insert("categories".to_owned(), Value::Object(self.categories.iter().map(of).collect()));
        }
        overrides.extend(self.overrides.iter().map(|(id, step)| ((*id).to_owned(), step.to_json())));
        let mut object = Map::new();
        if let Some(preset) = self.preset {
            object.insert("preset".to_owned(), preset.as_str().into());
        }
        object.insert("overrides".to_owned(), Value::Object(overrides));
        Value::Object(object)
    }
}

impl Serialize for PipelineSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PipelineSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        import(&value).map_err(|errors| {
            let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
            D::Error::custom(words.join("; "))
        })
    }
}
