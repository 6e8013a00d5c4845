//! Pipelines: the steps there are, and what an organization or an agent makes of them.

use std::collections::BTreeSet;

use axum::{
    Extension,
    extract::{Path, State as Ask},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{agents, change, configuration, with_receipt};
use crate::{
    admission::{ChangeRefused, ChangeSet, check_agents},
    domain::{
        plan::{self, PipelineSpec, flags::FLAGS},
        rows::{Table, Write},
        steps::{self, Preset},
    },
    http::{error::ApiError, extract::Json, middleware::Identified, state::State},
    pipeline::{UNREAD_OPTIONS, has_step},
    tenants::{Agent, OrgConfig, Scope, ScopeKind, StoredPipeline},
};

/// All 49 steps, and which of them this build has.
pub(in crate::http) async fn steps() -> Json<Value> {
    let all: Vec<Value> = steps::all()
        .iter()
        .map(|spec| {
            let presets: Vec<&str> = Preset::ALL
                .into_iter()
                .filter(|preset| !matches!(spec.cell(*preset), steps::Cell::Absent))
                .map(Preset::as_str)
                .collect();
            let options: Vec<&str> = spec.options.iter().map(|option| option.name).collect();
            json!({
                "number": spec.number, "id": spec.id, "aliases": spec.aliases, "position": spec.position,
                "phase": spec.phase, "category": spec.category, "kind": spec.kind, "fail_mode": spec.fail_mode(),
                "options": options, "presets": presets, "description": spec.description,
                "implemented": has_step(spec.id), "missing": !has_step(spec.id),
            })
        })
        .collect();
    Json(json!({ "steps": all, "total": all.len() }))
}

/// What the organization stored, and the plan that a new agent would get.
pub(in crate::http) async fn get(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let stored = snapshot.config.pipeline(&org_scope(&snapshot.config)).map(|stored| stored.spec.clone());
    let fallback = state.config.pipeline.preset.clone();
    Ok(Json(
        json!({ "pipeline": stored, "default_preset": fallback, "unlocked_flags": snapshot.config.organization.unlocked_flags }),
    ))
}

/// Stores the organization's pipeline; every agent must still compile under it.
pub(in crate::http) async fn put(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Json(asked): Json<Value>,
) -> Result<Json<Value>, ApiError> {
    let spec = import(&asked)?;
    store(&state, &who, spec, |config| Ok(org_scope(config))).await
}

/// What an agent stored.
pub(in crate::http) async fn get_of_agent(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let snapshot = configuration(&state, &who).await?;
    let agent = agents::find(&snapshot.config, &id).ok_or_else(|| ApiError::not_found("the agent"))?;
    let stored = snapshot.config.pipeline(&agent_scope(agent)).map(|stored| stored.spec.clone());
    let view = snapshot.view(agent)?;
    let steps: Vec<Value> = view
        .plan
        .steps
        .iter()
        .map(|step| json!({ "step": step.spec.id, "action": step.action, "source": step.source.to_string() }))
        .collect();
    Ok(Json(json!({ "pipeline": stored, "plan": steps, "missing": view.plan.missing })))
}

/// Stores an agent's pipeline, which may only tighten.
pub(in crate::http) async fn put_of_agent(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
    Json(asked): Json<Value>,
) -> Result<Json<Value>, ApiError> {
    let spec = import(&asked)?;
    store(&state, &who, spec, move |config| {
        let agent = agents::find(config, &id).ok_or_else(|| ChangeRefused::NotFound("the agent".to_owned()))?;
        Ok(agent_scope(agent))
    })
    .await
}

/// Flags that agents may loosen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Unlocked {
    flags: BTreeSet<String>,
}

/// Sets which flags agents of the organization may loosen; none by default.
pub(in crate::http) async fn put_unlocked(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Json(asked): Json<Unlocked>,
) -> Result<Json<Value>, ApiError> {
    let names: Vec<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = asked.flags.iter().find(|flag| !names.contains(&flag.as_str())) {
        let words = format!("unknown flag `{unknown}`; valid are {}", names.join(", "));
        return Err(ApiError::invalid(words).with_param(Some("flags".to_owned())));
    }
    let flags: Vec<String> = asked.flags.into_iter().collect();
    let stored = flags.clone();
    let made = change(&state, &who, move |config| {
        let mut organization = config.organization.clone();
        organization.unlocked_flags = stored;
        Ok(ChangeSet {
            kind: "flags.unlocked",
            content: json!({ "flags": organization.unlocked_flags }),
            writes: vec![Write::put(Table::Organization, organization.org_id.as_str(), &organization)?],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "flags": flags }), &made)))
}

fn import(asked: &Value) -> Result<PipelineSpec, ApiError> {
    let spec = plan::import(asked).map_err(|errors| {
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        ApiError::invalid(words.join("; ")).with_code("invalid_pipeline").with_detail(json!({ "errors": words }))
    })?;
    for (step, option) in UNREAD_OPTIONS {
        if spec.overrides.get(step).is_some_and(|own| own.options.get(option).is_some()) {
            let words = format!("`overrides.{step}.{option}`: this build does not act on this option yet");
            return Err(ApiError::invalid(words).with_code("invalid_pipeline"));
        }
    }
    Ok(spec)
}

async fn store(
    state: &State,
    who: &Identified,
    spec: PipelineSpec,
    scope: impl FnOnce(&OrgConfig) -> Result<Scope, ChangeRefused> + Clone + Send + Sync + 'static,
) -> Result<Json<Value>, ApiError> {
    let shown = spec.to_json();
    let spec = shown.clone();
    let compiler = state.admission.snapshots.compiler();
    let made = change(state, who, move |config| {
        let stored = StoredPipeline { scope: scope(config)?, spec };
        let mut after = config.clone();
        after.pipelines.retain(|other| other.scope != stored.scope);
        after.pipelines.push(stored.clone());
        check_agents(&after, &compiler)?;
        let id = match stored.scope.scope_type {
            ScopeKind::Org => "org".to_owned(),
            ScopeKind::Project | ScopeKind::Agent => stored.scope.scope_id.clone(),
        };
        Ok(ChangeSet {
            kind: "pipeline.stored",
            content: json!({ "scope_id": stored.scope.scope_id, "scope_type": stored.scope.scope_type }),
            writes: vec![Write::put(Table::Pipeline, id, &stored)?],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "pipeline": shown }), &made)))
}

fn org_scope(config: &OrgConfig) -> Scope {
    Scope { scope_type: ScopeKind::Org, scope_id: config.organization.org_id.as_str().to_owned() }
}

fn agent_scope(agent: &Agent) -> Scope {
    Scope { scope_type: ScopeKind::Agent, scope_id: agent.agent_id.as_str().to_owned() }
}
