//! Replacing what was found.
//!
//! Owns the cutting; what stands in its place is the caller's word. Never leaves a byte of a finding in the text:
//! findings that overlap are replaced together, once. Total: offsets outside the text or inside a character are widened
//! to what is there.

use std::borrow::Cow;

use crate::domain::detection::Finding;

/// `text` with every finding replaced. Of findings that overlap the gravest (then the most certain) names the replacement.
/// Findings may come in any order.
pub fn redact<'f>(text: &str, findings: &'f [Finding], replacement: impl Fn(&'f Finding) -> Cow<'f, str>) -> String {
    let mut order: Vec<&Finding> = findings.iter().filter(|f| f.start < f.end && f.start < text.len()).collect();
    order.sort_by_key(|f| f.start);
    let mut result = String::with_capacity(text.len());
    let mut copied = 0;
    let mut rest = order.into_iter().peekable();
    while let Some(mut chosen) = rest.next() {
        let start = text.floor_char_boundary(chosen.start);
        let mut end = text.ceil_char_boundary(chosen.end);
        while let Some(next) = rest.next_if(|next| text.floor_char_boundary(next.start) < end) {
            end = end.max(text.ceil_char_boundary(next.end));
            if (next.severity, next.score) > (chosen.severity, chosen.score) {
                chosen = next;
            }
        }
        result.push_str(text.get(copied..start).unwrap_or_default());
        result.push_str(&replacement(chosen));
        copied = end;
    }
    result.push_str(text.get(copied..).unwrap_or_default());
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::detection::{Family, Severity};

    fn finding(start: usize, end: usize, severity: Severity) -> Finding {
        Finding {
            family: Family::Secrets,
            category: if severity == Severity::High { "high" } else { "low" },
            severity,
            label: "",
            score: 9_000,
            start,
            end,
        }
    }

    fn named(text: &str, findings: &[Finding]) -> String {
        redact(text, findings, |f| Cow::Owned(format!("[{}]", f.category)))
    }

    #[test]
    fn every_finding_is_replaced_and_the_rest_stays() {
        let found = [finding(6, 9, Severity::Low), finding(0, 3, Severity::High)];
        assert_eq!(named("abc - def - ghi", &found), "[high] - [low] - ghi");
        assert_eq!(named("nothing", &[]), "nothing");
    }

    #[test]
    fn overlapping_findings_are_replaced_together_by_the_gravest() {
        let found = [finding(0, 5, Severity::Low), finding(3, 8, Severity::High), finding(7, 9, Severity::Low)];
        assert_eq!(named("0123456789", &found), "[high]9");
        let touching = [finding(0, 2, Severity::Low), finding(2, 4, Severity::High)];
        assert_eq!(named("0123456", &touching), "[low][high]456");
    }

    #[test]
    fn offsets_outside_the_text_or_inside_a_character_are_widened() {
        assert_eq!(named("aéz", &[finding(2, 3, Severity::Low)]), "a[low]z");
        assert_eq!(named("abc", &[finding(2, 99, Severity::Low), finding(50, 60, Severity::High)]), "ab[low]");
        assert_eq!(named("abc", &[finding(3, 1, Severity::Low)]), "abc");
    }
}
