//! The rules of pipelines as sentences, and the cascade as properties.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Need, OptionValue, PipelineSpec, Plan, PlanError, PlanLayers, PolicySwitch, Source, compile, import, import_yaml,
};
use crate::domain::{
    detection::{Action, Classification},
    money::NanoUsd,
    steps::{self, Phase, Preset, StepSpec, Tighter},
};

fn spec(value: &Value) -> PipelineSpec {
    import(value).unwrap()
}

fn errors(value: &Value) -> Vec<String> {
    let mut errors: Vec<String> = import(value).unwrap_err().iter().map(ToString::to_string).collect();
    errors.sort();
    errors
}

fn error(value: &Value) -> String {
    let errors = errors(value);
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

fn everything(_: &str) -> bool {
    true
}

fn compiled(org: &Value, agent: Option<&Value>) -> Result<Plan, Vec<PlanError>> {
    let (org, agent) = (spec(org), agent.map(spec));
    compile(&PlanLayers { org: &org, agent: agent.as_ref(), switches: &[] }, &everything)
}

fn plan(org: &Value) -> Plan {
    compiled(org, None).unwrap()
}

fn both(org: &Value, agent: &Value) -> Plan {
    compiled(org, Some(agent)).unwrap()
}

fn refused(org: &Value, agent: &Value) -> Vec<String> {
    compiled(org, Some(agent)).unwrap_err().iter().map(ToString::to_string).collect()
}

fn ruled(org: &Value, switches: &[PolicySwitch], has: &dyn Fn(&str) -> bool) -> Result<Plan, Vec<PlanError>> {
    compile(&PlanLayers { org: &spec(org), agent: None, switches }, has)
}

fn switch(step: &str, action: Action, rule: &str) -> PolicySwitch {
    PolicySwitch { step: step.to_owned(), action, rule: rule.into() }
}

fn action(plan: &Plan, id: &str) -> Option<Action> {
    plan.step(id).map(|step| step.action)
}

// What may be written.

#[test]
fn the_three_shapes_say_the_same() {
    let plain =
        json!({"preset": "standard", "overrides": {"detect_pii": {"on_detection": "notify", "threshold": 0.7}}});
    let nested = json!({"preset": "standard", "overrides": {"categories": {"data_protection": {"steps":
        {"detect_pii": {"on_detection": "notify", "threshold": 0.7}}}}}});
    assert_eq!(spec(&plain), spec(&nested));
    let bare = json!({"categories": {"data_protection": {"on_detection": "redact", "steps": {"detect_secrets": {}}}}});
    let read = spec(&bare);
    assert_eq!(read.preset, None);
    assert_eq!(read.categories.values().collect::<Vec<_>>(), [&Action::Redact]);
    assert!(read.overrides.contains_key("detect_secrets"));
}

#[test]
fn yaml_and_json_read_alike() {
    let yaml = "preset: standard\noverrides:\n  detect_prompt_injection: {on_detection: continue, threshold: 0.25}\n";
    let read = import_yaml(yaml).unwrap();
    let json =
        json!({"preset": "standard", "overrides": {"detect_injection": {"on_detection": "log", "threshold": 0.25}}});
    assert_eq!(read, spec(&json));
    assert_eq!(read.overrides["detect_injection"].threshold, Some(2_500));
}

#[test]
fn what_is_stored_reads_back_as_it_was() {
    let value = json!({"preset": "regulated", "overrides": {
        "categories": {"response_safety": {"on_detection": "block"}},
        "budget": {"max_cost_usd": 12.5, "window": "monthly"},
        "rate_limit": {"enabled": true, "max_calls": 7},
        "detect_pii": {"threshold": 0.35,
            "custom_patterns": [{"name": "badge", "pattern": "B-\\d{6}", "level": "high"}]},
        "require_approval": {"required_for": [{"classification": "TOP_SECRET"}, {"tool": "pay_*"}]},
        "tool_constraints": {"constraints": {"pay": {"amount": {"max": 10}}}},
        "user_tool_scopes": {"scopes": {"staff": ["read_*"]}},
    }});
    let stored = serde_json::to_string(&spec(&value)).unwrap();
    assert_eq!(serde_json::from_str::<PipelineSpec>(&stored).unwrap(), spec(&value));
    assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), value);
}

