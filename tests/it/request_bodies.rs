//! How a request body may arrive (edge case 33) and how large it may be.

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    client::{Call, Wire},
    gateway::Gateway,
    openai::{AWS_KEY, ask},
    upstream::Upstream,
};

async fn packed(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    macro_rules! pack {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(bytes).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match encoding {
        "gzip" => pack!(GzipEncoder),
        "br" => pack!(BrotliEncoder),
        _ => pack!(ZstdEncoder),
    }
}

fn call(gateway: &Gateway) -> Call {
    Call::post("/v1/chat/completions").key(&gateway.agent_key).header("content-type", "application/json")
}

#[tokio::test]
async fn compressed_bodies_are_read_and_judged_like_plain_ones() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for encoding in ["gzip", "br", "zstd"] {
        let body = packed(encoding, ask("hi").to_string().as_bytes()).await;
        call(&gateway).header("content-encoding", encoding).body(body).send(gateway.address).await.expect(200);
        let seen = upstream.last();
        assert_eq!((seen.json(), seen.header("content-encoding")), (ask("hi"), None), "{encoding}");
        let body = packed(encoding, ask(AWS_KEY).to_string().as_bytes()).await;
        call(&gateway).header("content-encoding", encoding).body(body).send(gateway.address).await.expect(403);
    }
    call(&gateway)
        .header("content-encoding", "identity")
        .body(ask("hi").to_string())
        .send(gateway.address)
        .await
        .expect(200);
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test]
async fn an_encoding_that_we_do_not_know_is_415_and_broken_data_400() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for encoding in ["compress", "deflate, gzip", "x-nonsense", "gzip, gzip"] {
        let reply =
            call(&gateway).header("content-encoding", encoding).body(ask("hi").to_string()).send(gateway.address).await;
        assert!(matches!(reply.status, 400 | 415), "{encoding}: {}", reply.status);
        assert!(reply.json()["error"]["message"].is_string());
    }
    call(&gateway).header("content-encoding", "lzma").body("x").send(gateway.address).await.expect(415);
    for encoding in ["gzip", "br", "zstd"] {
        let whole = packed(encoding, ask("hi").to_string().as_bytes()).await;
        let mut followed = whole.clone();
        followed.extend_from_slice(b"more");
        for body in [b"not compressed".to_vec(), whole[..whole.len() - 3].to_vec(), followed] {
            let reply = call(&gateway).header("content-encoding", encoding).body(body).send(gateway.address).await;
            assert_eq!(reply.status, 400, "{encoding}: {}", reply.text());
        }
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_small_body_that_unpacks_beyond_the_limit_is_413() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).env("TAPPASS_SERVER__MAX_BODY_BYTES", "100000").start().await;
    let bomb = ask(&"a".repeat(20_000_000)).to_string();
    for encoding in ["gzip", "br", "zstd"] {
        let body = packed(encoding, bomb.as_bytes()).await;
        assert!(body.len() < 100_000);
        let reply =
            call(&gateway).header("content-encoding", encoding).body(body).send(gateway.address).await.expect(413);
        assert!(reply.json()["error"]["message"].is_string());
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn the_limit_counts_bytes_however_they_come_and_is_said_in_our_shape() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).config("[server]\nmax_body_bytes = 4096").start().await;
    let room = 4096 - ask("").to_string().len();
    let (fits, over) = (ask(&"a".repeat(room)), ask(&"a".repeat(room + 1)));
    gateway.chat(&fits).await.expect(200);
    gateway.chat_call(&fits).chunked().send(gateway.address).await.expect(200);
    for call in [gateway.chat_call(&over), gateway.chat_call(&over).chunked()] {
        let reply = call.send(gateway.address).await.expect(413);
        assert!(reply.json()["error"]["message"].is_string() && reply.json()["error"]["code"].is_string());
    }
    // Announced, never sent: the answer comes without reading it.
    let mut wire = Wire::open(gateway.address).await;
    let announced = call(&gateway).header("content-length", "99999999999").head_bytes();
    let announced = String::from_utf8(announced).unwrap().replace("content-length: 0\r\n", "");
    wire.send(announced.as_bytes()).await;
    wire.reply().await.expect(413);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn bodies_up_to_32_mib_pass_by_default() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let image = "A".repeat(20 << 20);
    let body = serde_json::json!({"model": crate::support::openai::MODEL, "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{image}")}}]}]});
    gateway.chat(&body).await.expect(200);
    assert_eq!(upstream.last().body.len(), body.to_string().len());
    upstream.always(crate::support::upstream::Answer::json(200, &crate::support::openai::completion("x")));
    gateway.chat(&ask(&"a".repeat(33 << 20))).await.expect(413);
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_to_go_on_or_why_not() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let expecting = gateway.chat_call(&ask("hi")).header("expect", "100-continue");
    let mut wire = Wire::open(gateway.address).await;
    wire.send(&expecting.head_bytes()).await;
    assert_eq!(wire.head().await.status, 100);
    wire.send(&expecting.body_bytes()).await;
    wire.reply().await.expect(200);

    let anonymous = Call::post("/v1/chat/completions").json(&ask("hi")).header("expect", "100-continue");
    let mut wire = Wire::open(gateway.address).await;
    wire.send(&anonymous.head_bytes()).await;
    assert_eq!(wire.head().await.status, 401, "without asking for the body first");
}

#[tokio::test]
async fn a_chunked_body_without_length_is_read_whole() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let text = "a longer text that needs many small chunks ".repeat(20);
    gateway.chat_call(&ask(&text)).chunked().send(gateway.address).await.expect(200);
    assert_eq!(upstream.last().json(), ask(&text));
    gateway.chat_call(&ask(AWS_KEY)).chunked().send(gateway.address).await.expect(403);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let upstream = Upstream::start();
    let builder = Gateway::builder(&upstream).env("TAPPASS_SERVER__BODY_TIMEOUT_MS", "200");
    let gateway = builder.env("TAPPASS_SERVER__HEADER_TIMEOUT_MS", "200").start().await;
    let call = gateway.chat_call(&ask("hi"));
    let mut wire = Wire::open(gateway.address).await;
    wire.send(&call.head_bytes()).await;
    wire.send(&call.body_bytes()[..5]).await;
    if let Some(head) = wire.try_head().await {
        assert_eq!(head.status, 408);
    }
    let mut wire = Wire::open(gateway.address).await;
    wire.send(b"POST /v1/chat").await;
    wire.closed().await;
    assert!(upstream.requests().is_empty());
}
