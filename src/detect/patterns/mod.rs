//! The pattern table: data, one file per family.
//!
//! Owns what is looked for. Never code: a row names its literals, expression, edges and check. Expressions are about
//! bytes (no Unicode classes unless `(?u)` says so), bounded, and free of look-around except `^` and `$`, since edges
//! are the row's. In rows about phrases a space stands for up to four bytes of white space or punctuation. A row that
//! does not compile fails the start, and a test.

mod classification;
mod injection;
mod personal_data;
mod secrets;

use super::pattern::Pattern;

/// Every row there is.
pub(super) const TABLES: &[&[Pattern]] = &[
    personal_data::TABLE,
    secrets::TABLE,
    secrets::KEYED,
    injection::TABLE,
    injection::LANGUAGES,
    classification::TABLE,
];
