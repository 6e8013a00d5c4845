//! From all candidates to the findings that are reported.
//!
//! Owns order and overlap. Never invents a finding. Within a family the most certain of overlapping findings wins, then
//! the longest: a key that has a name beats the nameless value around it. Total.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::domain::detection::{Family, Finding};

/// Puts `out[first..]` in order, on character borders of `text`, without overlaps within a family.
pub(super) fn resolve(text: &str, first: usize, out: &mut Vec<Finding>) {
    let mut candidates = out.split_off(first.min(out.len()));
    for finding in &mut candidates {
        finding.end = text.ceil_char_boundary(finding.end);
        finding.start = text.floor_char_boundary(finding.start).min(finding.end);
    }
    candidates.sort_unstable_by_key(|f| (Reverse(f.score), Reverse(f.end - f.start), f.start, f.family, f.category));
    let mut taken = BTreeMap::new();
    candidates.retain(|f| f.start < f.end && take(&mut taken, f));
    candidates.sort_unstable_by_key(|f| (f.start, f.end, f.family));
    out.append(&mut candidates);
}

/// Takes the place of a finding, unless a better one of its family stands there.
fn take(taken: &mut BTreeMap<(Family, usize), usize>, finding: &Finding) -> bool {
    let before = taken.range(..=(finding.family, finding.start)).next_back();
    let after = taken.range((finding.family, finding.start)..).next();
    let free = before.is_none_or(|((family, _), end)| *family != finding.family || *end <= finding.start)
        && after.is_none_or(|((family, start), _)| *family != finding.family || *start >= finding.end);
    if free {
        taken.insert((finding.family, finding.start), finding.end);
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::detection::Severity;

    fn finding(family: Family, start: usize, end: usize, score: u16) -> Finding {
        Finding { family, category: "c", severity: Severity::Low, label: "", score, start, end }
    }

    fn spans(found: Vec<Finding>) -> Vec<(usize, usize)> {
        let mut out = found;
        resolve("0123456789 0123456789 0123456789", 0, &mut out);
        out.iter().map(|f| (f.start, f.end)).collect()
    }

    #[test]
    fn the_most_certain_wins_then_the_longest() {
        let f = Family::Secrets;
        assert_eq!(spans(vec![finding(f, 0, 9, 5_000), finding(f, 3, 5, 9_000)]), [(3, 5)]);
        assert_eq!(spans(vec![finding(f, 3, 5, 9_000), finding(f, 0, 9, 9_000)]), [(0, 9)]);
        assert_eq!(spans(vec![finding(f, 0, 9, 9_000), finding(f, 0, 9, 9_000)]), [(0, 9)]);
    }

    #[test]
    fn a_finding_is_lost_only_to_one_that_stays() {
        let f = Family::PersonalData;
        let chain = vec![finding(f, 0, 10, 8_000), finding(f, 5, 15, 8_500), finding(f, 12, 20, 9_000)];
        assert_eq!(spans(chain), [(0, 10), (12, 20)]);
    }

    #[test]
    fn families_do_not_compete_and_touching_is_no_overlap() {
        let (a, b) = (Family::PersonalData, Family::Secrets);
        assert_eq!(spans(vec![finding(a, 2, 6, 9_000), finding(b, 0, 6, 9_000)]), [(0, 6), (2, 6)]);
        assert_eq!(spans(vec![finding(a, 2, 6, 9_000), finding(a, 6, 7, 9_000)]), [(2, 6), (6, 7)]);
    }
}
