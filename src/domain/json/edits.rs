//! Byte-exact changes to a JSON text.
//!
//! Owns what is replaced, removed and inserted, and the commas that follow from it. Never touches a byte that no edit
//! names. Where edits meet, the outer one wins, and of two on the same span the later. The result is valid JSON as long
//! as each replacement is valid where it is put.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::escape::escape_into;
use super::{Kind, Value};

/// Edits collected against one text, applied at once.
#[derive(Clone, Default)]
pub struct Edits {
    replaced: Vec<(Range<usize>, Vec<u8>)>,
    /// By the offset at which the container begins.
    containers: BTreeMap<usize, Container>,
}

/// A container that loses or gains elements.
#[derive(Clone)]
struct Container {
    /// Spans of its elements; of a member, from the key's first to the value's last byte.
    elements: Vec<Element>,
    /// Decoded keys and raw values, in the order of insertion.
    inserted: Vec<(String, Vec<u8>)>,
}

#[derive(Clone)]
struct Element {
    span: Range<usize>,
    is_removed: bool,
}

/// One span of the source and what stands there instead.
type Splice<'a> = (Range<usize>, Cow<'a, [u8]>);

impl Edits {
    /// Puts `bytes` where `span` is now: a value's span with a JSON value, a key's span with a JSON string.
    pub fn replace(&mut self, span: Range<usize>, bytes: Vec<u8>) {
        self.replaced.push((span, bytes));
    }

    /// Takes a member out of an object, or back one that was inserted; false when there is none of this name.
    pub fn remove_member(&mut self, object: Value<'_>, key: &str) -> bool {
        let was_inserted = self.containers.get_mut(&object.span().start).is_some_and(|container| {
            let before = container.inserted.len();
            container.inserted.retain(|(own, _)| own != key);
            container.inserted.len() < before
        });
        let place = object.keys_here().position(|own| own.is(key));
        place.is_some_and(|place| self.remove(object, place)) || was_inserted
    }

    /// Takes the item at `index` (of the source, whatever else was removed) out of an array; false when there is none.
    pub fn remove_item(&mut self, array: Value<'_>, index: usize) -> bool {
        array.kind() == Kind::Array && self.remove(array, index)
    }

    /// Gives an object the member `key`, at its end; one of that name that is there keeps its place and gets the value.
    /// False when `object` is no object.
    pub fn insert_member(&mut self, object: Value<'_>, key: &str, raw_json: &[u8]) -> bool {
        if object.kind() != Kind::Object {
            return false;
        }
        let there = object.keys_here().enumerate().find(|(_, own)| own.is(key));
        let container = self.container(object);
        if let Some((place, own)) = there
            && container.elements.get(place).is_some_and(|element| !element.is_removed)
        {
            self.replace(own.value().span(), raw_json.to_vec());
            return true;
        }
        container.inserted.retain(|(own, _)| own != key);
        container.inserted.push((key.to_owned(), raw_json.to_vec()));
        true
    }

    /// Whether the text would stay as it is.
    pub fn is_empty(&self) -> bool {
        self.replaced.is_empty() && self.containers.values().all(Container::is_untouched)
    }

    /// The edited copy of `text`, which must be the text that the edited values came from.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut splices: Vec<Splice<'_>> = Vec::new();
        for (start, container) in &self.containers {
            container.splice_into(&mut splices, start + 1);
        }
        // Later ones first, so that the stable sort leaves the last word on a span in front.
        splices.extend(self.replaced.iter().rev().map(|(span, bytes)| (span.clone(), Cow::Borrowed(bytes.as_slice()))));
        // At one offset insertions come before what is cut there, and then the outer before the inner.
        splices.sort_by_key(|(span, _)| (span.start, !span.is_empty(), Reverse(span.end)));

