//! Two organizations in one gateway: nothing of the one is the other's.

use serde_json::{Value, json};

use crate::support::{
    client::Call,
    control::{block_pii, block_secrets},
    gateway::{CANARY, Gateway},
    openai::ask,
    upstream::Upstream,
};

const PERSONAL: &str = "my social security number is 536-22-8145";

#[tokio::test]
async fn an_organization_without_a_key_of_its_own_does_not_use_anothers() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let other = gateway.organization("Other").await;
    let call = Call::post("/v1/chat/completions").key(&other.agent.key).json(&ask("hi"));
    let reply = call.send(gateway.address).await;
    assert_ne!(reply.status, 200, "{}", reply.text());
    assert!(upstream.requests().is_empty(), "nobody else's key pays for it");
    let body = json!({"provider": "openai", "api_key": "sk-proj-theirs0123456789abcdefghij"});
    gateway.admin_in(&other.id, "POST", "/api/admin/llm-keys", body).await.expect(200);
    call.send(gateway.address).await.expect(200);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer sk-proj-theirs0123456789abcdefghij"));
    gateway.chat(&ask("hi")).await.expect(200);
    assert_eq!(upstream.last().header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
}

#[tokio::test]
async fn lists_and_details_show_an_organizations_own_things_only() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let other = gateway.organization("Other").await;
    let mine = gateway.policy("mine", json!([block_pii()])).await;
    let body = json!({"name": "theirs", "rules": [block_secrets()]});
    let theirs = gateway.admin_in(&other.id, "POST", "/api/policies", body).await.json()["policy_id"]
        .as_str()
        .unwrap()
        .to_owned();

    for prefix in ["/api/policies", "/api/v2/policies"] {
        let list = gateway.admin("GET", prefix, Value::Null).await.expect(200).text();
        assert!(list.contains(&mine) && !list.contains(&theirs), "{list}");
        let list = gateway.admin_in(&other.id, "GET", prefix, Value::Null).await.expect(200).text();
        assert!(!list.contains(&mine) && list.contains(&theirs), "{list}");
        gateway.admin_in(&other.id, "GET", &format!("{prefix}/{mine}"), Value::Null).await.expect(404);
    }
    let agents = gateway.admin("GET", "/api/agents", Value::Null).await.expect(200).text();
    assert!(agents.contains(&gateway.agent_id) && !agents.contains(&other.agent.id), "{agents}");
    let agents = gateway.admin_in(&other.id, "GET", "/api/agents", Value::Null).await.expect(200).text();
    assert!(!agents.contains(&gateway.agent_id) && agents.contains(&other.agent.id), "{agents}");
    let keys = gateway.admin_in(&other.id, "GET", "/api/admin/llm-keys", Value::Null).await.expect(200).json();
    assert_eq!(keys["providers"], json!([]));
}

