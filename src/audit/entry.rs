//! An entry: canonical JSON that says who recorded what under which configuration.
//!
//! Owns the canonical form (RFC 8785 restricted to ASCII keys and integers: keys sorted, no white space, non-ASCII
//! unescaped) and the header's fields. Never knows the content's meaning beyond what `verify` must read. Whatever has
//! no canonical form (floats, foreign keys, depth, size) is an `EntryError` before it is hashed, signed or stored.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::chain;
use crate::domain::{
    clock::Micros,
    digest::Digest,
    ids::{BootId, EntryId, OrgId},
    stamp::ConfigStamp,
};

/// Longest canonical text of an entry, in bytes. An entry holds no content of calls, so it is far from this.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Deepest nesting inside the content.
const MAX_DEPTH: usize = 32;

/// Kinds that the verifier gives a meaning to.
pub mod kind {
    /// A call was admitted: content has `reserved_nano`.
    pub const ADMISSION: &str = "admission";
    /// A call was refused.
    pub const REFUSAL: &str = "refusal";
    /// A call ended: content has `admission` (`{"boot","counter"}`) and `settled_nano`.
    pub const COMPLETION: &str = "completion";
    /// An open admission reserved more: content has `admission` and `reserved_nano`.
    pub const EXTENSION: &str = "extension";
    /// A call of a boot that was closed while it lived ended: content has `admission`, `settled_nano`, and `by_nano`, the
    /// correction of what its `unknown` completion settled.
    pub const LATE: &str = "late";
    /// A process began to write on this chain.
    pub const BOOT_STARTED: &str = "boot.started";
    /// A boot writes no more: content may have `boot` (default: the entry's own) and `unwritten`, the counters that it
    /// signed and that nobody will write any more.
    pub const BOOT_CLOSED: &str = "boot.closed";
    /// A counter was given out and its matter given up.
    pub const WITHDRAWN: &str = "withdrawn";
    /// Sums instead of single entries start with this.
    pub const AGGREGATE_PREFIX: &str = "aggregate.";
}

/// Why something is not an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Longer than `MAX_BODY_BYTES`.
    #[error("an entry has at most {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// The content does not serialise, or holds a float.
    #[error("no canonical JSON: {0}")]
    Serialise(#[source] serde_json::Error),
    /// Not the JSON of an entry.
    #[error("not an entry: {0}")]
    Parse(#[source] serde_json::Error),
    /// Parses, but its bytes are not the canonical ones.
    #[error("not in canonical form")]
    NotCanonical,
    /// Object keys are printable ASCII.
    #[error("a key is not printable ASCII")]
    Key,
    /// Nested deeper than `MAX_DEPTH`.
    #[error("nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// What every entry says before its content.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Whose chain.
    pub org: &'a OrgId,
    /// Who records.
    pub boot: &'a BootId,
    /// The boot's own counter for this organization, from 1.
    pub counter: u64,
    /// Under which configuration; for a change the one that it started from.
    pub config: ConfigStamp,
    /// What happened: `kind::*` or a word of the service that records.
    pub kind: &'a str,
    /// When, by the recorder's clock.
    pub time: Micros,
}

/// An entry ready to be signed and appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The canonical text, stored and exported as it is.
    pub body: String,
    /// Its digest.
    pub digest: Digest,
}

impl Entry {
    /// Renders header and content once. The content's struct fields stand in sorted order; a debug build checks that.
    pub fn build<C: Serialize + ?Sized>(header: &Header<'_>, content: &C) -> Result<Self, EntryError> {
        let Header { org, boot, counter, config, kind, time } = *header;
        let whole = Fields { boot, config: Config::from(config), content, counter, kind, org, time };
        let bytes = render(&whole, 768)?;
        if bytes.len() > MAX_BODY_BYTES {
            return Err(EntryError::TooLarge);
        }
        if cfg!(debug_assertions) && !is_canonical(&bytes) {
            return Err(EntryError::NotCanonical);
        }
        let digest = chain::digest(&bytes);
        // serde_json writes UTF-8 only; the check costs less than the digest and saves an `unsafe`.
        let body = String::from_utf8(bytes).map_err(|_| EntryError::NotCanonical)?;
        Ok(Self { body, digest })
    }
}

/// An entry read back.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryBody {
    /// Which entry.
    pub id: EntryId,
    /// Under which configuration.
    pub config: ConfigStamp,
    /// What happened.
    pub kind: String,
    /// When.
    pub time: Micros,
    /// The particulars.
    pub content: Value,
}