#[test]
fn all_mistakes_are_named_at_once_with_their_path_and_the_nearest_word() {
    let value = json!({"preset": "standart", "overides": {}, "overrides": {
        "detect_pi": {},
        "rate_limit": {"max_cals": 3, "window_seconds": 0},
        "detect_injection": {"threshold": 1.5, "on_detection": "blok"},
        "budget": {"window": "weekly"},
        "categories": {"data_protecton": {}, "tracking": {"steps": {"call_llm": {}}, "stepps": {}}},
    }});
    insta::assert_snapshot!(errors(&value).join("\n"), @"
    `overides`: unknown key `overides`; did you mean `overrides`?
    `overrides.budget.window`: unknown value `weekly`; valid are `daily`, `monthly`
    `overrides.categories.data_protecton`: unknown category `data_protecton`; did you mean `data_protection`?
    `overrides.categories.tracking.stepps`: unknown key `stepps`; did you mean `steps`?
    `overrides.categories.tracking.steps.call_llm`: the step belongs to `route_and_execute`
    `overrides.detect_injection.on_detection`: unknown action `blok`; did you mean `block`?
    `overrides.detect_injection.threshold`: must be a number from 0.0 to 1.0
    `overrides.detect_pi`: unknown step `detect_pi`; did you mean `detect_pii`?
    `overrides.rate_limit.max_cals`: unknown option `max_cals`; did you mean `max_calls`?
    `overrides.rate_limit.window_seconds`: must be a whole number from 1 to 2678400
    `preset`: unknown preset `standart`; did you mean `standard`?
    ");
}

#[test]
fn an_action_that_a_step_cannot_take_is_refused() {
    let of = |step: &str, action: &str| error(&json!({"overrides": {step: {"on_detection": action}}}));
    insta::assert_snapshot!(
        of("tool_permissions", "redact"),
        @"`overrides.tool_permissions.on_detection`: `tool_permissions` cannot `redact`; it can `log`, `notify`, `block`"
    );
    insta::assert_snapshot!(
        of("call_llm", "log"),
        @"`overrides.call_llm.on_detection`: `call_llm` has no action: it simply runs"
    );
    insta::assert_snapshot!(
        of("cost_tracking", "block"),
        @"`overrides.cost_tracking.on_detection`: `cost_tracking` cannot `block`; it can `log`"
    );
    insta::assert_snapshot!(
        of("rate_limit", "log"),
        @"`overrides.rate_limit.on_detection`: `rate_limit` cannot `log`; it can `block`"
    );
    let category = json!({"categories": {"threat_detection": {"on_detection": "redact"}}});
    insta::assert_snapshot!(
        error(&category),
        @"`categories.threat_detection.on_detection`: no step of `threat_detection` can `redact`"
    );
}

#[test]
fn a_threshold_on_a_step_without_scores_is_refused() {
    insta::assert_snapshot!(
        error(&json!({"overrides": {"detect_secrets": {"threshold": 0.5}}})),
        @"`overrides.detect_secrets.threshold`: `detect_secrets` has no threshold: it has no scores"
    );
    insta::assert_snapshot!(
        error(&json!({"overrides": {"detect_pii": {"threshold": -0.1}}})),
        @"`overrides.detect_pii.threshold`: must be a number from 0.0 to 1.0"
    );
}

#[test]
fn structure_and_the_call_itself_cannot_be_switched_off() {
    for step in ["validate_input", "call_llm"] {
        let why = error(&json!({"overrides": {step: {"enabled": false}}}));
        assert!(why.contains("cannot be switched off"), "{why}");
    }
}

#[test]
fn a_step_named_by_id_and_by_alias_is_given_twice() {
    let why = error(&json!({"overrides": {"budget": {}, "budget_enforcement": {}}}));
    assert_eq!(why, "`overrides.budget_enforcement` is given twice");
}

#[test]
fn a_step_in_the_wrong_category_is_told_the_right_one() {
    let why = error(&json!({"categories": {"tracking": {"steps": {"detect_pii": {}}}}}));
    assert_eq!(why, "`categories.tracking.steps.detect_pii`: the step belongs to `data_protection`");
}

#[test]
fn values_of_the_wrong_shape_are_refused() {
    for (step, key, value) in [
        ("detect_pii", "entities", json!([])),
        ("detect_pii", "entities", json!([""])),
        ("detect_pii", "custom_patterns", json!([{"name": "a"}])),
        ("detect_pii", "custom_patterns", json!([{"name": "a", "pattern": "b", "lvl": "low"}])),
        ("detect_pii", "custom_patterns", json!([{"name": "a", "pattern": "b", "level": "PUBLIC"}])),
        ("require_approval", "required_for", json!([{"tool": "a", "classification": "PUBLIC"}])),
        ("require_approval", "required_for", json!([{"classification": "SECRET"}])),
        ("budget", "max_cost_usd", json!(-1)),
        ("budget", "max_cost_usd", json!("10")),
        ("loop_guard", "max_iterations", json!(2.5)),
        ("tool_constraints", "constraints", json!({"pay": 3})),
        ("user_tool_scopes", "scopes", json!({"staff": "read"})),
        ("debug_logging", "include_prompts", json!("yes")),
    ] {
        let why = error(&json!({"overrides": {step: {key: value}}}));
        assert!(why.starts_with(&format!("`overrides.{step}.{key}`: ")), "{why}");
    }
}

#[test]
fn yaml_that_is_hostile_is_refused_before_it_costs() {
    let unreadable = |text: &str| import_yaml(text).unwrap_err()[0].to_string();
    assert!(unreadable("preset: starter\npreset: standard\n").contains("stands twice"));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb = format!("{bomb}a{level}: &a{level} [{before}]\n");
    }
    assert!(unreadable(&bomb).contains("20000 values"), "{}", unreadable(&bomb));
    assert!(unreadable(&"[".repeat(60_000)).contains("brackets"));
    assert!(unreadable(&" ".repeat(70_000)).contains("bytes"));
    assert!(unreadable("preset: !env HOME").contains("cannot be read"));
    assert!(import_yaml("- 1").is_err() && import_yaml("").is_err() && import_yaml("a: [").is_err());
}

