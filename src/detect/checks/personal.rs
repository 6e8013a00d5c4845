//! Checks of rows about personal data.
//!
//! Owns number plans, ranges, calendars and the neighbours that make a number something else (a version, a part of a
//! longer id). Scores say how sure the shape alone is; a word of context beside it makes it surer. Total.

use super::{
    checksums::{
        bsn, codice_fiscale, cpf, digits, dni, iban, iban_length, luhn, nir, pesel, same, steuer_id, verhoeff,
    },
    mentions,
};
use crate::detect::pattern::{Candidate, Verdict, is_word};

/// Bytes before a number in which a word of context counts.
const NEAR: usize = 48;
/// Longest name of a host, in bytes.
const LONGEST_DOMAIN: usize = 253;
/// What looks like a top-level domain behind an `@` and is a file name.
const FILES: [&str; 16] =
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json", "html", "py", "rs", "md", "local", "map"];

/// An address; not the end of a login (`scheme://user:pass@host`), a retina image or a remote of git.
pub(in crate::detect) fn email(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let at = value.iter().position(|byte| *byte == b'@')?;
    let (local, domain) = (value.get(..at)?, value.get(at + 1..)?);
    let top = domain.rsplit(|byte| *byte == b'.').next()?;
    let before = c.before(1).first().copied();
    let cut = before.is_some_and(|byte| is_word(byte) || b".%+'-".contains(&byte));
    let login = before == Some(b':') && mentions(c.before(96), &["://"]) || before == Some(b'/');
    let remote = local == b"git" && c.after(1) == b":";
    let file = FILES.iter().any(|file| top.eq_ignore_ascii_case(file.as_bytes()));
    let labels = domain
        .split(|byte| *byte == b'.')
        .all(|label| (1..=63).contains(&label.len()) && label.first() != Some(&b'-') && label.last() != Some(&b'-'));
    let dots = local.first() == Some(&b'.') || local.last() == Some(&b'.') || local.windows(2).any(|p| p == b"..");
    // Counted in the text, not in the match, which may end where the window does.
    let run = c.text.get(c.start + at + 1..).unwrap_or_default().iter().take(LONGEST_DOMAIN + 1);
    let run = run.take_while(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte)).count();
    let good = local.len() <= 64 && run <= LONGEST_DOMAIN && labels && !(cut || login || remote || file || dots);
    good.then(|| c.whole())
}

/// A card number: a brand's first digits and length, and Luhn.
pub(in crate::detect) fn card(c: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(c.value());
    if !luhn(&number) || !is_brand(&number) || same(&number) || joined(c) {
        return None;
    }
    let grouped = c.value().len() > number.len();
    let near =
        mentions(c.before(NEAR), &["card", "visa", "master", "amex", "credit", "debit", "payment", "pan", "karte"]);
    // Shorter and longer numbers than the usual are ids of machines far more often than cards.
    let usual = (14..=16).contains(&number.len());
    let score = if grouped { 9_700 } else { 7_500 };
    (near || grouped || usual).then(|| c.scored(if near { 9_900 } else { score }))
}

/// First digits and lengths of the brands.
fn is_brand(number: &[u8]) -> bool {
    let head = |count: usize| number.iter().take(count).fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit));
    match number.len() {
        13 | 19 if head(1) == 4 => true,
        14 => matches!(head(3), 300..=305 | 309) || matches!(head(2), 36 | 38 | 39),
        15 => matches!(head(2), 34 | 37),
        16 => {
            head(1) == 4
                || matches!(head(2), 51..=55 | 65)
                || matches!(head(4), 2221..=2720 | 3528..=3589 | 6011)
                || matches!(head(3), 644..=649)
                || matches!(head(6), 622_126..=622_925)
        }
        19 => head(2) == 62,
        _ => false,
    }
}

/// Part of something longer: an id with dashes, a decimal, a path, a file name.
fn joined(c: &Candidate<'_>) -> bool {
    let inside = |byte: u8| is_word(byte) || b"-./+".contains(&byte);
    let before = c.before(2);
    let left = match before.last() {
        Some(b'-' | b'/' | b'+') => true,
        Some(b'.') => before.first().is_some_and(u8::is_ascii_digit),
        _ => false,
    };
    let after = c.after(2);
    let right = after.first().is_some_and(|byte| inside(*byte)) && after.get(1).is_some_and(|byte| is_word(*byte));
    left || right
}