impl EntryBody {
    /// Reads a stored text and refuses everything that `Entry::build` would not have written.
    pub fn parse(body: &str) -> Result<Self, EntryError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(EntryError::TooLarge);
        }
        let read: Read = serde_json::from_str(body).map_err(EntryError::Parse)?;
        check(&read.content)?;
        // Duplicate keys, white space, escapes and order all show as a difference here.
        if render(&read, body.len())? != body.as_bytes() {
            return Err(EntryError::NotCanonical);
        }
        let Fields { boot, config, content, counter, kind, org, time } = read;
        let config = ConfigStamp { version: config.version, tag: config.tag, digest: config.digest };
        Ok(Self { id: EntryId { org, boot, counter }, config, kind, time, content })
    }

    /// The version that this entry made, if it is a change that says so: (version, digest). `Err` if it says so badly.
    pub fn produced(&self) -> Result<Option<(u64, Digest)>, serde_json::Error> {
        let Some(produced) = self.content.get("produced") else { return Ok(None) };
        let made = Produced::deserialize(produced)?;
        Ok(Some((made.version, made.digest)))
    }
}

/// What a change says that it made. Its tag is the entry's own link, so it cannot stand here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Produced {
    /// Digest of the new configuration.
    pub digest: Digest,
    /// The new version number.
    pub version: u64,
}

/// Names an admission inside its organization: how a completion points to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRef {
    /// Who recorded it.
    pub boot: BootId,
    /// The boot's own counter.
    pub counter: u64,
}

/// The whole entry; fields in the order of their names, which is what makes the output canonical.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<Boot, Content, Kind, Org> {
    boot: Boot,
    config: Config,
    content: Content,
    counter: u64,
    kind: Kind,
    org: Org,
    time: Micros,
}

type Read = Fields<BootId, Value, String, OrgId>;

/// `ConfigStamp` with its fields in the order of their names.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    digest: Digest,
    tag: Digest,
    version: u64,
}

impl From<ConfigStamp> for Config {
    fn from(stamp: ConfigStamp) -> Self {
        Self { digest: stamp.digest, tag: stamp.tag, version: stamp.version }
    }
}

/// The canonical bytes of a value. Its maps are sorted as long as nobody turns on `preserve_order` of `serde_json`,
/// which would change every digest; a test stands guard.
pub fn canonical(value: &Value) -> Result<Vec<u8>, EntryError> {
    check(value)?;
    render(value, 256)
}

/// Whether these bytes are the canonical form of the value that they spell.
pub fn is_canonical(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|value| canonical(&value).is_ok_and(|form| form == bytes))
}