// What becomes of it.

#[test]
fn each_preset_compiles_to_its_size_in_acting_order() {
    for (preset, size) in [("starter", 11), ("standard", 40), ("regulated", 49)] {
        let plan = plan(&json!({"preset": preset}));
        assert_eq!(plan.steps.len(), size);
        assert!(plan.steps.windows(2).all(|pair| pair[0].spec.acts_at() < pair[1].spec.acts_at()));
        assert!(plan.steps.iter().all(|step| plan.at(step.spec) == Some(step)));
        let phases = [Phase::Before, Phase::Call, Phase::After].map(|phase| plan.phase(phase).len());
        assert_eq!(phases.iter().sum::<usize>(), size);
    }
    let regulated = plan(&json!({"preset": "regulated"}));
    assert_eq!(regulated.phase(Phase::Call)[0].spec.id, "filter_tools");
    assert_eq!(regulated.phase(Phase::Call)[1].spec.id, "call_llm");
}

#[test]
fn nothing_stored_is_the_starter_preset() {
    let plan = plan(&json!({}));
    assert_eq!((plan.preset, plan.steps.len()), (Preset::Starter, 11));
    assert_eq!(plan.step("detect_pii").unwrap().source, Source::Preset(Preset::Starter));
    assert_eq!(plan.step("dlp"), None);
    assert_eq!(plan.step("no_such_step"), None);
}

