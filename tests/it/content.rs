//! Bodies: every shape passes, every place where text can hide is looked at, nothing is lost (edge cases 20 to 22, 27).

use serde_json::{Value, json};

use crate::support::{
    client::Call,
    gateway::Gateway,
    openai::{self, AWS_KEY, MODEL, ask, ask_stream, completion, event, last_chunk, text_chunk, tool, with},
    sse::Event,
    upstream::{Answer, Upstream},
};

fn messages(messages: Value) -> Value {
    with(json!({"model": MODEL}), "messages", messages)
}

const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

#[tokio::test]
async fn every_form_of_content_reaches_the_provider_as_it_was() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let bodies = [
        messages(json!([{"role": "user", "content": "text"}])),
        messages(json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])),
        messages(json!([{"role": "user", "content": []}])),
        messages(
            json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "result"}]),
        ),
        messages(json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "result"}]}])),
        messages(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}])),
        messages(
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]),
        ),
        messages(
            json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}]),
        ),
        messages(
            json!([{"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERi0="}}]}]),
        ),
        messages(json!([{"role": "user", "content": [{"type": "a_type_of_tomorrow", "value": {"deep": [1, null]}}]}])),
        messages(
            json!([{"role": "developer", "content": "d"}, {"role": "system", "content": "s"}, {"role": "user", "content": "u"}]),
        ),
        messages(
            json!([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, {"role": "user", "content": "u"}]),
        ),
        with(ask("x"), "tools", Value::Null),
        with(
            ask("x"),
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}),
        ),
        with(ask("x"), "metadata", json!({"any": ["thing", 1, null]})),
    ];
    for body in bodies {
        gateway.chat(&body).await.expect(200);
        assert_eq!(upstream.last().json(), body);
    }
}

#[tokio::test]
async fn what_cannot_be_inspected_is_named_as_uncovered_in_the_record() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.chat(&ask("only text")).await.expect(200);
    let image = json!([{"role": "user", "content": [{"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": PIXEL}}]}]);
    gateway.chat(&messages(image)).await.expect(200);
    let chain = gateway.settled().await;
    let uncovered: Vec<bool> =
        chain.admissions().map(|entry| entry.content()["coverage"]["uncovered"].as_u64().unwrap() > 0).collect();
    assert_eq!(uncovered, [false, true], "{chain:?}");
    assert!(chain.admissions().all(|entry| entry.content()["coverage"]["seen"].as_u64().unwrap() >= 4));
}

