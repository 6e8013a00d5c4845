//! Personal data: addresses, numbers with check digits, and numbers beside a word that says what they are.
//!
//! Owns the rows of `pii.*`. A number without check digits or a shape of its own counts only with context: ordinary logs
//! and orders are full of numbers.

use crate::detect::{
    checks::personal::{
        account, american, birth, brazilian, canadian, card, dutch, email, french, german, indian, international, ipv4,
        ipv6, italian, local, passport, polish, spanish, ssn,
    },
    pattern::{At, Check, Digits, Edge, Lead, Pattern},
};
use crate::domain::detection::{Family, Severity};

/// A number that a run of `least` to `most` digits begins, followed by one of `next`.
const fn number(
    category: &'static str,
    label: &'static str,
    (lead, least, most, next): (Lead, u8, u8, &'static [u8]),
    expression: &'static str,
    check: Check,
) -> Pattern {
    let at = At::Digits(Digits { lead, least, most, next });
    Pattern::new(Family::PersonalData, category, label, at, expression).reach(56).check(check)
}

/// A value behind a word that names it.
const fn named(
    category: &'static str,
    label: &'static str,
    triggers: &'static [&'static str],
    (lead, expression): (&'static str, &'static str),
    check: Check,
) -> Pattern {
    Pattern::new(Family::PersonalData, category, label, At::Start(triggers), expression)
        .lead(lead)
        .reach(120)
        .check(check)
}

const ID: &str = "pii.national_id";