#[test]
fn the_options_of_presets_reach_the_plan_with_their_defaults() {
    let starter = plan(&json!({"preset": "starter"}));
    let rate_limit = &starter.step("rate_limit").unwrap().options;
    assert_eq!((rate_limit.integer("max_calls"), rate_limit.integer("window_seconds")), (Some(100), Some(3_600)));
    assert_eq!(starter.step("detect_injection").unwrap().threshold, Some(8_000));
    let regulated = plan(&json!({"preset": "regulated"}));
    let budget = &regulated.step("budget").unwrap().options;
    assert_eq!((budget.money("max_cost_usd"), budget.word("window")), (NanoUsd::from_dollars(50.0), Some("daily")));
    let needs = regulated.step("require_approval").unwrap().options.needs();
    assert_eq!(needs.len(), 4);
    assert!(needs.contains(&Need::Classification(Classification::Restricted)));
    assert_eq!(regulated.step("loop_guard").unwrap().options.integer("max_iterations"), Some(15));
    assert_eq!(regulated.step("detect_pii").unwrap().options.strings("block_entities").unwrap().len(), 3);
    assert!(!regulated.step("debug_logging").unwrap().options.is_on("include_prompts"));
}

#[test]
fn an_organization_composes_freely_from_its_preset() {
    let org = json!({"preset": "standard", "overrides": {
        "detect_secrets": {"on_detection": "redact"},
        "detect_escalation": {"enabled": false},
        "detect_insider_threat": {},
        "rate_limit": {"max_calls": 5000},
    }});
    let plan = plan(&org);
    assert_eq!(action(&plan, "detect_secrets"), Some(Action::Redact));
    assert_eq!(action(&plan, "detect_escalation"), None);
    assert_eq!(action(&plan, "detect_insider_threat"), Some(Action::Block));
    assert_eq!(plan.step("detect_insider_threat").unwrap().options.integer("block_at"), Some(80));
    assert_eq!(plan.step("rate_limit").unwrap().options.integer("max_calls"), Some(5_000));
    assert_eq!(plan.step("rate_limit").unwrap().options.integer("window_seconds"), Some(3_600));
    assert_eq!(plan.step("rate_limit").unwrap().source, Source::Organization);
}

#[test]
fn the_action_of_a_category_reaches_the_steps_that_can_take_it() {
    let org = json!({"preset": "standard", "overrides": {"categories": {"data_protection":
        {"on_detection": "notify", "steps": {"detect_infra": {"on_detection": "log"}}}}}});
    let plan = plan(&org);
    assert_eq!(action(&plan, "detect_secrets"), Some(Action::Notify));
    assert_eq!(action(&plan, "detect_infra"), Some(Action::Log));
    assert_eq!(action(&plan, "pii_tokenize"), Some(Action::Redact));
    assert_eq!(action(&plan, "detect_injection"), Some(Action::Block));
}

#[test]
fn a_category_without_a_step_in_the_plan_is_an_error() {
    let why = compiled(&json!({"categories": {"route_and_execute": {"on_detection": "notify"}}}), None).unwrap_err();
    insta::assert_snapshot!(
        why[0].to_string(),
        @"`overrides.categories.route_and_execute.on_detection`: the organization's plan has no step of that category that can `notify`"
    );
}

#[test]
fn an_agent_may_tighten_everything() {
    let org =
        json!({"preset": "standard", "overrides": {"tool_permissions": {"allow": ["read_*", "pay"], "deny": ["rm"]}}});
    let agent = json!({"overrides": {
        "detect_infra": {"on_detection": "block"},
        "detect_injection": {"threshold": 0.4},
        "rate_limit": {"max_calls": 10, "window_seconds": 7200},
        "budget": {"max_cost_usd": 100, "window": "monthly"},
        "tool_permissions": {"allow": ["read_file", "send"], "deny": ["mv"]},
        "taint_track": {"ttl_seconds": 3600},
        "forbidden_zones": {"paths": ["/srv"]},
        "inspect_image": {"on_uncovered": "block"},
    }});
    let plan = both(&org, &agent);
    assert_eq!(action(&plan, "detect_infra"), Some(Action::Block));
    assert_eq!(plan.step("detect_injection").unwrap().threshold, Some(4_000));
    assert_eq!(plan.step("rate_limit").unwrap().options.integer("max_calls"), Some(10));
    assert_eq!(plan.step("rate_limit").unwrap().options.integer("window_seconds"), Some(7_200));
    let tools = &plan.step("tool_permissions").unwrap().options;
    assert_eq!(tools.strings("allow").unwrap(), ["read_file"]);
    assert_eq!(tools.strings("deny").unwrap(), ["mv", "rm"]);
    assert_eq!(plan.step("forbidden_zones").unwrap().source, Source::Agent);
    assert_eq!(plan.step("detect_infra").unwrap().source, Source::Agent);
    assert_eq!(plan.step("detect_secrets").unwrap().source, Source::Preset(Preset::Standard));
}