/// An account number: the country's length, then modulo 97. What follows the last character is not part of it.
pub(in crate::detect) fn account(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let wanted = iban_length(value.get(..2)?)?;
    let mut bare = Vec::with_capacity(wanted);
    let mut length = 0;
    for byte in value {
        if bare.len() == wanted {
            break;
        }
        length += 1;
        if byte.is_ascii_alphanumeric() {
            bare.push(*byte);
        }
    }
    let next = value.get(length).or_else(|| c.text.get(c.end).filter(|_| length == value.len()));
    let whole = next.is_none_or(|byte| !is_word(*byte));
    (whole && iban(&bare)).then(|| Verdict { end: c.start + length, ..c.whole() })
}

/// A social security number: ranges that were ever given out.
pub(in crate::detect) fn ssn(c: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(c.value());
    let part =
        |from: usize, to: usize| number.get(from..to).unwrap_or_default().iter().fold(0, |n, d| n * 10 + u32::from(*d));
    let (area, group, serial) = (part(0, 3), part(3, 5), part(5, 9));
    let valid = number.len() == 9 && !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0;
    let near = mentions(c.before(NEAR), &["ssn", "social", "tax", "tin"]);
    (valid && !joined(c)).then(|| c.scored(if near { 9_900 } else { 8_500 }))
}

/// A North American number as people write it: area and exchange begin with 2 to 9.
pub(in crate::detect) fn american(c: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(c.value());
    let number = number.strip_prefix(&[1]).unwrap_or(&number);
    let good = number.len() == 10 && number.first() > Some(&1) && number.get(3) > Some(&1) && !same(number);
    let special = number.get(1..3) == Some(&[1, 1]) || number.get(4..6) == Some(&[1, 1]);
    (good && !special && !joined(c)).then(|| c.whole())
}

/// A number with its country: a calling code, eight to fifteen digits in plausible groups; not a date, offset or sum.
pub(in crate::detect) fn international(c: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(c.value());
    let mut groups = c.value().split(|byte| !byte.is_ascii_digit()).filter(|group| !group.is_empty()).map(<[u8]>::len);
    let count = groups.clone().count();
    let last = groups.next_back();
    let date = count == 3 && last == Some(2) && groups.next_back() == Some(2);
    let free = c.before(1).first().is_none_or(|b| b.is_ascii_whitespace() || b"\"'`(<[:;,=>|*/".contains(b));
    let near = mentions(c.before(NEAR), &PHONE);
    let length = if near || count > 1 { 8..=15 } else { 10..=15 };
    let good = length.contains(&number.len()) && is_calling_code(&number) && last > Some(1) && !same(&number);
    let score = if count > 1 { 9_200 } else { 8_500 };
    (good && free && !date && !decimal(c)).then(|| c.scored(if near { 9_800 } else { score }))
}

/// Whether a number begins with a country's calling code.
fn is_calling_code(number: &[u8]) -> bool {
    match number {
        [2, second, ..] => *second != 8,
        [8, second, ..] => !matches!(second, 3 | 9),
        [9, 7, third, ..] => *third <= 7,
        [1 | 3..=7 | 9, ..] => true,
        _ => false,
    }
}

const PHONE: [&str; 10] = ["phone", "tel", "call", "mobil", "cell", "fax", "whatsapp", "sms", "number", "handy"];

fn decimal(c: &Candidate<'_>) -> bool {
    let after = c.after(2);
    matches!(after, [b'.' | b'-' | b':' | b'%', next] if next.is_ascii_digit()) || matches!(after, [b'%', ..])
}

/// A local number behind a word that says so.
pub(in crate::detect) fn local(c: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(c.value());
    ((7..=15).contains(&number.len()) && !same(&number) && !decimal(c)).then(|| c.whole())
}

