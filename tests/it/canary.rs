//! A provider key is nowhere but in the call (promise 5): every output is searched for it, in clear and encoded.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    client::{Call, Reply},
    gateway::{CANARY, Gateway, TempDir, said, tappass},
    openai::{AWS_KEY, ask, ask_stream},
    upstream::{Answer, End, Upstream, find},
};

/// Spellings under which a secret could leave: clear, base64 at each of its three alignments, hex, percent-encoded,
/// reversed, UTF-16, JSON-escaped.
fn spellings(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let mut all = vec![bytes.to_vec(), bytes.iter().rev().copied().collect()];
    for shift in 0..3 {
        // The first and last characters depend on the neighbours: what is left in the middle does not.
        let padded = [vec![b'x'; shift], bytes.to_vec()].concat();
        let encoded = STANDARD.encode(padded);
        let middle = encoded.get(4..encoded.len() - 8).unwrap();
        all.push(middle.as_bytes().to_vec());
        all.push(middle.replace('+', "-").replace('/', "_").into_bytes());
    }
    all.push(hex::encode(bytes).into_bytes());
    all.push(hex::encode_upper(bytes).into_bytes());
    for upper in [true, false] {
        let digits = |byte: &u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
        all.push(bytes.iter().map(digits).collect::<String>().into_bytes());
    }
    all.push(secret.replace('-', "%2D").into_bytes());
    all.push(secret.encode_utf16().flat_map(u16::to_le_bytes).collect());
    all.push(secret.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>().into_bytes());
    // A long enough part of it is a leak as well.
    all.push(bytes[8..bytes.len() - 4].to_vec());
    all
}

fn holds(haystack: &[u8], secret: &str) -> bool {
    spellings(secret).iter().any(|spelling| find(haystack, spelling).is_some())
}

fn files(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

fn bytes_of(reply: &Reply) -> Vec<u8> {
    let headers: String = reply.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    [headers.into_bytes(), reply.body.clone()].concat()
}

#[test]
fn the_search_finds_a_key_under_every_spelling() {
    for spelling in spellings(CANARY) {
        let hidden = [b"before ".to_vec(), spelling, b" after".to_vec()].concat();
        assert!(holds(&hidden, CANARY), "{}", String::from_utf8_lossy(&hidden));
    }
    for shift in 0..3 {
        let text = format!("{}{CANARY} and more", "y".repeat(shift));
        assert!(holds(STANDARD.encode(text).as_bytes(), CANARY), "shift {shift}");
    }
    assert!(!holds(b"nothing of that kind", CANARY));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one gateway, every output, one search")]
async fn a_provider_key_is_in_no_reply_log_entry_metric_or_file() {
    const STORED: &str = "sk-proj-CANARYstoredByAnAdmin0a1b2c3d4e5f6g7h8i9j";
    let upstream = Upstream::start();
    let builder = Gateway::builder(&upstream).env("TAPPASS_LOG__LEVEL", "trace");
    let mut gateway = builder.env("TAPPASS_PROVIDERS__IDLE_TIMEOUT_MS", "200").start().await;
    let mut replies: Vec<Reply> = Vec::new();

    // Every way a call can go, with a provider that throws the key back at us.
    let blame = json!({"error": {"message": format!("bad key {CANARY} or {STORED}"), "type": CANARY, "code": STORED}});
    let answers = [
        Answer::json(200, &crate::support::openai::completion("fine")),
        Answer::json(401, &blame).header("www-authenticate", CANARY).header("x-request-id", CANARY),
        Answer::json(403, &blame),
        Answer::json(500, &blame),
        Answer::whole(502, "text/plain", format!("proxy error for Bearer {CANARY}")),
        Answer::json(302, &json!({})).header("location", &format!("http://127.0.0.1:9/?key={CANARY}")),
        Answer::nothing(End::Close),
        Answer::nothing(End::Reset),
        Answer::stream([format!("data: {blame}\n\n")]).end(End::Close),
    ];
    for key in ["first", "second"] {
        if key == "second" {
            let body = json!({"provider": "openai", "api_key": STORED});
            let stored = gateway.admin("POST", "/api/admin/llm-keys", body).await.expect(200);
            assert_eq!(stored.json()["last_four"], STORED.get(STORED.len() - 4..).unwrap());
            replies.push(stored);
        }
        for answer in &answers {
            upstream.always(answer.clone());
            replies.push(gateway.chat(&ask("hi")).await);
            replies.push(gateway.chat(&ask_stream("hi")).await);
        }
        let sent = upstream.last().header("authorization").unwrap().to_owned();
        assert_eq!(
            sent,
            format!("Bearer {}", if key == "first" { CANARY } else { STORED }),
            "the search knows the key"
        );
    }
    replies.push(gateway.chat(&ask(AWS_KEY)).await);
    replies.push(gateway.admin("POST", "/api/admin/llm-keys", json!({"provider": STORED, "api_key": STORED})).await);
    replies.push(gateway.admin("POST", "/api/admin/llm-keys", json!({"provider": "openai", "api_kee": STORED})).await);
    let malformed =
        Call::post("/api/admin/llm-keys").key(&gateway.admin_key).header("content-type", "application/json");
    replies
        .push(malformed.body(format!("{{\"provider\":\"openai\",\"api_key\":\"{STORED}")).send(gateway.address).await);
    for target in [
        "/api/admin/llm-keys",
        "/api/agents",
        "/api/policies",
        "/api/pipeline",
        "/api/pipeline/steps",
        "/api/me",
        "/metrics",
        "/api/budget",
        "/health",
        "/health/ready",
        "/.well-known/jwks.json",
        "/api/audit",
        "/v1/models",
    ] {
        replies.push(gateway.admin("GET", target, Value::Null).await);
    }
    // What an attacker typed is not echoed either.
    replies.push(Call::get("/v1/models").key(CANARY).send(gateway.address).await.expect(401));
    for (number, reply) in replies.iter().enumerate() {
        for secret in [CANARY, STORED] {
            assert!(!holds(&bytes_of(reply), secret), "reply {number}: {}", reply.text());
        }
    }

    gateway.settled().await;
    let elsewhere = TempDir::new();
    let export = elsewhere.path().join("export.jsonl");
    gateway.export(&export);
    gateway.stop();
    let verified = tappass(&["audit", "verify", "--data-dir", gateway.data_dir().to_str().unwrap()], &[]);
    assert!(!holds(said(&verified).as_bytes(), CANARY));
    let mut found = vec![export];
    files(gateway.folder(), &mut found);
    assert!(found.iter().any(|path| path.ends_with("tappass.db")), "the database is among what is searched: {found:?}");
    for path in found {
        let bytes = std::fs::read(&path).unwrap();
        for secret in [CANARY, STORED] {
            assert!(!holds(&bytes, secret), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn callers_keys_are_stored_as_hashes_only() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::builder(&upstream).env("TAPPASS_LOG__LEVEL", "trace").start().await;
    let agent = gateway.onboard("hidden").await;
    let call = Call::post("/v1/chat/completions").key(&agent.key).json(&ask("hi"));
    call.send(gateway.address).await.expect(200);
    gateway.settled().await;
    for target in ["/api/agents", "/api/me", "/metrics"] {
        let reply = gateway.admin("GET", target, Value::Null).await;
        assert!(!holds(&bytes_of(&reply), &agent.key), "{target}: shown once means once");
    }
    gateway.stop();
    let mut found = Vec::new();
    files(gateway.folder(), &mut found);
    for path in found {
        assert!(!holds(&std::fs::read(&path).unwrap(), &agent.key), "{}", path.display());
    }
}
