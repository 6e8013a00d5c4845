//! What a value looks like: random, written by a person, or a stand-in for a value.
//!
//! Owns entropy, placeholders and the shapes that code and prose put where a secret could stand. Knows nothing about
//! kinds of secrets. Total; looks at 256 bytes at most.

use super::mentions;

/// Most bytes of a value that are looked at.
const LONGEST: usize = 256;

/// Words that say "put your value here", or that every manual uses.
const STAND_INS: [&str; 24] = [
    "example",
    "sample",
    "placeholder",
    "your",
    "changeme",
    "change_me",
    "change-me",
    "dummy",
    "redacted",
    "xxxx",
    "****",
    "....",
    "insert",
    "replace",
    "todo",
    "fixme",
    "masked",
    "hidden",
    "removed",
    "undefined",
    "lorem",
    "not-a-real",
    "fake",
    "12345678",
];
/// What weak stand-ins begin with, before digits or signs.
const WEAK: [&str; 19] = [
    "password", "passwd", "passwort", "pass", "secret", "test", "admin", "root", "user", "guest", "demo", "foo", "bar",
    "token", "abc", "qwerty", "letmein", "welcome", "default",
];

/// Shannon entropy of the bytes, in bits per byte.
pub(in crate::detect) fn entropy(value: &[u8]) -> f64 {
    let value = value.get(..LONGEST).unwrap_or(value);
    let mut counts = [0_u16; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    let total = f64::from(u16::try_from(value.len()).unwrap_or(u16::MAX).max(1));
    counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / total).map(|p| -p * p.log2()).sum()
}

/// How many kinds of characters: lower case, upper case, digits, signs.
pub(in crate::detect) fn kinds(value: &[u8]) -> usize {
    let any = |kind: fn(&u8) -> bool| usize::from(value.iter().any(kind));
    any(u8::is_ascii_lowercase)
        + any(u8::is_ascii_uppercase)
        + any(u8::is_ascii_digit)
        + any(|byte| !byte.is_ascii_alphanumeric())
}

/// A stand-in (`<your-key>`, `xxxx`, `${VAR}`), a reference (`os.environ[…]`, `config.token`) or a word for nothing.
pub(in crate::detect) fn is_stand_in(value: &[u8]) -> bool {
    let value = value.get(..LONGEST).unwrap_or(value);
    value.iter().any(|byte| b"<>{}()[]|\\".contains(byte))
        || value.first().is_none_or(|first| b"$%@&!:#~".contains(first))
        || value.windows(2).all(|pair| pair[0] == pair[1])
        || value.windows(3).any(|part| part == b"://")
        || mentions(value, &STAND_INS)
        || is_weak(value)
        || is_path(value)
}

/// A weak word with nothing but a few digits or signs behind it: `password123`, `test!`.
fn is_weak(value: &[u8]) -> bool {
    let letters = value.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let (word, rest) = value.split_at(letters);
    let known = WEAK.iter().any(|weak| word.eq_ignore_ascii_case(weak.as_bytes()));
    known && rest.len() <= 6 && !rest.iter().any(u8::is_ascii_alphabetic)
}

/// Names joined by dots, slashes or dashes, as code, paths and slugs are: `settings.api.key`, `my-app-secret-2`. A single
/// name with a digit behind it is none: people choose such passwords.
pub(in crate::detect) fn is_path(value: &[u8]) -> bool {
    let parts = || value.split(|byte| b"./-_:".contains(byte));
    (parts().nth(1).is_some() || !value.iter().any(u8::is_ascii_digit)) && parts().all(is_name)
}

/// A word, maybe in `camelCase`, with a digit or two behind it; or a short number.
fn is_name(part: &[u8]) -> bool {
    let letters = part.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let digits = part.len() - letters;
    // `camelCase` changes case at most once every three letters; random text more often.
    let changes = part.windows(2).filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()).count();
    part.iter().skip(letters).all(u8::is_ascii_digit)
        && digits <= if (1..3).contains(&letters) { 2 } else { 4 }
        && changes * 3 <= part.len()
}

/// How many runs of digits: an identifier has one, a drawn token several.
pub(in crate::detect) fn digit_runs(value: &[u8]) -> usize {
    value.split(|byte| !byte.is_ascii_digit()).filter(|run| !run.is_empty()).count()
}

/// A random-looking token: long, mixed, and neither name nor number.
pub(in crate::detect) fn is_random(value: &[u8], least_entropy: f64) -> bool {
    value.iter().any(u8::is_ascii_digit)
        && value.iter().any(u8::is_ascii_alphabetic)
        && !is_stand_in(value)
        && !is_name(value)
        && entropy(value) >= least_entropy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_counts_bits() {
        assert!(entropy(b"") < 0.001 && entropy(b"aaaa") < 0.001);
        assert!((entropy(b"abcd") - 2.0).abs() < 0.001);
        assert!(entropy(b"9f8Kq2LmZx7RtY4w") > 3.5);
    }

    #[test]
    fn kinds_are_counted() {
        assert_eq!([kinds(b""), kinds(b"aa"), kinds(b"aA"), kinds(b"aA1"), kinds(b"aA1!")], [0, 1, 2, 3, 4]);
    }

    #[test]
    fn stand_ins_are_known() {
        for text in [
            "",
            "<your-key>",
            "xxxxxxxxxxxx",
            "${TOKEN}",
            "os.environ['TOKEN']",
            "$TOKEN",
            "{{ token }}",
            "getpass()",
            "YOUR_API_KEY_1",
            "changeme1",
            "aaaaaaaa",
            "settings.api_key",
            "password123",
            "Test123!",
            "my-app-secret-2",
            "https://a.b/c1",
            "%s",
            "self.token2",
            "example-key-9f8Kq2",
            "clientSecretName",
        ] {
            assert!(is_stand_in(text.as_bytes()), "{text}");
        }
        for text in ["hunter2x", "9f8Kq2LmZx7RtY4w", "Tr0ub4dor&3", "s3cr3t-P4ss", "P@ssw0rd!", "aGVsbG8gd29ybGQ1"] {
            assert!(!is_stand_in(text.as_bytes()), "{text}");
        }
    }
}