/// Refuses what sorting alone does not make canonical. Walks with a list, not by recursion.
fn check(root: &Value) -> Result<(), EntryError> {
    let mut open = vec![(root, 0)];
    while let Some((value, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(EntryError::TooDeep);
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                if !fields.keys().all(|key| key.bytes().all(|b| b.is_ascii_graphic() || b == b' ')) {
                    return Err(EntryError::Key);
                }
                open.extend(fields.values().map(|field| (field, depth + 1)));
            }
            // Floats are refused by `IntegersOnly`.
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

fn render<T: Serialize + ?Sized>(value: &T, room: usize) -> Result<Vec<u8>, EntryError> {
    let mut bytes = Vec::with_capacity(room);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, IntegersOnly);
    value.serialize(&mut serializer).map_err(EntryError::Serialise)?;
    Ok(bytes)
}

/// The compact output, except that a float is an error: languages disagree on how to write one.
struct IntegersOnly;

impl serde_json::ser::Formatter for IntegersOnly {
    fn write_f32<W: ?Sized + io::Write>(&mut self, _: &mut W, _: f32) -> io::Result<()> {
        Err(io::Error::other("a float has no canonical form"))
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, _: &mut W, _: f64) -> io::Result<()> {
        Err(io::Error::other("a float has no canonical form"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn org() -> OrgId {
        OrgId::parse("org_a").unwrap()
    }

    fn boot() -> BootId {
        BootId::parse("boot_a").unwrap()
    }

    fn build<C: Serialize>(content: &C) -> Result<Entry, EntryError> {
        let config = ConfigStamp { version: 3, tag: Digest([1; 32]), digest: Digest([2; 32]) };
        let (org, boot) = (org(), boot());
        Entry::build(&Header { org: &org, boot: &boot, counter: 9, config, kind: kind::ADMISSION, time: 17 }, content)
    }

    #[test]
    fn the_canonical_bytes_are_fixed() {
        let entry = build(&json!({"reserved_nano": 5, "model": "größe"})).unwrap();
        let expected = concat!(
            r#"{"boot":"boot_a","config":{"digest":"0202020202020202020202020202020202020202020202020202020202020202","#,
            r#""tag":"0101010101010101010101010101010101010101010101010101010101010101","version":3},"#,
            r#""content":{"model":"größe","reserved_nano":5},"counter":9,"kind":"admission","org":"org_a","time":17}"#
        );
        assert_eq!(entry.body, expected);
        assert_eq!(entry.digest, chain::digest(expected.as_bytes()));
        assert!(is_canonical(expected.as_bytes()));
    }

    #[test]
    fn an_entry_comes_back_as_it_was_built() {
        let content = json!({"produced": Produced { digest: Digest([4; 32]), version: 4 }});
        let body = EntryBody::parse(&build(&content).unwrap().body).unwrap();
        assert_eq!(body.id, EntryId { org: org(), boot: boot(), counter: 9 });
        assert_eq!((body.kind.as_str(), body.time, body.config.version), ("admission", 17, 3));
        assert_eq!(body.content, content);
        assert_eq!(body.produced().unwrap(), Some((4, Digest([4; 32]))));
    }

    #[test]
    fn content_without_canonical_form_is_refused() {
        #[derive(Serialize)]
        struct Unsorted {
            b: u8,
            a: u8,
        }
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        assert!(matches!(build(&json!({"score": 0.5})), Err(EntryError::Serialise(_))));
        assert!(matches!(build(&BTreeMap::from([("schlüssel", 1)])), Err(EntryError::NotCanonical)));
        assert!(matches!(build(&Unsorted { b: 1, a: 2 }), Err(EntryError::NotCanonical)));
        assert!(matches!(build(&deep), Err(EntryError::NotCanonical)));
        assert!(matches!(build(&"x".repeat(MAX_BODY_BYTES)), Err(EntryError::TooLarge)));
        assert!(matches!(canonical(&deep), Err(EntryError::TooDeep)));
        assert!(matches!(canonical(&json!({"ä": 1})), Err(EntryError::Key)));
    }

    #[test]
    fn other_spellings_of_an_entry_are_refused() {
        let body = build(&json!({"a": 1})).unwrap().body;
        for (old, new) in [
            (r#":{"a":1}"#, r#": {"a":1}"#),
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":1}"#, r#"{"a":1e0}"#),
            (r#"{"a":1}"#, r#"{"a":2,"a":1}"#),
            (r#"{"a":1}"#, r#"{"\u0061":1}"#),
            (r#""kind":"admission","org":"org_a""#, r#""org":"org_a","kind":"admission""#),
            (r#""counter":9"#, r#""counter":-0"#),
            (r#""time":17"#, r#""time":17,"zone":"UTC""#),
            ("0101", "010A"),
            ("0202", "020"),
            ("}", "} "),
        ] {
            assert!(EntryBody::parse(&body.replacen(old, new, 1)).is_err(), "{new}");
            assert_ne!(body.replacen(old, new, 1), body, "{old}");
        }
        assert!(EntryBody::parse(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[ -~]{0,6}", inner, 0..5).prop_map(|map| json!(map)),
            ]
        })
    }

    /// A second writer of the form, by hand and by recursion: what an outsider would write from the description.
    fn by_hand(value: &Value) -> String {
        match value {
            Value::Array(items) => format!("[{}]", items.iter().map(by_hand).collect::<Vec<_>>().join(",")),
            Value::Object(fields) => {
                let sorted: BTreeMap<_, _> = fields.iter().collect();
                let pairs = sorted.iter().map(|(key, field)| format!("{}:{}", json!(key), by_hand(field)));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_canonical_form_is_the_sorted_compact_one_and_stable(value in any_json()) {
            let bytes = canonical(&value).unwrap();
            prop_assert_eq!(&bytes, &by_hand(&value).into_bytes());
            prop_assert_eq!(&bytes, &serde_json::to_vec(&value).unwrap());
            prop_assert!(is_canonical(&bytes));
            prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), value);
        }

        #[test]
        fn whatever_is_built_is_read_back(content in any_json()) {
            let entry = build(&content).unwrap();
            prop_assert_eq!(EntryBody::parse(&entry.body).unwrap().content, content);
        }

        #[test]
        fn no_text_upsets_the_reader(text: String) {
            prop_assert!(EntryBody::parse(&text).is_err());
        }
    }
}