        let mut out = Vec::with_capacity(text.len() + splices.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
        let mut copied = 0;
        for (span, bytes) in splices {
            if span.start < copied {
                continue;
            }
            out.extend_from_slice(text.get(copied..span.start).unwrap_or_default());
            out.extend_from_slice(&bytes);
            copied = span.end.max(span.start);
        }
        out.extend_from_slice(text.get(copied..).unwrap_or_default());
        out
    }

    fn remove(&mut self, container: Value<'_>, place: usize) -> bool {
        let Some(element) = self.container(container).elements.get_mut(place) else { return false };
        !std::mem::replace(&mut element.is_removed, true)
    }

    fn container(&mut self, value: Value<'_>) -> &mut Container {
        self.containers.entry(value.span().start).or_insert_with(|| {
            let members = value.keys_here().map(|key| key.span().start..key.value().span().end);
            let spans = members.chain(value.items().map(Value::span));
            let elements = spans.map(|span| Element { span, is_removed: false }).collect();
            Container { elements, inserted: Vec::new() }
        })
    }
}

impl Container {
    fn is_untouched(&self) -> bool {
        self.inserted.is_empty() && self.elements.iter().all(|element| !element.is_removed)
    }

    /// `inside` is the offset behind the opening bracket.
    ///
    /// A removed element takes the comma before it along; one that no kept element precedes, the comma behind it.
    fn splice_into(&self, splices: &mut Vec<Splice<'_>>, inside: usize) {
        let mut last_kept = None;
        for (place, element) in self.elements.iter().enumerate() {
            if !element.is_removed {
                last_kept = Some(element.span.end);
                continue;
            }
            let start = if last_kept.is_some() { self.elements[place - 1].span.end } else { element.span.start };
            let next = self.elements.get(place + 1).filter(|_| last_kept.is_none());
            splices.push((start..next.map_or(element.span.end, |next| next.span.start), Cow::Borrowed(&[])));
        }
        let mut text = Vec::new();
        for (key, raw) in &self.inserted {
            if last_kept.is_some() || !text.is_empty() {
                text.push(b',');
            }
            escape_into(&mut text, key);
            text.push(b':');
            text.extend_from_slice(raw);
        }
        if !text.is_empty() {
            let at = last_kept.unwrap_or(inside);
            splices.push((at..at, Cow::Owned(text)));
        }
    }
}

