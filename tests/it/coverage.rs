//! Every route is closed to whoever it is not for. The list of exceptions may only shrink.

use serde_json::{Value, json};

use crate::support::{client::Call, control::block_pii, gateway::Gateway, upstream::Upstream};

/// Routes that answer without a key, and why that is right.
const PUBLIC: &[&str] = &[
    "/health",                // clients and probes ask before they have a key
    "/health/live",           // probes
    "/health/ready",          // probes
    "/health/startup",        // probes
    "/.well-known/jwks.json", // public keys
];

/// Control routes. `{…}` stands for something that exists.
const CONTROL: &[(&str, &str)] = &[
    ("GET", "/metrics"),
    ("GET", "/auth/orgs"),
    ("POST", "/auth/orgs"),
    ("GET", "/api/agents"),
    ("POST", "/api/agents/onboard"),
    ("GET", "/api/agents/{agent}"),
    ("POST", "/api/agents/{agent}/suspend"),
    ("POST", "/api/agents/{agent}/activate"),
    ("GET", "/api/agents/{agent}/keys"),
    ("POST", "/api/agents/{agent}/keys"),
    ("DELETE", "/api/agents/{agent}/keys/{key}"),
    ("GET", "/api/agents/{agent}/pipeline"),
    ("PUT", "/api/agents/{agent}/pipeline"),
    ("GET", "/api/admin/llm-keys"),
    ("POST", "/api/admin/llm-keys"),
    ("DELETE", "/api/admin/llm-keys/{provider}"),
    ("GET", "/api/pipeline"),
    ("PUT", "/api/pipeline"),
    ("PUT", "/api/pipeline/unlocked-flags"),
    ("GET", "/api/budget"),
    ("PUT", "/api/budget"),
    ("POST", "/api/budget/reset"),
    ("GET", "/api/audit/event/{event}"),
];

/// Routes below either prefix of policies.
const POLICIES: &[(&str, &str)] = &[
    ("GET", ""),
    ("POST", ""),
    ("GET", "/{policy}"),
    ("DELETE", "/{policy}"),
    ("GET", "/{policy}/versions"),
    ("POST", "/{policy}/versions"),
    ("PUT", "/{policy}/versions/{n}/rules"),
    ("POST", "/{policy}/versions/{n}/publish"),
    ("GET", "/{policy}/assignments"),
    ("POST", "/{policy}/assignments"),
    ("DELETE", "/assignments/{assignment}"),
];

const PREFIXES: &[&str] = &["/api/policies", "/api/v2/policies"];

/// Routes that agents may use.
const AGENTS: &[(&str, &str)] = &[("GET", "/api/me"), ("GET", "/api/pipeline/steps")];

const DATA: &[(&str, &str)] = &[("POST", "/v1/chat/completions"), ("GET", "/v1/models")];

/// The tables above as one list.
fn listed() -> Vec<(String, String)> {
    let own = |(method, path): &(&str, &str)| ((*method).to_owned(), (*path).to_owned());
    let mut routes: Vec<_> = CONTROL.iter().chain(AGENTS).chain(DATA).map(own).collect();
    routes.extend(PUBLIC.iter().map(|path| ("GET".to_owned(), (*path).to_owned())));
    for prefix in PREFIXES {
        routes.extend(POLICIES.iter().map(|(method, path)| ((*method).to_owned(), format!("{prefix}{path}"))));
    }
    routes
}

