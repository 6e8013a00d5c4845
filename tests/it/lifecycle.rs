//! Start, restart and a graceful end (edge cases 40 and 41).

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{
    client::call_until_it_ends,
    gateway::{Gateway, TempDir, said, tappass},
    openai::{self, ask, ask_stream, completion, event, text_chunk},
    sse::Sum,
    upstream::{Answer, Gate, Upstream},
};

#[tokio::test]
async fn a_gateway_started_again_keeps_its_keys_its_agents_and_its_record() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    let other = gateway.onboard("another").await;
    gateway.chat(&ask("hi")).await.expect(200);
    let before =
        (gateway.agent_key.clone(), gateway.admin_key.clone(), gateway.org_id.clone(), gateway.agent_id.clone());
    gateway.restart().await;
    let after =
        (gateway.agent_key.clone(), gateway.admin_key.clone(), gateway.org_id.clone(), gateway.agent_id.clone());
    assert_eq!(before, after);
    gateway.chat(&ask("hi")).await.expect(200);
    let call = crate::support::client::Call::post("/v1/chat/completions").key(&other.key).json(&ask("hi"));
    call.send(gateway.address).await.expect(200);
    let chain = gateway.settled().await;
    assert_eq!((chain.admissions().count(), chain.closings().count()), (3, 3));
}

#[tokio::test]
async fn what_a_start_prints_works_and_what_it_writes_is_private() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let mode = std::fs::metadata(gateway.data_dir().join("dev.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let printed = gateway.output();
    assert!(printed.contains(&gateway.agent_key) && printed.contains(&gateway.admin_key), "{printed}");
    assert!(printed.contains("curl") && printed.contains("/v1/chat/completions"), "{printed}");
    assert!(printed.contains(&gateway.base_url()), "{printed}");
    for file in ["kek", "tappass.db"] {
        let mode = std::fs::metadata(gateway.data_dir().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is nobody else's to read");
    }
}

#[tokio::test]
async fn two_processes_never_share_a_data_directory() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream).await;
    let data = gateway.data_dir();
    let arguments = ["dev", "--data-dir", data.to_str().unwrap(), "--port", "0"];
    let output = crate::support::gateway::tappass(&arguments, &[]);
    assert!(!output.status.success());
    assert!(said(&output).contains(data.to_str().unwrap()), "the folder is named: {}", said(&output));
    gateway.chat(&ask("hi")).await.expect(200);
}

#[tokio::test]
async fn what_waiting_would_not_heal_ends_a_start_at_once() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    let folder = TempDir::new();
    let (data, port) = (folder.path().join("data"), gateway.address.port().to_string());
    let started = |data: &str, variables| tappass(&["dev", "--data-dir", data, "--port", &port], variables);
    let output = started(data.to_str().unwrap(), &[]);
    assert!(!output.status.success() && said(&output).contains("cannot listen on"), "{}", said(&output));
    let output = started(data.to_str().unwrap(), &[("TAPPASS_PROVIDERS__OPENAI__BASE_URL", "nonsense")]);
    assert!(!output.status.success() && said(&output).contains("providers.openai.base_url"), "{}", said(&output));
    assert!(!data.join("tappass.db").exists(), "neither asked for a database");
    gateway.stop();
    gateway.assert_verifies();
    gateway.forget_chain();
    std::fs::write(gateway.database(), "this is no database, and no time will make it one").unwrap();
    let said = gateway.try_restart().await.unwrap_err();
    assert!(said.contains("the database cannot be used"), "{said}");
}

#[tokio::test]
async fn a_stream_that_ends_in_time_ends_well_after_sigterm() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.then(
        Answer::stream([event(&text_chunk("so "))]).pause(&gate).piece(event(&text_chunk("far"))).piece(openai::DONE),
    );
    let mut gateway = Gateway::start(&upstream).await;
    let mut wire = gateway.chat_begin(&ask_stream("hi")).await;
    assert_eq!(wire.head().await.status, 200);
    let start = wire.read_until("so ").await;
    gateway.ask_to_stop();
    gate.open();
    let (rest, whole) = wire.rest().await;
    let sum = Sum::of(&[start, rest].concat());
    assert!(whole && sum.done && sum.first() == "so far");
    assert!(gateway.wait().success());
    let chain = gateway.chain();
    assert_eq!((chain.open().len(), chain.closings().count()), (0, 1));
}

#[tokio::test]
async fn a_stream_that_does_not_end_in_time_is_cut_with_an_error_and_recorded() {
    let upstream = Upstream::start();
    let gate = Gate::new();
    upstream.then(Answer::stream([event(&text_chunk("so far"))]).pause(&gate).piece(openai::DONE));
    upstream.then(Answer::json(200, &completion("never")).hold_head(&gate));
    let mut gateway = Gateway::builder(&upstream).env("TAPPASS_SERVER__DRAIN_TIMEOUT_MS", "300").start().await;
    let mut stream = gateway.chat_begin(&ask_stream("hi")).await;
    assert_eq!(stream.head().await.status, 200);
    let start = stream.read_until("so far").await;
    let mut plain = gateway.chat_begin(&ask("hi")).await;
    upstream.request(1).await;
    gateway.ask_to_stop();
    let (rest, whole) = stream.rest().await;
    let sum = Sum::of(&[start, rest].concat());
    assert!(!whole && !sum.done && sum.errors.len() == 1, "{sum:?}");
    if let Some(head) = plain.try_head().await {
        assert_eq!(head.status, 503);
        assert!(head.header("retry-after").is_some());
    }
    upstream.abandoned(0).await;
    upstream.abandoned(1).await;
    assert!(gateway.wait().success());
    let chain = gateway.chain();
    assert_eq!((chain.open().len(), chain.closings().count()), (0, 2));
}

#[tokio::test]
async fn sigterm_amid_a_burst_loses_no_record() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    let call = gateway.chat_call(&ask("hi")).bytes();
    let callers: Vec<_> = (0..16).map(|_| tokio::spawn(call_until_it_ends(gateway.address, call.clone()))).collect();
    upstream.request(200).await;
    gateway.ask_to_stop();
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.unwrap().len();
    }
    assert!(gateway.wait().success());
    let chain = gateway.chain();
    assert!(chain.open().is_empty());
    assert!(chain.closings().count() >= answered && chain.admissions().count() >= upstream.requests().len());
}

#[tokio::test]
async fn bootstrap_keys_from_the_environment_work_and_are_not_printed() {
    let upstream = Upstream::start();
    let admin = "tp_admin_bootstrap-of-a-container-0123456789";
    let builder = Gateway::builder(&upstream).env("TAPPASS_ADMIN_KEY", admin);
    let gateway = builder.start().await;
    let me = crate::support::client::Call::get("/api/me").key(admin).send(gateway.address).await.expect(200).json();
    assert!(me["role"].is_string() || me["account_role"].is_string(), "{me}");
}
