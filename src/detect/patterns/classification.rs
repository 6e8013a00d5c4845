//! Markings: words by which a document says its own class.
//!
//! Owns the rows of `classification.*`. The mere word in prose is no marking ("a confidential tone"): a marking stands
//! alone on its line, behind a word such as "Classification:", or in capitals with a handling note.

use crate::detect::pattern::{At, Edge, Pattern};
use crate::domain::detection::{Family, Severity};

/// A marking of one class; its literal may stand 48 bytes into a match.
const fn marking(
    category: &'static str,
    label: &'static str,
    triggers: &'static [&'static str],
    expression: &'static str,
) -> Pattern {
    Pattern::new(Family::Classification, category, label, At::Within { triggers, back: 48 }, expression)
        .severity(Severity::Medium)
        .score(8_500)
        .edges(Edge::Any, Edge::Any)
        .reach(48)
}

pub(in crate::detect) const TABLE: &[Pattern] = &[
    marking(
        "classification.top_secret",
        "Marking: top secret",
        &["top secret", "top_secret", "top-secret"],
        r"(?m)(?:^[ \t*#>\[(=_|-]{0,8}TOP[ _-]SECRET(?://[A-Z/ ,-]{2,24})?[ \t*#\])=_|.!:-]{0,8}\r?$|TOP SECRET//[A-Z]{2,12}|(?i:classification|classified|marking|sensitivity)\**(?: (?i:level|as|label))?\**[ \t]?[:=][ \t*]{0,4}(?i:top[ _-]secret))",
    )
    .severity(Severity::Critical),
    marking(
        "classification.restricted",
        "Marking: restricted",
        &["restricted"],
        r"(?m)(?:^[ \t*#>\[(=_|-]{0,8}(?:STRICTLY |HIGHLY )?RESTRICTED(?: (?:DATA|INFORMATION|ACCESS|USE))?[ \t*#\])=_|.!:-]{0,8}\r?$|RESTRICTED (?:-|/|//|:) ?(?:DO NOT|NOT FOR|NEED|AUTHORI)|(?i:classification|classified|marking|sensitivity)\**(?: (?i:level|as|label))?\**[ \t]?[:=][ \t*]{0,4}(?i:highly )?(?i:restricted))",
    )
    .severity(Severity::High),
    marking(
        "classification.confidential",
        "Marking: confidential",
        &["confidential"],
        r"(?m)(?:^[ \t*#>\[(=_|-]{0,8}(?:(?:STRICTLY|HIGHLY|COMPANY|PRIVATE AND|PRIVATE &|PROPRIETARY AND|PROPRIETARY &) )?CONFIDENTIAL(?: (?:INFORMATION|DOCUMENT|AND PROPRIETARY))?[ \t*#\])=_|.!:-]{0,8}\r?$|^[ \t*#>\[(=_|-]{0,8}(?:Strictly |Highly |Company )?Confidential[ \t*#\])=_|!:-]{0,8}\r?$|CONFIDENTIAL ?(?:-|/|//|:|\() ?(?i:do not|not for|internal|for internal|attorney|[a-z]{2,12} only)|(?i:classification|classified|marking|sensitivity)\**(?: (?i:level|as|label))?\**[ \t]?[:=][ \t*]{0,4}(?i:strictly |highly |company )?(?i:confidential))",
    ),
    marking(
        "classification.internal",
        "Marking: internal use only",
        &["internal use only", "internal only", "internal"],
        r"(?m)(?:^[ \t*#>\[(=_|-]{0,8}(?i:for |company )?(?i:internal use only)|^[ \t*#>\[(=_|-]{0,8}INTERNAL(?: ONLY)?[ \t*#\])=_|.!:-]{0,8}\r?$|FOR INTERNAL USE ONLY|INTERNAL USE ONLY|(?i:classification|classified|marking|sensitivity)\**(?: (?i:level|as|label))?\**[ \t]?[:=][ \t*]{0,4}(?i:internal))",
    )
    .severity(Severity::Low),
];
