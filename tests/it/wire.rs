//! The bytes that published clients depend on (wire.md sections 2 to 4 and 3.2).

use serde_json::{Value, json};

use crate::support::{
    client::{Call, Reply},
    gateway::Gateway,
    openai::{self, AWS_KEY, ask, ask_stream, text_chunk, with},
    sse::{Event, Sum},
    upstream::{Answer, Upstream},
};

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

/// No `null` anywhere: the published client falls over some of them.
#[track_caller]
fn assert_no_null(value: &Value) {
    match value {
        Value::Null => panic!("a null in the `tappass` object"),
        Value::Object(fields) => fields.values().for_each(assert_no_null),
        Value::Array(items) => items.iter().for_each(assert_no_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn a_plain_answer_carries_what_the_provider_said_and_the_tappass_object() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&ask("hi")).await.expect(200);
    let body = reply.json();
    assert_eq!(reply.content(), "hello world");
    assert_eq!(body["usage"], openai::usage());
    assert_eq!(body["model"], openai::MODEL);
    let tappass = &body["tappass"];
    for name in ["session_id", "task_id", "agent_uuid", "pipeline_uuid", "audit_url"] {
        assert!(is_text(&tappass[name]), "{name}: {tappass}");
    }
    assert_eq!(tappass["agent_uuid"], gateway.agent_id.as_str());
    assert_eq!(tappass["blocked"], false);
    assert!(
        ["PUBLIC", "INTERNAL", "CONFIDENTIAL", "RESTRICTED"].contains(&tappass["classification"].as_str().unwrap())
    );
    assert!(tappass["steps_run"].is_u64() && tappass["total_duration_ms"].is_number(), "{tappass}");
    let steps = tappass["steps"].as_array().expect("a list of steps");
    assert!(steps.iter().any(|step| step["step"] == "validate_input" && step["action"] == "continue"), "{steps:?}");
    for step in steps {
        assert!(
            step["detected"].is_boolean() && step["duration_ms"].is_number() && step["message"].is_string(),
            "{step}"
        );
    }
    assert_no_null(tappass);
    assert!(reply.header("x-request-id").is_some());
    assert_eq!(reply.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_refusal_is_one_body_that_every_client_can_read() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for body in [ask(AWS_KEY), ask_stream(AWS_KEY)] {
        let reply = gateway.chat(&body).await.expect(403);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let body = reply.json();
        assert_eq!(body["decision"], "policy_block");
        assert_eq!(body["blocked_by"], "detect_secrets");
        for name in
            ["reason", "message", "classification", "session_id", "task_id", "agent_uuid", "pipeline_uuid", "audit_url"]
        {
            assert!(is_text(&body[name]), "{name}: {body}");
        }
        assert!(body["details"].is_object());
        assert_eq!(body["error"]["type"], "policy_block");
        assert_eq!(body["error"]["code"], "policy_block");
        assert_eq!(body["error"]["message"], body["message"]);
        assert!(body["error"].as_object().unwrap().contains_key("param"));
        assert!(!reply.text().contains(AWS_KEY), "a refusal never repeats what it refused");
    }
}

#[tokio::test]
async fn the_first_chunk_of_a_stream_carries_the_ids_at_top_level() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    assert!(reply.header("content-type").unwrap().starts_with("text/event-stream"));
    let events = reply.events();
    let first = events.iter().find_map(Event::json).expect("a chunk");
    for name in ["session_id", "task_id", "agent_uuid", "pipeline_uuid", "audit_url"] {
        assert!(is_text(&first[name]), "{name}: {first}");
    }
    for chunk in events.iter().filter_map(Event::json) {
        assert!(chunk.get("delta").is_none(), "a top-level `delta` would be taken for the text: {chunk}");
    }
    let sum = Sum::of(&reply.body);
    assert_eq!((sum.first(), sum.done, reply.whole), ("hello world", true, true));
}

#[tokio::test]
async fn line_separators_inside_a_stream_are_escaped() {
    let text = "a\u{2028}b\u{2029}c\u{85}d\u{b}e\u{c}f\u{1c}g\u{1d}h\u{1e}i";
    let upstream = Upstream::start();
    let raw = openai::event(&text_chunk(text));
    assert!(raw.contains('\u{2028}'), "the provider sends it raw");
    upstream.always(Answer::stream([raw, openai::event(&openai::last_chunk("stop")), openai::DONE.to_owned()]));
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    let seen = reply.text();
    for separator in ['\u{2028}', '\u{2029}', '\u{85}', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}'] {
        assert!(!seen.contains(separator), "{separator:?} is escaped");
    }
    assert_eq!(Sum::of(&reply.body).first(), text);
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_told_before_anything_else() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let strange = "tp_nonsense";
    let well_formed = gateway.agent_key.chars().rev().collect::<String>();
    let calls = [
        Call::post("/v1/chat/completions").json(&ask("hi")),
        Call::post("/v1/chat/completions").key(strange).json(&ask("hi")),
        Call::post("/v1/chat/completions").key(&well_formed).json(&ask("hi")),
        Call::post("/v1/chat/completions").key("").json(&ask("hi")),
        Call::post("/v1/chat/completions").header("authorization", "Basic Zm9vOmJhcg==").json(&ask("hi")),
        Call::post("/v1/chat/completions").body("{ this is not JSON"),
        Call::get("/v1/chat/completions"),
        Call::new("DELETE", "/v1/chat/completions").key(strange),
        Call::get("/v1/models"),
        Call::get("/api/agents"),
        Call::get("/api/no/such/route"),
    ];
    for call in calls {
        let reply = call.send(gateway.address).await;
        let what = String::from_utf8_lossy(&call.head_bytes()).into_owned();
        assert_eq!(reply.status, 401, "{what}");
        let error = &reply.json()["error"];
        assert!(is_text(&error["message"]) && is_text(&error["type"]) && is_text(&error["code"]), "{what}: {error}");
        assert!(reply.json().get("decision").is_none(), "a 401 is no decision");
        assert!(!reply.text().contains(&well_formed) && !reply.text().contains(strange), "keys are not echoed");
        assert!(reply.header("x-request-id").is_some(), "{what}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_key_is_taken_from_either_header() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let call = Call::post("/v1/chat/completions").header("x-api-key", &gateway.agent_key).json(&ask("hi"));
    call.send(gateway.address).await.expect(200);
    let call = Call::post("/v1/chat/completions").header("authorization", &format!("bearer {}", gateway.agent_key));
    call.json(&ask("hi")).send(gateway.address).await.expect(200);
}

#[tokio::test]
async fn a_session_is_what_the_caller_named_or_one_of_its_own() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let session = |reply: Reply| reply.expect(200).json()["tappass"]["session_id"].as_str().unwrap().to_owned();
    for header in ["x-session-id", "x-tappass-session"] {
        let named = gateway.chat_call(&ask("hi")).header(header, "ses_0123456789ab").send(gateway.address).await;
        assert_eq!(session(named), "ses_0123456789ab");
    }
    assert_ne!(session(gateway.chat(&ask("hi")).await), session(gateway.chat(&ask("hi")).await));
}

#[tokio::test]
async fn the_models_are_listed_as_openai_lists_them() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body = Call::get("/v1/models").key(&gateway.agent_key).send(gateway.address).await.expect(200).json();
    assert_eq!(body["object"], "list");
    let models = body["data"].as_array().unwrap();
    for wanted in ["tappass/echo", openai::MODEL] {
        let model = models.iter().find(|model| model["id"] == wanted).unwrap_or_else(|| panic!("{wanted} in {body}"));
        assert!(model["object"] == "model" && model["created"].is_i64() && is_text(&model["owned_by"]), "{model}");
    }
}