#[expect(clippy::too_many_lines, reason = "a table of hiding places")]
/// A body with the key hidden in one place, by the name of the place.
fn hiding_places() -> Vec<(&'static str, Value)> {
    let secret = format!("key {AWS_KEY} end");
    let user = |content: Value| messages(json!([{"role": "user", "content": content}]));
    let call = |name: &str, arguments: &str| {
        messages(json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "y"}]))
    };
    let with_tool = |pointer: &str, value: &str| {
        let mut tool = tool("search");
        *tool.pointer_mut(pointer).unwrap() = json!(value);
        with(ask("x"), "tools", json!([tool]))
    };
    let mut described = tool("search");
    described["function"]["parameters"]["properties"]["q"]["description"] = json!(secret);
    let mut listed = tool("search");
    listed["function"]["parameters"]["properties"]["q"]["enum"] = json!(["a", secret]);
    let mut keyed = tool("search");
    keyed["function"]["parameters"]["properties"][AWS_KEY] = json!({"type": "string"});
    let escaped: String = AWS_KEY.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    vec![
        ("user text", user(json!(secret))),
        ("user part", user(json!([{"type": "text", "text": "a"}, {"type": "text", "text": secret}]))),
        ("system", messages(json!([{"role": "system", "content": secret}, {"role": "user", "content": "x"}]))),
        (
            "developer",
            messages(json!([{"role": "developer", "content": [{"type": "text", "text": secret}]},
            {"role": "user", "content": "x"}])),
        ),
        ("assistant", messages(json!([{"role": "assistant", "content": secret}, {"role": "user", "content": "x"}]))),
        (
            "refusal",
            messages(
                json!([{"role": "assistant", "content": "", "refusal": secret}, {"role": "user", "content": "x"}]),
            ),
        ),
        (
            "refusal part",
            messages(json!([{"role": "assistant", "content": [{"type": "refusal", "refusal": secret}]},
            {"role": "user", "content": "x"}])),
        ),
        (
            "reasoning",
            messages(json!([{"role": "assistant", "content": "x", "reasoning_content": secret},
            {"role": "user", "content": "x"}])),
        ),
        (
            "tool result",
            messages(
                json!([{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": secret}]),
            ),
        ),
        (
            "tool result part",
            messages(json!([{"role": "user", "content": "x"},
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": secret}]}])),
        ),
        ("name", messages(json!([{"role": "user", "content": "x", "name": AWS_KEY}]))),
        ("tool call arguments", call("f", &json!({"q": secret}).to_string())),
        ("escaped tool call arguments", call("f", &format!("{{\"q\":\"{escaped}\"}}"))),
        ("tool call arguments that are no JSON", call("f", &secret)),
        ("tool call name", call(AWS_KEY, "{}")),
        (
            "function call",
            messages(json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": null,
            "function_call": {"name": "f", "arguments": secret}}])),
        ),
        ("tool name", with_tool("/function/name", AWS_KEY)),
        ("tool description", with_tool("/function/description", &secret)),
        ("tool schema description", with(ask("x"), "tools", json!([described]))),
        ("tool schema enum", with(ask("x"), "tools", json!([listed]))),
        ("tool schema key", with(ask("x"), "tools", json!([keyed]))),
        ("old functions", with(ask("x"), "functions", json!([{"name": "f", "description": secret}]))),
        (
            "response format",
            with(
                ask("x"),
                "response_format",
                json!({"type": "json_schema", "json_schema":
            {"name": "n", "description": secret, "schema": {}}}),
            ),
        ),
        ("prediction", with(ask("x"), "prediction", json!({"type": "content", "content": secret}))),
        ("metadata", with(ask("x"), "metadata", json!({"note": secret}))),
        ("metadata key", with(ask("x"), "metadata", json!({AWS_KEY: "x"}))),
        ("user field", with(ask("x"), "user", json!(AWS_KEY))),
        ("stop", with(ask("x"), "stop", json!(["a", AWS_KEY]))),
        ("stop text", with(ask("x"), "stop", json!(AWS_KEY))),
        ("file name", user(json!([{"type": "file", "file": {"filename": AWS_KEY, "file_data": "JVBERi0="}}]))),
        (
            "image URL",
            user(json!([{"type": "image_url", "image_url": {"url": format!("https://example.com/?k={AWS_KEY}")}}])),
        ),
        ("a part of tomorrow", user(json!([{"type": "tomorrow", "value": {"deep": [secret]}}]))),
        ("a field of tomorrow", with(ask("x"), "tomorrow", json!({"deep": [{"er": secret}]}))),
        ("model", with(ask("x"), "model", json!(AWS_KEY))),
    ]
}

#[tokio::test]
async fn a_secret_is_found_wherever_text_can_hide() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for (place, body) in hiding_places() {
        let reply = gateway.chat(&body).await;
        assert_eq!(reply.status, 403, "{place}: {}", reply.text());
        assert_eq!(reply.json()["blocked_by"], "detect_secrets", "{place}");
        assert!(!reply.text().contains(AWS_KEY), "{place}: the refusal repeats it");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn bytes_that_nothing_changed_are_forwarded_as_they_came() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let odd = concat!(
        " {\"messages\" : [ {\"content\":\"\\u0068i \\/ \\ud83e\\udd80\", \"role\":\"user\",\"extra\":1.0}],\r\n\t",
        "\"big\":9007199254740993,\"huge\":123456789012345678901234567890,\"tiny\":1e-400,\"exp\":1E+2,\"neg\":-0.0,",
        "\"temperature\":1.0,\"model\":\"gpt-4o-mini\",\"later\":{\"b\":1,\"a\":[true,null]}}\n"
    );
    let call = || Call::post("/v1/chat/completions").key(&gateway.agent_key).header("content-type", "application/json");
    call().body(odd).send(gateway.address).await.expect(200);
    assert_eq!(upstream.last().text(), odd);
    assert_eq!(upstream.last().header("content-length"), Some(odd.len().to_string().as_str()));
    call().body(odd).chunked().send(gateway.address).await.expect(200);
    assert_eq!(upstream.last().text(), odd);
}

#[tokio::test]
async fn unknown_fields_and_the_text_of_numbers_survive_in_answers() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let fields = "\"big\":9007199254740993,\"float\":1.0,\"exp\":1e2,\"later\":{\"b\":1,\"a\":2}";
    let plain = format!(
        "{{\"id\":\"x\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",{fields},\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"hi\",\"audio\":null,{fields}}},\"finish_reason\":\"stop\"}}],\
         \"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}}}"
    );
    upstream.then(Answer::whole(200, "application/json", plain));
    let reply = gateway.chat(&ask("hi")).await.expect(200);
    assert_eq!(reply.text().matches(fields).count(), 2, "{}", reply.text());
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));

    let chunk = format!(
        "data: {{\"id\":\"x\",\"object\":\"chat.completion.chunk\",{fields},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"hi\",{fields}}}}}]}}\n\n"
    );
    upstream.then(Answer::stream([chunk.clone(), chunk, event(&last_chunk("stop")), openai::DONE.to_owned()]));
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    assert_eq!(reply.text().matches(fields).count(), 4, "{}", reply.text());
}

