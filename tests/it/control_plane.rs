//! The control API as the CLI and the dashboard use it (wire.md 5.5).

use serde_json::{Value, json};

use crate::support::{
    client::Call,
    control::{block_pii, block_secrets, block_tool, conditional},
    gateway::Gateway,
    openai::{ask, tool, with},
    upstream::Upstream,
};

#[tokio::test]
async fn onboarding_gives_an_agent_its_key_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body =
        json!({"agent_id": "billing-bot", "owner_email": "o@example.com", "description": "d", "framework": "none"});
    let answer = gateway.admin("POST", "/api/agents/onboard", body.clone()).await.expect(200).json();
    assert_eq!(answer["status"], "onboarded");
    assert_eq!(answer["org_id"], gateway.org_id.as_str());
    assert!(answer["base_url"].as_str().unwrap().ends_with("/v1"), "{answer}");
    let key = answer["api_key"]["api_key"].as_str().unwrap();
    assert!(key.starts_with("tp_") && answer["api_key"]["key_id"].is_string());
    Call::post("/v1/chat/completions").key(key).json(&ask("hi")).send(gateway.address).await.expect(200);
    let list = gateway.admin("GET", "/api/agents", Value::Null).await.expect(200);
    assert!(list.text().contains("billing-bot") && !list.text().contains(key));
    assert!(list.json()["data"].is_array(), "{}", list.text());
    let again = gateway.admin("POST", "/api/agents/onboard", body).await.expect(409);
    assert!(again.json()["detail"].is_object() || again.json()["detail"].is_string(), "{}", again.text());
    for bad in [
        json!({}),
        json!({"agent_id": "a b"}),
        json!({"agent_id": ""}),
        json!({"agent_id": "x".repeat(500)}),
        json!([]),
    ] {
        let reply = gateway.admin("POST", "/api/agents/onboard", bad).await;
        assert!(matches!(reply.status, 400 | 422), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_repeated_onboarding_with_the_same_idempotency_key_makes_one_agent() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body = json!({"agent_id": "once", "owner_email": "o@example.com", "description": "d", "framework": "none"});
    let call = Call::post("/api/agents/onboard").key(&gateway.admin_key).header("idempotency-key", "k1").json(&body);
    call.send(gateway.address).await.expect(200);
    let again = call.send(gateway.address).await;
    assert!(matches!(again.status, 200 | 409), "{}", again.text());
    let list = gateway.admin("GET", "/api/agents", Value::Null).await.expect(200).text();
    assert_eq!(list.matches("\"once\"").count().min(1), 1);
}

#[tokio::test]
async fn a_provider_key_is_stored_replaced_and_removed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let key = "sk-proj-replacement0123456789wxyz";
    let stored =
        gateway.admin("POST", "/api/admin/llm-keys", json!({"provider": "openai", "api_key": key})).await.expect(200);
    assert_eq!((&stored.json()["provider"], &stored.json()["last_four"]), (&json!("openai"), &json!("wxyz")));
    let list = gateway.admin("GET", "/api/admin/llm-keys", Value::Null).await.expect(200).json();
    assert_eq!(list["providers"][0]["last_four"], "wxyz");
    assert!(list["supported"].as_array().unwrap().contains(&json!("openai")));
    gateway.chat(&ask("hi")).await.expect(200);
    assert_eq!(upstream.last().header("authorization"), Some(format!("Bearer {key}").as_str()));
    let removed = gateway.admin("DELETE", "/api/admin/llm-keys/openai", Value::Null).await.expect(200).json();
    assert!(removed.get("removed").is_some(), "{removed}");
    let reply = gateway.chat(&ask("hi")).await;
    assert!(!matches!(reply.status, 200 | 403), "{}", reply.text());
    assert_eq!(upstream.requests().len(), 1);
    for bad in [
        json!({"provider": "openai"}),
        json!({"provider": "nobody", "api_key": "x"}),
        json!({"provider": "openai", "api_key": ""}),
    ] {
        let reply = gateway.admin("POST", "/api/admin/llm-keys", bad).await;
        assert!(matches!(reply.status, 400 | 422), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_policy_lives_from_draft_to_active_to_retired() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for prefix in ["/api/policies", "/api/v2/policies"] {
        let name = format!("policy of {prefix}");
        let body = json!({"name": name, "description": "d", "rules": [block_pii()]});
        let created = gateway.admin("POST", prefix, body.clone()).await.json();
        let policy = created["policy_id"].as_str().unwrap();
        gateway.admin("POST", prefix, body).await.expect(409);
        let versions = format!("{prefix}/{policy}/versions");
        let status = async |number: u64| {
            let list = gateway.admin("GET", &versions, Value::Null).await.expect(200).json();
            let row = list["data"].as_array().unwrap().iter().find(|row| row["version_no"] == number).unwrap().clone();
            row["status"].as_str().unwrap().to_owned()
        };
        assert_eq!(status(1).await, "draft");
        let edited = json!({"rules": [block_secrets()]});
        gateway.admin("PUT", &format!("{versions}/1/rules"), edited.clone()).await.expect(200);
        gateway.admin("POST", &versions, json!({"rules": [block_pii()], "change_note": "n"})).await.expect(409);
        gateway.admin("POST", &format!("{versions}/1/publish"), json!({})).await.expect(200);
        assert_eq!(status(1).await, "active");
        let frozen = gateway.admin("PUT", &format!("{versions}/1/rules"), edited).await;
        assert!(matches!(frozen.status, 400 | 409 | 422), "an active version does not change: {}", frozen.text());
        let draft = gateway.admin("POST", &versions, json!({"rules": [block_pii()], "change_note": "n"})).await.json();
        assert_eq!(
            (&draft["version_no"], &draft["status"], &draft["rule_count"]),
            (&json!(2), &json!("draft"), &json!(1))
        );
        gateway.admin("POST", &format!("{versions}/2/publish"), json!({})).await.expect(200);
        assert_eq!((status(1).await.as_str(), status(2).await.as_str()), ("retired", "active"));
        let back = gateway.admin("POST", &format!("{versions}/1/publish"), json!({})).await;
        assert!(matches!(back.status, 400 | 409 | 422), "the active version moves forward only: {}", back.text());
        let shown = gateway.admin("GET", &format!("{prefix}/{policy}"), Value::Null).await.expect(200).json();
        assert!(
            shown["policy"].is_object() && shown["active_version"].is_object() | shown["active_version"].is_u64(),
            "{shown}"
        );
        gateway.admin("GET", &format!("{prefix}/pol_unknown"), Value::Null).await.expect(404);
    }
}

#[tokio::test]
async fn a_rule_that_would_silently_do_nothing_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let rules = [
        (json!([{"kind": "BlockTol", "ordinal": 1, "payload": {"tools": ["x"]}}]), "BlockTool"),
        (json!([{"kind": "BlockTool", "ordinal": 1, "payload": {"tols": ["x"]}}]), "tools"),
        (json!([{"kind": "BlockTool", "ordinal": 1, "payload": {"tools": []}}]), "tools"),
        (json!([{"kind": "BlockPII", "ordinal": 1, "payload": {"scope": "everywhere"}}]), "scope"),
        (json!([{"kind": "BlockPII", "ordinal": 1, "payload": {"entities": ["emial"]}}]), "`email`"),
        (
            json!([{"kind": "Conditional", "ordinal": 1, "payload": {"when": {"signal": "request.tol", "op": "eq", "value": "x"},
            "then": {"action": "block"}}}]),
            "request.tool",
        ),
        (
            json!([{"kind": "Conditional", "ordinal": 1, "payload": {"when": {"signal": "request.tool", "op": "equals", "value": "x"},
            "then": {"action": "block"}}}]),
            "eq",
        ),
    ];
    for (number, (rules, named)) in rules.into_iter().enumerate() {
        let body = json!({"name": format!("bad {number}"), "rules": rules});
        let created = gateway.admin("POST", "/api/policies", body).await;
        // Refused when drafted, or at the latest when published.
        let reply = if created.status < 300 {
            let policy = created.json()["policy_id"].as_str().unwrap().to_owned();
            gateway.admin("POST", &format!("/api/policies/{policy}/versions/1/publish"), json!({})).await
        } else {
            created
        };
        assert!(matches!(reply.status, 400 | 422), "{named}: {} {}", reply.status, reply.text());
        assert!(reply.text().contains(named), "what would be right is named: {}", reply.text());
    }
}

#[tokio::test]
async fn an_approval_rule_is_refused_at_publish_until_approvals_exist() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let rules = json!([{"kind": "RequireApproval", "ordinal": 1, "payload": {"tools": ["x"], "tier": "authenticated", "reason": "r"}}]);
    let policy = gateway.policy("approvals", rules).await;
    let reply = gateway.admin("POST", &format!("/api/policies/{policy}/versions/1/publish"), json!({})).await;
    assert!(matches!(reply.status, 400 | 409 | 422), "{}", reply.text());
    assert!(reply.text().contains("RequireApproval"), "{}", reply.text());
}

