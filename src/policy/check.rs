//! `tappass policy check` and `tappass policy test`: our own engine over files that people edit.
//!
//! Owns finding the `test_*` rules of `_test.rego` files, running them, and reporting mistakes in files of rules (JSON,
//! YAML) and of Rego with their positions. Never serves requests. A file that cannot be read or has no tests is reported,
//! never passed over.

use std::{fs, io, path::Path};

use serde::Serialize;
use serde_json::Value as Json;

use super::{
    parse::parse_rules,
    programs::{PACKAGES, new_engine},
    rules::{RuleFinding, publishable, unknown_entities},
};

/// Largest Rego file that is checked, in bytes.
const MAX_REGO_BYTES: usize = 64 * 1_024;
/// Deepest nesting of brackets: the parser's time doubles with each level.
const MAX_BRACKETS: usize = 10;

/// The tests beside the embedded packages.
const TESTS: [(&str, &str); 6] = [
    ("authz_test.rego", include_str!("../../policies/authz_test.rego")),
    ("breakglass_test.rego", include_str!("../../policies/breakglass_test.rego")),
    ("guardrails_test.rego", include_str!("../../policies/guardrails_test.rego")),
    ("pipeline_test.rego", include_str!("../../policies/pipeline_test.rego")),
    ("routing_test.rego", include_str!("../../policies/routing_test.rego")),
    ("tools_test.rego", include_str!("../../policies/tools_test.rego")),
];

/// A file as it was read: name and text.
pub type Source = (String, String);

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// `<package>.<rule>`, or the file where it could not be loaded.
    pub name: String,
    /// Why it failed; `None`: it passed.
    pub failure: Option<String>,
}

/// Runs the tests beside the embedded packages.
pub fn test_embedded() -> Vec<TestResult> {
    let sources = PACKAGES.iter().chain(&TESTS).map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    test_sources(&sources.collect::<Vec<_>>())
}

/// Runs the tests among these files together with the embedded packages, which a file of the same package replaces.
pub fn test_with_embedded(sources: &[Source]) -> Vec<TestResult> {
    let given: Vec<&str> = sources.iter().filter_map(|(_, text)| package(text)).collect();
    let embedded = PACKAGES.iter().filter(|(name, _)| !given.contains(name));
    let embedded = embedded.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    test_sources(&embedded.chain(sources.iter().cloned()).collect::<Vec<_>>())
}

/// Reads the `.rego` files of a folder, in order of their names.
pub fn read_folder(folder: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rego") {
            sources.push((path.display().to_string(), fs::read_to_string(&path)?));
        }
    }
    sources.sort();
    Ok(sources)
}

fn test_sources(sources: &[Source]) -> Vec<TestResult> {
    let failed = |name: &str, why: String| TestResult { name: name.to_owned(), failure: Some(why) };
    let mut engine = match new_engine() {
        Ok(engine) => engine,
        Err(why) => return vec![failed("engine", why)],
    };
    for (name, text) in sources {
        let added = scan(text).and_then(|()| engine.add_policy(name.clone(), text.clone()).map_err(|e| e.to_string()));
        if let Err(why) = added {
            return vec![failed(name, why)];
        }
    }
    let mut results = Vec::new();
    for (name, text) in sources.iter().filter(|(_, text)| package(text).is_some_and(|name| name.ends_with("_test"))) {
        let before = results.len();
        for test in tests(text) {
            let full = format!("{}.{test}", package(text).unwrap_or_default());
            let failure = match engine.eval_rule(format!("data.{full}")) {
                Ok(regorus::Value::Bool(true)) => None,
                Ok(regorus::Value::Undefined) => Some("undefined: a condition does not hold".to_owned()),
                Ok(other) => Some(format!("expected true, found {other}")),
                Err(why) => Some(why.to_string()),
            };
            results.push(TestResult { name: full, failure });
        }
        if results.len() == before {
            results.push(failed(name, "the file has no `test_*` rule".to_owned()));
        }
    }
    results
}

/// The package that a module declares.
fn package(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("package ")).map(str::trim)
}

/// The names of the test rules; several bodies under one name are one test.
fn tests(text: &str) -> Vec<&str> {
    let heads = text.lines().filter(|line| line.starts_with("test_"));
    let mut names: Vec<&str> = heads.filter_map(|line| line.split([' ', ':', '{', '=']).next()).collect();
    names.dedup();
    names
}

/// Checks a file by its extension: `.rego`, `.yaml`, `.yml`, else JSON. Empty: nothing is wrong.
///
/// A file of rules is a list of rules, or an object with `rules`; what may stand in a draft and not be published is found too.
/// `kinds`: the kinds of personal data that detectors know.
pub fn check_text(name: &str, text: &str, kinds: &[&str]) -> Vec<RuleFinding> {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    let value: Result<Json, String> = match extension {
        "rego" => return check_rego(name, text),
        "yaml" | "yml" => serde_norway::from_str(text).map_err(|e| e.to_string()),
        _ => serde_json::from_str(text).map_err(|e| e.to_string()),
    };
    let value = match value {
        Ok(value) => value,
        Err(message) => return vec![finding("syntax", name, message)],
    };
    match parse_rules(value.get("rules").unwrap_or(&value)) {
        Ok(rules) => {
            let mut findings = publishable(&rules).err().unwrap_or_default();
            findings.extend(unknown_entities(&rules, kinds));
            findings
        }
        Err(findings) => findings,
    }
}

fn check_rego(name: &str, text: &str) -> Vec<RuleFinding> {
    if let Err(message) = scan(text) {
        return vec![finding("too_large", name, message)];
    }
    let added = new_engine().and_then(|mut engine| {
        engine.add_policy(name.to_owned(), text.to_owned()).map_err(|e| e.to_string())?;
        // Undefined variables and recursion show only when a rule is evaluated, so all of them are.
        let query = format!("data.{}", package(text).unwrap_or("tappass"));
        match engine.eval_query(query, false) {
            Ok(_) => Ok(()),
            Err(why) => Err(why.to_string()),
        }
    });
    added.err().map_or_else(Vec::new, |message| vec![rego_finding(name, &message)])
}

/// What the parser must never see: its time and its stack grow with nesting.
fn scan(text: &str) -> Result<(), String> {
    if text.len() > MAX_REGO_BYTES {
        return Err(format!("a Rego file has at most {MAX_REGO_BYTES} bytes"));
    }
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Err(format!("brackets nest at most {MAX_BRACKETS} deep"));
        }
    }
    Ok(())
}

/// The engine's text names the place as `--> file:line:column` and ends in `error: …`.
fn rego_finding(name: &str, text: &str) -> RuleFinding {
    let place = text.lines().find_map(|line| line.trim().strip_prefix("--> ")).unwrap_or(name);
    let words = text.lines().find_map(|line| line.trim().strip_prefix("error: ")).unwrap_or(text);
    finding("rego", place, words.to_owned())
}

fn finding(code: &'static str, path: &str, message: String) -> RuleFinding {
    RuleFinding { code, path: path.to_owned(), message, suggestion: None }
}