/// Shows no content: replacements are prompts.
impl fmt::Debug for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edits").field("replaced", &self.replaced.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::json::tests::{document, key, parse};
    use crate::domain::json::{Limits, Tape};

    fn edited(text: &str, edit: impl Fn(Value<'_>, &mut Edits)) -> String {
        let tape = parse(text).unwrap();
        let mut edits = Edits::default();
        edit(tape.root(text.as_bytes()), &mut edits);
        let out = edits.apply(text.as_bytes());
        assert_eq!(edits.is_empty(), out == text.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn removing_members_takes_one_comma_along() {
        const TEXT: &str = "{ \"a\" : 1 , \"b\":[ 2 ],\n\"c\":3 }";
        for (keys, left) in [
            (&["a"][..], "{ \"b\":[ 2 ],\n\"c\":3 }"),
            (&["b"], "{ \"a\" : 1,\n\"c\":3 }"),
            (&["c"], "{ \"a\" : 1 , \"b\":[ 2 ] }"),
            (&["a", "b"], "{ \"c\":3 }"),
            (&["b", "c"], "{ \"a\" : 1 }"),
            (&["c", "a"], "{ \"b\":[ 2 ] }"),
            (&["a", "b", "c"], "{  }"),
            (&["x"], TEXT),
        ] {
            let out = edited(TEXT, |root, edits| {
                for key in keys {
                    assert_eq!(edits.remove_member(root, key), *key != "x");
                }
            });
            assert_eq!(out, left, "{keys:?}");
        }
    }

    #[test]
    fn items_are_numbered_as_in_the_source() {
        const TEXT: &str = "[0, [1], \"2\" ]";
        for (items, left) in [
            (&[0][..], "[[1], \"2\" ]"),
            (&[1], "[0, \"2\" ]"),
            (&[2], "[0, [1] ]"),
            (&[0, 1], "[\"2\" ]"),
            (&[2, 1], "[0 ]"),
            (&[0, 2], "[[1] ]"),
            (&[0, 1, 2], "[ ]"),
            (&[3], TEXT),
        ] {
            let out = edited(TEXT, |root, edits| {
                for item in items {
                    assert_eq!(edits.remove_item(root, *item), *item < 3);
                    assert!(!edits.remove_item(root, *item), "a second time");
                }
            });
            assert_eq!(out, left, "{items:?}");
        }
        assert_eq!(edited("{\"a\":1}", |root, edits| assert!(!edits.remove_item(root, 0))), "{\"a\":1}");
        assert_eq!(edited("[1]", |root, edits| assert!(!edits.insert_member(root, "a", b"1"))), "[1]");
    }

    #[test]
    fn inserted_members_stand_at_the_end() {
        let insert = |text: &str, removed: &[&str]| {
            edited(text, |root, edits| {
                for key in removed {
                    edits.remove_member(root, key);
                }
                assert!(edits.insert_member(root, "x", b"0") && edits.insert_member(root, "y\"", b"{}"));
            })
        };
        assert_eq!(insert("{}", &[]), r#"{"x":0,"y\"":{}}"#);
        assert_eq!(insert("{ }", &[]), r#"{"x":0,"y\"":{} }"#);
        assert_eq!(insert(r#"{"a":1 }"#, &[]), r#"{"a":1,"x":0,"y\"":{} }"#);
        assert_eq!(insert(r#"{"a":1}"#, &["a"]), r#"{"x":0,"y\"":{}}"#);
        assert_eq!(insert(r#"{"a":1,"b":2}"#, &["b"]), r#"{"a":1,"x":0,"y\"":{}}"#);
        assert_eq!(insert(r#"{"x":1,"b":2}"#, &["b"]), r#"{"x":0,"y\"":{}}"#);
        assert_eq!(insert(r#"{"x":1,"b":2}"#, &["x"]), r#"{"b":2,"x":0,"y\"":{}}"#);
        let undone = edited(r#"{"a":1}"#, |root, edits| {
            edits.insert_member(root, "b", b"2");
            assert!(edits.remove_member(root, "b"));
        });
        assert_eq!(undone, r#"{"a":1}"#);
    }

    #[test]
    fn the_outer_edit_wins_and_the_later_on_one_span() {
        let out = edited(r#"{"a":{"b":1},"c":[2]}"#, |root, edits| {
            let a = root.get("a").unwrap();
            edits.replace(a.get("b").unwrap().span(), b"9".to_vec());
            edits.insert_member(a, "d", b"8");
            edits.replace(a.span(), b"7".to_vec());
            edits.replace(a.span(), b"6".to_vec());
            edits.replace(root.get("c").unwrap().items().next().unwrap().span(), b"5".to_vec());
            edits.insert_member(root, "e", b"4");
        });
        assert_eq!(out, r#"{"a":6,"c":[5],"e":4}"#);
        let removed = edited("[[1],2]", |root, edits| {
            edits.replace(root.items().next().unwrap().span(), b"[3]".to_vec());
            edits.remove_item(root, 0);
        });
        assert_eq!(removed, "[2]");
    }

    /// What an edit says, by the start of the value that it concerns.
    #[derive(Default)]
    struct Wanted {
        replaced: BTreeMap<usize, String>,
        removed: BTreeSet<usize>,
        inserted: BTreeMap<usize, Vec<(String, String)>>,
    }

    /// The wanted result, built from the source value by value.
    fn build(value: Value<'_>, wanted: &Wanted) -> serde_json::Value {
        if let Some(text) = wanted.replaced.get(&value.span().start) {
            return serde_json::from_str(text).unwrap();
        }
        let kept = |value: &Value<'_>| !wanted.removed.contains(&value.span().start);
        match value.kind() {
            Kind::Array => value.items().filter(kept).map(|item| build(item, wanted)).collect(),
            Kind::Object => {
                let members = value.members().filter(|(_, value)| kept(value));
                let mut out: serde_json::Map<_, _> =
                    members.map(|(key, value)| (key.into_owned(), build(value, wanted))).collect();
                for (key, raw) in wanted.inserted.get(&value.span().start).into_iter().flatten() {
                    out.insert(key.clone(), serde_json::from_str(raw).unwrap());
                }
                out.into()
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => serde_json::from_str(value.raw()).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn edits_do_what_the_model_does(
            text in document(),
            ops in vec((any::<prop::sample::Index>(), 0..4_usize, key(), document()), 0..8),
        ) {
            let tape = parse(&text).unwrap();
            let root = tape.root(text.as_bytes());
            let values: Vec<_> = (0..text.len()).filter_map(|id| tape.value(text.as_bytes(), id)).collect();
            let (mut edits, mut wanted) = (Edits::default(), Wanted::default());
            for (at, what, key, raw) in ops {
                let value = values[at.index(values.len())];
                let start = value.span().start;
                let place = value.len().checked_sub(1).map(|last| last.min(what + key.len() % 3));
                match (what, value.kind(), place) {
                    (0, _, _) => {
                        wanted.replaced.insert(start, raw.clone());
                        edits.replace(value.span(), raw.into_bytes());
                    }
                    (1 | 2, Kind::Array, Some(place)) => {
                        let is_new = wanted.removed.insert(value.items().nth(place).unwrap().span().start);
                        prop_assert_eq!(edits.remove_item(value, place), is_new);
                    }
                    (1 | 2, Kind::Object, Some(place)) => {
                        let (key, member) = value.members().nth(place).unwrap();
                        let inserted = wanted.inserted.entry(start).or_default();
                        let before = inserted.len();
                        inserted.retain(|(own, _)| *own != key);
                        let was_there = inserted.len() < before || !wanted.removed.contains(&member.span().start);
                        wanted.removed.insert(member.span().start);
                        prop_assert_eq!(edits.remove_member(value, &key), was_there);
                    }
                    (_, Kind::Object, _) => {
                        let key: String = serde_json::from_str(&key).unwrap();
                        prop_assert!(edits.insert_member(value, &key, raw.as_bytes()));
                        let there = value.get(&key).map(|member| member.span().start);
                        if let Some(member) = there.filter(|member| !wanted.removed.contains(member)) {
                            wanted.replaced.insert(member, raw);
                        } else {
                            let inserted = wanted.inserted.entry(start).or_default();
                            inserted.retain(|(own, _)| *own != key);
                            inserted.push((key, raw));
                        }
                    }
                    _ => {}
                }
            }
            let out = edits.apply(text.as_bytes());
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, build(root, &wanted));
            // Ours refuses duplicate keys, serde_json does not.
            let limits = Limits { max_depth: 200, ..Limits::default() };
            prop_assert!(Tape::parse(&out, &limits).is_ok());
            if edits.is_empty() {
                prop_assert_eq!(out, text.into_bytes());
            }
        }

        #[test]
        fn bytes_around_an_edit_stay(text in document(), at in any::<prop::sample::Index>()) {
            let tape = parse(&text).unwrap();
            let values: Vec<_> = (0..text.len()).filter_map(|id| tape.value(text.as_bytes(), id)).collect();
            let span = values[at.index(values.len())].span();
            let mut edits = Edits::default();
            edits.replace(span.clone(), b"[0]".to_vec());
            let wanted = [&text.as_bytes()[..span.start], b"[0]", &text.as_bytes()[span.end..]].concat();
            prop_assert_eq!(edits.apply(text.as_bytes()), wanted);
        }
    }
}