#[tokio::test]
async fn conditions_on_tools_decide_calls_that_offer_them() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.enforce("conditional", json!([conditional("shell")])).await;
    let offering = |name: &str| with(ask("hi"), "tools", json!([tool(name)]));
    gateway.chat(&offering("search")).await.expect(200);
    let reply = gateway.chat(&offering("shell")).await;
    let offered = upstream.requests().iter().any(|seen| seen.text().contains("\"shell\""));
    assert!(reply.status == 403 || !offered, "{}", reply.text());
}

#[tokio::test]
async fn conditions_on_the_provider_decide_calls_that_go_there() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let rule = json!([{"kind": "Conditional", "ordinal": 1, "payload": {
        "when": {"signal": "request.provider", "op": "eq", "value": "tappass"},
        "then": {"action": "block", "reason": "not there"}}}]);
    gateway.enforce("not the echo", rule).await;
    let refused = gateway.chat(&Gateway::echo("hi")).await.expect(403);
    assert!(refused.text().contains("not there"), "{}", refused.text());
    gateway.chat(&ask("hi")).await.expect(200);
}

#[tokio::test]
async fn what_would_have_ended_before_it_began_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let keys = format!("/api/agents/{}/keys", gateway.agent_id);
    let reply = gateway.admin("POST", &keys, json!({"expires_days": 0})).await.expect(400);
    assert!(reply.text().contains("expires_days"), "{}", reply.text());
    gateway.admin("POST", &keys, json!({"expires_days": 1})).await.expect(200);
    let policy = gateway.policy("short", json!([block_pii()])).await;
    gateway.publish(&policy, 1).await;
    let assign = async |until: &str| {
        let body = json!({"scope_type": "org", "effective_until": until});
        gateway.admin("POST", &format!("/api/policies/{policy}/assignments"), body).await
    };
    let reply = assign("2020-01-31T12:00:00Z").await.expect(400);
    assert!(reply.text().contains("effective_until"), "{}", reply.text());
    assign("2999-01-31T12:00:00Z").await.expect(200);
}