#[test]
fn an_agent_that_relaxes_is_refused_naming_step_level_and_owner() {
    let org =
        json!({"preset": "standard", "overrides": {"tool_constraints": {"constraints": {"pay": {"sum": {"max": 1}}}}}});
    let agent = json!({"overrides": {
        "detect_secrets": {"on_detection": "log"},
        "detect_escalation": {"enabled": false},
        "detect_injection": {"threshold": 0.9},
        "detect_pii": {"threshold": 0.1, "entities": ["email"], "allow_list": ["me@example.org"]},
        "rate_limit": {"max_calls": 51, "window_seconds": 60},
        "budget": {"max_cost_usd": 100.01},
        "tool_constraints": {"constraints": {"pay": {"sum": {"max": 2}}}},
    }});
    insta::assert_snapshot!(refused(&org, &agent).join("\n"), @r#"
    `overrides.rate_limit.max_calls`: the agent asks for `51`, which is not as tight as `50` of the preset standard
    `overrides.rate_limit.window_seconds`: the agent asks for `60`, which is not as tight as `3600` of the preset standard
    `overrides.budget.max_cost_usd`: the agent asks for `100.01`, which is not as tight as `100` of the preset standard
    `overrides.detect_pii.threshold`: the agent asks for `0.1`, which is not as tight as none of the preset standard
    `overrides.detect_pii.allow_list`: the agent asks for `["me@example.org"]`, which is not as tight as none of the preset standard
    `overrides.detect_pii.entities`: the agent asks for `["email"]`, which is not as tight as none of the preset standard
    `overrides.detect_secrets.on_detection`: the agent asks for `log`, which is not as tight as `block` of the preset standard
    `overrides.detect_injection.threshold`: the agent asks for `0.9`, which is not as tight as `0.6` of the preset standard
    `overrides.detect_escalation.enabled`: the agent asks for `false`, which is not as tight as `true` of the preset standard
    `overrides.tool_constraints.constraints`: the agent asks for `{"pay":{"sum":{"max":2}}}`, which is not as tight as `{"pay":{"sum":{"max":1}}}` of the organization
    "#);
}

#[test]
fn an_agent_cannot_choose_a_looser_preset_or_loosen_a_whole_category() {
    let org = json!({"preset": "standard"});
    insta::assert_snapshot!(
        refused(&org, &json!({"preset": "starter"})).join("\n"),
        @"`preset`: the agent's `starter` is looser than the organization's `standard`"
    );
    let category = json!({"categories": {"data_protection": {"on_detection": "redact"}}});
    insta::assert_snapshot!(refused(&org, &category).join("\n"), @"
    `overrides.detect_pii.on_detection`: the agent asks for `redact`, which is not as tight as `block` of the preset standard
    `overrides.detect_secrets.on_detection`: the agent asks for `redact`, which is not as tight as `block` of the preset standard
    `overrides.detect_unicode.on_detection`: the agent asks for `redact`, which is not as tight as `block` of the preset standard
    ");
}

#[test]
fn an_agent_cannot_switch_on_the_keeping_of_prompts() {
    let agent = json!({"overrides": {"debug_logging": {"include_prompts": true}}});
    assert_eq!(refused(&json!({"preset": "regulated"}), &agent).len(), 1);
}

#[test]
fn a_tighter_preset_of_the_agent_is_merged_into_what_the_organization_holds() {
    let org = json!({"preset": "starter", "overrides": {"rate_limit": {"max_calls": 20}}});
    let plan = both(&org, &json!({"preset": "regulated"}));
    assert_eq!((plan.preset, plan.steps.len()), (Preset::Starter, 49));
    assert_eq!(plan.step("rate_limit").unwrap().options.integer("max_calls"), Some(20));
    assert_eq!(plan.step("detect_injection").unwrap().threshold, Some(5_000));
    assert_eq!(plan.step("detect_infra").unwrap().source, Source::Preset(Preset::Regulated));
}

#[test]
fn policies_tighten_last_and_never_loosen_whatever_their_order() {
    let mut switches = vec![
        switch("detect_pii", Action::Block, "rule_b"),
        switch("detect_pii", Action::Block, "rule_a"),
        switch("detect_secrets", Action::Log, "rule_c"),
        switch("detect_infra", Action::Notify, "rule_e"),
        switch("detect_infra", Action::Redact, "rule_d"),
    ];
    let one = ruled(&json!({}), &switches, &everything).unwrap();
    switches.reverse();
    assert_eq!(ruled(&json!({}), &switches, &everything).unwrap(), one);
    assert_eq!(one.step("detect_pii").unwrap().source.to_string(), "policy rule_a");
    assert_eq!(action(&one, "detect_pii"), Some(Action::Block));
    assert_eq!(action(&one, "detect_secrets"), Some(Action::Block));
    assert_eq!(one.step("detect_secrets").unwrap().source, Source::Preset(Preset::Starter));
    assert_eq!(action(&one, "detect_infra"), Some(Action::Redact));
}

#[test]
fn a_policy_that_asks_for_the_impossible_is_refused() {
    let why = |switch| ruled(&json!({}), &[switch], &everything).unwrap_err()[0].to_string();
    insta::assert_snapshot!(
        why(switch("detect_secret", Action::Block, "r1")),
        @"`rule r1`: unknown step `detect_secret`; did you mean `detect_secrets`?"
    );
    insta::assert_snapshot!(
        why(switch("call_llm", Action::Block, "r1")),
        @"`rule r1`: `call_llm` has no action: it simply runs"
    );
}

#[test]
fn a_preset_may_name_what_this_build_does_not_have_but_a_person_may_not() {
    let has = |id: &str| !matches!(id, "dlp" | "detect_infra");
    let plan = ruled(&json!({"preset": "standard"}), &[], &has).unwrap();
    assert_eq!((plan.steps.len(), plan.missing.as_slice()), (38, ["detect_infra", "dlp"].as_slice()));
    assert_eq!(plan.step("dlp"), None);
    let why = ruled(&json!({"overrides": {"dlp": {}}}), &[switch("detect_infra", Action::Log, "r1")], &has);
    insta::assert_snapshot!(why.unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), @"
    `overrides.dlp`: the organization names the step `dlp`, which this build does not have yet
    `rule r1`: the policy names the step `detect_infra`, which this build does not have yet
    ");
}

#[test]
fn an_answer_is_held_where_a_step_may_change_it() {
    assert!(!plan(&json!({"preset": "starter"})).holds_stream());
    assert!(plan(&json!({"preset": "standard"})).holds_stream());
    assert!(plan(&json!({"overrides": {"scan_output": {"on_detection": "redact"}}})).holds_stream());
    let after_the_fact = json!({"overrides": {"session_escalation": {"on_detection": "block"}}});
    assert!(!plan(&after_the_fact).holds_stream());
}

// Properties.

/// A value that the option can have, from a small range so that levels meet.
fn option_value(step: &'static StepSpec, pick: u8) -> Option<(&'static str, Value)> {
    let option = step.options.get(usize::from(pick) % step.options.len().max(1))?;
    let few = |n: u8| ["a", "b*", "bc", "d"].into_iter().skip(usize::from(n % 3)).take(2).collect::<Vec<_>>();
    let value = match option.name {
        "max_cost_usd" => json!(f64::from(pick) / 4.0),
        "window" => json!(["daily", "monthly"][usize::from(pick % 2)]),
        "tier" => json!(["authenticated", "elevated"][usize::from(pick % 2)]),
        "on_uncovered" => json!(["log", "notify", "block"][usize::from(pick % 3)]),
        "use_llm_judge" | "include_prompts" => json!(pick < 128),
        "custom_patterns" => json!([{"name": few(pick)[0], "pattern": "x"}]),
        "required_for" => json!([{"tool": few(pick)[0]}]),
        "scopes" => json!({few(pick)[0]: few(pick)}),
        "constraints" => json!({few(pick)[0]: {}}),
        "ttl_seconds" => json!(60 + i64::from(pick)),
        "retries" => json!(pick % 10),
        _ if option.kind == steps::OptionKind::Strings => json!(few(pick)),
        _ => json!(1 + i64::from(pick)),
    };
    Some((option.name, value))
}

fn some_override() -> impl Strategy<Value = (&'static StepSpec, Value)> {
    let fields = (any::<Option<bool>>(), any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u8>>());
    (0..49_usize, fields).prop_map(|(number, (enabled, action, threshold, option))| {
        let step = &steps::all()[number];
        let mut object = serde_json::Map::new();
        if let Some(enabled) = enabled.filter(|enabled| *enabled || step.is_optional()) {
            object.insert("enabled".into(), enabled.into());
        }
        if let Some(action) = action.and_then(|pick| step.actions.get(usize::from(pick) % step.actions.len().max(1))) {
            object.insert("on_detection".into(), action.as_str().into());
        }
        if let Some(threshold) = threshold.filter(|_| step.scored) {
            object.insert("threshold".into(), (f64::from(threshold) / 255.0).into());
        }
        if let Some((name, value)) = option.and_then(|pick| option_value(step, pick)) {
            object.insert(name.into(), value);
        }
        (step, Value::Object(object))
    })
}

fn some_pipeline() -> impl Strategy<Value = Value> {
    let preset = proptest::option::of(proptest::sample::select(vec!["starter", "standard", "regulated"]));
    (preset, proptest::collection::vec(some_override(), 0..6)).prop_map(|(preset, overrides)| {
        let overrides: serde_json::Map<_, _> =
            overrides.into_iter().map(|(s, value)| (s.id.to_owned(), value)).collect();
        match preset {
            Some(preset) => json!({"preset": preset, "overrides": overrides}),
            None => json!({"overrides": overrides}),
        }
    })
}

fn set(value: Option<&OptionValue>) -> Option<Vec<String>> {
    let json = value?.to_json();
    let names = json.as_object().map(|map| map.keys().cloned().collect());
    names.or_else(|| Some(json.as_array()?.iter().map(ToString::to_string).collect()))
}

/// Written apart from the merge: whether `found` is at least as tight as `floor`.
fn is_tight(tighter: Tighter, found: Option<&OptionValue>, floor: Option<&OptionValue>) -> bool {
    let number = |value: Option<&OptionValue>| {
        const WORDS: [&str; 7] = ["daily", "monthly", "authenticated", "elevated", "log", "notify", "block"];
        let rank = |word: &str| Some(f64::from(u8::try_from(WORDS.iter().position(|known| *known == word)?).unwrap()));
        value.map(|value| {
            let json = value.to_json();
            let yes = json.as_bool().map(|yes| f64::from(u8::from(yes)));
            yes.or_else(|| json.as_str().and_then(rank)).or_else(|| json.as_f64()).unwrap_or_default()
        })
    };
    let (list, floor_list) = (set(found), set(floor));
    match tighter {
        Tighter::Lower | Tighter::Off => floor.is_none() || number(found) <= number(floor) && found.is_some(),
        Tighter::Higher | Tighter::On => number(found) >= number(floor),
        Tighter::United | Tighter::ByName if matches!(found, Some(OptionValue::Scopes(_))) => true,
        Tighter::United | Tighter::ByName => {
            floor_list.is_none_or(|floor| floor.iter().all(|item| list.as_ref().unwrap().contains(item)))
        }
        Tighter::UnitedOfAll => match (list, floor_list) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(list), Some(floor)) => floor.iter().all(|item| list.contains(item)),
        },
        Tighter::Intersected => floor_list.is_none_or(|floor| {
            let covered =
                |item: &String| floor.contains(item) || (item == "\"bc\"" && floor.contains(&"\"b*\"".to_owned()));
            list.unwrap().iter().all(covered)
        }),
        Tighter::Exceptions => {
            list.unwrap_or_default().iter().all(|item| floor_list.as_ref().is_some_and(|f| f.contains(item)))
        }
    }
}

