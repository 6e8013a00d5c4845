//! The last word on a match: checksums, context, entropy.
//!
//! Owns the checks that rows of the table name. Each is a pure, total function of a candidate and the bytes around it
//! (never more than a few hundred), so the same text always gives the same answer. Never searches for candidates.

pub(super) mod checksums;
pub(super) mod phrases;
pub(super) mod personal;
pub(super) mod secret;
pub(super) mod shape;

/// Whether `text`, in ASCII lower case, contains one of `words` (which must be lower case).
pub(super) fn mentions(text: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes())))
}
