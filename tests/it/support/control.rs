//! What an administrator does, as one line each.
//!
//! Owns agents, policies, budgets and organizations as the control API takes them. Never looks at answers beyond what
//! the next step needs.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;

/// An agent that was onboarded.
#[derive(Clone, Debug)]
pub struct Agent {
    pub id: String,
    pub key: String,
}

/// An organization beside the first one.
#[derive(Clone, Debug)]
pub struct Organization {
    pub id: String,
    pub agent: Agent,
}

/// A rule that forbids tools.
pub fn block_tool(tool: &str) -> Value {
    json!({"kind": "BlockTool", "ordinal": 1, "payload": {"tools": [tool]}})
}

/// A rule that refuses secrets in prompts.
pub fn block_secrets() -> Value {
    json!({"kind": "BlockSecrets", "ordinal": 1, "payload": {}})
}

/// A rule that refuses personal data in prompts.
pub fn block_pii() -> Value {
    json!({"kind": "BlockPII", "ordinal": 1, "payload": {"scope": "input"}})
}

/// A rule that refuses a call of one tool.
pub fn conditional(tool: &str) -> Value {
    json!({"kind": "Conditional", "ordinal": 1, "payload": {
        "when": {"signal": "request.tool", "op": "eq", "value": tool}, "then": {"action": "block", "reason": "not here"}}})
}

/// The text of the first of several names that an answer uses.
pub fn field(value: &Value, names: &[&str]) -> String {
    let found = names.iter().find_map(|name| value.pointer(name).and_then(Value::as_str));
    found.unwrap_or_else(|| panic!("one of {names:?} in {value}")).to_owned()
}

impl Gateway {
    pub async fn onboard(&self, slug: &str) -> Agent {
        self.onboard_in(&self.org_id, slug).await
    }

    pub async fn onboard_in(&self, org: &str, slug: &str) -> Agent {
        let body = json!({"agent_id": slug, "owner_email": "owner@example.com", "description": "a test's agent",
            "framework": "none"});
        let answer = self.admin_in(org, "POST", "/api/agents/onboard", body).await.expect(200).json();
        Agent { id: field(&answer, &["/id", "/agent_uuid"]), key: field(&answer, &["/api_key/api_key"]) }
    }

    /// A control call of the super admin in an organization of their choice.
    pub async fn admin_in(&self, org: &str, method: &str, target: &str, body: Value) -> crate::support::client::Reply {
        let call = crate::support::client::Call::new(method, target).key(&self.admin_key).header("x-org-id", org);
        if body.is_null() { call.send(self.address).await } else { call.json(&body).send(self.address).await }
    }

    /// A second organization with an agent of its own and a limit that no test meets.
    pub async fn organization(&self, name: &str) -> Organization {
        let answer = self.admin("POST", "/auth/orgs", json!({"name": name})).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        let id = field(&answer.json(), &["/id", "/org_id"]);
        let agent = self.onboard_in(&id, "theirs").await;
        let raised = json!({"preset": "starter", "overrides": {"rate_limit": {"max_calls": 10_000_000}}});
        self.admin_in(&id, "PUT", "/api/pipeline", raised).await.expect(200);
        Organization { id, agent }
    }

    /// A policy with one draft.
    pub async fn policy(&self, name: &str, rules: Value) -> String {
        let answer = self.admin("POST", "/api/policies", json!({"name": name, "rules": rules})).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["policy_id"], answer["id"], "both names are sent: {answer}");
        field(&answer, &["/policy_id"])
    }

    pub async fn publish(&self, policy: &str, version: u64) -> Value {
        let target = format!("/api/policies/{policy}/versions/{version}/publish");
        self.admin("POST", &target, json!({})).await.expect(200).json()
    }

    pub async fn assign(&self, policy: &str, scope_type: &str, scope_id: &str) -> String {
        let body = json!({"scope_type": scope_type, "scope_id": scope_id});
        let answer = self.admin("POST", &format!("/api/policies/{policy}/assignments"), body).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        field(&answer.json(), &["/id", "/assignment_id"])
    }

    /// A policy that is in force for the first agent when this comes back.
    pub async fn enforce(&self, name: &str, rules: Value) -> String {
        let policy = self.policy(name, rules).await;
        self.publish(&policy, 1).await;
        self.assign(&policy, "agent", &self.agent_id).await;
        policy
    }

    pub async fn budget(&self, dollars: f64) {
        self.admin("PUT", "/api/budget", json!({"limit_usd": dollars})).await.expect(200);
    }
}
