//! The registry against the reference, line by line.

use std::collections::BTreeSet;

use super::{Cell, FailMode, Phase, Preset, StepSpec, all, find, get, hint};

fn size(preset: Preset) -> usize {
    all().iter().filter(|step| !matches!(step.cell(preset), Cell::Absent)).count()
}

#[test]
fn the_registry_has_49_rows_numbered_in_order_with_unique_names() {
    assert!(all().iter().zip(1..).all(|(step, number)| step.number == number));
    let names: BTreeSet<&str> =
        all().iter().flat_map(|s| std::iter::once(s.id).chain(s.aliases.iter().copied())).collect();
    assert_eq!(names.len(), 49 + all().iter().map(|step| step.aliases.len()).sum::<usize>());
}

#[test]
fn positions_ascend_and_phases_never_go_back() {
    assert!(all().windows(2).all(|pair| pair[0].position < pair[1].position && pair[0].phase <= pair[1].phase));
}

#[test]
fn presets_have_11_40_and_49_steps_and_each_holds_the_looser_one() {
    assert_eq!(Preset::ALL.map(size), [11, 40, 49]);
    let present = |cell: &Cell| !matches!(cell, Cell::Absent);
    for step in all() {
        assert!(step.cells.windows(2).all(|pair| !present(&pair[0]) || present(&pair[1])), "{}", step.id);
    }
}

#[test]
fn filter_tools_acts_just_before_the_provider_is_called() {
    let mut steps: Vec<&StepSpec> = all().iter().collect();
    steps.sort_by_key(|step| step.acts_at());
    let ids: Vec<&str> = steps.iter().map(|step| step.id).collect();
    let lines: Vec<String> = ids.chunks(6).map(|ids| ids.join(" ")).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    validate_input rate_limit budget session_budget user_tool_scopes detect_pii
    pii_tokenize detect_secrets detect_infra detect_business detect_unicode taint_track
    classify_data adaptive_thresholds inspect_image detect_injection detect_escalation detect_tool_poison
    detect_code_exec detect_multimodal detect_exfiltration detect_memory_poison detect_insider_threat model_routing
    filter_tools call_llm call_tool tool_permissions tool_constraints scan_tool_calls
    require_approval verify_tool_governance forbidden_zones mint_capability_token scan_output dlp
    pii_restore content_safety output_constraints output_dedup verify_artifact shell_bleed
    taint_check session_escalation classify_response cost_tracking loop_guard session_loop_guard
    debug_logging
    ");
}

#[test]
fn published_positions_are_those_of_the_reference() {
    let published: Vec<u16> = all().iter().filter(|step| step.published).map(|step| step.position).collect();
    let reference = [
        100, 110, 120, 200, 210, 220, 230, 240, 250, 260, 300, 310, 320, 355, 360, 365, 600, 610, 620, 625, 630, 635,
        640,
    ];
    assert_eq!(published, reference);
}

#[test]
fn a_cell_says_only_what_its_step_can_do() {
    for step in all() {
        for cell in step.cells {
            let Cell::Acts { action, threshold, options } = cell else { continue };
            assert!(step.actions.contains(&action), "{}", step.id);
            assert!(threshold.is_none() || step.scored, "{}", step.id);
            assert!(options.iter().all(|(name, _)| step.option(name).is_some()), "{}", step.id);
        }
        let runs = step.cells.iter().any(|cell| matches!(cell, Cell::Runs));
        assert_eq!(runs, step.actions.is_empty(), "{}", step.id);
        assert_eq!(step.span.is_some(), step.phase == Phase::After, "{}", step.id);
    }
}

#[test]
fn only_tracking_fails_open() {
    let open: Vec<&str> = all().iter().filter(|s| s.fail_mode() == FailMode::Open).map(|step| step.id).collect();
    assert_eq!(open, ["cost_tracking", "loop_guard", "session_loop_guard", "debug_logging"]);
}

#[test]
fn an_alias_finds_its_step_and_a_slip_is_told_the_nearest_id() {
    assert_eq!(find("detect_prompt_injection").map(|step| step.id), Some("detect_injection"));
    assert!(find("detect_pi").is_none() && get("human_approval").is_none());
    assert_eq!(hint("detect_pi"), "did you mean `detect_pii`?");
    assert!(hint("qqqqqqqqqq").contains("/api/pipeline/steps"));
}

/// Reads the table of cells back as the reference writes it.
#[test]
fn the_presets_act_as_the_reference_says() {
    let word = |cell: Cell| match cell {
        Cell::Absent => "–".to_owned(),
        Cell::Runs => "runs".to_owned(),
        Cell::Acts { action, threshold: Some(at), .. } => format!("{}@{at}", action.as_str()),
        Cell::Acts { action, .. } => action.as_str().to_owned(),
    };
    let rows = all().iter().map(|step| format!("{} {}", step.id, step.cells.map(word).join(" ")));
    insta::assert_snapshot!(rows.collect::<Vec<_>>().join("\n"), @"
    validate_input block block block
    rate_limit block block block
    budget – block block
    session_budget – block block
    user_tool_scopes – block block
    detect_pii log block block
    pii_tokenize – redact redact
    detect_secrets block block block
    detect_infra – log redact
    detect_business – log block
    detect_unicode block block block
    taint_track – log log
    classify_data log log log
    adaptive_thresholds – log log
    inspect_image – log log
    detect_injection block@8000 block@6000 block@5000
    detect_escalation – block block
    detect_tool_poison – block block
    detect_code_exec – block block
    detect_multimodal – block block
    detect_exfiltration – block block
    detect_memory_poison – block block
    detect_insider_threat – – block
    model_routing – – block
    call_llm runs runs runs
    call_tool runs runs runs
    tool_permissions – block block
    tool_constraints – block block
    filter_tools – runs runs
    scan_tool_calls – block block
    require_approval – – block
    verify_tool_governance – – block
    forbidden_zones – – block
    mint_capability_token – runs runs
    scan_output log redact block
    dlp – redact block
    pii_restore – runs runs
    content_safety – redact block
    output_constraints – – block
    output_dedup – log log
    verify_artifact – – block
    shell_bleed – redact block
    taint_check – redact block
    session_escalation – log block
    classify_response – – log
    cost_tracking log log log
    loop_guard – block block
    session_loop_guard – log block
    debug_logging – – log
    ");
}