#[tokio::test]
async fn nothing_of_one_organization_can_be_changed_from_another() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let other = gateway.organization("Other").await;
    let mine = gateway.enforce("mine", json!([block_pii()])).await;
    let assignment = gateway.assign(&mine, "org", &gateway.org_id).await;
    let rules = json!({"rules": [block_secrets()], "change_note": "not theirs"});
    let attempts = [
        ("POST", format!("/api/agents/{}/suspend", gateway.agent_id), json!({})),
        ("POST", format!("/api/agents/{}/activate", gateway.agent_id), json!({})),
        ("POST", format!("/api/policies/{mine}/versions"), rules.clone()),
        ("PUT", format!("/api/policies/{mine}/versions/1/rules"), rules),
        ("POST", format!("/api/policies/{mine}/versions/1/publish"), json!({})),
        ("POST", format!("/api/policies/{mine}/assignments"), json!({"scope_type": "org", "scope_id": other.id})),
        ("DELETE", format!("/api/policies/assignments/{assignment}"), Value::Null),
    ];
    for (method, target, body) in attempts {
        let reply = gateway.admin_in(&other.id, method, &target, body).await;
        assert_eq!(reply.status, 404, "{method} {target}: {}", reply.text());
    }
    // Their own policy does not reach our agent either.
    let body = json!({"name": "theirs", "rules": [block_pii()]});
    let theirs = gateway.admin_in(&other.id, "POST", "/api/policies", body).await.json()["policy_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let publish = format!("/api/policies/{theirs}/versions/1/publish");
    gateway.admin_in(&other.id, "POST", &publish, json!({})).await.expect(200);
    for scope in [("agent", &gateway.agent_id), ("org", &gateway.org_id)] {
        let body = json!({"scope_type": scope.0, "scope_id": scope.1});
        let reply = gateway.admin_in(&other.id, "POST", &format!("/api/policies/{theirs}/assignments"), body).await;
        assert!(matches!(reply.status, 400 | 403 | 404 | 422), "{}", reply.text());
    }
    gateway.chat(&ask("hi")).await.expect(200);
    gateway.chat(&ask(PERSONAL)).await.expect(403);
}

#[tokio::test]
async fn policies_limits_and_budgets_of_one_organization_leave_the_other_alone() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let other = gateway.organization("Other").await;
    let body = json!({"provider": "openai", "api_key": "sk-proj-theirs0123456789abcdefghij"});
    gateway.admin_in(&other.id, "POST", "/api/admin/llm-keys", body).await.expect(200);
    let mine = gateway.policy("mine", json!([block_pii()])).await;
    gateway.publish(&mine, 1).await;
    gateway.assign(&mine, "org", &gateway.org_id).await;
    gateway.budget(0.000_000_1).await;
    let theirs = Call::post("/v1/chat/completions").key(&other.agent.key).json(&ask(PERSONAL));
    theirs.send(gateway.address).await.expect(200);
    gateway.chat(&ask(PERSONAL)).await.expect(403);
    assert!(gateway.chat(&ask("hi")).await.expect(403).json()["blocked_by"].as_str().unwrap().contains("budget"));
}

#[tokio::test]
async fn each_organization_has_a_chain_of_its_own() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let other = gateway.organization("Other").await;
    let call = Call::post("/v1/chat/completions").key(&other.agent.key).json(&Gateway::echo("hi"));
    call.send(gateway.address).await.expect(200);
    gateway.chat(&ask("hi")).await.expect(200);
    let chain = gateway.settled().await;
    let orgs: std::collections::BTreeSet<&str> =
        chain.entries.iter().map(|entry| entry.body["org"].as_str().unwrap()).collect();
    assert!(!orgs.contains(other.id.as_str()) || orgs.len() > 1, "{orgs:?}");
    for entry in chain.entries.iter().filter(|entry| entry.body["org"] == gateway.org_id.as_str()) {
        assert!(!entry.mentions(&other.id) && !entry.mentions(&other.agent.id), "{}", entry.text);
    }
}

#[tokio::test]
async fn a_key_with_another_organizations_name_in_it_is_no_key() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let other = gateway.organization("Other").await;
    // Keys carry their organization: the beginning of one with the secret of the other fits neither.
    let spliced = format!("{}{}", other.agent.key.get(..19).unwrap(), gateway.agent_key.get(19..).unwrap());
    let call = Call::post("/v1/chat/completions").key(&spliced).json(&ask("hi"));
    call.send(gateway.address).await.expect(401);
    // Nor does the header that the super admin may use move an agent.
    let call = gateway.chat_call(&ask("hi")).header("x-org-id", &other.id);
    let reply = call.send(gateway.address).await;
    if reply.status == 200 {
        assert_eq!(reply.json()["tappass"]["agent_uuid"], gateway.agent_id.as_str());
    }
    assert!(gateway.settled().await.admissions().all(|entry| entry.body["org"] == gateway.org_id.as_str()));
}
