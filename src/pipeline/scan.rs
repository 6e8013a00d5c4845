//! Scanning the prompt: every string and key of the request, once.
//!
//! Owns which texts are scanned for what, and what counts as uncovered: media in base64 is named, not read. Never scans a
//! text twice for two steps. A text in which the work ran out is uncovered from there on.

use std::borrow::Cow;

use super::Services;
use crate::{
    admission::CoverageRecord,
    detect::{Families, Work},
    domain::{
        detection::{Family, Finding},
        json::Value,
    },
    providers::openai::ChatRequest,
};

/// Shorter texts cannot hold anything that a pattern finds.
const SHORTEST: usize = 4;

/// A text with findings.
#[derive(Debug)]
pub(super) struct ScannedText {
    /// The value's number on the tape.
    pub(super) value: usize,
    /// Bytes of the text, decoded.
    pub(super) bytes: usize,
    /// Whether it is a key and not a value.
    pub(super) is_key: bool,
    /// What was found.
    pub(super) findings: Vec<Finding>,
}

/// What the scan of a prompt found.
#[derive(Debug, Default)]
pub(super) struct PromptScan {
    /// Texts with findings only.
    pub(super) texts: Vec<ScannedText>,
    /// Bytes seen and not seen.
    pub(super) coverage: CoverageRecord,
}

/// Scans every string of a request.
pub(super) fn scan_prompt(services: &Services, request: &ChatRequest) -> PromptScan {
    let mut scan =
        Scan { services, request, work: Work::new(services.settings.scan_budget), out: PromptScan::default() };
    let root = request.root();
    for (key, value) in root.members() {
        if key == "messages" {
            for message in value.items() {
                let role = message.get("role").and_then(Value::as_str).unwrap_or(Cow::Borrowed(""));
                // An operator's own instructions are instructions; they are not an injection.
                let trusted = matches!(&*role, "system" | "developer");
                scan.subtree(message, if trusted { TRUSTED } else { Families::ALL });
            }
        } else {
            scan.subtree(value, TRUSTED);
        }
    }
    scan.out
}

const TRUSTED: Families =
    Families::NONE.with(Family::PersonalData).with(Family::Secrets).with(Family::Unicode).with(Family::Classification);

struct Scan<'a> {
    services: &'a Services,
    request: &'a ChatRequest,
    work: Work,
    out: PromptScan,
}

impl Scan<'_> {
    fn place(&self, value: usize) -> String {
        self.request.value(value).map_or_else(String::new, Value::path)
    }

    fn subtree(&mut self, root: Value<'_>, families: Families) {
        for value in root.strings() {
            if let Some(text) = value.as_str() {
                self.text(value.id(), &text, families, false);
            }
        }
        for key in root.keys() {
            self.text(key.value().id(), &key.decoded(), TRUSTED, true);
        }
    }

    fn text(&mut self, value: usize, text: &str, families: Families, is_key: bool) {
        if text.len() < SHORTEST {
            self.out.coverage.seen += text.len() as u64;
            return;
        }
        if is_media(text, || self.place(value)) {
            self.out.coverage.uncovered += text.len() as u64;
            return;
        }
        let mut findings = Vec::new();
        let coverage = self.services.scanner.scan(text, families, &mut self.work, &mut findings);
        self.out.coverage.seen += coverage.seen as u64;
        self.out.coverage.uncovered += coverage.unseen as u64;
        // A string in a string: arguments of replayed tool calls hide text behind a second layer of escapes.
        if text.contains("\\u") {
            self.escaped(text, families, &mut findings);
        }
        if !findings.is_empty() {
            self.out.texts.push(ScannedText { value, bytes: text.len(), is_key, findings });
        }
    }

    /// Scans what an escaped text spells; a hit is a hit of the whole text, since offsets do not map back.
    fn escaped(&mut self, text: &str, families: Families, findings: &mut Vec<Finding>) {
        let Ok(tape) = crate::domain::json::Tape::parse(text.as_bytes(), &crate::domain::json::Limits::default())
        else {
            return;
        };
        for inner in tape.root(text.as_bytes()).strings().filter_map(Value::as_str) {
            let first = findings.len();
            self.services.scanner.scan(&inner, families, &mut self.work, findings);
            for finding in findings.iter_mut().skip(first) {
                (finding.start, finding.end) = (0, text.len());
            }
        }
    }
}

/// Pictures, sound and files in base64: a data URL, or a long run in a member that is meant for media. Everything in it
/// must be base64, so that no prose hides behind a label.
fn is_media(text: &str, place: impl Fn() -> String) -> bool {
    const LONG: usize = 512;
    let is_base64 = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b));
    if let Some(url) = text.strip_prefix("data:") {
        return url.split_once(";base64,").is_some_and(|(kind, data)| kind.len() <= 128 && is_base64(data));
    }
    text.len() > LONG && is_base64(text) && [".data", ".file_data"].iter().any(|name| place().ends_with(name))
}
