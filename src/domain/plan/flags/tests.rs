//! The rules of flags as sentences.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Applied, BudgetBounds, BudgetFlag, DbFlag, EmailFlag, FilesFlag, Flags, Mode, PiiAnswer, SecretsAnswer, ToolsFlag,
};
use crate::domain::{
    detection::{Action, Family},
    money::NanoUsd,
    plan::{Plan, PlanLayers, compile, import},
};

fn plan(pipeline: &Value) -> Plan {
    let org = import(pipeline).unwrap();
    compile(&PlanLayers { org: &org, agent: None, switches: &[] }, &|_| true).unwrap()
}

fn starter() -> Plan {
    plan(&json!({"preset": "starter"}))
}

fn standard() -> Plan {
    plan(&json!({"preset": "standard"}))
}

fn apply(header: &str, plan: &Plan, unlocked: &[&str]) -> Applied {
    let unlocked: BTreeSet<String> = unlocked.iter().map(|flag| (*flag).to_owned()).collect();
    Flags::parse(header).unwrap().apply(plan, &unlocked)
}

fn dollars(amount: f64) -> Option<NanoUsd> {
    NanoUsd::from_dollars(amount)
}

fn error(header: &str) -> String {
    Flags::parse(header).unwrap_err().to_string()
}

#[test]
fn every_value_of_the_table_is_read() {
    let flags = Flags::parse(
        "mode=lockdown, pii=mask,secrets=block , budget=custom:0.05:2.5, tools=allowlist:search:read_*, files=sandbox, \
         database=safe_write, email=internal:Example.org",
    );
    let expected = Flags {
        mode: Some(Mode::Lockdown),
        pii: Some(PiiAnswer::Mask),
        secrets: Some(SecretsAnswer::Block),
        budget: Some(BudgetFlag::Custom { per_call: NanoUsd(50_000_000), per_session: NanoUsd(2_500_000_000) }),
        tools: Some(ToolsFlag::Allow(vec!["search".into(), "read_*".into()])),
        files: Some(FilesFlag::Project),
        db: Some(DbFlag::SafeWrite),
        email: Some(EmailFlag::Internal("example.org".into())),
    };
    assert_eq!(flags, Ok(expected));
    for header in [
        "mode=observe",
        "mode=warn",
        "mode=enforce",
        "pii=block",
        "pii=flag",
        "pii=off",
        "secrets=redact",
        "secrets=flag",
        "budget=dev",
        "budget=standard",
        "budget=unlimited",
        "tools=denylist:rm",
        "tools=log",
        "tools=block",
        "files=read_only",
        "files=project",
        "files=block",
        "files=allow",
        "db=read_only",
        "db=block",
        "email=mirror:qa@example.org",
        "email=block",
        "email=allow",
        "",
        " , ",
    ] {
        assert!(Flags::parse(header).is_ok(), "{header}");
    }
}

#[test]
fn an_unknown_flag_or_value_is_named_with_the_nearest_valid_one() {
    insta::assert_snapshot!(error("mod=warn"), @"unknown flag `mod`; did you mean `mode`?");
    insta::assert_snapshot!(
        error("mode=enforced"),
        @"unknown value `enforced` of the flag `mode`; did you mean `enforce`?"
    );
    insta::assert_snapshot!(
        error("pii=maximal"),
        @"unknown value `maximal` of the flag `pii`; valid are `mask`, `block`, `flag`, `off`"
    );
    insta::assert_snapshot!(
        error("budget=custom:1"),
        @"unknown value `custom:1` of the flag `budget`; did you mean `custom:<per call>:<per session>`?"
    );
    insta::assert_snapshot!(
        error("budget=custum:1:2"),
        @"unknown value `custum:1:2` of the flag `budget`; did you mean `custom:<per call>:<per session>`?"
    );
    insta::assert_snapshot!(
        error("tools=allowlst:a"),
        @"unknown value `allowlst:a` of the flag `tools`; did you mean `allowlist:<tool>:<tool>`?"
    );
    insta::assert_snapshot!(
        error("xyzzyxyzzy=1"),
        @"unknown flag `xyzzyxyzzy`; valid are `mode`, `pii`, `secrets`, `budget`, `tools`, `files`, `db`, `email`, `database`"
    );
    insta::assert_snapshot!(error("warn"), @"`warn` is not a flag; write `flag=value, flag=value`");
    insta::assert_snapshot!(error("db=block, database=block"), @"the flag `db` is given twice");
    for header in [
        "budget=custom:-1:2",
        "budget=custom:inf:2",
        "budget=custom:1e3:2",
        "budget=custom::",
        "tools=allowlist:",
        "tools=allowlist:a b",
        "email=mirror:nobody",
        "email=internal:a..b",
        "email=mirror:a@b@c",
        "files=",
    ] {
        assert!(Flags::parse(header).is_err(), "{header}");
    }
    assert!(Flags::parse(&"mode=warn,".repeat(500)).is_err());
}

