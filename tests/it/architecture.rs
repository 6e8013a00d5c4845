//! The shape of the building, checked: imports point down, fences hold, files stay small, every file says what it is.

use std::{fs, path::Path};

/// Lowest floor first. Modules on one floor may not import one another.
const FLOORS: &[&[&str]] = &[
    &["domain", "crypto", "telemetry"],
    &["config", "net"],
    &["storage"],
    &["audit", "auth", "detect", "limits", "policy", "providers", "sessions", "tenants", "usage", "vault"],
    &["admission"],
    &["pipeline", "jobs"],
    &["http"],
    &["app"],
];

/// Imports on one floor, or up, that design.md's ground and services need all the same, each with its reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("crypto", "domain", "a digest is a value of the ground"),
    ("telemetry", "domain", "metrics are named after the steps of the registry"),
    ("providers", "vault", "a provider is handed an opened key, in the vault's own type"),
    ("providers", "usage", "a provider reports what was used, in usage's own type"),
];

/// Only this module may name this crate.
const FENCES: &[(&str, &[&str])] = &[
    ("axum", &["http"]),
    ("sqlx", &["storage"]),
    ("redis", &["storage"]),
    ("deadpool_redis", &["storage"]),
    ("regorus", &["policy"]),
    ("reqwest::Client::builder", &["net"]),
    ("prometheus_client", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("clap", &["app"]),
    ("aes_gcm", &["vault"]),
];

const MOST_LINES: usize = 400;
/// Tables may be long.
const TABLES: &[&str] = &["src/domain/steps/table.rs", "src/detect/patterns"];

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    each_source(Path::new("src"), &mut |path, text| {
        let Some(here) = module_of(path) else { return };
        for there in crate_imports(text) {
            let allowed = ALLOWED.iter().any(|(from, to, _)| *from == here && *to == there);
            if there != here && !allowed && floor_of(&there) >= floor_of(&here) {
                wrong.push(format!("{}: `{here}` may not import `{there}`", path.display()));
            }
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_door_and_the_pipeline_never_touch_storage() {
    let mut wrong = Vec::new();
    each_source(Path::new("src"), &mut |path, text| {
        let here = module_of(path).unwrap_or_default();
        if ["http", "pipeline"].contains(&here.as_str()) && crate_imports(text).iter().any(|name| name == "storage") {
            wrong.push(path.display().to_string());
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_stay_behind_their_fences() {
    let mut wrong = Vec::new();
    each_source(Path::new("src"), &mut |path, text| {
        let here = module_of(path).unwrap_or_default();
        let code = without_comments(text);
        for (name, allowed) in FENCES {
            let named = code.contains(&format!("use {name}::")) || code.contains(&format!(" {name}::"));
            if named && !allowed.contains(&here.as_str()) {
                wrong.push(format!("{}: `{name}` belongs to {allowed:?}", path.display()));
            }
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_admission_and_the_assembly_open_write_transactions() {
    let allowed = ["admission", "storage", "jobs", "app"];
    let mut wrong = Vec::new();
    each_source(Path::new("src"), &mut |path, text| {
        let here = module_of(path).unwrap_or_default();
        let code = without_comments(text);
        if code.contains("sql.begin()") && !allowed.contains(&here.as_str()) {
            wrong.push(path.display().to_string());
        }
        // Heads, entries, batches, holds and spending are written by admission alone.
        let writes = ["tx.append(", "tx.settle(", "take_holds(", "tx.apply("];
        if writes.iter().any(|call| code.contains(call)) && !["admission", "storage"].contains(&here.as_str()) {
            wrong.push(format!("{}: writes a chain", path.display()));
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_small_and_introduced() {
    let mut wrong = Vec::new();
    each_source(Path::new("src"), &mut |path, text| {
        let lines = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text).lines().count();
        let shown = path.display().to_string();
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        if lines > MOST_LINES && !is_test && !TABLES.iter().any(|table| shown.starts_with(table)) {
            wrong.push(format!("{shown}: {lines} lines"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{shown}: no `//!` header"));
        }
        if without_comments(text).contains("super::super") {
            wrong.push(format!("{shown}: `super::super` climbs past its folder"));
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn there_is_one_tls_provider_and_no_surprise_in_serde_json() {
    for banned in ["ring", "native-tls", "openssl"] {
        // The lock file also names what other targets would use, so the tree of this one is asked.
        let arguments = ["tree", "--offline", "--locked", "--edges", "normal", "--invert", banned];
        let tree = std::process::Command::new(env!("CARGO")).args(arguments).output().unwrap();
        assert!(tree.stdout.is_empty(), "{banned}: {}", String::from_utf8_lossy(&tree.stdout));
    }
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    assert!(!manifest.contains("preserve_order"), "it would change every digest");
}

fn floor_of(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found.unwrap_or_else(|| panic!("`{module}` stands on no floor"))
}

/// The top-level module of a file; `None` for `lib.rs` and `main.rs`.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?.parent()?;
    inside.iter().next().map(|name| name.to_string_lossy().into_owned())
}

fn without_comments(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// The first name after every `crate::`, including the grouped `crate::{a::B, c::{d, e}}`.
fn crate_imports(text: &str) -> Vec<String> {
    let code = without_comments(text);
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(first_name(rest));
            continue;
        };
        let (mut depth, mut at_start) = (0_i32, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                _ if at_start && c.is_alphabetic() => {
                    names.push(first_name(group.get(i..).unwrap_or_default()));
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn each_source(dir: &Path, visit: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, visit);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            visit(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
