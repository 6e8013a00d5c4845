//! Policies: drafts, versions, publishing, assignment. Served under `/api/policies` and `/api/v2/policies` alike.
//!
//! Owns the life of a version (one open draft; publishing retires the active one; the number only grows) and its replies.
//! What may be published is for `policy` to say; what is published decides from the acknowledgement on.

mod shapes;

use axum::{
    Extension, Router,
    extract::{Path, State as Ask},
    routing::{delete, get, post, put},
};
use serde::Deserialize;
use serde_json::{Value, json};

use shapes::{existing, find, put_version, refused, shown, shown_version, valid_rules, version, version_row};

use super::{change, configuration, random_id, text, with_receipt};
use crate::{
    admission::{ChangeRefused, ChangeSet, check_agents},
    detect::personal_data_kinds,
    domain::{
        clock::Micros,
        ids::{PolicyId, ProjectId},
        rows::{Table, Write},
    },
    http::{
        error::ApiError,
        extract::Json,
        middleware::{Guard, Identified},
        state::State,
    },
    policy::{parse_rules, publishable, unknown_entities},
    tenants::{Assignment, OrgConfig, Policy, PolicyVersion, Scope, ScopeKind, VersionStatus},
};

/// The routes below either prefix.
pub(in crate::http) fn routes(may: &Guard) -> Router<State> {
    Router::new()
        .route("/", may.on("policies.read", get(list)))
        .route("/", may.on("policies.write", post(create)))
        .route("/{id}", may.on("policies.read", get(show)))
        .route("/{id}", may.on("policies.write", delete(remove)))
        .route("/{id}/versions", may.on("policies.read", get(versions)))
        .route("/{id}/versions", may.on("policies.write", post(draft)))
        .route("/{id}/versions/{n}/rules", may.on("policies.write", put(edit)))
        .route("/{id}/versions/{n}/publish", may.on("policies.write", post(publish)))
        .route("/{id}/assignments", may.on("policies.read", get(assignments)))
        .route("/{id}/assignments", may.on("policies.write", post(assign)))
        .route("/assignments/{id}", may.on("policies.write", delete(unassign)))
}

type Reply = Result<Json<Value>, ApiError>;

/// A new policy, with or without rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    rules: Option<Value>,
    /// The published clients name the organization; it must be the caller's.
    #[serde(default)]
    org_id: Option<String>,
}

async fn create(Ask(state): Ask<State>, Extension(who): Extension<Identified>, Json(asked): Json<NewPolicy>) -> Reply {
    if asked.org_id.as_deref().is_some_and(|named| named != who.principal.org().as_str()) {
        return Err(ApiError::not_found("the organization"));
    }
    let name = text("name", &asked.name, 120)?;
    let rules = valid_rules(asked.rules.unwrap_or_else(|| json!([])))?;
    let count = rules.as_array().map_or(0, Vec::len);
    let policy_id = PolicyId::parse(&random_id("pol")?).map_err(|_| ApiError::internal())?;
    let now = state.clock.now();
    let policy = Policy {
        policy_id: policy_id.clone(),
        name: name.clone(),
        description: asked.description,
        owner: who.principal.name(),
        created_at: now,
    };
    let version = version(&policy_id, 1, rules, "", now);
    let made = change(&state, &who, move |config| {
        if config.policies.values().any(|other| other.name == policy.name) {
            let message = format!("a policy named `{}` exists already", policy.name);
            return Err(ChangeRefused::Conflict { code: "policy_exists", message });
        }
        Ok(ChangeSet {
            kind: "policy.created",
            content: json!({ "name": policy.name, "policy": policy.policy_id, "version": 1 }),
            writes: vec![Write::put(Table::Policy, policy.policy_id.as_str(), &policy)?, put_version(&version)?],
        })
    })
    .await?;
    let body = json!({
        "policy_id": policy_id, "id": policy_id, "name": name,
        "version_no": 1, "status": "draft", "rule_count": count,
    });
    Ok(Json(with_receipt(body, &made)))
}

