//! What an agent's developers may ask for per call, and what an organization may store: nothing silently does nothing.

use serde_json::{Value, json};

use crate::support::{
    gateway::Gateway,
    openai::{ask, ask_stream, completion, event, text_chunk, with},
    upstream::{Answer, Gate, Upstream},
};

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

#[tokio::test]
async fn an_unknown_flag_or_value_is_refused_and_the_nearest_named() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for (flags, hint) in [("mod=warn", "mode"), ("mode=lockdwn", "lockdown"), ("pii", "=")] {
        let reply = gateway.chat_call(&ask("hi")).header("x-tappass-flags", flags).send(gateway.address).await;
        let reply = reply.expect(400);
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(hint), "{flags}: {}", reply.text());
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_caller_may_forbid_itself_tools_also_where_the_plan_has_no_step_for_them() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body = with(ask("hi"), "tools", json!([tool("search"), tool("shell")]));
    upstream.then(Answer::json(200, &completion("fine")));
    let call = gateway.chat_call(&body).header("x-governance-flags", "tools=denylist:shell");
    call.send(gateway.address).await.expect(200);
    assert_eq!(upstream.last().json()["tools"], json!([tool("search")]));
    // A model that calls it all the same is stopped as well.
    let mut answer = completion("");
    answer["choices"][0]["message"]["tool_calls"] =
        json!([{"id": "c", "type": "function", "function": {"name": "shell", "arguments": "{}"}}]);
    upstream.then(Answer::json(200, &answer));
    assert_eq!(call.send(gateway.address).await.expect(403).json()["blocked_by"], "tool_permissions");
}

#[tokio::test]
async fn lockdown_refuses_what_the_plan_only_logs_and_observe_is_locked() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let personal = ask("write to jane.doe@example.com");
    gateway.chat(&personal).await.expect(200);
    let locked = gateway.chat_call(&personal).header("x-tappass-flags", "mode=lockdown").send(gateway.address).await;
    assert_eq!(locked.expect(403).json()["blocked_by"], "detect_pii");
    // A flag that would loosen is locked by default, and named.
    let secret = ask(crate::support::openai::AWS_KEY);
    let observed = gateway.chat_call(&secret).header("x-tappass-flags", "mode=observe").send(gateway.address).await;
    observed.expect(403);
    gateway.admin("PUT", "/api/pipeline/unlocked-flags", json!({"flags": ["mode"]})).await.expect(200);
    let observed = gateway.chat_call(&secret).header("x-tappass-flags", "mode=observe").send(gateway.address).await;
    let observed = observed.expect(200);
    assert_eq!(observed.json()["tappass"]["shadow_mode"], true);
    let chain = gateway.settled().await;
    let admission = chain.admissions().last().unwrap();
    assert!(admission.mentions("secret.aws_access_key") && admission.content()["mode"] == "observe");
}

#[tokio::test]
async fn a_flag_that_nothing_acts_on_is_named() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let call = gateway.chat_call(&ask("hi")).header("x-tappass-flags", "files=read_only, db=block");
    let reply = call.send(gateway.address).await.expect(200);
    let notes = reply.json()["tappass"]["notes"].to_string();
    assert!(notes.contains("`files`") && notes.contains("`db`"), "{notes}");
    let chain = gateway.settled().await;
    assert_eq!(chain.admissions().last().unwrap().content()["flags_ignored"], json!(["files", "db"]));
}

#[tokio::test]
async fn a_budget_flag_that_tightens_is_not_named_and_one_that_loosens_is() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for (flags, ignored) in [("budget=dev", json!(null)), ("budget=unlimited", json!(["budget"]))] {
        let call = gateway.chat_call(&ask("hi")).header("x-tappass-flags", flags);
        let reply = call.send(gateway.address).await.expect(200);
        let notes = reply.json()["tappass"]["notes"].to_string();
        assert_eq!(notes.contains("`budget`"), ignored.is_array(), "{flags}: {notes}");
        let chain = gateway.settled().await;
        assert_eq!(chain.admissions().last().unwrap().content()["flags_ignored"], ignored, "{flags}");
    }
}

#[tokio::test]
async fn an_option_that_nothing_reads_cannot_be_stored() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let spec = json!({"preset": "starter", "overrides": {"call_llm": {"timeout_seconds": 5}}});
    let reply = gateway.admin("PUT", "/api/pipeline", spec).await.expect(400);
    assert!(reply.text().contains("overrides.call_llm.timeout_seconds"), "{}", reply.text());
    // A step that this build does not have is refused by name; its preset may still name it.
    let spec = json!({"preset": "starter", "overrides": {"loop_guard": {"max_iterations": 5}}});
    let reply = gateway.admin("PUT", "/api/pipeline", spec).await;
    assert!(matches!(reply.status, 400 | 422) && reply.text().contains("loop_guard"), "{}", reply.text());
    gateway.admin("PUT", "/api/pipeline", json!({"preset": "standard"})).await.expect(200);
    let reply = gateway.chat(&ask("hi")).await.expect(200);
    let missing = &reply.json()["tappass"]["missing_steps"];
    assert!(missing.as_array().unwrap().contains(&json!("loop_guard")), "{missing}");
    let chain = gateway.settled().await;
    assert_eq!(&chain.admissions().last().unwrap().content()["missing"], missing);
}

#[tokio::test]
async fn a_held_stream_that_has_sent_nothing_is_refused_when_its_agent_is_suspended() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    let gateway = Gateway::start(&upstream).await;
    let spec = json!({"preset": "starter", "overrides": {"scan_output": {"on_detection": "block"}}});
    gateway.admin("PUT", "/api/pipeline", spec).await.expect(200);
    upstream.then(Answer::stream([event(&text_chunk("held"))]).pause(&gate));
    let mut wire = gateway.chat_begin(&ask_stream("hi")).await;
    upstream.request(0).await;
    let suspend = format!("/api/agents/{}/suspend", gateway.agent_id);
    gateway.admin("POST", &suspend, Value::Null).await.expect(200);
    let reply = wire.reply().await.expect(403);
    assert_eq!(reply.json()["error"]["code"], "revoked", "{}", reply.text());
    upstream.abandoned(0).await;
    assert_eq!(gateway.settled().await.last_closing().unwrap().outcome(), "revoked");
}
