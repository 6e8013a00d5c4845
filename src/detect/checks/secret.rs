//! Checks of rows about secrets.
//!
//! Owns what tells a secret from code, prose and manuals that speak about one. Scores follow from how sure the shape is.
//! Total; a private key's body is followed for 16 KiB at most.

use super::{
    mentions,
    shape::{digit_runs, entropy, is_path, is_random, is_stand_in, kinds},
};
use crate::detect::pattern::{Candidate, Verdict};

/// Words before `token` or `key` that make it something else.
const OTHER_TOKENS: [&str; 14] = [
    "page",
    "next",
    "csrf",
    "xsrf",
    "cursor",
    "continuation",
    "sync",
    "cancel",
    "eos",
    "bos",
    "pad",
    "unk",
    "mask",
    "sep",
];
/// Passwords that every manual uses in its connection strings.
const MANUAL: [&str; 20] = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "secret",
    "postgres",
    "mysql",
    "mongo",
    "root",
    "admin",
    "user",
    "test",
    "guest",
    "changeme",
    "username",
    "pw",
    "bar",
    "xyz",
    "anonymous",
    "anoncvs",
];
/// Longest body of a private key that is followed, in bytes.
const LONGEST_KEY: usize = 16 * 1024;

/// A provider's token whose form is certain but whose body may be a stand-in (`ghp_xxxxxxxx…`).
pub(in crate::detect) fn token(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let body = value.get(value.len() / 4..).unwrap_or_default();
    (entropy(body) >= 2.6 && !mentions(value, &["xxxx", "your", "example", "....", "123456789012"])).then(|| c.whole())
}

/// A provider's token whose form other things share: random it must be.
pub(in crate::detect) fn random_token(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let body = value.iter().position(|byte| b"-_".contains(byte)).and_then(|at| value.get(at + 1..)).unwrap_or(value);
    is_random(body, 3.0).then(|| c.whole())
}

/// An access key id. The one of the vendor's manual counts: it is what people test with.
pub(in crate::detect) fn access_key(c: &Candidate<'_>) -> Option<Verdict> {
    let body = c.value().get(4..).unwrap_or_default();
    (entropy(body) >= 2.5).then(|| c.whole())
}

/// Forty characters beside a word that says AWS secret. The one of the vendor's manual counts.
pub(in crate::detect) fn aws_secret(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    (kinds(value) >= 2 && entropy(value) >= 3.5 && value.iter().any(u8::is_ascii_uppercase)).then(|| c.whole())
}

/// A header of a private key, followed to its end. Code that only names the header has no body. The body's begin decides,
/// so that a text full of headers is not followed from each.
pub(in crate::detect) fn private_key(c: &Candidate<'_>) -> Option<Verdict> {
    let is_body = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/=\r\n\t \\:,-".contains(byte);
    let begin = c.after(160);
    let begin = begin.get(..begin.iter().take_while(is_body).count()).unwrap_or_default();
    let letters = begin.iter().filter(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)).count();
    if letters < 24 || entropy(begin) < 3.0 || mentions(begin, &["your", "example", "xxxx"]) {
        return None;
    }
    let body = c.after(LONGEST_KEY);
    let body = body.get(..body.iter().take_while(is_body).count()).unwrap_or_default();
    let footer = body.windows(8).position(|part| part == b"-----END").map(|at| {
        let rest = body.get(at + 8..).unwrap_or_default();
        at + 8 + rest.windows(5).take(48).position(|part| part == b"-----").map_or(0, |more| more + 5)
    });
    Some(Verdict { end: c.end + footer.unwrap_or(body.len()), ..c.whole() })
}

/// The password of a connection string; the finding is the whole of `scheme://user:password@host`.
pub(in crate::detect) fn connection(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let after = value.windows(3).position(|part| part == b"://")? + 3;
    let login = value.get(after..)?;
    let login = login.get(..login.iter().rposition(|byte| *byte == b'@')?)?;
    let colon = login.iter().position(|byte| *byte == b':')?;
    let (user, password) = (login.get(..colon)?, login.get(colon + 1..)?);
    let stand_in = is_blank(password)
        || password.eq_ignore_ascii_case(user)
        || MANUAL.iter().any(|word| password.eq_ignore_ascii_case(word.as_bytes()));
    (!stand_in).then(|| c.whole())
}

/// Marks that no password of a connection string has, only its stand-in.
fn is_blank(password: &[u8]) -> bool {
    password.len() < 3
        || password.iter().any(|byte| b"<>{}[]()".contains(byte))
        || password.first().is_some_and(|first| b"$%*".contains(first) && password.len() < 40 && kinds(password) < 4)
        || password.windows(2).all(|pair| pair[0] == pair[1])
        || mentions(password, &["your", "xxxx", "****", "example", "changeme", "placeholder", "redacted"])
}

