//! Roles: may this principal do this to that?
//!
//! Owns the question to `tappass.authz` and the memory of its few answers. Never knows who the principal is. An unknown
//! role or action, like any failure to decide, is a refusal.

use std::sync::Arc;

use super::{
    Decision,
    memo::Memo,
    programs::{AUTHZ, Programs, object, read_decision},
};

/// The step that refusals name.
const STEP: &str = "authz";

/// Decides by role; shared by the whole process.
pub struct Authz {
    programs: Arc<Programs>,
    memo: Memo,
}

impl Authz {
    /// Decides with these programs.
    pub fn new(programs: &Arc<Programs>) -> Self {
        Self { programs: Arc::clone(programs), memo: Memo::default() }
    }

    /// May `role` do `action` (`agents.read`, `policies.write`, …)? `same_org`: does the thing belong to the principal's
    /// own organization?
    pub fn decide(&self, role: &str, action: &str, same_org: bool) -> Decision {
        let key = [role.as_bytes(), b"\0", action.as_bytes(), &[u8::from(same_org)]].concat();
        if let Some(decision) = self.memo.find(&key) {
            return decision;
        }
        let input = object([("role", role.into()), ("action", action.into()), ("same_org", same_org.into())]);
        let answer = self.programs.evaluate(AUTHZ, input);
        let decision = answer.and_then(|answer| read_decision((AUTHZ, STEP), &answer, None));
        let Ok(decision) = decision else {
            tracing::error!(policy.entry = AUTHZ, "policy could not be evaluated");
            return Decision::refused_by_error(STEP);
        };
        self.memo.insert(&key, decision.clone());
        decision
    }
}
