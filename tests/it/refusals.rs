//! What is refused never leaves, and the refusal is on record.

use serde_json::json;

use crate::support::{
    chain::Chain,
    control::{block_pii, block_tool},
    gateway::Gateway,
    openai::{self, AWS_KEY, ask, ask_stream, tool, with},
    upstream::{Answer, Upstream},
};

fn recorded(chain: &Chain, task: &str, step: &str) -> Option<()> {
    chain.refusals().any(|entry| entry.mentions(task) && entry.mentions(step)).then_some(())
}

#[tokio::test]
async fn a_refused_prompt_never_reaches_the_provider_and_the_refusal_is_in_the_chain() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    for body in [ask(&format!("use {AWS_KEY} please")), ask_stream(AWS_KEY)] {
        let refusal = gateway.chat(&body).await.expect(403).json();
        let task = refusal["task_id"].as_str().unwrap().to_owned();
        gateway.chain_until("the refusal", |chain| recorded(chain, &task, "detect_secrets")).await;
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(gateway.chain().admissions().count(), 0, "a refusal admits nothing");
    assert!(!gateway.chain().entries.iter().any(|entry| entry.mentions(AWS_KEY)), "the record does not repeat it");
}

#[tokio::test]
async fn what_the_agents_policy_forbids_is_refused_with_its_rule() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let text = "my social security number is 536-22-8145";
    gateway.chat(&ask(text)).await.expect(200);
    gateway.enforce("no personal data", json!([block_pii()])).await;
    let refusal = gateway.chat(&ask(text)).await.expect(403).json();
    assert_eq!(refusal["decision"], "policy_block");
    assert_eq!(refusal["blocked_by"], "detect_pii");
    assert_eq!(upstream.requests().len(), 1);
    let task = refusal["task_id"].as_str().unwrap().to_owned();
    gateway.chain_until("the refusal", |chain| recorded(chain, &task, "detect_pii")).await;
    gateway.chat(&ask("nothing personal")).await.expect(200);
}

#[tokio::test]
async fn a_forbidden_tool_is_not_offered_to_the_provider() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.enforce("no payments", json!([block_tool("payments_*")])).await;
    let body = with(ask("pay"), "tools", json!([tool("payments_send"), tool("search")]));
    let reply = gateway.chat(&body).await;
    // Either the whole call is refused or the definition is taken out; it never goes through.
    if reply.status == 200 {
        let sent = upstream.last().text();
        assert!(!sent.contains("payments_send") && sent.contains("search"), "{sent}");
    } else {
        assert_eq!(reply.status, 403);
        assert!(upstream.requests().is_empty());
    }
}

#[tokio::test]
async fn a_forbidden_tool_call_in_the_answer_never_reaches_the_agent() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    gateway.enforce("no payments", json!([block_tool("payments_send")])).await;
    let mut answer = openai::completion("");
    answer["choices"][0]["message"] = json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "payments_send", "arguments": "{\"amount\":9}"}}]});
    answer["choices"][0]["finish_reason"] = json!("tool_calls");
    upstream.then(Answer::json(200, &answer));
    let reply = gateway.chat(&with(ask("pay"), "tools", json!([tool("search")]))).await;
    assert!(!reply.text().contains("{\\\"amount\\\":9}"), "{}", reply.text());
    assert_eq!(reply.expect(403).json()["blocked_by"], "tool_permissions");

    let delta = openai::chunk(&json!({"tool_calls": [{"index": 0, "id": "call_1", "type": "function",
        "function": {"name": "payments_send", "arguments": "{\"amount\":9}"}}]}));
    upstream.then(Answer::stream([
        openai::event(&delta),
        openai::event(&openai::last_chunk("tool_calls")),
        openai::DONE.to_owned(),
    ]));
    let reply = gateway.chat(&with(ask_stream("pay"), "tools", json!([tool("search")]))).await;
    assert!(!reply.text().contains("amount"), "{}", reply.text());
    if reply.status == 200 {
        let sum = crate::support::sse::Sum::of(&reply.body);
        assert!(!sum.done && sum.errors.len() == 1, "{sum:?}");
    }
    gateway.settled().await;
}

#[tokio::test]
async fn a_malformed_conversation_is_the_callers_error_and_costs_nothing() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let bodies = [
        "",
        "null",
        "[]",
        "{\"model\":\"gpt-4o-mini\"}",
        "{\"messages\":[]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":{}}",
        "{\"model\":7,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"content\":\"x\"}]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":7}]}",
        "{\"model\":\"gpt-4o-mini\",\"stream\":\"yes\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]} trailing",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
    ];
    for body in bodies {
        let call = gateway.chat_call(&json!(null)).body(body);
        let reply = call.send(gateway.address).await;
        assert!(matches!(reply.status, 400 | 403 | 422), "{body}: {} {}", reply.status, reply.text());
        assert!(reply.json()["error"]["message"].is_string(), "{body}");
    }
    let latin = gateway
        .chat_call(&json!(null))
        .body(b"{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"\xe9\"}]}");
    assert_eq!(latin.send(gateway.address).await.status, 400, "a body that is not UTF-8");
    assert!(upstream.requests().is_empty());
}