#[test]
fn no_flags_leave_the_plan_as_it_is() {
    let applied = apply("", &standard(), &[]);
    let budget = BudgetBounds { per_day: dollars(100.0), ..BudgetBounds::default() };
    assert_eq!(applied.effective.budget, budget);
    assert_eq!((applied.effective.mode, applied.ignored.len()), (Mode::Enforce, 0));
    for step in &standard().steps {
        assert_eq!(applied.effective.action(step), step.action);
    }
}

#[test]
fn what_tightens_holds_although_everything_is_locked() {
    let header = "mode=lockdown, pii=block, secrets=block, budget=dev, tools=allowlist:a, \
                  files=read_only, db=block, email=block";
    let applied = apply(header, &starter(), &[]);
    assert!(applied.ignored.is_empty(), "{:?}", applied.ignored);
    assert_eq!(applied.effective.mode, Mode::Lockdown);
    assert_eq!(applied.effective.pii, Some(PiiAnswer::Block));
    assert_eq!((applied.effective.budget.per_session, applied.effective.budget.per_day), (dollars(1.0), dollars(5.0)));
    assert!(!applied.effective.tools.unwrap().replaces);
}

#[test]
fn what_loosens_is_ignored_and_named_while_it_is_locked() {
    let header = "mode=observe, pii=off, secrets=flag, budget=unlimited, tools=log, files=allow, email=allow";
    let applied = apply(header, &standard(), &[]);
    assert_eq!(applied.ignored, ["mode", "pii", "secrets", "budget", "tools", "files", "email"]);
    assert_eq!(applied.effective, apply("", &standard(), &[]).effective);
    assert_eq!(apply("email=mirror:me@example.org", &starter(), &[]).ignored, ["email"]);
}

#[test]
fn what_loosens_holds_where_the_organization_has_unlocked_it() {
    let all = super::FLAGS.map(|(flag, _)| flag);
    let header = "mode=warn, pii=off, secrets=flag, budget=unlimited, tools=allowlist:a, files=allow, email=mirror:a@b";
    let Applied { effective, ignored } = apply(header, &standard(), &all);
    assert!(ignored.is_empty());
    assert_eq!(
        (effective.mode, effective.pii, effective.secrets),
        (Mode::Warn, Some(PiiAnswer::Off), Some(SecretsAnswer::Flag))
    );
    assert_eq!(effective.budget, BudgetBounds::default());
    assert!(effective.tools.unwrap().replaces);
    assert_eq!(apply("pii=off, mode=warn", &standard(), &["mode"]).ignored, ["pii"]);
}

#[test]
fn a_cap_never_raises_the_bound_of_the_plan_unless_unlocked() {
    let pipeline = json!({"preset": "standard", "overrides": {"session_budget": {"max_cost_usd": 0.5}}});
    let bounds = |header: &str, unlocked: &[&str]| apply(header, &plan(&pipeline), unlocked).effective.budget;
    assert_eq!(bounds("budget=dev", &[]).per_session, dollars(0.5));
    assert_eq!(bounds("budget=dev", &[]).per_day, dollars(5.0));
    assert_eq!(bounds("budget=dev", &["budget"]).per_session, dollars(1.0));
    assert_eq!(bounds("budget=custom:0.1:0.2", &[]).per_call, dollars(0.1));
    assert_eq!(bounds("budget=custom:0.1:0.2", &[]).per_session, dollars(0.2));
    let monthly = json!({"preset": "standard", "overrides": {"budget": {"window": "monthly"}}});
    let budget = apply("budget=dev", &plan(&monthly), &[]).effective.budget;
    assert_eq!((budget.per_day, budget.per_month), (dollars(5.0), dollars(100.0)));
}

