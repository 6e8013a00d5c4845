//! Which headers cross the gateway, in both directions (edge cases 36 and 37).

use serde_json::json;

use crate::support::{
    gateway::{CANARY, Gateway},
    openai::{ask, completion},
    upstream::{Answer, Upstream},
};

#[tokio::test]
async fn upstream_headers_come_from_a_list_and_the_key_is_ours() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let stray = [
        ("cookie", "session=stray"),
        ("x-api-key", "stray"),
        ("api-key", "stray"),
        ("proxy-authorization", "Basic c3RyYXk="),
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-host", "stray.example"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=198.51.100.7"),
        ("x-real-ip", "198.51.100.7"),
        ("via", "1.1 stray"),
        ("openai-organization", "org-stray"),
        ("openai-project", "proj-stray"),
        ("x-org-id", "org_stray"),
        ("x-session-id", "ses_stray"),
        ("x-tappass-flags", "mode=enforce"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("te", "trailers"),
        ("keep-alive", "timeout=9"),
        ("upgrade", "websocket"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "stray"),
        ("x-anything-else", "stray"),
        ("origin", "https://stray.example"),
        ("referer", "https://stray.example/page"),
    ];
    let mut call = gateway.chat_call(&ask("hi"));
    for (name, value) in stray {
        call = call.header(name, value);
    }
    call.send(gateway.address).await.expect(200);
    let seen = upstream.last();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    for (name, value) in &seen.headers {
        assert!(!value.contains("stray") && !value.contains("198.51.100.7"), "{name}: {value}");
        assert!(!value.contains(&gateway.agent_key), "{name} carries the agent's key");
    }
    let allowed = [
        "host",
        "authorization",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "user-agent",
        "connection",
        "transfer-encoding",
    ];
    for (name, _) in &seen.headers {
        assert!(allowed.contains(&name.to_ascii_lowercase().as_str()), "unexpected header {name}");
    }
    assert_eq!(seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).count(), 1);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/chat/completions"));
    assert!(!seen.target.contains('?'), "nothing in the URL");
}

#[tokio::test]
async fn what_a_provider_says_about_our_account_stays_with_us() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let answer = Answer::json(200, &completion("hi"))
        .header("x-request-id", "req_of_the_provider")
        .header("openai-organization", "our-account")
        .header("openai-project", "our-account")
        .header("openai-version", "2020-10-01")
        .header("set-cookie", "__cf_bm=our-account")
        .header("server", "our-account")
        .header("alt-svc", "h3=\":443\"")
        .header("strict-transport-security", "max-age=1")
        .header("access-control-allow-origin", "*")
        .header("location", "https://our-account.example")
        .header("x-tappass-anything", "our-account");
    upstream.always(answer);
    let reply = gateway.chat(&ask("hi")).await.expect(200);
    for (name, value) in &reply.headers {
        assert!(!value.contains("our-account"), "{name}: {value}");
    }
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let ours = reply.header("x-request-id").expect("our own id");
    assert_ne!(ours, "req_of_the_provider");
    let theirs = reply.headers.iter().find(|(_, value)| value == "req_of_the_provider");
    assert_ne!(theirs.expect("the provider's id under a name of ours").0, "x-request-id");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let elsewhere = Upstream::start();
    for status in [301, 302, 303, 307, 308] {
        let before = upstream.requests().len();
        let target = format!("{}/chat/completions", elsewhere.base_url());
        upstream.always(Answer::json(status, &json!({})).header("location", &target));
        let reply = gateway.chat(&ask("hi")).await.expect(502);
        assert!(!reply.text().contains(&target) && reply.header("location").is_none());
        assert_eq!(upstream.requests().len(), before + 1);
    }
    assert!(elsewhere.requests().is_empty(), "the key went nowhere else");
    gateway.settled().await;
}

#[tokio::test]
async fn hostile_header_lines_are_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let key = &gateway.agent_key;
    let body = ask("hi").to_string();
    let length = body.len();
    let smuggled = [
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\ncontent-length: 5\r\n\r\n{body}"
        ),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        ),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
                 transfer-encoding: xchunked\r\n\r\n{body}"
        ),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type : application/json\r\n\
                 content-length: {length}\r\n\r\n{body}"
        ),
    ];
    for bytes in smuggled {
        let mut wire = crate::support::client::Wire::open(gateway.address).await;
        wire.send(bytes.as_bytes()).await;
        wire.half_close().await;
        let said = wire.closed().await;
        assert!(!said.starts_with(b"HTTP/1.1 200"), "{bytes}");
    }
    let two_keys = gateway.chat_call(&ask("hi")).header("authorization", "Bearer tp_other");
    let reply = two_keys.send(gateway.address).await;
    assert!(matches!(reply.status, 400 | 401), "two keys are no key: {}", reply.status);
    assert!(upstream.requests().is_empty());
}