fn assert_never_looser(plan: &Plan, floor: &Plan) {
    for held in &floor.steps {
        let found = plan.step(held.spec.id).unwrap();
        assert!(found.action >= held.action, "{}", held.spec.id);
        assert!(found.threshold.unwrap_or(0) <= held.threshold.unwrap_or(0), "{}", held.spec.id);
        for option in held.spec.options {
            let (now, then) = (found.options.get(option.name), held.options.get(option.name));
            assert!(is_tight(option.tighter, now, then), "{} {}: {now:?} {then:?}", held.spec.id, option.name);
        }
    }
}

fn facts(plan: &Plan) -> Vec<(&'static str, Action, Option<u16>, &super::StepOptions)> {
    plan.steps.iter().map(|step| (step.spec.id, step.action, step.threshold, &step.options)).collect()
}

proptest! {
    #[test]
    fn a_plan_is_never_looser_than_any_of_its_layers(org in some_pipeline(), agent in some_pipeline()) {
        let Ok(alone) = compiled(&org, None) else { return Ok(()) };
        let Ok(plan) = compiled(&org, Some(&agent)) else { return Ok(()) };
        assert_never_looser(&plan, &alone);
        for (id, own) in &spec(&agent).overrides {
            let Some(found) = plan.step(id) else {
                assert_eq!(own.enabled, Some(false));
                continue;
            };
            assert!(own.on_detection.is_none_or(|action| found.action >= action));
            assert!(own.threshold.is_none_or(|threshold| found.threshold.unwrap_or(0) <= threshold));
            for (name, value) in own.options.iter() {
                let tighter = found.spec.option(name).unwrap().tighter;
                assert!(is_tight(tighter, found.options.get(name), Some(value)), "{id} {name}");
            }
        }
    }

    #[test]
    fn the_same_layer_twice_changes_nothing(org in some_pipeline()) {
        let alone = compiled(&org, None).unwrap();
        let twice = compiled(&org, Some(&org)).unwrap();
        assert_eq!(facts(&alone), facts(&twice));
    }

    #[test]
    fn rules_of_policies_are_merged_whatever_their_order(
        org in some_pipeline(),
        picks in proptest::collection::vec((0..49_usize, any::<u8>(), "[a-c]"), 0..8),
    ) {
        let switches = picks.iter().filter_map(|(number, pick, rule)| {
            let step = &steps::all()[*number];
            let action = *step.actions.get(usize::from(*pick) % step.actions.len().max(1))?;
            Some(switch(step.id, action, rule))
        });
        let mut switches: Vec<PolicySwitch> = switches.collect();
        let one = ruled(&org, &switches, &everything).unwrap();
        assert_never_looser(&one, &plan(&org));
        switches.reverse();
        assert_eq!(one, ruled(&org, &switches, &everything).unwrap());
    }

    #[test]
    fn a_pipeline_survives_storage(org in some_pipeline()) {
        let read = spec(&org);
        assert_eq!(spec(&read.to_json()), read);
    }

    #[test]
    fn reading_any_text_never_panics(text in any::<String>(), yaml in "[ a-z:{}\\[\\],*&!|>\n-]{0,200}") {
        drop(import_yaml(&text));
        drop(import_yaml(&yaml));
        drop(import(&json!({ text.clone(): text.clone(), "overrides": { text.clone(): { "on_detection": text } } })));
    }
}
