//! How confidential a text is, from what was found in it.
//!
//! Owns the rule; reads findings only, never the text. Weak findings (below even odds) do not count. Total.

use crate::domain::detection::{Classification, Family, Finding};

/// Findings below this many basis points do not count.
const LEAST: u16 = 5_000;
/// From so many addresses on, a text is a list of people.
const LIST: usize = 5;

/// The highest class that any finding, or their number, asks for.
///
/// Secrets, cards and national ids: `RESTRICTED`. Other personal data, or a list of addresses: `CONFIDENTIAL`. An e-mail
/// or IP address or two: `INTERNAL`. Markings say their own class, and only a marking says `TOP_SECRET`.
pub fn classify(findings: &[Finding]) -> Classification {
    let mut class = Classification::Public;
    let mut addresses = 0_usize;
    for finding in findings.iter().filter(|finding| finding.score >= LEAST) {
        let asked = match finding.family {
            Family::Secrets => Classification::Restricted,
            Family::PersonalData => personal(finding.category),
            Family::Classification => marking(finding.category),
            Family::Unicode | Family::Injection => Classification::Public,
        };
        addresses += usize::from(finding.family == Family::PersonalData && asked == Classification::Internal);
        class = class.max(asked);
    }
    if addresses >= LIST { class.max(Classification::Confidential) } else { class }
}

fn personal(category: &str) -> Classification {
    match category {
        "pii.email" | "pii.ip_address" => Classification::Internal,
        "pii.credit_card" | "pii.us_ssn" | "pii.national_id" | "pii.passport" => Classification::Restricted,
        _ => Classification::Confidential,
    }
}

fn marking(category: &str) -> Classification {
    match category {
        "classification.top_secret" => Classification::TopSecret,
        "classification.restricted" => Classification::Restricted,
        "classification.internal" => Classification::Internal,
        _ => Classification::Confidential,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::detection::Severity;

    fn finding(family: Family, category: &'static str) -> Finding {
        Finding { family, category, severity: Severity::Low, label: "", score: 9_000, start: 0, end: 1 }
    }

    #[test]
    fn each_finding_asks_for_its_class_and_the_highest_wins() {
        let email = finding(Family::PersonalData, "pii.email");
        let phone = finding(Family::PersonalData, "pii.phone");
        let card = finding(Family::PersonalData, "pii.credit_card");
        let key = finding(Family::Secrets, "secret.aws_access_key");
        let attack = finding(Family::Injection, "injection.jailbreak");
        assert_eq!(classify(&[]), Classification::Public);
        assert_eq!(classify(std::slice::from_ref(&attack)), Classification::Public);
        assert_eq!(classify(std::slice::from_ref(&email)), Classification::Internal);
        assert_eq!(classify(&[email.clone(), phone]), Classification::Confidential);
        assert_eq!(classify(&[email.clone(), card]), Classification::Restricted);
        assert_eq!(classify(&[key, attack]), Classification::Restricted);
        assert_eq!(classify(&vec![email; LIST]), Classification::Confidential);
    }

    #[test]
    fn only_a_marking_says_top_secret() {
        for (category, class) in [
            ("classification.internal", Classification::Internal),
            ("classification.confidential", Classification::Confidential),
            ("classification.restricted", Classification::Restricted),
            ("classification.top_secret", Classification::TopSecret),
        ] {
            assert_eq!(classify(&[finding(Family::Classification, category)]), class);
        }
    }

    #[test]
    fn weak_findings_do_not_count() {
        let weak = Finding { score: LEAST - 1, ..finding(Family::PersonalData, "pii.phone") };
        assert_eq!(classify(&[weak]), Classification::Public);
    }
}