#[tokio::test]
async fn suspending_and_activating_by_name_answer_with_the_agents_id() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let agent = gateway.onboard("by-name").await;
    for (verb, status) in [("suspend", "suspended"), ("activate", "active")] {
        let answer =
            gateway.admin("POST", &format!("/api/agents/by-name/{verb}"), Value::Null).await.expect(200).json();
        assert_eq!((&answer["id"], &answer["slug"]), (&json!(agent.id), &json!("by-name")), "{answer}");
        assert_eq!(answer["status"], status);
    }
}

#[tokio::test]
async fn a_body_may_be_left_out_only_where_it_has_nothing_to_say() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let policy = gateway.policy("p", json!([block_pii()])).await;
    let agent = gateway.agent_id.as_str();
    for target in [format!("/api/agents/{agent}/keys"), format!("/api/policies/{policy}/versions/1/publish")] {
        gateway.admin("POST", &target, Value::Null).await.expect(200);
    }
    for (method, target) in [
        ("POST", "/api/agents/onboard".to_owned()),
        ("POST", "/api/admin/llm-keys".to_owned()),
        ("POST", format!("/api/policies/{policy}/assignments")),
        ("PUT", "/api/pipeline".to_owned()),
        ("PUT", format!("/api/agents/{agent}/pipeline")),
        ("PUT", "/api/pipeline/unlocked-flags".to_owned()),
        ("PUT", "/api/budget".to_owned()),
    ] {
        let reply = gateway.admin(method, &target, Value::Null).await.expect(400);
        assert!(reply.text().contains("body"), "{target}: {}", reply.text());
    }
}

#[tokio::test]
async fn an_allow_list_alone_blocks_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.enforce("allow", json!([{"kind": "AllowTool", "ordinal": 1, "payload": {"tools": ["search"]}}])).await;
    gateway.chat(&ask("hi")).await.expect(200);
}

#[tokio::test]
async fn levels_tighten_and_a_lower_one_never_relaxes() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let floor = gateway.policy("floor", json!([block_pii()])).await;
    gateway.publish(&floor, 1).await;
    gateway.assign(&floor, "org", &gateway.org_id).await;
    let personal = ask("my social security number is 536-22-8145");
    gateway.chat(&personal).await.expect(403);
    // A tool rule for the agent adds to it.
    gateway.enforce("agent", json!([block_tool("shell")])).await;
    gateway.chat(&personal).await.expect(403);
    gateway.chat(&ask("hi")).await.expect(200);
}

#[tokio::test]
async fn the_pipeline_lists_all_steps_and_refuses_what_it_does_not_know() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body = gateway.admin("GET", "/api/pipeline/steps", Value::Null).await.expect(200).json();
    let steps = body["steps"].as_array().or(body["data"].as_array()).or(body.as_array()).expect("a list");
    assert_eq!(steps.len(), 49);
    let text = body.to_string();
    for id in ["validate_input", "detect_secrets", "call_llm", "filter_tools", "debug_logging"] {
        assert!(text.contains(&format!("\"{id}\"")), "{id}");
    }
    assert!(text.contains("missing") || text.contains("implemented") || text.contains("available"), "{text}");
    for (bad, named) in [
        (json!({"preset": "starter", "overrides": {"detect_secret": {"enabled": true}}}), "detect_secrets"),
        (json!({"preset": "starter", "overrides": {"rate_limit": {"max_call": 1}}}), "max_calls"),
        (json!({"preset": "startr"}), "starter"),
        (json!({"preset": "starter", "overrides": {"detect_secrets": {"on_detection": "blok"}}}), "block"),
        (json!({"preset": "starter", "overrides": {"human_approval": {"enabled": true}}}), "approval"),
    ] {
        let reply = gateway.admin("PUT", "/api/pipeline", bad).await;
        assert!(matches!(reply.status, 400 | 422), "{}", reply.text());
        assert!(reply.text().contains(named), "{named} is named: {}", reply.text());
    }
}

