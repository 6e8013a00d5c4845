//! Patterns with `*` (any run of characters) and `?` (one character).
//!
//! Owns the one meaning of a pattern for rules, merging and Rego (as the built-in `glob_matches`). Never compiles or caches:
//! a match is at most pattern × text steps, and both are bounded by the callers. Every pattern is valid once `check` took it.

/// Longest pattern, in bytes.
pub(super) const MAX_GLOB_BYTES: usize = 200;

/// Says what is wrong with a pattern, if anything.
pub fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.len() > MAX_GLOB_BYTES {
        return Err(format!("a pattern has 1 to {MAX_GLOB_BYTES} bytes"));
    }
    // A bracket or brace would be taken literally where its author expects a class: say so.
    match pattern.chars().find(|c| "[]{}\\".contains(*c) || c.is_control()) {
        Some(bad) => Err(format!("`{}` has no meaning here: only `*` and `?` are wildcards", bad.escape_default())),
        None => Ok(()),
    }
}

/// Does the whole text match?
pub fn matches(pattern: &str, text: &str) -> bool {
    let same = |p: u8, t: u8| p == b'?' || p == t;
    run(pattern.as_bytes(), text.as_bytes(), same, width)
}

/// Does every text that `inner` matches also match `outer`? May miss a containment, never claims a false one.
pub(super) fn covers(outer: &str, inner: &str) -> bool {
    // Read as a text, the inner pattern's `*` stands for any run, so only a `*` may take it.
    let same = |p: u8, t: u8| t != b'*' && (p == b'?' || p == t);
    run(outer.as_bytes(), inner.as_bytes(), same, width)
}

/// The greedy matcher: on a mismatch the last `*` takes one character more. No recursion.
fn run(pattern: &[u8], text: &[u8], same: impl Fn(u8, u8) -> bool, width: impl Fn(u8) -> usize) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(wanted) if same(*wanted, *byte) => {
                p += 1;
                t += if *wanted == b'?' { width(*byte) } else { 1 };
            }
            _ => {
                let Some((after, from)) = star else { return false };
                // The text is UTF-8, so whole characters are skipped and `?` never sees half of one.
                let next = from + text.get(from).map_or(1, |b| width(*b));
                (p, t) = (after, next);
                star = Some((after, next));
            }
        }
    }
    pattern.iter().skip(p).all(|b| *b == b'*')
}

/// Bytes of the character that begins with this byte.
fn width(first: u8) -> usize {
    match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_take_any_run_and_question_marks_one_character() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "a/b.c"),
            ("read_*", "read_"),
            ("a*b*c", "a12b3c"),
            ("?", "é"),
            ("*é?", "aéü"),
            ("a", "a"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("a", "A"), ("?", ""), ("?", "ab"), ("a*b", "ac"), ("read_*", "xread_a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_covers_what_it_contains() {
        for (outer, inner) in [("*", "a?*"), ("read_*", "read_file"), ("a*", "a*b"), ("?", "a"), ("*b", "a*b")] {
            assert!(covers(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [("read_file", "read_*"), ("a*", "*"), ("?", "*"), ("a", "?")] {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
    }

    #[test]
    fn other_wildcards_are_refused_by_name() {
        assert!(check("a[bc]").unwrap_err().contains('['));
        assert!(check("").is_err() && check(&"a".repeat(201)).is_err() && check("a*?").is_ok());
    }

    /// The definition, as a table over all prefixes.
    fn by_table(pattern: &[char], text: &[char]) -> bool {
        let mut row = vec![false; text.len() + 1];
        row[0] = true;
        for p in pattern {
            let mut next = vec![false; text.len() + 1];
            next[0] = row[0] && *p == '*';
            for (i, t) in text.iter().enumerate() {
                next[i + 1] = if *p == '*' { row[i + 1] || next[i] } else { row[i] && (*p == '?' || p == t) };
            }
            row = next;
        }
        row[text.len()]
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_the_definition(pattern in "[abé*?]{0,8}", text in "[abé]{0,10}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), by_table(&p, &t));
        }

        #[test]
        fn what_is_covered_matches(outer in "[ab*?]{1,5}", inner in "[ab*?]{1,5}", text in "[ab]{0,6}") {
            if covers(&outer, &inner) && matches(&inner, &text) {
                prop_assert!(matches(&outer, &text));
            }
        }
    }
}
