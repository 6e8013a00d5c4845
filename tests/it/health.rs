//! Health as probes and clients ask for it (wire.md 2.1, edge case 41).

use crate::support::{
    client::Call,
    gateway::Gateway,
    openai,
    upstream::{Answer, Gate, Upstream},
    wait::until,
};

/// What `/health` calls the version.
pub async fn version(gateway: &Gateway) -> String {
    gateway.get("/health").await.expect(200).json()["version"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn health_answers_everybody_with_a_version_that_clients_accept() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for call in [Call::get("/health"), Call::get("/health").key("wrong"), Call::get("/health").key(&gateway.agent_key)]
    {
        let body = call.send(gateway.address).await.expect(200).json();
        assert!(body["status"].is_string() && body["uptime_seconds"].is_number() && body["agents"].is_u64(), "{body}");
        assert_ne!(body["storage"], "memory");
        let parts: Vec<u32> = body["version"].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
        assert!(parts.len() == 3 && parts[0] == 0 && parts[1] == 12, "{parts:?}");
    }
}

#[tokio::test]
async fn live_ready_and_startup_each_answer_their_own_question() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for path in ["/health/live", "/health/ready", "/health/startup"] {
        let reply = gateway.get(path).await.expect(200);
        assert!(reply.json().is_object(), "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_draining_gateway_lives_but_is_not_ready_and_says_why() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.then(Answer::json(200, &openai::completion("late")).hold_head(&gate));
    let mut gateway = Gateway::start(&upstream).await;
    // Probes that keep their connection are answered while the drain runs; new ones are refused.
    let mut probe = Call::get("/health/ready").begin(gateway.address).await;
    probe.reply().await.expect(200);
    let mut waiting = gateway.chat_begin(&openai::ask("hi")).await;
    gate.reached().await;
    gateway.ask_to_stop();
    until("the gateway to stop accepting", async || tokio::net::TcpStream::connect(gateway.address).await.err()).await;
    probe.send(&Call::get("/health/ready").bytes()).await;
    if let Some(head) = probe.try_head().await {
        assert_eq!(head.status, 503, "not ready");
    }
    gate.open();
    waiting.reply().await.expect(200);
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn an_unreachable_provider_does_not_make_the_gateway_unready() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).arg("--upstream").arg("http://127.0.0.1:1/v1").start().await;
    let reply = gateway.chat(&openai::ask("hi")).await;
    assert!(matches!(reply.status, 502..=504), "{}", reply.text());
    gateway.get("/health").await.expect(200);
    gateway.get("/health/ready").await.expect(200);
}
