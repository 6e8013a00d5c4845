//! Commands that need no gateway of their own: checking policies, asking a running gateway for its health.
//!
//! Owns what they print. Never touches a database.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use super::cli::{Failed, say};
use crate::{detect::personal_data_kinds, policy::check};

/// `policy check`: everything that is wrong with files or folders of rules.
pub(super) fn policy_check(files: &[PathBuf]) -> Result<ExitCode, Failed> {
    let kinds = personal_data_kinds();
    let mut clean = true;
    for file in &within(files)? {
        let text = std::fs::read_to_string(file).map_err(|error| format!("`{}`: {error}", file.display()))?;
        let findings = check::check_text(&file.display().to_string(), &text, &kinds);
        for finding in &findings {
            let hint = finding.suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default();
            say(&format!("{}: {}: {}{hint} [{}]\n", file.display(), finding.path, finding.message, finding.code));
        }
        if findings.is_empty() {
            say(&format!("{}: valid and publishable\n", file.display()));
        }
        clean &= findings.is_empty();
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The files, and of each folder those that can be checked.
fn within(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|error| format!("`{}`: {error}", path.display()))? {
            let file = entry?.path();
            let known = ["rego", "json", "yaml", "yml"];
            if file.extension().and_then(|ext| ext.to_str()).is_some_and(|ext| known.contains(&ext)) {
                inside.push(file);
            }
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// `policy test`: the tests of the built-in policies, or of a folder.
pub(super) fn policy_test(dir: Option<&Path>) -> Result<ExitCode, Failed> {
    let results = match dir {
        None => check::test_embedded(),
        Some(dir) => {
            let sources = check::read_folder(dir).map_err(|error| format!("`{}`: {error}", dir.display()))?;
            check::test_with_embedded(&sources)
        }
    };
    let mut failed = 0;
    for result in &results {
        match &result.failure {
            None => say(&format!("ok    {}\n", result.name)),
            Some(why) => {
                failed += 1;
                say(&format!("FAIL  {}: {why}\n", result.name));
            }
        }
    }
    say(&format!("{} passed, {failed} failed\n", results.len() - failed));
    Ok(if failed == 0 && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A request by hand: a client for one line of HTTP would be the larger part.
pub(super) fn healthcheck(url: &str) -> Result<ExitCode, Failed> {
    use std::io::Read as _;
    let host = url.strip_prefix("http://").ok_or("`--url` must begin with http://")?.trim_end_matches('/');
    let unreachable = |error: std::io::Error| format!("`{url}` cannot be reached: {error}");
    let mut addresses = std::net::ToSocketAddrs::to_socket_addrs(host).map_err(unreachable)?;
    let address = addresses.next().ok_or("`--url` names no address")?;
    let limit = Duration::from_secs(2);
    let mut stream = std::net::TcpStream::connect_timeout(&address, limit).map_err(unreachable)?;
    stream.set_read_timeout(Some(limit))?;
    let request = format!("GET /health/ready HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(unreachable)?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).map_err(unreachable)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        say("ready\n");
        return Ok(ExitCode::SUCCESS);
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Err(format!("not ready: {body}").into())
}
