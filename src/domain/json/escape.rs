//! Strings in and out of their JSON form.
//!
//! Owns decoding, quoting and the escaping of line separators. Never checks a text: what it decodes was accepted before,
//! and what was not becomes replacement characters.

use std::borrow::Cow;

use memchr::memchr2_iter;

/// The text of a string without its quotes; borrowed when nothing is escaped.
pub(super) fn decode(raw: &str) -> Cow<'_, str> {
    let Some((mut plain, mut rest)) = raw.split_once('\\') else { return Cow::Borrowed(raw) };
    let mut out = String::with_capacity(raw.len());
    loop {
        out.push_str(plain);
        let mut chars = rest.chars();
        let letter = chars.next();
        rest = chars.as_str();
        match letter {
            Some('u') => out.push(decode_unit(&mut rest)),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(itself) => out.push(itself),
            None => {}
        }
        let Some(next) = rest.split_once('\\') else { break };
        (plain, rest) = next;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Takes four hexadecimal digits, and the second half of a surrogate pair where the first needs one.
fn decode_unit(rest: &mut &str) -> char {
    let Some(first) = take_hex(rest) else { return char::REPLACEMENT_CHARACTER };
    let mut units = [first, 0];
    let mut length = 1;
    if (0xD800..0xDC00).contains(&first)
        && let Some(mut after) = rest.strip_prefix("\\u")
        && let Some(second) = take_hex(&mut after)
    {
        units[1] = second;
        length = 2;
        *rest = after;
    }
    let mut decoded = char::decode_utf16(units.into_iter().take(length));
    decoded.next().and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn take_hex(rest: &mut &str) -> Option<u16> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    u16::from_str_radix(digits, 16).ok()
}

/// Appends `text` as a quoted JSON string that never breaks a line, whatever a reader takes for a line end.
///
/// U+2028, U+2029 and U+0085 are escaped with the control characters, because the HTTP library of the published SDK splits
/// lines there; everything else that is not ASCII stays as it is.
pub fn escape_into(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if !NEEDS_A_LOOK[byte as usize] {
            continue;
        }
        let (length, code) = match byte {
            b'"' | b'\\' | 0..0x20 => (1, u16::from(byte)),
            _ => match line_end(&bytes[at..]) {
                Some(found) => found,
                None => continue,
            },
        };
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + length;
        push_escape(out, code);
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// A valid JSON text with its raw U+2028, U+2029 and U+0085 escaped; `None` when it holds none and can stay as it is.
///
/// They can only stand inside strings, so no string has to be found first.
pub fn line_safe(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut copied = 0;
    for at in memchr2_iter(0xE2, 0xC2, text) {
        let Some((length, code)) = line_end(&text[at..]) else { continue };
        out.extend_from_slice(&text[copied..at]);
        copied = at + length;
        push_escape(&mut out, code);
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(&text[copied..]);
    Some(out)
}

/// Length and code of the line end beyond ASCII that stands at the front, if one does.
fn line_end(bytes: &[u8]) -> Option<(usize, u16)> {
    match bytes {
        [0xE2, 0x80, 0xA8, ..] => Some((3, 0x2028)),
        [0xE2, 0x80, 0xA9, ..] => Some((3, 0x2029)),
        [0xC2, 0x85, ..] => Some((2, 0x85)),
        _ => None,
    }
}

fn push_escape(out: &mut Vec<u8>, code: u16) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match code {
        0x22 => out.extend_from_slice(b"\\\""),
        0x5C => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x09 => out.extend_from_slice(b"\\t"),
        0x0A => out.extend_from_slice(b"\\n"),
        0x0C => out.extend_from_slice(b"\\f"),
        0x0D => out.extend_from_slice(b"\\r"),
        _ => {
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from(code >> shift & 0xF)]));
        }
    }
}

/// Bytes that are escaped or may begin a line end.
const NEEDS_A_LOOK: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[0xE2] = true;
    table[0xC2] = true;
    table
};