#[tokio::test]
async fn a_key_that_stands_twice_is_refused_since_readers_disagree_on_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let twice = [
        "{\"model\":\"gpt-4o-mini\",\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"content\":\"y\"}]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"c\\u006fntent\":\"y\"}]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"later\":{\"a\":1,\"a\":2}}",
    ];
    for body in twice {
        let reply = gateway.chat_call(&Value::Null).body(body).send(gateway.address).await;
        assert!(matches!(reply.status, 400 | 403), "{body}: {}", reply.status);
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn nesting_beyond_reason_is_refused_and_harms_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for depth in [1_000, 100_000, 1_000_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let body = format!(
                "{{\"model\":\"gpt-4o-mini\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\"deep\":{deep}}}"
            );
            let reply = gateway.chat_call(&Value::Null).body(body).send(gateway.address).await;
            assert!(matches!(reply.status, 400 | 403), "depth {depth}: {}", reply.status);
        }
    }
    let endless = gateway.chat_call(&Value::Null).body("[".repeat(1 << 20)).send(gateway.address).await;
    assert!(matches!(endless.status, 400 | 403));
    gateway.chat(&ask("hi")).await.expect(200);
    assert_eq!(upstream.requests().len(), 1);
    // An answer is no more trusted than a request.
    upstream.always(Answer::whole(200, "application/json", format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))));
    gateway.chat(&ask("hi")).await.expect(502);
    upstream.always(Answer::stream([format!("data: {}\n\n", "[".repeat(200_000))]));
    let reply = gateway.chat(&ask_stream("hi")).await;
    assert!(!reply.text().contains("[DONE]"));
    gateway.get("/health").await.expect(200);
    gateway.settled().await;
}

#[tokio::test]
async fn obfuscation_padding_passes_untouched() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mut padded = text_chunk("hi");
    padded["obfuscation"] = json!("x9Fq2LkPz");
    upstream.always(Answer::stream([event(&padded), event(&last_chunk("stop")), openai::DONE.to_owned()]));
    let reply = gateway.chat(&ask_stream("hi")).await.expect(200);
    let chunk = reply.events().iter().filter_map(Event::json).find(|chunk| chunk["obfuscation"].is_string());
    assert_eq!(chunk.expect("the padding is there")["obfuscation"], "x9Fq2LkPz");
}

#[tokio::test]
async fn a_signature_and_base64_are_never_touched() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let signature = "EqoBCkgIARABGAIiQL8".repeat(40);
    let mut answer = completion("done");
    answer["choices"][0]["message"]["reasoning_details"] = json!([{"type": "reasoning.encrypted", "data": signature}]);
    upstream.then(Answer::json(200, &answer));
    let reply = gateway.chat(&ask("hi")).await.expect(200);
    assert_eq!(reply.json()["choices"][0]["message"]["reasoning_details"][0]["data"], signature.as_str());
}
