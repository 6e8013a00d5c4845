//! Paths, methods and types that two readers could take differently: every one is refused alike (edge case 42).

use crate::support::{
    client::Call,
    gateway::Gateway,
    openai::{AWS_KEY, ask},
    upstream::Upstream,
};

#[tokio::test]
async fn a_known_path_with_another_method_is_405_with_a_key_and_401_without() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"] {
        let with_key = Call::new(method, "/v1/chat/completions").key(&gateway.agent_key).send(gateway.address).await;
        assert_eq!(with_key.status, 405, "{method} with a key");
        assert!(with_key.header("allow").is_some_and(|allow| allow.contains("POST")), "{method}");
        let without = Call::new(method, "/v1/chat/completions").send(gateway.address).await;
        assert_eq!(without.status, 401, "{method} without one");
    }
}

#[tokio::test]
async fn head_is_answered_without_a_body_and_keeps_the_connection_usable() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut wire = Call::new("HEAD", "/health").begin(gateway.address).await;
    let head = wire.reply_to("HEAD").await;
    assert_eq!(head.status, 200);
    wire.send(&Call::new("HEAD", "/v1/chat/completions").key(&gateway.agent_key).bytes()).await;
    assert_eq!(wire.reply_to("HEAD").await.status, 405);
    wire.send(&Call::get("/health").bytes()).await;
    assert_eq!(wire.reply().await.json()["version"], crate::health::version(&gateway).await);
}

#[tokio::test]
async fn another_spelling_of_a_path_never_reaches_what_the_path_reaches() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let spellings = [
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions//",
        "/v1/%63hat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completions%00",
        "/v1/chat/completions%2e",
        "/v1/./chat/completions",
        "/v1/../v1/chat/completions",
        "/v1/%2e%2e/v1/chat/completions",
        "/V1/chat/completions",
        "/v1/chat/completions;x=1",
        "/v1\\chat\\completions",
        "/health/../v1/chat/completions",
    ];
    for spelling in spellings {
        let anonymous = Call::post(spelling).json(&ask("hi")).send(gateway.address).await;
        assert!(matches!(anonymous.status, 400 | 401), "{spelling} without a key: {}", anonymous.status);
        let reply = Call::post(spelling).key(&gateway.agent_key).json(&ask("hi")).send(gateway.address).await;
        assert!(matches!(reply.status, 400 | 404), "{spelling} with a key: {}", reply.status);
    }
    assert!(upstream.requests().is_empty(), "nothing went out");
    // The guard would have spoken if one of them had been the same route.
    let query = Call::post("/v1/chat/completions?x=1").key(&gateway.agent_key).json(&ask(AWS_KEY));
    query.send(gateway.address).await.expect(403);
}

#[tokio::test]
async fn an_agents_key_does_not_open_the_control_plane_under_any_spelling() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for path in [
        "/api/agents",
        "//api/agents",
        "/api/agents/",
        "/api//agents",
        "/%61pi/agents",
        "/v1/../api/agents",
        "/API/agents",
    ] {
        let reply = Call::get(path).key(&gateway.agent_key).send(gateway.address).await;
        assert!(matches!(reply.status, 400 | 403 | 404), "{path}: {}", reply.status);
    }
}

#[tokio::test]
async fn a_method_cannot_be_overridden() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let call = Call::get("/v1/chat/completions").key(&gateway.agent_key).header(name, "POST").json(&ask("hi"));
        call.send(gateway.address).await.expect(405);
        let target = format!("/api/agents/{}/suspend", gateway.agent_id);
        let call = Call::get(&target).key(&gateway.admin_key).header(name, "POST");
        assert!(matches!(call.send(gateway.address).await.status, 404 | 405));
    }
    let call = Call::post("/v1/chat/completions?_method=GET").key(&gateway.agent_key).json(&ask("hi"));
    call.send(gateway.address).await.expect(200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_call_itself_json_is_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for kind in ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/xml"] {
        let call = Call::post("/v1/chat/completions").key(&gateway.agent_key).header("content-type", kind);
        let reply = call.body(ask("hi").to_string()).send(gateway.address).await;
        assert!(matches!(reply.status, 400 | 415), "{kind}: {}", reply.status);
        assert!(reply.json()["error"]["message"].is_string());
    }
    assert!(upstream.requests().is_empty());
    let call = Call::post("/v1/chat/completions").key(&gateway.agent_key);
    let call = call.header("content-type", "application/json; charset=utf-8").body(ask("hi").to_string());
    call.send(gateway.address).await.expect(200);
}

#[tokio::test]
async fn an_unknown_route_says_so_in_the_usual_shape() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let reply = Call::get("/v1/nowhere").key(&gateway.agent_key).send(gateway.address).await.expect(404);
    assert!(reply.json()["error"]["message"].is_string());
}
