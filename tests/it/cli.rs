//! The command line: it teaches, it refuses by name, it never guesses.

use std::fs;

use crate::support::{
    gateway::{Gateway, TempDir, said, tappass},
    upstream::Upstream,
};

#[track_caller]
fn refused(arguments: &[&str], variables: &[(&str, &str)], named: &[&str]) {
    let output = tappass(arguments, variables);
    let text = said(&output);
    assert!(!output.status.success(), "{arguments:?} {variables:?} was accepted: {text}");
    for name in named {
        assert!(text.contains(name), "{name} in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn help_teaches_every_command() {
    let output = tappass(&["--help"], &[]);
    assert!(output.status.success());
    let text = said(&output);
    for command in ["serve", "dev", "migrate", "audit", "policy", "healthcheck", "config"] {
        assert!(text.contains(command), "{command} in: {text}");
    }
    for arguments in [
        vec!["audit", "verify"],
        vec!["audit", "export"],
        vec!["policy", "check"],
        vec!["policy", "test"],
        vec!["config", "check"],
        vec!["dev"],
    ] {
        let output = tappass(&[arguments, vec!["--help"]].concat(), &[]);
        assert!(output.status.success() && said(&output).contains("Usage"), "{}", said(&output));
    }
    assert!(said(&tappass(&["--version"], &[])).contains("0.12."));
    refused(&["sevre"], &[], &["serve"]);
    refused(&["audit", "verify", "--no-such-option"], &[], &["--no-such-option"]);
}

#[test]
fn an_unknown_setting_is_named_with_its_nearest() {
    let folder = TempDir::new();
    let file = folder.path().join("tappass.toml");
    for (text, named) in [
        ("[server]\nmax_body_byte = 1\n", ["max_body_byte", "max_body_bytes"]),
        ("[sever]\nport = 1\n", ["sever", "server"]),
        ("[providers.openai]\nbase_uri = \"http://x\"\n", ["base_uri", "base_url"]),
    ] {
        fs::write(&file, text).unwrap();
        let path = file.to_str().unwrap();
        refused(&["config", "check"], &[("TAPPASS_CONFIG", path)], &named);
        refused(
            &["dev", "--data-dir", folder.path().to_str().unwrap(), "--port", "0"],
            &[("TAPPASS_CONFIG", path)],
            &named,
        );
    }
    refused(&["config", "check"], &[("TAPPASS_SERVER__PROT", "1")], &["server.prot", "server.port"]);
    fs::write(&file, "[server]\nport = 4711\n").unwrap();
    let output = tappass(&["config", "check"], &[("TAPPASS_CONFIG", file.to_str().unwrap())]);
    assert!(output.status.success(), "{}", said(&output));
    fs::write(&file, "[server]\nport = \"many\"\n").unwrap();
    refused(&["config", "check"], &[("TAPPASS_CONFIG", file.to_str().unwrap())], &["port"]);
    refused(&["config", "check"], &[("TAPPASS_CONFIG", "/nowhere/at/all.toml")], &["/nowhere/at/all.toml"]);
    refused(&["config", "check"], &[("TAPPASS_PIPELINE__PRESET", "startr")], &["pipeline.preset", "starter"]);
    refused(&["config", "check"], &[("TAPPASS_LOG__LEVEL", "loud")], &["log.level", "debug"]);
}

#[test]
fn a_configuration_check_shows_no_secret() {
    let variables =
        [("OPENAI_API_KEY", "sk-canary-0123456789"), ("TAPPASS_ADMIN_KEY", "tp_admin_canary-0123456789-0123456789")];
    let output = tappass(&["config", "check"], &variables);
    assert!(!said(&output).contains("canary"), "{}", said(&output));
}

#[test]
fn the_originals_ephemeral_switch_is_refused_by_name() {
    let folder = TempDir::new();
    for arguments in [
        vec!["serve"],
        vec!["dev", "--data-dir", folder.path().to_str().unwrap(), "--port", "0"],
        vec!["config", "check"],
    ] {
        refused(&arguments, &[("TAPPASS_ALLOW_EPHEMERAL", "1")], &["TAPPASS_ALLOW_EPHEMERAL", "tappass dev"]);
    }
}

#[test]
fn the_development_gateway_refuses_to_start_where_it_would_be_production() {
    let folder = TempDir::new();
    let arguments = ["dev", "--data-dir", folder.path().to_str().unwrap(), "--port", "0"];
    refused(&arguments, &[("K_SERVICE", "gateway")], &["K_SERVICE"]);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing was written");
}

#[tokio::test]
async fn a_health_check_says_what_health_says() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    let port = gateway.address.port().to_string();
    let check = |port: &str| tappass(&["healthcheck"], &[("PORT", port)]);
    let output = check(&port);
    assert!(output.status.success(), "{}", said(&output));
    gateway.stop();
    let output = check(&port);
    assert!(!output.status.success() && said(&output).contains(&format!("127.0.0.1:{port}")), "{}", said(&output));
}

#[test]
fn our_own_policies_pass_their_own_tests() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
    for arguments in [["policy", "test", folder], ["policy", "check", folder]] {
        let output = tappass(&arguments, &[]);
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn a_failing_policy_test_is_named_and_a_broken_policy_located() {
    let folder = TempDir::new();
    let path = folder.path().to_str().unwrap();
    fs::write(folder.path().join("mine.rego"), "package tappass.mine\n\nimport rego.v1\n\nanswer := 41\n").unwrap();
    fs::write(
        folder.path().join("mine_test.rego"),
        "package tappass.mine_test\n\nimport rego.v1\n\nimport data.tappass.mine\n\ntest_the_answer if mine.answer == 42\n",
    )
    .unwrap();
    refused(&["policy", "test", path], &[], &["test_the_answer"]);
    fs::write(folder.path().join("mine.rego"), "package tappass.mine\n\nanswer := \n").unwrap();
    refused(&["policy", "check", path], &[], &["mine.rego"]);
    fs::write(folder.path().join("mine.rego"), "package tappass.mine\n\nanswer := undefined_name\n").unwrap();
    refused(&["policy", "check", path], &[], &["undefined_name"]);
}

#[test]
fn a_rule_about_a_kind_of_personal_data_that_no_detector_knows_is_found() {
    let folder = TempDir::new();
    let file = folder.path().join("rules.json");
    let rules =
        |kind: &str| format!("[{{\"kind\":\"BlockPII\",\"ordinal\":1,\"payload\":{{\"entities\":[\"{kind}\"]}}}}]");
    fs::write(&file, rules("emial")).unwrap();
    refused(&["policy", "check", file.to_str().unwrap()], &[], &["emial", "`email`"]);
    for kind in ["email", "pii.email", "us_ssn"] {
        fs::write(&file, rules(kind)).unwrap();
        let output = tappass(&["policy", "check", file.to_str().unwrap()], &[]);
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn verifying_nothing_is_not_success() {
    let folder = TempDir::new();
    refused(&["audit", "verify", "--data-dir", folder.path().to_str().unwrap()], &[], &[]);
    refused(&["audit", "verify", "--export", "/nowhere/at/all"], &[], &[]);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "verifying makes no database");
    let empty = folder.path().join("empty.jsonl");
    fs::write(&empty, "").unwrap();
    let jwks = folder.path().join("jwks.json");
    fs::write(&jwks, "{\"keys\":[]}").unwrap();
    refused(&["audit", "verify", "--export", empty.to_str().unwrap(), "--jwks", jwks.to_str().unwrap()], &[], &[]);
}

#[tokio::test]
async fn migrate_prepares_a_database_that_a_gateway_then_uses() {
    let folder = TempDir::new();
    let path = folder.path().to_str().unwrap();
    let output = tappass(&["migrate"], &[("TAPPASS_DATA__DIR", path)]);
    assert!(output.status.success(), "{}", said(&output));
    let again = tappass(&["migrate"], &[("TAPPASS_DATA__DIR", path)]);
    assert!(again.status.success(), "{}", said(&again));
    assert!(folder.path().join("tappass.db").exists());
}

#[tokio::test]
async fn commands_find_the_data_folder_in_the_settings_and_respect_who_owns_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let folder = TempDir::new();
    let out = folder.path().join("record.jsonl");
    let data = gateway.data_dir();
    let variables = [("TAPPASS_DATA__DIR", data.to_str().unwrap())];
    let output = tappass(&["audit", "export", "--out", out.to_str().unwrap()], &variables);
    assert!(output.status.success() && out.exists(), "{}", said(&output));
    refused(&["migrate"], &variables, &[data.to_str().unwrap(), "another tappass"]);
}