/// An address of the internet; not a version, a mask or the machine itself.
pub(in crate::detect) fn ipv4(c: &Candidate<'_>) -> Option<Verdict> {
    let mut parts = c.value().split(|byte| *byte == b'.');
    let mut octets = [0_u16; 4];
    for octet in &mut octets {
        let part = parts.next()?;
        if part.len() > 1 && part.first() == Some(&b'0') {
            return None;
        }
        *octet = part.iter().fold(0_u16, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    }
    let valid = octets.iter().all(|octet| *octet <= 255) && !matches!(octets[0], 0 | 127 | 224..);
    let small = octets.iter().all(|octet| *octet < 30);
    let version = || mentions(c.before(20), if small { &VERSIONS } else { VERSIONS.get(..1).unwrap_or_default() });
    (valid && !joined(c) && !version()).then(|| c.whole())
}

/// Words before a version; of an address with large numbers only the first makes one.
const VERSIONS: [&str; 10] = ["version", "release", "v.", "ver ", "==", ">=", "~=", "build", "section", "\u{a7}"];

/// Eight groups, or fewer around one `::`.
pub(in crate::detect) fn ipv6(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let gaps = value.windows(2).filter(|pair| *pair == b"::").count();
    let groups = value.split(|byte| *byte == b':').filter(|group| !group.is_empty()).count();
    let sized = value.split(|byte| *byte == b':').all(|group| group.len() <= 4);
    let good = sized && (gaps == 1 && (2..=7).contains(&groups) || gaps == 0 && groups == 8);
    let rest = c.after(1).first().copied();
    (good && rest != Some(b':')).then(|| c.whole())
}

/// A number of a passport: at least five digits, and not one that speaks of something else.
pub(in crate::detect) fn passport(c: &Candidate<'_>) -> Option<Verdict> {
    (digits(c.value()).len() >= 5).then(|| c.whole())
}

/// A date that may be somebody's birth: day, month and year in range, in any order.
pub(in crate::detect) fn birth(c: &Candidate<'_>) -> Option<Verdict> {
    let numbers: Vec<u32> = c
        .value()
        .split(|byte| !byte.is_ascii_digit())
        .filter(|part| !part.is_empty() && part.len() <= 4)
        .map(|part| part.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
        .collect();
    let year = numbers.iter().any(|number| (1900..=2025).contains(number));
    let small = numbers.iter().filter(|number| (1..=31).contains(*number)).count();
    let month = numbers.iter().any(|number| (1..=12).contains(number));
    let named = c.value().iter().any(u8::is_ascii_alphabetic);
    (year && (named && small >= 1 || small == 2 && month)).then(|| c.whole())
}

/// A national id with its own check digits; `whole` numbers only.
fn checked(c: &Candidate<'_>, valid: bool) -> Option<Verdict> {
    (valid && !joined(c)).then(|| c.whole())
}

pub(in crate::detect) fn brazilian(c: &Candidate<'_>) -> Option<Verdict> {
    checked(c, cpf(&digits(c.value())))
}

pub(in crate::detect) fn dutch(c: &Candidate<'_>) -> Option<Verdict> {
    checked(c, bsn(&digits(c.value())))
}

pub(in crate::detect) fn polish(c: &Candidate<'_>) -> Option<Verdict> {
    checked(c, pesel(&digits(c.value())))
}

pub(in crate::detect) fn german(c: &Candidate<'_>) -> Option<Verdict> {
    checked(c, steuer_id(&digits(c.value())))
}

pub(in crate::detect) fn french(c: &Candidate<'_>) -> Option<Verdict> {
    let spaced = c.value().contains(&b' ');
    let near = || mentions(c.before(NEAR), &["nir", "insee", "secu", "social", "vitale", "num"]);
    checked(c, nir(&digits(c.value())) && (spaced || near()))
}

pub(in crate::detect) fn indian(c: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(c.value());
    checked(c, number.len() == 12 && number.first() > Some(&1) && verhoeff(&number))
}

pub(in crate::detect) fn canadian(c: &Candidate<'_>) -> Option<Verdict> {
    let number = digits(c.value());
    checked(c, number.len() == 9 && luhn(&number) && !same(&number))
}

pub(in crate::detect) fn spanish(c: &Candidate<'_>) -> Option<Verdict> {
    let bare: Vec<u8> = c.value().iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_uppercase).collect();
    let near = mentions(c.before(NEAR), &["dni", "nif", "nie", "identidad", "documento", "spain", "spanish"]);
    checked(c, dni(&bare)).map(|found| Verdict { score: if near { 9_500 } else { 6_000 }, ..found })
}

pub(in crate::detect) fn italian(c: &Candidate<'_>) -> Option<Verdict> {
    checked(c, codice_fiscale(&c.value().to_ascii_uppercase()))
}
