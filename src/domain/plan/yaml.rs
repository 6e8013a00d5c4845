//! Pipelines written in YAML.
//!
//! Owns the bounds under which foreign YAML is read: bytes, nodes (an alias counts each time that it is followed), no
//! key twice. Never interprets what it reads. Breaking a bound is [`PlanError::Unreadable`].

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{PipelineSpec, PlanError, import};

/// Longest text, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// Most values and keys.
const MAX_NODES: usize = 20_000;
/// Most opening brackets: each costs the reader as much as a thousand other bytes.
const MAX_BRACKETS: usize = 2_000;

/// Reads a pipeline in any of the three shapes.
pub fn import_yaml(text: &str) -> Result<PipelineSpec, Vec<PlanError>> {
    let unreadable = |why: String| vec![PlanError::Unreadable(why)];
    if text.len() > MAX_BYTES {
        return Err(unreadable(format!("more than {MAX_BYTES} bytes")));
    }
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > MAX_BRACKETS {
        return Err(unreadable(format!("more than {MAX_BRACKETS} brackets")));
    }
    let left = Cell::new(MAX_NODES);
    let value = Bounded(&left).deserialize(serde_norway::Deserializer::from_str(text));
    import(&value.map_err(|error| unreadable(error.to_string()))?)
}

/// Reads any value, as long as the nodes last. Depth is bounded by the YAML reader (128).
struct Bounded<'a>(&'a Cell<usize>);

impl Bounded<'_> {
    fn count<E: Error>(&self) -> Result<(), E> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| E::custom(format!("more than {MAX_NODES} values")))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value, a list or a map with text keys")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Bounded(self.0))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.count()?;
            let value = entries.next_value_seed(Bounded(self.0))?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{}` stands twice", super::error::shown(&key))));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