/// A path whose places have no names: those of the source and of the tables differ.
fn nameless(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// The routes that a page of the source makes; every one must be a line that this understands.
fn written(source: &str) -> Vec<(String, String)> {
    let mut routes = Vec::new();
    for line in source.lines().map(str::trim).filter(|line| line.contains(".route(")) {
        let understood = line.strip_prefix(".route(\"").and_then(|rest| rest.split_once("\", "));
        let (path, handler) = understood.unwrap_or_else(|| panic!("one route is one line: {line}"));
        let guarded = handler.strip_prefix("may.on(").and_then(|guarded| guarded.split_once(", "));
        assert!(guarded.is_some() || PUBLIC.contains(&path), "a route without an action is public: {line}");
        let handler = guarded.map_or(handler, |(_, handler)| handler);
        let (method, name) = handler.split_once('(').unwrap();
        assert!(["get", "post", "put", "delete"].contains(&method), "{line}");
        assert!(!name.contains(")."), "one route is one method: {line}");
        routes.push((method.to_ascii_uppercase(), nameless(path)));
    }
    routes
}

#[test]
fn every_route_of_the_source_stands_in_the_tables() {
    let page = include_str!("../../src/http/mod.rs");
    let below = written(include_str!("../../src/http/api/admin/policies/mod.rs"));
    let mut made = written(page);
    let mut prefixes = 0;
    for line in page.lines().map(str::trim).filter(|line| line.contains(".nest(") || line.contains(".merge(")) {
        let prefix = line.strip_prefix(".nest(\"").and_then(|rest| rest.split_once("\", policies::routes(&may))"));
        let (prefix, _) = prefix.unwrap_or_else(|| panic!("only policies are nested: {line}"));
        assert!(PREFIXES.contains(&prefix), "{prefix}");
        made.extend(
            below.iter().map(|(method, path)| (method.clone(), format!("{prefix}{}", path.trim_end_matches('/')))),
        );
        prefixes += 1;
    }
    assert_eq!((prefixes, below.len()), (PREFIXES.len(), POLICIES.len()));
    let mut listed: Vec<_> = listed().into_iter().map(|(method, path)| (method, nameless(&path))).collect();
    made.sort();
    listed.sort();
    assert_eq!(made, listed);
}

fn method_and_path(route: &Value) -> (String, String) {
    let text =
        |names: [&str; 2]| names.iter().find_map(|name| route[*name].as_str()).expect("a route has both").to_owned();
    (text(["method", "verb"]), text(["path", "route"]))
}

/// All routes: what the gateway says of itself where it does, else the tables above.
async fn routes(gateway: &Gateway) -> Vec<(String, String)> {
    let mut routes = listed();
    let told = gateway.admin("GET", "/api/routes", Value::Null).await;
    if told.status == 200 {
        let body = told.json();
        let list = body["routes"].as_array().or(body.as_array()).expect("a list of routes");
        routes.extend(list.iter().map(method_and_path));
    }
    routes.sort();
    routes.dedup();
    routes
}

/// The path with something that exists in each of its places.
fn filled(path: &str, gateway: &Gateway, policy: &str, assignment: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{agent}" | "{agent_id}" => gateway.agent_id.as_str(),
        "{assignment}" | "{assignment_id}" => assignment,
        "{org}" | "{org_id}" => gateway.org_id.as_str(),
        "{provider}" => "openai",
        "{n}" | "{version}" | "{version_no}" => "1",
        "{id}" if path.contains("/agents/") => gateway.agent_id.as_str(),
        "{id}" if path.contains("/assignments/") => assignment,
        "{id}" | "{policy}" | "{policy_id}" => policy,
        part if part.starts_with('{') => "unknown",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_route_is_closed_to_the_anonymous_the_wrong_role_and_the_wrong_organization() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let other = gateway.organization("Other").await;
    let policy = gateway.enforce("mine", json!([block_pii()])).await;
    let assignment = gateway.assign(&policy, "org", &gateway.org_id).await;
    let before = gateway.chain().entries.len();
    for (method, pattern) in routes(&gateway).await {
        let path = filled(&pattern, &gateway, &policy, &assignment);
        let call = || Call::new(&method, &path).json(&json!({}));
        if PUBLIC.contains(&pattern.as_str()) {
            assert_eq!(method, "GET", "{pattern}: what is public only tells");
            continue;
        }
        assert_eq!(call().send(gateway.address).await.status, 401, "{method} {path} without a key");
        assert_eq!(call().key("tp_nobody").send(gateway.address).await.status, 401, "{method} {path} with a wrong key");
        if pattern.starts_with("/v1/")
            || pattern == "/api/me"
            || pattern == "/api/pipeline/steps"
            || pattern == "/api/routes"
        {
            continue;
        }
        let status = call().key(&gateway.agent_key).send(gateway.address).await.status;
        assert_eq!(status, 403, "{method} {path} with an agent's key");
        let status = call().key(&other.agent.key).send(gateway.address).await.status;
        assert!(matches!(status, 403 | 404), "{method} {path} with a key of another organization: {status}");
        if pattern.contains('{') {
            let reply = gateway.admin_in(&other.id, &method, &path, json!({})).await;
            let closed = matches!(reply.status, 404) || (reply.status == 400 && !reply.text().contains(&policy));
            assert!(closed || path.contains("llm-keys"), "{method} {path} from another organization: {}", reply.text());
        }
    }
    assert_eq!(gateway.chain().entries.len(), before, "nothing of all this changed anything");
    gateway.chat(&crate::support::openai::ask("hi")).await.expect(200);
}

#[tokio::test]
async fn a_suspended_agents_key_opens_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let agent = gateway.onboard("short-lived").await;
    gateway.admin("POST", &format!("/api/agents/{}/suspend", agent.id), json!({})).await.expect(200);
    for (method, path) in DATA {
        let reply = Call::new(method, path)
            .key(&agent.key)
            .json(&crate::support::openai::ask("hi"))
            .send(gateway.address)
            .await;
        assert!(matches!(reply.status, 401 | 403), "{method} {path}: {}", reply.text());
    }
    assert!(upstream.requests().is_empty());
}
