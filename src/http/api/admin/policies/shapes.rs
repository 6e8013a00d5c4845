//! Policies as they are read, found and shown.
//!
//! Owns the shapes of replies and the errors about rules. Never writes.

use serde_json::{Value, json};

use crate::{
    admission::ChangeRefused,
    domain::{
        clock::{Micros, rfc3339},
        ids::PolicyId,
        rows::{Table, Write},
    },
    http::error::ApiError,
    policy::{RuleFinding, parse_rules},
    tenants::{OrgConfig, Policy, PolicyVersion, VersionStatus},
};

/// A draft may hold what cannot be published yet, but not what cannot be read.
pub(super) fn valid_rules(rules: Value) -> Result<Value, ApiError> {
    match parse_rules(&rules) {
        Ok(_) => Ok(rules),
        Err(findings) => {
            let first = findings.first().map_or_else(String::new, told);
            let error = ApiError::invalid(format!("the rules are not valid: {first}"));
            Err(error.with_code("invalid_rules").with_detail(json!({ "findings": findings })))
        }
    }
}

pub(super) fn refused(what: &str, findings: &[RuleFinding]) -> ChangeRefused {
    let first = findings.first().map_or_else(String::new, told);
    ChangeRefused::Invalid { message: format!("{what}: {first}"), details: json!({ "findings": findings }) }
}

pub(super) fn told(finding: &RuleFinding) -> String {
    let hint = finding.suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default();
    format!("{}: {}{hint}", finding.path, finding.message)
}

pub(super) fn existing<'c>(config: &'c OrgConfig, id: &str) -> Result<&'c Policy, ChangeRefused> {
    find(config, id).ok_or_else(|| ChangeRefused::NotFound("the policy".to_owned()))
}

pub(super) fn find<'c>(config: &'c OrgConfig, id: &str) -> Option<&'c Policy> {
    config.policies.values().find(|policy| policy.policy_id.as_str() == id)
}

pub(super) fn version(
    policy: &PolicyId,
    version_no: u32,
    rules: Value,
    change_note: &str,
    now: Micros,
) -> PolicyVersion {
    PolicyVersion {
        policy_id: policy.clone(),
        version_no,
        status: VersionStatus::Draft,
        rules,
        change_note: change_note.chars().take(1_000).collect(),
        created_at: now,
        published_at: None,
    }
}

pub(super) fn version_row(version: &PolicyVersion) -> String {
    format!("{}:{:06}", version.policy_id, version.version_no)
}

pub(super) fn put_version(version: &PolicyVersion) -> Result<Write, ChangeRefused> {
    Ok(Write::put(Table::PolicyVersion, version_row(version), version)?)
}

pub(super) fn shown(config: &OrgConfig, policy: &Policy) -> Value {
    let active = config.active_version(&policy.policy_id).map(|v| v.version_no);
    json!({
        "id": policy.policy_id, "policy_id": policy.policy_id, "name": policy.name, "description": policy.description,
        "owner": policy.owner, "created_at": rfc3339(policy.created_at), "active_version_no": active,
        "assignments": config.assignments.iter().filter(|a| a.policy_id == policy.policy_id).count(),
    })
}

pub(super) fn shown_version(version: &PolicyVersion) -> Value {
    json!({
        "version_no": version.version_no, "id": version.version_no, "status": version.status, "rules": version.rules,
        "change_note": version.change_note, "created_at": rfc3339(version.created_at),
        "published_at": version.published_at.map(rfc3339),
        "rule_count": version.rules.as_array().map_or(0, Vec::len),
    })
}
