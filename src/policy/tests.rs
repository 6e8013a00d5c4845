//! Decisions as tables, properties of the merge, and every way a decision can fail.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    AgentPolicy, AssignedPolicy, Authz, DEFAULT_RULE, Decision, ERROR_RULE, Level, LevelPolicies, Merged, ModelLists,
    Outcome, Place, PolicyError, Programs, RuleBody, RuleFinding, Signals, check, check_relaxation, merge, parse_rules,
    programs::PACKAGES, publishable, unknown_entities,
};
use crate::domain::{
    detection::{Action, Classification},
    ids::PolicyId,
};

static PROGRAMS: LazyLock<Arc<Programs>> = LazyLock::new(|| Programs::load().unwrap());

fn policy(id: &str, rules: &Json) -> AssignedPolicy {
    AssignedPolicy {
        policy_id: PolicyId::parse(id).unwrap(),
        name: Arc::from(id),
        version_no: 3,
        owner: Arc::from("ada@example.com"),
        rules: parse_rules(rules).unwrap().into(),
    }
}

fn level(level: Level, policies: &[(&str, Json)]) -> LevelPolicies {
    LevelPolicies { level, policies: policies.iter().map(|(id, rules)| policy(id, rules)).collect() }
}

fn compiled(levels: &[LevelPolicies]) -> AgentPolicy {
    AgentPolicy::compile(&PROGRAMS, &merge(levels)).unwrap()
}

fn single(rules: &Json) -> AgentPolicy {
    compiled(&[level(Level::Org, &[("p", rules.clone())])])
}

fn signals() -> Signals<'static> {
    Signals {
        model: "gpt-4o",
        provider: Some("openai"),
        stream: false,
        tools: vec!["search", "rm"],
        messages: 3,
        bytes: 900,
        max_tokens: None,
        classification: Classification::Internal,
        categories: vec!["pii.email"],
        detections: 1,
        agent_id: "agent_a",
        framework: None,
        project_id: Some("proj_a"),
    }
}

fn tool_rule(ordinal: u32, kind: &str, tools: &[&str]) -> Json {
    json!({"kind": kind, "ordinal": ordinal, "payload": {"tools": tools}})
}

fn when(ordinal: u32, when: &Json, action: &str) -> Json {
    json!({"kind": "Conditional", "ordinal": ordinal, "payload": {"when": when, "then": {"action": action}}})
}

fn condition(signal: &str, op: &str, value: impl Into<Json>) -> Json {
    json!({"signal": signal, "op": op, "value": value.into()})
}