async fn list(Ask(state): Ask<State>, Extension(who): Extension<Identified>) -> Reply {
    let snapshot = configuration(&state, &who).await?;
    let config = &snapshot.config;
    let data: Vec<Value> = config.policies.values().map(|policy| shown(config, policy)).collect();
    Ok(Json(json!({ "data": data, "page": { "cursor_next": null, "total": data.len() } })))
}

async fn show(Ask(state): Ask<State>, Extension(who): Extension<Identified>, Path(id): Path<String>) -> Reply {
    let snapshot = configuration(&state, &who).await?;
    let config = &snapshot.config;
    let policy = find(config, &id).ok_or_else(|| ApiError::not_found("the policy"))?;
    let active = config.active_version(&policy.policy_id).map(shown_version);
    let draft = config.draft(&policy.policy_id).map(shown_version);
    let shown = shown(config, policy);
    Ok(Json(json!({ "policy": shown, "id": policy.policy_id, "active_version": active, "draft_version": draft })))
}

async fn remove(Ask(state): Ask<State>, Extension(who): Extension<Identified>, Path(id): Path<String>) -> Reply {
    let made = change(&state, &who, move |config| {
        let policy = existing(config, &id)?;
        let mut writes = vec![Write::delete(Table::Policy, policy.policy_id.as_str())];
        for version in config.versions_of(&policy.policy_id) {
            writes.push(Write::delete(Table::PolicyVersion, version_row(version)));
        }
        for assignment in config.assignments.iter().filter(|a| a.policy_id == policy.policy_id) {
            writes.push(Write::delete(Table::PolicyAssignment, assignment.assignment_id.clone()));
        }
        Ok(ChangeSet {
            kind: "policy.deleted",
            content: json!({ "name": policy.name, "policy": policy.policy_id }),
            writes,
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "removed": true }), &made)))
}

async fn versions(Ask(state): Ask<State>, Extension(who): Extension<Identified>, Path(id): Path<String>) -> Reply {
    let snapshot = configuration(&state, &who).await?;
    let policy = find(&snapshot.config, &id).ok_or_else(|| ApiError::not_found("the policy"))?;
    let data: Vec<Value> = snapshot.config.versions_of(&policy.policy_id).into_iter().map(shown_version).collect();
    Ok(Json(json!({ "data": data, "page": { "cursor_next": null, "total": data.len() } })))
}

/// A new draft.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDraft {
    #[serde(default)]
    rules: Option<Value>,
    #[serde(default)]
    change_note: String,
}

async fn draft(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
    asked: Option<Json<NewDraft>>,
) -> Reply {
    let asked = asked.map(|Json(asked)| asked).unwrap_or_default();
    let rules = asked.rules.map(valid_rules).transpose()?;
    let now = state.clock.now();
    let seen = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
    let tell = std::sync::Arc::clone(&seen);
    let made = change(&state, &who, move |config| {
        let policy = existing(config, &id)?;
        if let Some(open) = config.draft(&policy.policy_id) {
            let message = format!("version {} of this policy is an open draft; edit or publish it", open.version_no);
            return Err(ChangeRefused::Conflict { code: "draft_open", message });
        }
        let newest = config.versions_of(&policy.policy_id).last().map_or(0, |v| v.version_no);
        // Without rules of its own a draft starts from what is active.
        let start = || config.active_version(&policy.policy_id).map_or_else(|| json!([]), |v| v.rules.clone());
        let version = version(&policy.policy_id, newest + 1, rules.unwrap_or_else(start), &asked.change_note, now);
        let count = version.rules.as_array().map_or(0, Vec::len);
        *tell.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (version.version_no, count);
        Ok(ChangeSet {
            kind: "policy.drafted",
            content: json!({ "policy": policy.policy_id, "version": version.version_no }),
            writes: vec![put_version(&version)?],
        })
    })
    .await?;
    let (number, count) = *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let body = json!({ "version_no": number, "id": number, "status": "draft", "rule_count": count });
    Ok(Json(with_receipt(body, &made)))
}