#[test]
fn modes_act_on_detections_only() {
    let plan = plan(&json!({"preset": "regulated"}));
    let action = |mode: &str, id: &str| apply(mode, &plan, &["mode"]).effective.action(plan.step(id).unwrap());
    for mode in ["mode=observe", "mode=warn"] {
        assert_eq!(action(mode, "detect_secrets"), Action::Log);
        for gate in
            ["validate_input", "rate_limit", "budget", "tool_permissions", "require_approval", "output_constraints"]
        {
            assert_eq!(action(mode, gate), Action::Block, "{gate}");
        }
        assert_eq!(action(mode, "pii_tokenize"), Action::Redact);
    }
    assert_eq!(action("mode=lockdown", "detect_business"), Action::Block);
    assert_eq!(action("mode=lockdown", "output_dedup"), Action::Block);
    assert_eq!(action("mode=lockdown", "cost_tracking"), Action::Log);
}

#[test]
fn flags_for_answers_speak_for_their_family_only() {
    let plan = starter();
    let effective = apply("pii=mask, secrets=block", &plan, &[]).effective;
    let scan = plan.step("scan_output").unwrap();
    assert_eq!(effective.answer_action(scan, Family::PersonalData), Some(Action::Redact));
    assert_eq!(effective.answer_action(scan, Family::Secrets), Some(Action::Block));
    assert_eq!(effective.answer_action(scan, Family::Unicode), Some(Action::Log));
    let off = apply("pii=off", &plan, &["pii"]).effective;
    assert_eq!(off.answer_action(scan, Family::PersonalData), None);
}

#[test]
fn a_stream_is_held_as_the_flags_make_it() {
    let holds = |header: &str, plan: &Plan| apply(header, plan, &["mode"]).effective.holds_stream(plan);
    assert!(!holds("", &starter()));
    assert!(holds("secrets=redact", &starter()));
    assert!(holds("mode=lockdown", &starter()));
    assert!(!holds("mode=observe, secrets=redact", &starter()));
    assert!(holds("", &standard()));
    assert!(holds("mode=observe", &plan(&json!({"preset": "regulated"}))), "gates act in every mode");
}

proptest! {
    #[test]
    fn reading_any_text_never_panics(header in any::<String>(), near in "[a-z]{2,7}=[a-z_:.@0-9,= ]{0,40}") {
        drop(Flags::parse(&header));
        drop(Flags::parse(&near));
    }

    #[test]
    fn locked_flags_never_loosen(
        mode in proptest::sample::select(vec!["observe", "warn", "enforce", "lockdown"]),
        pii in proptest::sample::select(vec!["mask", "block", "flag", "off"]),
        budget in proptest::sample::select(vec!["dev", "standard", "custom:1:2", "unlimited"]),
        preset in proptest::sample::select(vec!["starter", "standard", "regulated"]),
    ) {
        let plan = plan(&json!({"preset": preset}));
        let Applied { effective, .. } = apply(&format!("mode={mode}, pii={pii}, budget={budget}"), &plan, &[]);
        for step in &plan.steps {
            assert!(effective.action(step) >= step.action);
        }
        let scan = plan.step("scan_output").unwrap();
        assert!(effective.answer_action(scan, Family::PersonalData) >= Some(scan.action));
        let bounds = BudgetBounds::of(&plan);
        let now = effective.budget;
        for (now, then) in [(now.per_session, bounds.per_session), (now.per_day, bounds.per_day)] {
            assert!(then.is_none_or(|then| now.is_some_and(|now| now <= then)));
        }
    }
}
