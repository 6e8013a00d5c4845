//! HTTP/2 with prior knowledge on the same port (edge case 35).

use serde_json::Value;

use crate::support::{
    gateway::Gateway,
    http2::{Http2, read},
    openai::{AWS_KEY, ask, ask_stream, completion},
    sse::Sum,
    upstream::{Answer, Gate, Upstream},
    wait::{until, within},
};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn http2_gives_the_same_answers_as_http1() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut client = Http2::open(gateway.address).await;
    let answer = client.send("POST", CHAT, &gateway.agent_key, &ask("hi")).await;
    assert_eq!(answer.status(), 200);
    let (body, whole) = read(answer.into_body()).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(whole && body["choices"][0]["message"]["content"] == "hello world" && body["tappass"].is_object());

    let answer = client.send("POST", CHAT, &gateway.agent_key, &ask_stream("hi")).await;
    let (body, whole) = read(answer.into_body()).await;
    let sum = Sum::of(&body);
    assert!(whole && sum.done && sum.first() == "hello world");

    assert_eq!(client.send("POST", CHAT, &gateway.agent_key, &ask(AWS_KEY)).await.status(), 403);
    assert_eq!(client.send("POST", CHAT, "nobody", &ask("hi")).await.status(), 401);
    assert_eq!(client.send("GET", CHAT, &gateway.agent_key, &Value::Null).await.status(), 405);
    assert_eq!(client.send("GET", "/health", "nobody", &Value::Null).await.status(), 200);
}

#[tokio::test]
async fn a_connection_holds_only_so_many_streams() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("late")).hold_head(&gate));
    let gateway = Gateway::builder(&upstream).env("TAPPASS_SERVER__MAX_STREAMS_PER_CONNECTION", "4").start().await;
    let mut client = Http2::open(gateway.address).await;
    // One round trip, so that the gateway's settings have been read.
    assert_eq!(client.send("GET", "/health", "x", &Value::Null).await.status(), 200);
    let calls: Vec<_> =
        (0..8).map(|_| tokio::spawn(client.begin("POST", CHAT, &gateway.agent_key, &ask("hi")))).collect();
    upstream.request(3).await;
    // The others wait in the client: another connection is served meanwhile, and no fifth call has come.
    gateway.get("/health").await.expect(200);
    assert_eq!(upstream.requests().len(), 4);
    gate.open();
    for call in calls {
        assert_eq!(within("a held call", call).await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(upstream.requests().len(), 8);
}

#[tokio::test]
async fn several_calls_run_on_several_connections_to_the_provider() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.always(Answer::json(200, &completion("late")).hold_head(&gate));
    let gateway = Gateway::start(&upstream).await;
    let mut client = Http2::open(gateway.address).await;
    let calls: Vec<_> =
        (0..20).map(|_| tokio::spawn(client.begin("POST", CHAT, &gateway.agent_key, &ask("hi")))).collect();
    upstream.request(19).await;
    assert!(upstream.connections() >= 20, "none waits behind another");
    gate.open();
    for call in calls {
        assert_eq!(within("a call", call).await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_flood_of_resets_is_survived() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for _ in 0..10 {
        let mut client = Http2::open(gateway.address).await;
        for _ in 0..300 {
            if !client.ready().await {
                // The gateway has had enough of this connection, which is its right.
                break;
            }
            let call = tokio::spawn(client.begin("POST", CHAT, &gateway.agent_key, &ask("hi")));
            tokio::task::yield_now().await;
            call.abort();
        }
    }
    gateway.get("/health").await.expect(200);
    gateway.chat(&ask("hi")).await.expect(200);
    let chain = gateway.settled().await;
    for admission in chain.admissions() {
        assert_eq!(chain.closings_of(admission).len(), 1);
    }
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_finish() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.then(Answer::json(200, &completion("late")).hold_head(&gate));
    let mut gateway = Gateway::start(&upstream).await;
    let mut client = Http2::open(gateway.address).await;
    let running = tokio::spawn(client.begin("POST", CHAT, &gateway.agent_key, &ask("hi")));
    gate.reached().await;
    gateway.ask_to_stop();
    // After GOAWAY the client's own library opens no further stream.
    until("the connection to take no more", async || {
        let refused = client.begin("GET", "/health", "x", &Value::Null).await.is_err();
        refused.then_some(())
    })
    .await;
    gate.open();
    let answer = within("the running call", running).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert!(read(answer.into_body()).await.1);
    assert!(gateway.wait().success());
}

#[tokio::test]
async fn a_settings_frame_that_never_comes_holds_nothing_up() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).env("TAPPASS_SERVER__HEADER_TIMEOUT_MS", "300").start().await;
    let mut wire = crate::support::client::Wire::open(gateway.address).await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    gateway.chat(&ask("hi")).await.expect(200);
    drop(wire);
}