/// Rules for a draft.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRules {
    rules: Value,
    #[serde(default)]
    change_note: Option<String>,
}

async fn edit(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path((id, number)): Path<(String, u32)>,
    Json(asked): Json<NewRules>,
) -> Reply {
    let rules = valid_rules(asked.rules)?;
    let count = rules.as_array().map_or(0, Vec::len);
    let made = change(&state, &who, move |config| {
        let policy = existing(config, &id)?;
        let draft = config.draft(&policy.policy_id).filter(|draft| draft.version_no == number);
        let draft = draft.ok_or_else(|| ChangeRefused::Conflict {
            code: "not_a_draft",
            message: format!("version {number} is not the open draft; only a draft can be edited"),
        })?;
        let change_note = asked.change_note.unwrap_or_else(|| draft.change_note.clone());
        let version = PolicyVersion { rules, change_note, ..draft.clone() };
        Ok(ChangeSet {
            kind: "policy.edited",
            content: json!({ "policy": policy.policy_id, "version": number }),
            writes: vec![put_version(&version)?],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "version_no": number, "status": "draft", "rule_count": count }), &made)))
}

async fn publish(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path((id, number)): Path<(String, u32)>,
) -> Reply {
    let now = state.clock.now();
    let compiler = state.admission.snapshots.compiler();
    let made = change(&state, &who, move |config| {
        let policy = existing(config, &id)?;
        let draft = config.draft(&policy.policy_id).filter(|draft| draft.version_no == number);
        let draft = draft.ok_or_else(|| ChangeRefused::Conflict {
            code: "not_a_draft",
            message: format!("version {number} is not the open draft; only a draft can be published"),
        })?;
        let rules = parse_rules(&draft.rules).map_err(|findings| refused("the rules are not valid", &findings))?;
        publishable(&rules).map_err(|findings| refused("the rules cannot be published", &findings))?;
        let unknown = unknown_entities(&rules, &personal_data_kinds());
        if !unknown.is_empty() {
            return Err(refused("the rules cannot be published", &unknown));
        }
        let active = PolicyVersion { status: VersionStatus::Active, published_at: Some(now), ..draft.clone() };
        let retired = config.active_version(&policy.policy_id);
        let retired = retired.map(|version| PolicyVersion { status: VersionStatus::Retired, ..version.clone() });
        let mut after = config.clone();
        after.versions.retain(|v| v.policy_id != policy.policy_id);
        after.versions.push(active.clone());
        check_agents(&after, &compiler)?;
        let mut writes = vec![put_version(&active)?];
        if let Some(retired) = &retired {
            writes.push(put_version(retired)?);
        }
        let rules: Vec<Value> =
            rules.iter().map(|rule| json!({ "kind": rule.body.kind(), "ordinal": rule.ordinal })).collect();
        Ok(ChangeSet {
            kind: "policy.published",
            content: json!({ "name": policy.name, "policy": policy.policy_id, "rules": rules, "version": number }),
            writes,
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "version_no": number, "status": "active" }), &made)))
}

async fn assignments(Ask(state): Ask<State>, Extension(who): Extension<Identified>, Path(id): Path<String>) -> Reply {
    let snapshot = configuration(&state, &who).await?;
    let policy = find(&snapshot.config, &id).ok_or_else(|| ApiError::not_found("the policy"))?;
    let own = snapshot.config.assignments.iter().filter(|a| a.policy_id == policy.policy_id);
    let data: Vec<Value> = own.map(|a| json!({ "id": a.assignment_id, "assignment": a })).collect();
    Ok(Json(json!({ "data": data, "page": { "cursor_next": null, "total": data.len() } })))
}

/// To whom a policy is to apply.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAssignment {
    scope_type: ScopeKind,
    #[serde(default)]
    scope_id: Option<String>,
    #[serde(default)]
    effective_until: Option<String>,
}