pub(in crate::detect) const TABLE: &[Pattern] = &[
    Pattern::new(
        Family::PersonalData,
        "pii.email",
        "E-mail address",
        At::Within { triggers: &["@"], back: 65 },
        r"[A-Za-z0-9._%+'-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}",
    )
    .severity(Severity::Medium)
    .score(9_800)
    .edges(Edge::Any, Edge::Word)
    .reach(255)
    .check(email),
    number("pii.credit_card", "Card number", (Lead::Bare, 4, 4, b" -"), r"\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}", card)
        .severity(Severity::Critical),
    number("pii.credit_card", "Card number", (Lead::Bare, 4, 4, b" -"), r"\d{4}[ -]\d{6}[ -]\d{4,5}", card)
        .severity(Severity::Critical),
    number("pii.credit_card", "Card number", (Lead::Bare, 13, 19, b""), r"\d{13,19}", card).severity(Severity::Critical),
    number(
        "pii.iban",
        "Bank account (IBAN)",
        (Lead::Letters(2), 2, 32, b""),
        r"[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?",
        account,
    )
    .edges(Edge::Word, Edge::Any)
    .score(9_900),
    number("pii.us_ssn", "US social security number", (Lead::Bare, 3, 3, b"-"), r"\d{3}-\d{2}-\d{4}", ssn)
        .severity(Severity::Critical),
    named(
        "pii.us_ssn",
        "US social security number",
        &["ssn", "social security"],
        (r"(?i)(?:ssn|social security)(?: (?:number|no\.?|#))?\W{0,3}(?: is )?\W{0,3}", r"\d{3} ?\d{2} ?\d{4}"),
        ssn,
    )
    .severity(Severity::Critical),
    number(
        "pii.phone",
        "Phone number",
        (Lead::Plus, 1, 15, b""),
        r"\+\d{1,3}(?:[ .()/-]{0,2}\d{1,5}){2,6}",
        international,
    )
    .edges(Edge::Word, Edge::Word)
    .severity(Severity::Medium),
    number(
        "pii.phone",
        "Phone number",
        (Lead::Paren, 3, 3, b")"),
        r"\(\d{3}\) ?\d{3}[ .-]\d{4}",
        american,
    )
    .severity(Severity::Medium),
    number("pii.phone", "Phone number", (Lead::Bare, 3, 3, b"-. "), r"\d{3}(?:-\d{3}-|\.\d{3}\.| \d{3}-)\d{4}", american)
        .severity(Severity::Medium)
        .score(8_000),
    number("pii.phone", "Phone number", (Lead::Bare, 1, 1, b"-. "), r"1[-. ]\(?\d{3}\)?[-. ]\d{3}[-.]\d{4}", american)
        .severity(Severity::Medium)
        .score(8_500),
    named(
        "pii.phone",
        "Phone number",
        &["phone", "mobile", "tel", "handy", "cell", "fax", "whatsapp", "call me"],
        (
            r#"(?i)(?:telephone|phone|mobile|telefono|telefon|tel|handy|cell|fax|whatsapp|call me)(?: ?(?:number|nummer|no\.?|nr\.?))?["']?(?:\.:?|:|=| is| on| at|) ?["']?"#,
            r"[0-9(][0-9 ()./-]{5,20}[0-9]",
        ),
        local,
    )
    .severity(Severity::Medium)
    .score(8_500),
    number("pii.ip_address", "IP address", (Lead::Bare, 1, 3, b"."), r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", ipv4)
        .severity(Severity::Low),
    number("pii.ip_address", "IP address", (Lead::Bare, 1, 4, b":abcdefABCDEF"), "2[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,35}", ipv6)
        .edges(Edge::Token, Edge::Word)
        .severity(Severity::Low),
    Pattern::new(
        Family::PersonalData,
        "pii.ip_address",
        "IP address",
        At::Start(&["fe80:", "fd00:", "fc00:"]),
        "(?i)f(?:e8|d0|c0)0:[0-9a-f:]{2,35}",
    )
    .reach(56)
    .severity(Severity::Low)
    .check(ipv6),
    named(
        "pii.date_of_birth",
        "Date of birth",
        &[
            "date of birth", "birth date", "birthdate", "birthday", "dob", "born", "geburtsdatum", "geboren am",
            "fecha de nacimiento", "data di nascita", "date de naissance", "data de nascimento", "date_of_birth", "birth_date",
            "geboortedatum", "data urodzenia", "né le", "née le", "nacido el", "nacida el", "nato il", "nata il",
        ],
        (
            r#"(?i)(?:date[ _]of[ _]birth|birth[ _]?date|birthday|dob|born|geburtsdatum|geboren am|fecha de nacimiento|data di nascita|date de naissance|data de nascimento|geboortedatum|data urodzenia|née? le|nacid[oa] el|nat[oa] il)["']?(?:[:=]| is| was)?(?: on)?(?: the)?\s?["']?"#,
            r"(?i)(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|\d{1,2}(?:st|nd|rd|th|\.)?(?: of)? [a-z\x80-\xff]{3,12}\.?,? \d{4}|[a-z]{3,9}\.? \d{1,2}(?:st|nd|rd|th)?,? \d{4})",
        ),
        birth,
    ),
    named(
        "pii.passport",
        "Passport number",
        &["passport", "reisepass", "pasaporte", "passeport", "passaporto"],
        (
            r#"(?i)(?:passport|reisepass|pasaporte|passeport|passaporto)[ _]?(?:number|nummer|no\.?|num|#|nr\.?|id)?["']?(?:[:=#]| is)?\s?["']?"#,
            "[A-Z0-9]{6,10}",
        ),
        passport,
    ),
    named(
        "pii.drivers_license",
        "Driver's licence number",
        &["driver's licen", "drivers licen", "driver licen", "driving licen", "führerschein"],
        (
            r#"(?i)(?:(?:driver's|drivers|driver|driving) licen[sc]e|führerschein)[ _]?(?:number|nummer|no\.?|#|nr\.?|id)?["']?(?:[:=#]| is)?\s?["']?"#,
            "[A-Z]{0,5}[0-9][A-Z0-9-]{4,16}",
        ),
        passport,
    ),
    number(ID, "UK national insurance number", (Lead::Letters(2), 6, 6, b"ABCDabcd"), "[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][0-9]{6}[A-D]", crate::detect::pattern::accept)
        .score(8_500),
    named(
        ID,
        "UK national insurance number",
        &["national insurance", "nino", "ni n"],
        (
            r"(?i)(?:(?:national insurance|nino)(?: (?:number|no\.?))?|ni (?:number|no\.?))\W{0,3}(?:is )?",
            "[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
        ),
        crate::detect::pattern::accept,
    ),
    number(ID, "French social security number", (Lead::Bare, 1, 15, b""), r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d{2} ?\d{3} ?\d{3} ?\d{2}", french),
    number(ID, "Spanish DNI", (Lead::Bare, 8, 8, b"TRWAGMYFPDXBNJZSQVHLCKEtrwagmyfpdxbnjzsqvhlcke-"), "[0-9]{8}-?[A-Za-z]", spanish),
    number(ID, "Spanish NIE", (Lead::Letters(1), 7, 7, b"TRWAGMYFPDXBNJZSQVHLCKEtrwagmyfpdxbnjzsqvhlcke-"), "[XYZxyz][0-9]{7}-?[A-Za-z]", spanish),
    number(
        ID,
        "Italian codice fiscale",
        (Lead::Letters(6), 2, 2, b"ABCDEHLMPRSTabcdehlmprst"),
        "(?i)[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]",
        italian,
    ),
    number(ID, "Brazilian CPF", (Lead::Bare, 3, 3, b"."), r"\d{3}\.\d{3}\.\d{3}-\d{2}", brazilian),
    named(ID, "Brazilian CPF", &["cpf"], (r"(?i)cpf\W{0,4}", r"\d{11}"), brazilian),
    named(
        ID,
        "Dutch BSN",
        &["bsn", "burgerservicenummer"],
        (r"(?i)(?:bsn|burgerservicenummer)(?:[- ]?nummer)?\W{0,3}(?:is )?", r"\d{4}[. ]?\d{2}[. ]?\d{3}"),
        dutch,
    ),
    named(
        ID,
        "German tax id",
        &["steuer-id", "steuer id", "steueridentifikationsnummer", "steuernummer", "tax id", "idnr", "steuerid"],
        (r"(?i)(?:steuer[- ]?id|steueridentifikationsnummer|steuernummer|tax id|idnr)(?: (?:number|nr\.?))?\W{0,3}(?:is |ist |lautet )?", r"\d{2} ?\d{3} ?\d{3} ?\d{3}"),
        german,
    ),
    named(ID, "Polish PESEL", &["pesel"], (r"(?i)pesel\W{0,4}", r"\d{11}"), polish),
    named(
        ID,
        "Indian Aadhaar number",
        &["aadhaar", "aadhar", "uidai"],
        (r"(?i)(?:aadhaar|aadhar|uidai)(?: (?:card|number|no\.?|is)){0,3}\W{0,4}", r"\d{4}[ -]?\d{4}[ -]?\d{4}"),
        indian,
    ),
    named(
        ID,
        "Canadian social insurance number",
        &["social insurance", "sin number", "sin:", "sin no"],
        (r"(?i)(?:social insurance|sin)(?: (?:number|no\.?))?\W{0,3}(?:is )?", r"\d{3}[- ]?\d{3}[- ]?\d{3}"),
        canadian,
    ),
];