#[tokio::test]
async fn a_preset_with_missing_steps_runs_and_says_what_is_missing() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body = json!({"preset": "regulated", "overrides": {"rate_limit": {"max_calls": 1000}}});
    gateway.admin("PUT", "/api/pipeline", body).await.expect(200);
    let reply = gateway.chat(&ask("hi")).await.expect(200);
    drop(reply);
    let chain = gateway.settled().await;
    let missing = &chain.admissions().last().unwrap().content()["missing"];
    assert!(missing.as_array().is_some_and(|steps| steps.contains(&json!("require_approval"))), "{missing}");
}

#[tokio::test]
async fn flags_tighten_and_unknown_ones_are_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let flagged = async |flags: &str, text: &str| {
        gateway.chat_call(&ask(text)).header("x-tappass-flags", flags).send(gateway.address).await
    };
    for (flags, named) in [("mod=enforce", "mode"), ("mode=lockdwn", "lockdown"), ("pii=bloc", "block")] {
        let reply = flagged(flags, "hi").await.expect(400);
        assert!(reply.text().contains(named), "{}", reply.text());
    }
    let personal = "my social security number is 536-22-8145";
    flagged("mode=enforce", personal).await.expect(200);
    flagged("mode=lockdown", personal).await.expect(403);
    // A locked flag is ignored, and named.
    let refused = flagged("mode=observe", crate::support::openai::AWS_KEY).await.expect(403);
    drop(refused);
    let reply = flagged("mode=observe", "hi").await.expect(200);
    assert!(reply.json()["tappass"].to_string().contains("mode"), "{}", reply.text());
}

#[tokio::test]
async fn who_am_i_tells_role_and_organization() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let me = gateway.admin("GET", "/api/me", Value::Null).await.expect(200).json();
    for name in ["id", "org_id", "org_name", "role"] {
        assert!(me[name].is_string(), "{name}: {me}");
    }
}

#[tokio::test]
async fn control_bodies_with_unknown_fields_types_or_syntax_are_refused_in_the_usual_shape() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for body in [
        "",
        "{",
        "null",
        "[]",
        "{\"name\":7}",
        "{\"name\":\"a\",\"name\":\"b\",\"rules\":[]}",
        "{\"name\":\"x\",\"rulez\":[]}",
    ] {
        let call =
            Call::post("/api/policies").key(&gateway.admin_key).header("content-type", "application/json").body(body);
        let reply = call.send(gateway.address).await;
        assert!(matches!(reply.status, 400 | 422), "{body}: {} {}", reply.status, reply.text());
        assert!(
            reply.json()["detail"].is_string()
                || reply.json()["error"]["message"].is_string()
                || reply.json()["message"].is_string()
        );
    }
}

#[tokio::test]
async fn every_change_is_an_entry_of_the_chain() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let changes = |gateway: &Gateway| gateway.chain().entries.iter().filter(|entry| entry.produced().is_some()).count();
    let mut before = changes(&gateway);
    let policy = gateway.policy("recorded", json!([block_pii()])).await;
    let agent = gateway.onboard("recorded").await;
    for (method, target, body) in [
        ("POST", format!("/api/policies/{policy}/versions/1/publish"), json!({})),
        ("POST", format!("/api/policies/{policy}/assignments"), json!({"scope_type": "agent", "scope_id": agent.id})),
        ("POST", format!("/api/agents/{}/suspend", agent.id), json!({})),
        ("POST", format!("/api/agents/{}/activate", agent.id), json!({})),
        ("PUT", "/api/budget".to_owned(), json!({"limit_usd": 5.0})),
        (
            "POST",
            "/api/admin/llm-keys".to_owned(),
            json!({"provider": "openai", "api_key": "sk-proj-0123456789abcdefghij"}),
        ),
        ("DELETE", "/api/admin/llm-keys/openai".to_owned(), Value::Null),
    ] {
        before = before.max(changes(&gateway));
        let reply = gateway.admin(method, &target, body).await;
        assert!(reply.status < 300, "{method} {target}: {}", reply.text());
        assert_eq!(changes(&gateway), before + 1, "{method} {target} is one change");
    }
}