/// `api_key = "…"` and its kin.
pub(in crate::detect) fn keyed_token(c: &Candidate<'_>) -> Option<Verdict> {
    let value = closed(c)?;
    let other = c.lead().first().is_some_and(|first| first.eq_ignore_ascii_case(&b't')) && {
        let before = c.before(16);
        OTHER_TOKENS.iter().any(|word| {
            let tail = before.trim_ascii_end().strip_suffix(b"_").unwrap_or(before);
            tail.get(tail.len().saturating_sub(word.len())..).is_some_and(|t| t.eq_ignore_ascii_case(word.as_bytes()))
        })
    };
    let drawn = value.len() >= 16 && is_random(value, 3.0) && !value.contains(&b'.');
    let known = !other && drawn && (quote(c).is_some() || digit_runs(value) >= 2) || is_jwt_like(value);
    known.then(|| c.whole())
}

fn is_jwt_like(value: &[u8]) -> bool {
    value.starts_with(b"eyJ") && value.len() > 60
}

/// `password = "…"` and its kin: what people choose is shorter than what machines draw.
pub(in crate::detect) fn keyed_password(c: &Candidate<'_>) -> Option<Verdict> {
    let quoted = quote(c).is_some();
    let value = closed(c)?;
    if is_stand_in(value) {
        return None;
    }
    let letters = value.iter().any(u8::is_ascii_alphabetic);
    let digits = value.iter().any(u8::is_ascii_digit);
    let spoken = c.lead().last().is_some_and(|last| *last == b' ') && mentions(c.lead(), &[" is ", " was ", " is:"]);
    let mixed = kinds(value) >= 3 || (letters && digits);
    let good = match (quoted, spoken) {
        (true, _) => value.len() >= 6 && mixed && entropy(value) >= 2.2,
        (false, true) => value.len() >= 8 && kinds(value) >= 3 && digits && entropy(value) >= 2.7,
        (false, false) => value.len() >= 8 && letters && (digits || kinds(value) >= 3) && entropy(value) >= 2.5,
    };
    (good && !is_code(value)).then(|| c.whole())
}

/// What code writes without quotes and no one chooses as a password.
fn is_code(value: &[u8]) -> bool {
    value.contains(&b'=') && value.windows(2).any(|pair| pair == b"==") && value.len() < 12
        || value.starts_with(b"/")
        || value.first().is_some_and(u8::is_ascii_digit) && value.iter().filter(|b| !b.is_ascii_digit()).count() <= 1
        || value.starts_with(b"./")
        || is_path(value)
}

/// `Authorization: Bearer …`: a token, not the word for one.
pub(in crate::detect) fn bearer(c: &Candidate<'_>) -> Option<Verdict> {
    (c.value().len() >= 20 && is_random(c.value(), 3.0) || is_jwt_like(c.value())).then(|| c.whole())
}

/// `Authorization: Basic …`: base64 of `user:password`.
pub(in crate::detect) fn basic(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    (kinds(value) >= 3 && entropy(value) >= 3.0 && !mentions(value, &["xxxx"])).then(|| c.whole())
}

/// The quote that opens the value, if one does.
fn quote(c: &Candidate<'_>) -> Option<u8> {
    c.lead().last().copied().filter(|last| b"\"'`".contains(last))
}

/// The value, if its quote is closed, or if it ends where an unquoted value ends.
fn closed<'t>(c: &Candidate<'t>) -> Option<&'t [u8]> {
    let after = c.after(2);
    let next = after.first().copied();
    let ends = match quote(c) {
        Some(quote) => next == Some(quote) || (next == Some(b'\\') && after.last() == Some(&quote)),
        None => next.is_none_or(|next| next.is_ascii_whitespace() || b",;\"'`<&})]\\|".contains(&next)),
    };
    ends.then(|| c.value())
}

/// `-us12`: a Mailchimp key, if 32 hexadecimal digits stand before it.
pub(in crate::detect) fn mailchimp(c: &Candidate<'_>) -> Option<Verdict> {
    let before = c.before(33);
    let (edge, key) = before.split_at_checked(before.len().checked_sub(32)?)?;
    let free = edge.first().is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let hex = key.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    (free && hex && entropy(key) >= 2.8).then(|| Verdict { start: c.start - 32, ..c.whole() })
}

/// `:AA…`: a Telegram bot's token, if its number stands before it.
pub(in crate::detect) fn telegram(c: &Candidate<'_>) -> Option<Verdict> {
    let before = c.before(11);
    let number = before.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let edge = before.iter().rev().nth(number);
    let free = edge.is_none_or(|byte| !byte.is_ascii_alphanumeric() || byte.eq_ignore_ascii_case(&b't'));
    ((8..=10).contains(&number) && free && entropy(c.value()) >= 3.0)
        .then(|| Verdict { start: c.start - number, ..c.whole() })
}
