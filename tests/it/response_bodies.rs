//! How a provider's answer may be packed and what reaches the caller (edge cases 32 and 34).

use async_compression::tokio::write::GzipEncoder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    client::Reply,
    gateway::{CANARY, Gateway},
    openai::{self, ask, ask_stream, completion},
    sse::Sum,
    upstream::{Answer, Upstream},
};

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(bytes).await.unwrap();
    encoder.shutdown().await.unwrap();
    encoder.into_inner()
}

#[tokio::test]
async fn a_provider_is_asked_for_what_we_can_read() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for body in [ask("hi"), ask_stream("hi")] {
        let call = gateway.chat_call(&body).header("accept-encoding", "gzip, br, exotic");
        call.send(gateway.address).await.expect(200);
        let asked = upstream.last().header("accept-encoding").unwrap_or("identity").to_owned();
        assert_eq!(asked, "identity");
    }
}

#[tokio::test]
async fn an_answer_that_comes_compressed_all_the_same_is_unpacked_and_says_so_no_more() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let packed = gzip(completion("unpacked").to_string().as_bytes()).await;
    upstream.then(Answer::whole(200, "application/json", packed).header("content-encoding", "gzip"));
    let reply = gateway.chat(&ask("hi")).await.expect(200);
    assert_eq!((reply.content().as_str(), reply.header("content-encoding")), ("unpacked", None));
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));

    let events = openai::events(&["un", "packed"]).concat();
    let packed = gzip(events.as_bytes()).await;
    for size in [1, 7, 1000] {
        let pieces = packed.chunks(size).map(<[u8]>::to_vec);
        upstream.then(Answer::stream(pieces).header("content-encoding", "gzip"));
        let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
        assert_eq!(reply.header("content-encoding"), None);
        let sum = Sum::of(&reply.body);
        assert_eq!((sum.first(), sum.done), ("unpacked", true), "pieces of {size} bytes");
    }
    upstream.always(Answer::whole(200, "application/json", "?").header("content-encoding", "exotic"));
    gateway.chat(&ask("hi")).await.expect(502);
    gateway.settled().await;
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_an_error() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).env("TAPPASS_PROVIDERS__MAX_ANSWER_BYTES", "100000").start().await;
    upstream.always(Answer::json(200, &completion(&"a".repeat(200_000))));
    gateway.chat(&ask("hi")).await.expect(502);
    let packed = gzip(completion(&"a".repeat(10_000_000)).to_string().as_bytes()).await;
    upstream.always(Answer::whole(200, "application/json", packed).header("content-encoding", "gzip"));
    gateway.chat(&ask("hi")).await.expect(502);
    gateway.settled().await;
}

/// The header by which a caller learns whose limit it met: one of ours whose value names a side.
fn whose_limit(reply: &Reply) -> Option<&str> {
    let ours = |name: &str| name.starts_with("x-tappass-") || name.starts_with("x-ratelimit-");
    let sides = ["provider", "upstream", "tappass", "gateway"];
    reply
        .headers
        .iter()
        .find(|(name, value)| ours(name) && sides.contains(&value.as_str()))
        .map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn a_providers_limit_is_passed_on_with_its_own_headers() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let error =
        json!({"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded", "param": null}});
    for (status, after) in [(429, "600"), (429, "Wed, 21 Oct 2037 07:28:00 GMT"), (529, "600"), (503, "600")] {
        let answer = Answer::json(status, &error)
            .header("retry-after", after)
            .header("retry-after-ms", "600000")
            .header("x-ratelimit-limit-requests", "60")
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", "10m0s");
        upstream.always(answer);
        for body in [ask("hi"), ask_stream("hi")] {
            let reply = gateway.chat(&body).await.expect(status);
            assert_eq!(reply.header("retry-after"), Some(after), "{status}");
            assert_eq!(reply.header("x-ratelimit-limit-requests"), Some("60"));
            assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("0"));
            assert_eq!(reply.header("x-ratelimit-reset-requests"), Some("10m0s"));
            assert!(matches!(whose_limit(&reply), Some("provider" | "upstream")), "{:?}", reply.headers);
            assert_eq!(reply.json()["error"]["message"], "slow down");
        }
    }
    gateway.settled().await;
}

#[tokio::test]
async fn our_own_limit_uses_the_same_names_and_says_that_it_is_ours() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).keep_limits().start().await;
    let limit = json!({"preset": "starter", "overrides": {"rate_limit": {"max_calls": 2, "window_seconds": 3600}}});
    gateway.admin("PUT", "/api/pipeline", limit).await.expect(200);
    let mut last = gateway.chat(&ask("hi")).await.expect(200);
    while last.status == 200 {
        assert!(upstream.requests().len() <= 3, "the limit holds");
        last = gateway.chat(&ask("hi")).await;
    }
    let reply = last.expect(429);
    let seconds: u64 = reply.header("retry-after").expect("when to come back").parse().expect("whole seconds");
    assert!((1..=3600).contains(&seconds), "{seconds}");
    assert!(
        reply.header("x-ratelimit-limit-requests").is_some() && reply.header("x-ratelimit-reset-requests").is_some()
    );
    assert_eq!(reply.header("x-ratelimit-remaining-requests"), Some("0"));
    assert!(matches!(whose_limit(&reply), Some("tappass" | "gateway")), "{:?}", reply.headers);
    assert!(reply.json().get("decision").is_none() && reply.json()["error"]["message"].is_string());
}

#[tokio::test]
async fn the_callers_mistake_is_told_as_the_provider_told_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let error = json!({"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found", "param": "model"}});
    for status in [400, 404, 422] {
        upstream.always(Answer::json(status, &error));
        for body in [ask("hi"), ask_stream("hi")] {
            let reply = gateway.chat(&body).await.expect(status);
            assert_eq!(reply.json()["error"]["code"], "model_not_found");
        }
    }
    gateway.settled().await;
}

#[tokio::test]
async fn a_providers_refusal_of_our_key_is_our_problem_and_shows_nothing_of_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let error = json!({"error": {"message": format!("Incorrect API key provided: {CANARY}. See your account."),
        "type": "invalid_request_error", "code": "invalid_api_key", "param": null}});
    for status in [401, 403] {
        upstream.always(Answer::json(status, &error).header("www-authenticate", CANARY));
        for body in [ask("hi"), ask_stream("hi")] {
            let reply = gateway.chat(&body).await;
            assert!(!matches!(reply.status, 401 | 403), "the caller's own key is right: {}", reply.status);
            assert!(reply.status >= 500);
            assert!(!reply.text().contains(CANARY) && reply.headers.iter().all(|(_, value)| !value.contains(CANARY)));
        }
    }
    gateway.settled().await;
    assert!(!gateway.output().contains(CANARY));
}

#[tokio::test]
async fn a_broken_provider_is_502_with_its_cause() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for answer in [
        Answer::json(500, &json!({"error": {"message": "oops"}})),
        Answer::whole(500, "text/html", "<html>oops</html>"),
        Answer::whole(502, "text/plain", ""),
        Answer::json(418, &Value::Null),
        Answer::whole(204, "application/json", ""),
    ] {
        upstream.always(answer);
        let reply = gateway.chat(&ask("hi")).await;
        assert!(matches!(reply.status, 500 | 502 | 418), "{} {}", reply.status, reply.text());
        assert!(reply.json()["error"]["message"].is_string(), "never without a body");
    }
    gateway.settled().await;
}