#[test]
fn every_rego_test_passes() {
    let results = check::test_embedded();
    let failed: Vec<_> = results.iter().filter(|result| result.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(results.len() > 45, "only {} tests ran", results.len());
}

#[test]
fn a_failing_rego_test_is_reported_with_its_reason() {
    let text = "package mine_test\n\ntest_right if 1 == 1\n\ntest_wrong if 1 == 2\n\ntest_odd := 3\n";
    let results = check::test_with_embedded(&[("mine_test.rego".into(), text.into())]);
    let names: Vec<_> = results.iter().map(|r| (r.name.as_str(), r.failure.is_none())).collect();
    assert_eq!(names, [("mine_test.test_right", true), ("mine_test.test_wrong", false), ("mine_test.test_odd", false)]);
    let empty = check::test_with_embedded(&[("none_test.rego".into(), "package none_test\n".into())]);
    assert_eq!(empty[0].failure.as_deref(), Some("the file has no `test_*` rule"));
    let broken = check::test_with_embedded(&[("b.rego".into(), "package b\nx := \n".into())]);
    assert!(broken[0].failure.as_deref().unwrap().contains("b.rego:"));
}

fn checked(name: &str, text: &str) -> Vec<RuleFinding> {
    check::check_text(name, text, &["email", "iban"])
}

#[test]
fn a_file_of_rules_or_rego_is_checked_with_all_findings() {
    let yaml = "rules:\n  - kind: BlockTol\n    ordinal: 1\n  - kind: BlockSecrets\n    ordinal: 1\n    payload: {scop: input}\n";
    let codes: Vec<_> = checked("r.yaml", yaml).iter().map(|f| f.code).collect();
    assert_eq!(codes, ["unknown_kind", "duplicate_ordinal", "unknown_field"]);
    assert!(checked("r.json", r#"[{"kind":"BlockSecrets","ordinal":1}]"#).is_empty());
    assert_eq!(checked("r.json", r#"[{"kind":"RequireApproval","ordinal":1}]"#)[0].code, "not_available");
    let misspelt = r#"[{"kind":"BlockPII","ordinal":1,"payload":{"entities":["emial"]}}]"#;
    assert_eq!(checked("r.json", misspelt)[0].suggestion.as_deref(), Some("email"));
    assert_eq!(checked("r.json", "[").first().unwrap().code, "syntax");
    assert_eq!(checked("a.rego", "package a\n\nallow if input.x == 1\n"), []);
    let finding = &checked("a.rego", "package a\n\nallow if {\n\tinput.x == \n}\n")[0];
    assert_eq!((finding.code, finding.path.starts_with("a.rego:5:")), ("rego", true), "{finding:?}");
    assert_eq!(checked("a.rego", "package a\n\nallow if y == 1\n")[0].code, "rego");
    assert_eq!(checked("a.rego", &format!("package a\n\nx := {}", "[".repeat(30)))[0].code, "too_large");
}

/// Findings as (code, path, suggestion).
fn findings(rules: &Json) -> Vec<(&'static str, String, Option<String>)> {
    let found: Vec<RuleFinding> = parse_rules(rules).unwrap_err();
    found.into_iter().map(|f| (f.code, f.path, f.suggestion)).collect()
}

#[test]
fn every_mistake_is_found_at_once_with_its_place_and_the_nearest_word() {
    let rules = json!([
        {"kind": "BlokTool", "ordinal": 1, "payload": {}},
        {"kind": "BlockTool", "ordinal": 2, "payload": {"tols": ["a"], "tools": []}},
        {"kind": "BlockPII", "ordinal": 2, "payload": {"scope": "inptu"}, "mode": "shadw"},
        when(4, &json!({"all": [condition("request.modle", "eq", "x"), condition("request.stream", "gt", 1)]}), "blok"),
        when(5, &condition("request.classification", "gte", "RESTRICTD"), "block"),
        when(6, &condition("request.bytes", "gt", "many"), "block"),
        when(7, &condition("request.model", "in", json!([])), "block"),
        when(8, &condition("request.model", "matchs", "a*"), "block"),
        when(9, &condition("request.model", "matches", "a[bc]"), "block"),
        {"kind": "BlockSecrets"},
    ]);
    let found = findings(&rules);
    let expected = [
        ("unknown_kind", "rules[0].kind", Some("BlockTool")),
        ("unknown_field", "rules[1].payload.tols", Some("tools")),
        ("empty_list", "rules[1].payload.tools", None),
        ("duplicate_ordinal", "rules[2].ordinal", None),
        ("unknown_value", "rules[2].mode", Some("shadow")),
        ("unknown_value", "rules[2].payload.scope", Some("input")),
        ("unknown_signal", "rules[3].payload.when.all[0].signal", Some("request.model")),
        ("operator_mismatch", "rules[3].payload.when.all[1].op", None),
        ("unknown_value", "rules[3].payload.then.action", Some("block")),
        ("unknown_value", "rules[4].payload.when.value", Some("RESTRICTED")),
        ("wrong_type", "rules[5].payload.when.value", None),
        ("empty_list", "rules[6].payload.when.value", None),
        ("unknown_operator", "rules[7].payload.when.op", Some("matches")),
        ("bad_pattern", "rules[8].payload.when.value", None),
        ("missing_field", "rules[9].ordinal", None),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(code, path, hint)| (*code, (*path).to_owned(), hint.map(str::to_owned))).collect();
    assert_eq!(found, expected);
}

#[test]
fn nesting_flattens_within_its_bounds() {
    let two = |name: &str| json!({"any": [condition(name, "eq", "a"), condition(name, "eq", "b")]});
    let product = |n: usize| json!({"all": vec![two("request.model"); n]});
    assert!(parse_rules(&json!([when(1, &product(6), "block")])).is_ok());
    assert_eq!(findings(&json!([when(1, &product(7), "block")]))[0].0, "too_large");
    let nested =
        |depth: usize| (0..depth).fold(condition("request.model", "eq", "a"), |inner, _| json!({"all": [inner]}));
    assert!(parse_rules(&json!([when(1, &nested(8), "block")])).is_ok());
    assert_eq!(findings(&json!([when(1, &nested(9), "block")]))[0].0, "too_deep");
    let many: Vec<_> = (0..401).map(|i| tool_rule(i, "BlockTool", &["a"])).collect();
    assert_eq!(findings(&json!(many))[0].0, "too_many");
    let wide: Vec<_> = (0..11).map(|i| tool_rule(i, "BlockTool", &["a"; 200])).collect();
    assert_eq!(findings(&json!(wide))[0].0, "too_large");
    let heavy: Vec<_> = (0..3).map(|i| when(i, &product(6), "block")).collect();
    assert_eq!(findings(&json!(heavy))[0].0, "too_large");
}

#[test]
fn what_this_build_cannot_do_is_fine_in_a_draft_and_refused_at_publish_by_name() {
    let mut later = json!([
        {"kind": "RequireApproval", "ordinal": 1, "payload": {"tools": ["a"], "tier": "elevated"}},
        {"kind": "RedactToolArg", "ordinal": 2}, {"kind": "PerToolRateLimit", "ordinal": 3},
        {"kind": "BlockIdentifiers", "ordinal": 4}, {"kind": "AllowCapabilities", "ordinal": 5},
    ]);
    for (i, action) in ["require_approval", "route_to_model", "redact"].iter().enumerate() {
        later.as_array_mut().unwrap().push(when(
            10 + u32::try_from(i).unwrap(),
            &condition("request.model", "eq", i.to_string()),
            action,
        ));
    }
    let rules = parse_rules(&later).unwrap();
    let refused = publishable(&rules).unwrap_err();
    assert_eq!(refused.len(), 8);
    assert!(refused[0].message.contains("rule 1: `RequireApproval`"), "{}", refused[0].message);
    assert!(refused[5].message.contains("`require_approval`"));
    let compiled = AgentPolicy::compile(&PROGRAMS, &merge(&[level(Level::Org, &[("p", later)])]));
    assert!(matches!(compiled, Err(PolicyError::Unavailable { rule }) if rule == "p@3#1"));
}

#[test]
fn a_rule_that_can_never_act_is_refused_at_publish() {
    let refused = |rules: Json| publishable(&parse_rules(&rules).unwrap()).err().map(|f| f[0].code);
    let list = json!([tool_rule(1, "AllowTool", &["read_*"]), tool_rule(2, "BlockTool", &["*"])]);
    assert_eq!(refused(list), None);
    let late = json!([tool_rule(1, "BlockTool", &["*"]), tool_rule(2, "AllowTool", &["read_*"])]);
    assert_eq!(refused(late), Some("unreachable"));
    let same = condition("request.stream", "eq", true);
    assert_eq!(refused(json!([when(1, &same, "allow"), when(2, &same, "block")])), Some("unreachable"));
}

#[test]
fn entities_that_no_detector_knows_are_named() {
    let rules = json!([{"kind": "BlockPII", "ordinal": 1, "payload": {"entities": ["email", "emial"]}}]);
    let found = unknown_entities(&parse_rules(&rules).unwrap(), &["email", "iban"]);
    assert_eq!((found.len(), found[0].suggestion.as_deref()), (1, Some("email")));
    assert_eq!(found[0].path, "rules[0].payload.entities[1]");
}

fn tool(policy: &AgentPolicy, name: &str) -> Decision {
    policy.decide_tool(name, None, &signals())
}

#[test]
fn tools_follow_the_first_rule_of_each_policy_and_any_block_wins() {
    let org = level(Level::Org, &[("org", json!([tool_rule(1, "BlockTool", &["drop_*"])]))]);
    let list = json!([tool_rule(10, "AllowTool", &["read_*", "drop_me"]), tool_rule(20, "BlockTool", &["*"])]);
    let agent = level(Level::Agent, &[("agent", list)]);
    let policy = compiled(&[agent, org]);
    for (name, outcome, rule, version) in [
        ("read_file", Outcome::Allow, "agent@3#10", Some(3)),
        ("write_file", Outcome::Block, "agent@3#20", Some(3)),
        ("drop_me", Outcome::Block, "org@3#1", Some(3)),
        ("drop_table", Outcome::Block, "org@3#1", Some(3)),
    ] {
        let decision = tool(&policy, name);
        assert_eq!((decision.outcome, &*decision.rule, decision.policy_version), (outcome, rule, version), "{name}");
        assert_eq!(decision.step, "tool_permissions");
    }
    assert_eq!(&*tool(&policy, "drop_table").reason, "the policy `org` blocks this tool");
    let alone = single(&json!([tool_rule(1, "AllowTool", &["read_*"])]));
    assert_eq!(&*tool(&alone, "write_file").rule, DEFAULT_RULE);
}

#[test]
fn conditions_decide_over_the_signals_of_the_request() {
    for (signal, op, value, blocks) in [
        ("request.model", "eq", json!("gpt-4o"), true),
        ("request.model", "matches", json!("gpt-*"), true),
        ("request.model", "contains", json!("5"), false),
        ("request.provider", "in", json!(["anthropic", "openai"]), true),
        ("request.stream", "eq", json!(false), true),
        ("request.stream", "ne", json!(false), false),
        ("request.tool", "eq", json!("rm"), true),
        ("request.tool", "contains", json!("rm"), true),
        ("request.tool", "not_in", json!(["search"]), true),
        ("request.tool", "not_in", json!(["search", "rm"]), false),
        ("request.messages", "gte", json!(3), true),
        ("request.messages", "gt", json!(3), false),
        ("request.bytes", "lt", json!(900), false),
        ("request.max_tokens", "gt", json!(0), false),
        ("request.max_tokens", "exists", json!(false), true),
        ("request.classification", "gte", json!("INTERNAL"), true),
        ("request.classification", "gt", json!("INTERNAL"), false),
        ("request.classification", "in", json!(["PUBLIC", "TOP_SECRET"]), false),
        ("detection.category", "matches", json!("pii.*"), true),
        ("detection.count", "eq", json!(1), true),
        ("agent.id", "ne", json!("agent_b"), true),
        ("agent.framework", "ne", json!("crewai"), false),
        ("agent.framework", "exists", json!(true), false),
        ("project.id", "exists", json!(true), true),
    ] {
        let policy = single(&json!([when(7, &condition(signal, op, value), "block")]));
        let decision = policy.decide(&signals());
        let expected = if blocks { (Outcome::Block, "p@3#7") } else { (Outcome::Allow, DEFAULT_RULE) };
        assert_eq!((decision.outcome, &*decision.rule), expected, "{signal} {op}");
    }
}

#[test]
fn an_exception_needs_every_tool_and_a_block_only_one() {
    let rules = |action: &str| json!([when(1, &condition("request.tool", "in", json!(["search"])), action)]);
    assert_eq!(&*single(&rules("allow")).decide(&signals()).rule, DEFAULT_RULE);
    assert_eq!(&*single(&rules("block")).decide(&signals()).rule, "p@3#1");
    let only = Signals { tools: vec!["search"], ..signals() };
    assert_eq!(&*single(&rules("allow")).decide(&only).rule, "p@3#1");
}

#[test]
fn a_call_is_judged_by_its_own_name_and_arguments() {
    let shadow_file = json!({"all": [
        condition("request.tool", "matches", "read_*"),
        condition("request.tool_args.path", "matches", "/etc/*"),
        condition("request.model", "eq", "gpt-4o"),
    ]});
    let policy = single(&json!([when(1, &shadow_file, "block")]));
    let call = |name: &str, arguments: Json| policy.decide_tool(name, Some(&arguments), &signals());
    let refused = call("read_file", json!({"path": "/etc/shadow"}));
    assert_eq!((&*refused.rule, refused.step), ("p@3#1", "tool_permissions"));
    assert!(call("read_file", json!({"path": [{"deep": "/etc/shadow"}]})).is_block());
    assert!(!call("read_file", json!({"path": "/tmp/x"})).is_block());
    assert!(!call("write_file", json!({"path": "/etc/shadow"})).is_block());
    assert!(!call("read_file", Json::Null).is_block());
    assert!(!tool(&policy, "read_file").is_block());
    assert_eq!(&*call("read_file", json!("{\"path\":\"/etc/shadow\"}")).rule, ERROR_RULE);
    assert_eq!(&*call("read_file", json!({"path": vec![0; 5_000]})).rule, ERROR_RULE);
}

#[test]
fn shadow_rules_are_reported_and_never_refuse() {
    let shadowed = |mut rule: Json| {
        rule["mode"] = json!("shadow");
        rule
    };
    let policy = single(&json!([
        shadowed(tool_rule(1, "BlockTool", &["rm"])),
        tool_rule(2, "BlockTool", &["dd"]),
        shadowed(when(3, &condition("request.tool", "eq", "rm"), "block")),
    ]));
    let decision = tool(&policy, "rm");
    assert_eq!((decision.outcome, &*decision.rule), (Outcome::Allow, DEFAULT_RULE));
    let reported = |decision: &Decision| decision.shadow.iter().map(|s| s.rule.to_string()).collect::<Vec<_>>();
    assert_eq!(reported(&decision), ["p@3#1"]);
    assert_eq!(reported(&policy.decide_tool("rm", Some(&Json::Null), &signals())), ["p@3#1", "p@3#3"]);
    assert_eq!(reported(&policy.decide(&signals())), ["p@3#3"]);
    assert!(tool(&policy, "dd").is_block() && tool(&policy, "dd").shadow.is_empty());
}

#[test]
fn models_follow_the_list_of_the_classification_in_every_source() {
    let list = |source: &str, class, models: &[&str]| ModelLists {
        source: Arc::from(source),
        allowed: [(class, models.iter().map(|m| Arc::from(*m)).collect())].into(),
    };
    let mut merged = Merged::default();
    assert_eq!(
        &*AgentPolicy::compile(&PROGRAMS, &merged).unwrap().decide_model("any", Classification::TopSecret).rule,
        DEFAULT_RULE
    );
    merged.models.push(list("org", Classification::Confidential, &["local/*"]));
    merged.models.push(list("agent", Classification::Restricted, &["local/a"]));
    let policy = AgentPolicy::compile(&PROGRAMS, &merged).unwrap();
    for (model, class, blocked_by) in [
        ("gpt-4o", Classification::Internal, None),
        ("gpt-4o", Classification::Confidential, Some("org#CONFIDENTIAL")),
        ("local/b", Classification::Confidential, None),
        ("local/b", Classification::TopSecret, Some("agent#RESTRICTED")),
        ("local/a", Classification::TopSecret, None),
    ] {
        let decision = policy.decide_model(model, class);
        assert_eq!(decision.is_block().then_some(&*decision.rule), blocked_by, "{model} {class:?}");
    }
}

#[test]
fn the_policy_says_which_steps_must_run() {
    let policy = single(&json!([
        {"kind": "BlockPII", "ordinal": 1, "payload": {"scope": "input", "entities": ["email"]}},
        {"kind": "BlockSecrets", "ordinal": 2, "mode": "shadow"},
        tool_rule(3, "BlockTool", &["rm"]),
        when(4, &condition("request.classification", "gte", "RESTRICTED"), "block"),
    ]));
    let found: Vec<_> = policy.switches().iter().map(|s| (s.step, s.action, &*s.rule, s.scope, s.category)).collect();
    assert_eq!(
        found,
        [
            ("detect_pii", Action::Block, "p@3#1", Place::Input, Some("pii")),
            ("detect_secrets", Action::Log, "p@3#2", Place::Input, Some("secret")),
            ("scan_output", Action::Log, "p@3#2", Place::Output, Some("secret")),
            ("tool_permissions", Action::Block, "p@3#3", Place::Call, None),
            ("filter_tools", Action::Log, "p@3#3", Place::Call, None),
            ("classify_data", Action::Log, "p@3#4", Place::Input, None),
        ]
    );
    assert_eq!(policy.switches()[0].entities, [Arc::from("email")]);
    assert!(AgentPolicy::compile(&PROGRAMS, &Merged::default()).unwrap().switches().is_empty());
}

#[test]
fn a_relaxation_is_refused_with_its_rule_level_and_owner() {
    let block = |tools: &[&str]| json!([tool_rule(1, "BlockTool", tools)]);
    let allow = |tools: &[&str]| json!([tool_rule(5, "AllowTool", tools)]);
    let same = condition("request.stream", "eq", true);
    let list = json!([tool_rule(1, "AllowTool", &["read_*"]), tool_rule(2, "BlockTool", &["*"])]);
    let careful = json!([tool_rule(1, "BlockTool", &["rm"]), tool_rule(2, "AllowTool", &["*"])]);
    for (upper, lower, refused) in [
        (block(&["rm"]), allow(&["rm"]), true),
        (block(&["drop_*"]), allow(&["drop_table"]), true),
        (block(&["rm"]), allow(&["*"]), true),
        (block(&["rm"]), allow(&["ls"]), false),
        (block(&["*_secret"]), allow(&["read_*"]), false),
        (list.clone(), allow(&["read_file"]), false),
        (list.clone(), allow(&["send"]), true),
        (block(&["rm"]), careful, false),
        (allow(&["rm"]), block(&["rm"]), false),
        (json!([when(1, &same, "block")]), json!([when(5, &same, "allow")]), true),
        (json!([when(1, &same, "block")]), json!([when(5, &same, "block")]), false),
    ] {
        let levels = [level(Level::Agent, &[("low", lower.clone())]), level(Level::Org, &[("top", upper.clone())])];
        assert_eq!(check_relaxation(&levels).is_err(), refused, "{upper} {lower}");
    }
    let levels = [level(Level::Project, &[("low", allow(&["rm"]))]), level(Level::Org, &[("top", block(&["rm"]))])];
    let text = check_relaxation(&levels).unwrap_err()[0].to_string();
    for part in ["low@3#5", "project", "ada@example.com", "`rm`", "top@3#1", "organization"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(check_relaxation(&[level(Level::Org, &[("a", block(&["rm"])), ("b", allow(&["rm"]))])]).is_ok());
}

#[test]
fn a_policy_without_conditions_costs_no_evaluation() {
    let policy = single(&json!([{"kind": "BlockSecrets", "ordinal": 1}]));
    let first = policy.decide(&signals());
    let second = policy.decide(&Signals { model: "other", ..signals() });
    assert!(Arc::ptr_eq(&first.rule, &second.rule) && Arc::ptr_eq(&first.reason, &second.reason));
    assert_eq!(&*tool(&policy, "any").rule, DEFAULT_RULE);
    assert_eq!(&*policy.decide_model("any", Classification::TopSecret).rule, DEFAULT_RULE);
    assert_eq!(policy.remembered_decisions(), 0);
}

#[test]
fn the_memo_is_keyed_by_exactly_what_the_rules_read() {
    let both = json!({"all": [condition("request.model", "eq", "o3"), condition("request.bytes", "gt", 1_000)]});
    let policy = single(&json!([when(1, &both, "block")]));
    let ask = |request: &Signals| {
        policy.decide(request);
        policy.remembered_decisions()
    };
    assert_eq!(ask(&signals()), 1);
    let unread = Signals {
        provider: None,
        stream: true,
        tools: vec!["other"],
        messages: 9,
        max_tokens: Some(5),
        classification: Classification::TopSecret,
        categories: vec![],
        detections: 0,
        agent_id: "agent_z",
        framework: Some("x"),
        project_id: None,
        ..signals()
    };
    assert_eq!(ask(&unread), 1);
    // A number counts as what the rules can tell about it.
    assert_eq!(ask(&Signals { bytes: 5, ..signals() }), 1);
    assert_eq!(ask(&Signals { bytes: 1_000, ..signals() }), 2);
    assert_eq!(ask(&Signals { bytes: 1_001, ..signals() }), 3);
    assert_eq!(ask(&Signals { model: "o3", ..signals() }), 4);
    assert!(policy.decide(&Signals { model: "o3", bytes: 2_000, ..signals() }).is_block());
    assert!(!policy.decide(&Signals { model: "o3", bytes: 1_000, ..signals() }).is_block());
}

/// The embedded packages with another text for `tappass.tools`.
fn with_tools(text: &str) -> Arc<Programs> {
    let packages = PACKAGES.map(|(name, own)| (name, if name == "tappass.tools" { text } else { own }));
    Programs::load_from(&packages).unwrap()
}

#[test]
fn undefined_errors_and_unknown_answers_are_refusals() {
    let answer = |body: &str| format!("package tappass.tools\n\ndecision := {body}\n");
    for (what, text) in [
        ("undefined", "package tappass.tools\n\ndecision := {\"outcome\": \"allow\"} if input.absent\n".to_owned()),
        ("no rule of that name", "package tappass.tools\n\nother := 1\n".to_owned()),
        ("conflict", answer(r#"{"outcome": "allow"}"#) + "\ndecision := {\"outcome\": \"block\"}\n"),
        ("error of a built-in", answer(r#"{"outcome": "allow", "rule": "policy.default", "reason": to_number("x")}"#)),
        ("unknown outcome", answer(r#"{"outcome": "maybe", "rule": "policy.default", "reason": ""}"#)),
        ("missing rule", answer(r#"{"outcome": "allow", "reason": ""}"#)),
        ("missing reason", answer(r#"{"outcome": "allow", "rule": "policy.default"}"#)),
        ("rule that is not ours", answer(r#"{"outcome": "allow", "rule": "q@1#1", "reason": ""}"#)),
        ("outcome of another type", answer(r#"{"outcome": true, "rule": "policy.default", "reason": ""}"#)),
        ("not an object", answer("true")),
        ("broken shadow", answer(r#"{"outcome": "allow", "rule": "policy.default", "reason": "", "shadow": [1]}"#)),
    ] {
        let merged = merge(&[level(Level::Org, &[("p", json!([tool_rule(1, "BlockTool", &["rm"])]))])]);
        let policy = AgentPolicy::compile(&with_tools(&text), &merged).unwrap();
        let decision = tool(&policy, "ls");
        assert_eq!((decision.outcome, &*decision.rule), (Outcome::Block, ERROR_RULE), "{what}");
        assert_eq!(policy.remembered_decisions(), 0, "{what}");
    }
    let fine = answer(r#"{"outcome": "allow", "rule": "policy.default", "reason": ""}"#);
    let merged = merge(&[level(Level::Org, &[("p", json!([tool_rule(1, "BlockTool", &["rm"])]))])]);
    assert!(!tool(&AgentPolicy::compile(&with_tools(&fine), &merged).unwrap(), "ls").is_block());
    assert!(AgentPolicy::compile(&with_tools(&answer("true")), &Merged::default()).is_err());
}

#[test]
fn a_package_that_does_not_parse_names_itself() {
    let error = Programs::load_from(&[("tappass.authz", "package tappass.authz\nx := \n")]).err().unwrap();
    assert!(matches!(&error, PolicyError::Load { package: "tappass.authz", .. }), "{error}");
}

#[test]
fn decisions_are_made_from_many_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<AgentPolicy>();
    shared::<Authz>();
    shared::<Programs>();
}

#[test]
fn roles_are_decided_in_rego_and_remembered() {
    let authz = Authz::new(&PROGRAMS);
    for (role, action, same_org, allowed) in [
        ("org_admin", "policies.write", true, true),
        ("org_admin", "policies.write", false, false),
        ("super_admin", "orgs.write", false, true),
        ("auditor", "audit.read", true, true),
        ("auditor", "agents.write", true, false),
        ("agent", "chat.create", true, true),
        ("agent", "agents.read", true, false),
        ("nobody", "me.read", true, false),
        ("super_admin", "agents.delete", true, false),
    ] {
        for _ in 0..2 {
            let decision = authz.decide(role, action, same_org);
            assert_eq!(!decision.is_block(), allowed, "{role} {action} {same_org}: {decision:?}");
            assert!(!decision.is_error());
        }
    }
}

#[test]
fn a_grant_is_active_only_before_it_expires() {
    assert!(PROGRAMS.breakglass_active("relax", 2, 1));
    assert!(!PROGRAMS.breakglass_active("relax", 2, 2));
    assert!(!PROGRAMS.breakglass_active("anything", 2, 1));
}

/// Three levels of up to two policies with tool rules over a small alphabet.
fn levels() -> impl Strategy<Value = Vec<LevelPolicies>> {
    let pattern = prop::sample::select(vec!["*", "a", "b", "a*", "?b", "ab"]);
    let rule = (any::<bool>(), prop::collection::vec(pattern, 1..3));
    let rules = prop::collection::vec(rule, 0..4).prop_map(|rules| {
        let rule = |(i, (block, tools)): (usize, (bool, Vec<&str>))| {
            tool_rule(u32::try_from(i).unwrap(), if block { "BlockTool" } else { "AllowTool" }, &tools)
        };
        Json::from(rules.into_iter().enumerate().map(rule).collect::<Vec<_>>())
    });
    let place = prop::sample::select(vec![Level::Org, Level::Project, Level::Agent]);
    let assigned = (place, prop::sample::select(vec!["p", "q", "r"]), rules);
    prop::collection::vec(assigned, 0..5)
        .prop_map(|assigned| assigned.into_iter().map(|(place, id, rules)| level(place, &[(id, rules)])).collect())
}

const NAMES: [&str; 4] = ["a", "b", "ab", "c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn merging_knows_no_order_and_repetition_changes_nothing(levels in levels(), turn in 0_usize..5) {
        let merged = merge(&levels);
        let mut other = levels.clone();
        other.reverse();
        let len = other.len().max(1);
        other.rotate_left(turn % len);
        prop_assert_eq!(&merge(&other), &merged);
        other.extend(levels);
        prop_assert_eq!(&merge(&other), &merged);
        let again: Vec<_> = merged.policies.iter()
            .map(|(level, policy)| LevelPolicies { level: *level, policies: vec![policy.clone()] }).collect();
        prop_assert_eq!(merge(&again), merged);
    }

    #[test]
    fn the_merged_policy_blocks_exactly_what_some_level_blocks(levels in levels()) {
        let whole = compiled(&levels);
        let parts: Vec<_> = levels.iter().map(|level| compiled(std::slice::from_ref(level))).collect();
        for name in NAMES {
            let some_level_blocks = parts.iter().any(|part| tool(part, name).is_block());
            prop_assert_eq!(tool(&whole, name).is_block(), some_level_blocks, "{}", name);
        }
    }

    #[test]
    fn the_engine_agrees_with_the_plain_reading_of_tool_rules(levels in levels()) {
        let whole = compiled(&levels);
        for name in NAMES {
            let first = |policy: &AssignedPolicy| policy.rules.iter().find_map(|rule| {
                let (RuleBody::BlockTool { tools } | RuleBody::AllowTool { tools }) = &rule.body else { return None };
                let blocks = matches!(rule.body, RuleBody::BlockTool { .. });
                names(tools, name).then(|| (policy.rule_id(rule), blocks))
            });
            let merged = merge(&levels);
            let decided: Vec<_> = merged.policies.iter().filter_map(|(_, policy)| first(policy)).collect();
            let expected = decided.iter().find(|(_, blocks)| *blocks).or(decided.first());
            let decision = tool(&whole, name);
            prop_assert_eq!(decision.is_block(), expected.is_some_and(|(_, blocks)| *blocks));
            prop_assert_eq!(&*decision.rule, expected.map_or(DEFAULT_RULE, |(rule, _)| rule.as_str()));
        }
    }

    #[test]
    fn any_json_is_read_without_panic(value in json_like()) {
        drop(parse_rules(&value));
        drop(parse_rules(&json!([{"kind": "Conditional", "ordinal": 1, "payload": {"when": value, "then": value}}])));
        drop(parse_rules(&json!([{"kind": "BlockPII", "ordinal": value, "payload": value, "mode": value}])));
    }
}

fn names(tools: &[Arc<str>], name: &str) -> bool {
    tools.iter().any(|pattern| super::pattern_matches(pattern, name))
}

fn json_like() -> impl Strategy<Value = Json> {
    let word = prop::sample::select(vec![
        "all",
        "any",
        "signal",
        "op",
        "value",
        "request.model",
        "eq",
        "in",
        "action",
        "tools",
    ]);
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        word.clone().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((word.clone(), inner), 0..4)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Json>()),
        ]
    })
}