#[tokio::test]
async fn the_public_keys_are_there_for_anyone() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let body = gateway.get("/.well-known/jwks.json").await.expect(200).json();
    let keys = body["keys"].as_array().unwrap();
    let signs = keys.iter().find(|key| key["crv"] == "Ed25519").expect("a key for batches and checkpoints");
    assert!(signs["kty"] == "OKP" && is_text(&signs["kid"]) && is_text(&signs["x"]), "{signs}");
    assert!(keys.iter().all(|key| key.get("d").is_none()), "public halves only");
}

#[tokio::test]
async fn the_echo_model_answers_streams_and_reports_usage_without_a_provider() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let reply = gateway.chat(&Gateway::echo("the quick brown fox")).await.expect(200);
    assert!(reply.content().contains("quick brown fox"), "{}", reply.content());
    let usage = &reply.json()["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("{name} in {usage}"));
    assert!(count("prompt_tokens") > 0 && count("completion_tokens") > 0);
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));

    let mut body = with(Gateway::echo("the quick brown fox"), "stream", json!(true));
    body["stream_options"] = json!({"include_usage": true});
    let streamed = gateway.chat(&body).await.expect(200);
    let sum = Sum::of(&streamed.body);
    assert_eq!(sum.first(), reply.content());
    assert!(sum.done && sum.usage.is_some() && sum.finish[&0] == "stop");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn an_event_stream_is_marked_so_that_nobody_buffers_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let call = gateway.chat_call(&ask_stream("hi")).header("accept-encoding", "gzip, br, zstd");
    let reply = call.send(gateway.address).await.expect(200);
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    assert!(reply.header("cache-control").is_some_and(|value| value.contains("no-cache")));
    assert_eq!(reply.header("content-encoding"), None);
}

#[tokio::test]
async fn every_reply_has_a_request_id_and_the_security_headers() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let replies = [
        gateway.get("/health").await,
        gateway.get("/v1/models").await.expect(401),
        Call::get("/nowhere").key(&gateway.agent_key).send(gateway.address).await.expect(404),
        gateway.chat(&ask("hi")).await.expect(200),
        gateway.chat(&ask_stream("hi")).await.expect(200),
        gateway.chat(&ask(AWS_KEY)).await.expect(403),
    ];
    for reply in replies {
        assert!(reply.header("x-request-id").is_some(), "{reply:?}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), None, "CORS is closed");
    }
}

#[tokio::test]
async fn a_provider_key_that_is_missing_is_an_error_of_its_own() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream)
        .env("OPENAI_API_KEY", "")
        .env("TAPPASS_PROVIDERS__OPENAI__KEY", "required")
        .start()
        .await;
    let reply = gateway.chat(&ask("hi")).await;
    assert!(reply.status != 200 && reply.status != 403, "no policy refused this: {}", reply.text());
    assert!(reply.text().contains("key"), "{}", reply.text());
    assert!(reply.json().get("decision").is_none());
    assert!(upstream.requests().is_empty());
    gateway.settled().await;
}