async fn assign(
    Ask(state): Ask<State>,
    Extension(who): Extension<Identified>,
    Path(id): Path<String>,
    Json(asked): Json<NewAssignment>,
) -> Reply {
    let effective_until = asked.effective_until.as_deref().map(moment).transpose()?;
    let assignment_id = random_id("asg")?;
    let now = state.clock.now();
    if effective_until.is_some_and(|until| until <= now) {
        let error = ApiError::invalid("`effective_until` must be in the future");
        return Err(error.with_param(Some("effective_until".to_owned())));
    }
    let compiler = state.admission.snapshots.compiler();
    let made_id = assignment_id.clone();
    let made = change(&state, &who, move |config| {
        let policy = existing(config, &id)?;
        let scope = scope(config, asked.scope_type, asked.scope_id.as_deref())?;
        let policy_id = policy.policy_id.clone();
        let same = |a: &&Assignment| a.policy_id == policy_id && a.scope == scope;
        if config.assignments.iter().find(same).is_some_and(|a| a.effective_until.is_none_or(|until| until > now)) {
            let message = "the policy is assigned to this scope already".to_owned();
            return Err(ChangeRefused::Conflict { code: "assigned", message });
        }
        let assignment = Assignment { assignment_id: made_id, policy_id, scope, effective_until, created_at: now };
        let mut after = config.clone();
        after.assignments.push(assignment.clone());
        check_agents(&after, &compiler)?;
        Ok(ChangeSet {
            kind: "policy.assigned",
            content: json!({
                "assignment": assignment.assignment_id, "policy": assignment.policy_id,
                "scope_id": assignment.scope.scope_id, "scope_type": assignment.scope.scope_type,
            }),
            writes: vec![Write::put(Table::PolicyAssignment, assignment.assignment_id.clone(), &assignment)?],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "id": assignment_id, "assignment_id": assignment_id }), &made)))
}

async fn unassign(Ask(state): Ask<State>, Extension(who): Extension<Identified>, Path(id): Path<String>) -> Reply {
    let made = change(&state, &who, move |config| {
        let found = config.assignments.iter().find(|a| a.assignment_id == id);
        let found = found.ok_or_else(|| ChangeRefused::NotFound("the assignment".to_owned()))?;
        Ok(ChangeSet {
            kind: "policy.unassigned",
            content: json!({ "assignment": found.assignment_id, "policy": found.policy_id }),
            writes: vec![Write::delete(Table::PolicyAssignment, found.assignment_id.clone())],
        })
    })
    .await?;
    Ok(Json(with_receipt(json!({ "removed": true }), &made)))
}

/// The scope that an assignment names, if it exists. Agents may be named by id or by name.
fn scope(config: &OrgConfig, kind: ScopeKind, id: Option<&str>) -> Result<Scope, ChangeRefused> {
    let org = config.organization.org_id.as_str();
    let scope_id = match kind {
        ScopeKind::Org => Some(org).filter(|own| id.is_none_or(|id| id == *own)),
        ScopeKind::Project => {
            id.and_then(|id| config.projects.keys().find(|p| p.as_str() == id)).map(ProjectId::as_str)
        }
        ScopeKind::Agent => id.and_then(|id| super::agents::find(config, id)).map(|agent| agent.agent_id.as_str()),
    };
    let scope_id = scope_id.ok_or_else(|| ChangeRefused::NotFound("the scope".to_owned()))?.to_owned();
    Ok(Scope { scope_type: kind, scope_id })
}

fn moment(text: &str) -> Result<Micros, ApiError> {
    let format = &time::format_description::well_known::Rfc3339;
    let read = time::OffsetDateTime::parse(text, format).ok();
    let micros = read.and_then(|at| Micros::try_from(at.unix_timestamp_nanos() / 1_000).ok());
    let words = "`effective_until` must be a moment such as 2027-01-31T12:00:00Z";
    micros.ok_or_else(|| ApiError::invalid(words).with_param(Some("effective_until".to_owned())))
}
