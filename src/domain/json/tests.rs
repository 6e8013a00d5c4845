//! Positions and strictness, with `serde_json` as a second opinion; the documents that the tests of edits use too.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

pub(super) fn parse(text: &str) -> Result<Tape, JsonError> {
    Tape::parse(text.as_bytes(), &Limits::default())
}

fn refusal(text: &[u8]) -> String {
    Tape::parse(text, &Limits::default()).expect_err("refused").to_string()
}

const CHAT: &str = r#" {"model": "gpt-4o", "stream":true,
  "messages":[{"role":"system","content":"Be brief"},{"role":"user","content":[{"type":"text","text":"h\u00e9 \"x\"\n"},{"type":"image_url","image_url":{"url":"data:,"}}]}],
  "temperature":1.0, "n":2, "odd key":{"":[null, -3]}, "seed":9007199254740993 }
"#;

#[test]
fn values_are_found_with_kind_text_and_path() {
    let tape = parse(CHAT).unwrap();
    let root = tape.root(CHAT.as_bytes());
    assert_eq!((root.kind(), root.len(), root.path()), (Kind::Object, 7, String::new()));
    assert_eq!(root.get("model").unwrap().as_str().unwrap(), "gpt-4o");
    assert!(matches!(root.get("model").unwrap().as_str(), Some(std::borrow::Cow::Borrowed(_))));
    assert_eq!(root.get("stream").unwrap().as_bool(), Some(true));
    assert_eq!(root.get("n").unwrap().as_u64(), Some(2));
    let temperature = root.get("temperature").unwrap();
    assert_eq!((temperature.raw(), temperature.as_u64(), temperature.as_f64()), ("1.0", None, Some(1.0)));
    assert_eq!(root.get("seed").unwrap().as_u64(), Some((1 << 53) + 1));
    assert!(root.get("messages.role").is_none() && root.get("absent").is_none());

    let odd = root.get("odd key").unwrap().get("").unwrap();
    assert_eq!(odd.len(), 2);
    assert!(odd.items().next().unwrap().is_null());
    assert_eq!(odd.items().nth(1).unwrap().as_i64(), Some(-3));
    assert_eq!(odd.items().nth(1).unwrap().path(), r#"["odd key"][""][1]"#);

    let strings: Vec<_> = root.strings().map(|v| format!("{} = {}", v.path(), v.as_str().unwrap())).collect();
    assert_eq!(
        strings,
        [
            "model = gpt-4o",
            "messages[0].role = system",
            "messages[0].content = Be brief",
            "messages[1].role = user",
            "messages[1].content[0].type = text",
            "messages[1].content[0].text = hé \"x\"\n",
            "messages[1].content[1].type = image_url",
            "messages[1].content[1].image_url.url = data:,",
        ]
    );
    let inner: Vec<_> = root.get("messages").unwrap().items().nth(1).unwrap().keys().map(Key::decoded).collect();
    assert_eq!(inner, ["role", "content", "type", "text", "type", "image_url", "url"]);
    for key in root.keys() {
        let source = CHAT.get(key.span()).unwrap();
        assert!(source.starts_with('"') && source.ends_with('"'));
    }
    let text = root.strings().nth(5).unwrap();
    assert_eq!(CHAT.get(text.span()), Some(text.raw()));
    assert_eq!(tape.value(CHAT.as_bytes(), text.id()).unwrap().raw(), text.raw());
    assert!(tape.value(CHAT.as_bytes(), 1).is_none(), "node 1 is a key");
}

#[test]
fn a_view_over_another_text_reads_empty_strings() {
    let tape = parse(CHAT).unwrap();
    for other in [&b""[..], &[0xFF; 4096]] {
        let root = tape.root(other);
        assert!(root.strings().all(|value| value.as_str().unwrap().is_empty() && value.raw().is_empty()));
        assert!(root.get("model").is_none());
        assert_eq!(root.get("n").and_then(Value::as_u64), None);
    }
}

#[test]
fn a_refusal_says_what_and_where() {
    for (text, said) in [
        ("", "empty text at byte 0"),
        (" \n", "empty text at byte 2"),
        ("{\"model\":1,\n \"model\":2}", "duplicate key `model` at byte 13"),
        (r#"{"a":{"b":1},"\u0061":2}"#, "duplicate key `a` at byte 13"),
        (r#"{"a":1} x"#, "expected the end of the text at byte 8"),
        ("\u{feff}{}", "expected a value at byte 0"),
        ("[1,]", "expected a value at byte 3"),
        ("[1 2]", "expected `,` or `]` at byte 3"),
        (r#"{"a":1,}"#, "expected a quoted key at byte 7"),
        (r#"{"a" 1}"#, "expected `:` at byte 5"),
        (r#"{"a":1]"#, "expected `,` or `}` at byte 6"),
        ("{a:1}", "expected a quoted key at byte 1"),
        ("[tru]", "expected a value at byte 1"),
        ("NaN", "expected a value at byte 0"),
        ("[", "unexpected end of text at byte 1"),
        (r#"{"a":"#, "unexpected end of text at byte 5"),
        (r#""abc"#, "unexpected end of text at byte 4"),
        (r#""ab\"#, "unexpected end of text at byte 3"),
        (r#""\x""#, "invalid escape at byte 1"),
        (r#""\u12g4""#, "invalid escape at byte 1"),
        (r#""\u+123""#, "invalid escape at byte 1"),
        (r#""\ud800""#, "lone surrogate escape at byte 1"),
        (r#""\ud800\u0041""#, "lone surrogate escape at byte 1"),
        (r#""\ud800\ud800""#, "lone surrogate escape at byte 1"),
        (r#"" \udc00""#, "lone surrogate escape at byte 2"),
        ("\"a\nb\"", "raw control character in a string at byte 2"),
        ("01", "malformed number at byte 1"),
        ("1.", "malformed number at byte 2"),
        ("-", "malformed number at byte 1"),
        ("1e+", "malformed number at byte 3"),
        ("+1", "expected a value at byte 0"),
        (".5", "expected a value at byte 0"),
    ] {
        assert_eq!(refusal(text.as_bytes()), said, "{text}");
    }
    assert_eq!(refusal(b"[\"\xE2\x80\"]"), "invalid UTF-8 at byte 2");
    assert_eq!(parse(r#""\ud83d\ude00""#).unwrap().root(br#""\ud83d\ude00""#).as_str().unwrap(), "😀");
}

#[test]
fn a_byte_is_read_alike_wherever_it_stands_in_a_string() {
    for byte in 0..0x80 {
        for place in 1..20 {
            let mut text = *b"\"aaaaaaaaaaaaaaaaaaa\"";
            text[place] = byte;
            let read = Tape::parse(&text, &Limits::default()).map(|_| ());
            let wanted = match byte {
                0..0x20 => Err((JsonFault::Control, place)),
                b'"' => Err((JsonFault::Expected("the end of the text"), place + 1)),
                b'\\' if place == 19 => Err((JsonFault::End, 21)),
                b'\\' => Err((JsonFault::Escape, place)),
                _ => Ok(()),
            };
            assert_eq!(read, wanted.map_err(|(fault, offset)| JsonError { fault, offset }), "{byte} at {place}");
        }
    }
}

#[test]
fn depth_is_measured_without_recursion() {
    let limits = Limits { max_depth: 3, max_nodes: 100 };
    assert!(Tape::parse(b"[[{\"a\":1}]]", &limits).is_ok());
    assert_eq!(Tape::parse(b"[[{\"a\":[]}]]", &limits).unwrap_err().to_string(), "nesting deeper than 3 at byte 7");
    assert!(Tape::parse(b"1", &Limits { max_depth: 0, ..limits }).is_ok());

    let deep = vec![b'['; 1 << 20];
    assert_eq!(refusal(&deep), "nesting deeper than 64 at byte 64");
    let limits = Limits { max_depth: usize::MAX, max_nodes: usize::MAX };
    assert_eq!(Tape::parse(&deep, &limits).unwrap_err().to_string(), "unexpected end of text at byte 1048576");
    let mut closed = deep;
    closed.extend(vec![b']'; 1 << 20]);
    let tape = Tape::parse(&closed, &limits).unwrap();
    assert_eq!(tape.root(&closed).strings().count(), 0);
}

#[test]
fn nodes_are_counted_with_keys() {
    let limits = Limits { max_depth: 8, max_nodes: 4 };
    assert!(Tape::parse(b"[1,2,3]", &limits).is_ok());
    assert_eq!(Tape::parse(b"[1,2,3,4]", &limits).unwrap_err().fault, JsonFault::Nodes(4));
    assert!(Tape::parse(br#"{"a":"b"}"#, &limits).is_ok());
    assert!(Tape::parse(br#"{"a":1,"b":2}"#, &limits).is_err());
}

#[test]
fn one_repeated_key_among_very_many_is_found() {
    let mut text = String::from("{");
    for n in 0..100_000 {
        write!(text, "\"the same long beginning {n}\":0,\"\\u0074he same {n}\":0,").unwrap();
    }
    let unique = format!("{text}\"end\":0}}");
    assert!(parse(&unique).is_ok());
    let repeated = format!("{text}\"the same 77\":0,\"end\":0}}");
    let error = parse(&repeated).unwrap_err();
    assert_eq!(error.to_string(), format!("duplicate key `the same 77` at byte {}", text.len()));
    assert!(parse("[{\"a\":1},{\"a\":2},{\"a\":{\"a\":3}}]").is_ok(), "one per object is enough");
}

#[test]
fn a_string_never_breaks_a_line() {
    let mut out = Vec::new();
    escape_into(&mut out, "a\"\\\u{0}\n\u{b}\u{1c}\u{7f}é\u{85}\u{2028}\u{2029}\u{2027}😀");
    let plain = "\"a\\\"\\\\\\u0000\\n\\u000b\\u001c\u{7f}é\\u0085\\u2028\\u2029\u{2027}😀\"";
    assert_eq!(String::from_utf8(out).unwrap(), plain);
    assert_eq!(line_safe("[\"é“x”\"]".as_bytes()), None);
    let safe = line_safe("[\"\u{2028}a\u{85}“\u{2029}\"]".as_bytes()).unwrap();
    assert_eq!(String::from_utf8(safe).unwrap(), "[\"\\u2028a\\u0085“\\u2029\"]");
}

/// A document, written with odd spacing and escapes.
pub(super) fn document() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", "", "", " ", "\n ", "\t\r\n"]);
    let scalar = prop_oneof![
        prop::sample::select(vec!["null", "true", "false", "1.0", "-0", "1e2", "9007199254740993", "-1.5E-3"])
            .prop_map(str::to_owned),
        string(),
    ];
    let spaced = (space(), scalar, space()).prop_map(|(a, b, c)| format!("{a}{b}{c}"));
    spaced.prop_recursive(5, 60, 6, move |inner| {
        let member = (space(), key(), space(), inner.clone());
        prop_oneof![
            (vec(inner, 0..6), space()).prop_map(|(items, s)| {
                if items.is_empty() { format!("[{s}]") } else { format!("[{}]{s}", items.join(",")) }
            }),
            (vec(member, 0..12), space()).prop_map(|(members, s)| {
                let mut seen = BTreeSet::new();
                let members = members.into_iter().filter_map(|(a, key, b, value)| {
                    let is_new = seen.insert(serde_json::from_str::<String>(&key).unwrap());
                    is_new.then(|| format!("{a}{key}{b}:{value}"))
                });
                let members: Vec<_> = members.collect();
                if members.is_empty() { format!("{{{s}}}") } else { format!("{s}{{{}}}{s}", members.join(",")) }
            }),
        ]
    })
}

fn string() -> impl Strategy<Value = String> {
    let plain = ".{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap());
    let ours = ".{0,12}".prop_map(|text| {
        let mut out = Vec::new();
        escape_into(&mut out, &text);
        String::from_utf8(out).unwrap()
    });
    let long = "[a-z\"é]{30,80}".prop_map(|text| serde_json::to_string(&text).unwrap());
    let units = vec(prop_oneof![1_u32..0xD800, 0x1_0000_u32..0x11_0000], 0..4).prop_map(|codes| {
        let text: String = codes.into_iter().filter_map(char::from_u32).collect();
        let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"\\/{}\"", units.concat())
    });
    prop_oneof![plain, ours, long, units]
}

pub(super) fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![r#""a""#, r#""\u0062""#, r#""c""#, r#""""#]).prop_map(str::to_owned),
        string()
    ]
}

/// The same content as `serde_json` read, and numbers by their text.
fn same(ours: Value<'_>, theirs: &serde_json::Value) {
    match theirs {
        serde_json::Value::Null => assert!(ours.is_null()),
        serde_json::Value::Bool(flag) => assert_eq!(ours.as_bool(), Some(*flag)),
        serde_json::Value::String(text) => assert_eq!(ours.as_str().unwrap(), text.as_str()),
        serde_json::Value::Number(_) => {
            assert_eq!(ours.kind(), Kind::Number);
            assert_eq!(serde_json::from_str::<serde_json::Value>(ours.raw()).unwrap(), *theirs);
            // Theirs is not always the nearest double.
            let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            assert!((ours - theirs).abs() <= theirs.abs() * 1e-15);
        }
        serde_json::Value::Array(items) => {
            assert_eq!(ours.len(), items.len());
            ours.items().zip(items).for_each(|(ours, theirs)| same(ours, theirs));
        }
        serde_json::Value::Object(members) => {
            assert_eq!((ours.len(), ours.is_empty()), (members.len(), members.is_empty()));
            ours.members().for_each(|(key, value)| same(value, &members[key.as_ref()]));
            members.keys().for_each(|key| assert!(ours.get(key).is_some()));
        }
    }
}

proptest! {
    #[test]
    fn content_is_what_serde_json_reads(text in document()) {
        let tape = parse(&text).unwrap();
        same(tape.root(text.as_bytes()), &serde_json::from_str(&text).unwrap());
    }

    #[test]
    fn acceptance_is_that_of_serde_json(text in document(), cuts in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 0..4)) {
        let mut bytes = text.into_bytes();
        for (at, byte, what) in cuts {
            if bytes.is_empty() { break }
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\"\\{}[],:0-.eu"[usize::from(byte) % 13]),
                _ => bytes.truncate(at),
            }
        }
        let ours = Tape::parse(&bytes, &Limits::default());
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
        match ours {
            Ok(tape) => {
                let root = tape.root(&bytes);
                match theirs {
                    Ok(theirs) => same(root, &theirs),
                    Err(error) => prop_assert!(error.to_string().contains("number out of range"), "{error}"),
                }
                prop_assert!(root.strings().all(|value| value.path().len() < 10_000));
            }
            // Theirs takes them, and may stumble over something further on.
            Err(JsonError { fault: JsonFault::Duplicate(_), .. }) => {}
            Err(error) => prop_assert!(theirs.is_err(), "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..200)) {
        drop(Tape::parse(&bytes, &Limits::default()));
        drop(line_safe(&bytes));
    }

    #[test]
    fn a_quoted_string_reads_back(text in any::<String>()) {
        let mut out = Vec::new();
        escape_into(&mut out, &text);
        let tape = Tape::parse(&out, &Limits::default()).unwrap();
        prop_assert_eq!(tape.root(&out).as_str().unwrap(), text);
        prop_assert_eq!(line_safe(&out), None);
    }

    #[test]
    fn a_line_safe_text_says_the_same(text in document()) {
        let safe = line_safe(text.as_bytes()).unwrap_or(text.clone().into_bytes());
        let ends = ['\u{2028}', '\u{2029}', '\u{85}'];
        prop_assert!(!std::str::from_utf8(&safe).unwrap().contains(ends));
        let (a, b): (serde_json::Value, serde_json::Value) = (serde_json::from_slice(&safe).unwrap(), serde_json::from_str(&text).unwrap());
        prop_assert_eq!(a, b);
    }
}
