//! The page of steps against the registry.

use super::*;
use crate::domain::steps::{Phase, Preset};

#[test]
fn every_bound_step_stands_in_the_registry_and_acts_in_its_phase() {
    assert_eq!(bound_steps().count(), STEPS.len());
    for (id, run) in STEPS {
        let spec = steps::get(id).unwrap();
        let fits = match run {
            Run::Before(_) | Run::AtAdmission(_) => spec.acts_at() < steps::get("call_llm").unwrap().acts_at(),
            Run::InCall => spec.phase == Phase::Call,
            Run::OnAnswer => spec.acts_at() > steps::get("call_llm").unwrap().acts_at(),
        };
        assert!(fits, "{id}");
    }
}

#[test]
fn money_is_limited_at_the_admission() {
    let at_admission = STEPS.iter().filter(|(_, run)| matches!(run, Run::AtAdmission(_)));
    assert_eq!(at_admission.map(|(id, _)| *id).collect::<Vec<_>>(), ["budget", "session_budget"]);
}

#[test]
fn every_step_of_the_starter_preset_is_bound() {
    let starter = steps::all().iter().filter(|spec| !matches!(spec.cell(Preset::Starter), steps::Cell::Absent));
    let missing: Vec<&str> = starter.map(|spec| spec.id).filter(|id| !has_step(id)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
