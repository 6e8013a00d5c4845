//! The record and the configuration, changed by somebody with write access to the disk: each change is found.

use std::{fs, path::Path};

use sha2::{Digest as _, Sha256};

use crate::support::{
    control::block_pii,
    database::Database,
    gateway::{CANARY, Gateway, TempDir, said, tappass},
    openai::{AWS_KEY, ask},
    upstream::Upstream,
    wait::until,
};

/// A stopped gateway with a chain of some forty entries, calls and changes mixed, that must not be verified on drop.
async fn with_history(upstream: &Upstream) -> Gateway {
    let builder = Gateway::builder(upstream).env("TAPPASS_AUDIT__CHECKPOINT_ENTRIES", "10");
    let mut gateway = builder.start().await;
    for number in 0..8 {
        gateway.chat(&ask("hi")).await.expect(200);
        gateway.chat(&ask(AWS_KEY)).await.expect(403);
        gateway.policy(&format!("policy {number}"), serde_json::json!([block_pii()])).await;
    }
    gateway.settled().await;
    until("a checkpoint", async || gateway.checkpoint()).await;
    gateway.stop();
    gateway.assert_verifies();
    gateway.forget_chain();
    gateway
}

/// A copy of a stopped gateway's database, its log folded in.
async fn keep(gateway: &Gateway, copy: &Path) {
    let mut database = Database::open(&gateway.database()).await;
    database.texts("PRAGMA journal_mode").await;
    database.run("PRAGMA wal_checkpoint(TRUNCATE)").await;
    database.close().await;
    fs::copy(gateway.database(), copy).unwrap();
}

/// Puts such a copy back, without the log of what came later.
fn put_back(gateway: &Gateway, copy: &Path) {
    for beside in ["tappass.db-wal", "tappass.db-shm"] {
        fs::remove_file(gateway.data_dir().join(beside)).ok();
    }
    fs::copy(copy, gateway.database()).unwrap();
}

fn digest(body: &str) -> Vec<u8> {
    Sha256::new().chain_update(b"E").chain_update(body).finalize().to_vec()
}

fn link(previous: &[u8], seq: u64, digest: &[u8]) -> Vec<u8> {
    let hash = Sha256::new().chain_update(b"L").chain_update(previous).chain_update(seq.to_be_bytes());
    hash.chain_update(digest).finalize().to_vec()
}

/// Recomputes digests and links of a chain from its bodies, and moves its head: what a careful forger does.
async fn relink(database: &mut Database, org: &str) {
    let bodies = database.texts(&format!("SELECT body FROM audit_entry WHERE org_id = '{org}' ORDER BY seq")).await;
    let mut last = vec![0; 32];
    let mut seq = 0;
    for body in &bodies {
        seq += 1;
        let digest = digest(body);
        last = link(&last, seq, &digest);
        let (digest, link) = (hex::encode(digest), hex::encode(&last));
        let place = format!("WHERE org_id = '{org}' AND seq = {seq}");
        database.run(&format!("UPDATE audit_entry SET digest = x'{digest}', link = x'{link}' {place}")).await;
    }
    let link = hex::encode(&last);
    database.run(&format!("UPDATE audit_head SET seq = {seq}, link = x'{link}' WHERE org_id = '{org}'")).await;
}

/// The verifier refuses, and names the entry at `seq`.
#[track_caller]
fn assert_found(gateway: &Gateway, what: &str, seq: Option<i64>) {
    let (content, said) = gateway.verify();
    assert!(!content, "{what} was not found: {said}");
    if let Some(seq) = seq {
        assert!(
            said.split(|c: char| !c.is_ascii_digit()).any(|word| word == seq.to_string()),
            "{what} at {seq}: {said}"
        );
    }
}

struct Crime {
    name: &'static str,
    sql: &'static [&'static str],
    relink: bool,
    /// The verifier must name this entry, where one is to blame alone.
    seq: Option<i64>,
}

const SHIFT_UP: &str = "UPDATE audit_entry SET seq = -seq WHERE org_id = :org AND seq > 12; \
                        UPDATE audit_entry SET seq = 1 - seq WHERE org_id = :org AND seq < 0";
const SHIFT_DOWN: &str = "UPDATE audit_entry SET seq = -seq WHERE org_id = :org AND seq > 12; \
                          UPDATE audit_entry SET seq = -seq - 1 WHERE org_id = :org AND seq < 0";
const SWAP: &str = "UPDATE audit_entry SET seq = -12 WHERE org_id = :org AND seq = 12; \
                    UPDATE audit_entry SET seq = 12 WHERE org_id = :org AND seq = 13; \
                    UPDATE audit_entry SET seq = 13 WHERE org_id = :org AND seq = -12";
const EDIT: &str =
    "UPDATE audit_entry SET body = replace(body, '\"time\":1', '\"time\":2') WHERE org_id = :org AND seq = 12";
const FORGE: &str = "INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link) \
                     SELECT org_id, 13, boot, 999999, kind, replace(body, '\"counter\":' || counter || ',', '\"counter\":999999,'), \
                     digest, link FROM audit_entry WHERE org_id = :org AND seq = 12";

const CRIMES: &[Crime] = &[
    Crime { name: "one byte of a body", sql: &[EDIT], relink: false, seq: Some(12) },
    Crime { name: "one byte, all links recomputed", sql: &[EDIT], relink: true, seq: Some(12) },
    Crime {
        name: "one byte of a digest",
        sql: &[
            "UPDATE audit_entry SET digest = CAST(x'00' || substr(digest, 2) AS BLOB) WHERE org_id = :org AND seq = 12",
        ],
        relink: false,
        seq: Some(12),
    },
    Crime {
        name: "one byte of a link",
        sql: &["UPDATE audit_entry SET link = zeroblob(32) WHERE org_id = :org AND seq = 12"],
        relink: false,
        seq: Some(12),
    },
    Crime {
        name: "another kind in the column than in the body",
        sql: &["UPDATE audit_entry SET kind = 'refusal' WHERE org_id = :org AND kind = 'admission'"],
        relink: false,
        seq: None,
    },
    Crime {
        name: "one entry deleted",
        sql: &["DELETE FROM audit_entry WHERE org_id = :org AND seq = 12"],
        relink: false,
        seq: Some(12),
    },
    Crime {
        name: "one entry deleted, the rest moved up and linked again",
        sql: &["DELETE FROM audit_entry WHERE org_id = :org AND seq = 12", SHIFT_DOWN],
        relink: true,
        seq: None,
    },
    Crime { name: "two entries swapped", sql: &[SWAP], relink: false, seq: Some(12) },
    Crime { name: "two entries swapped and linked again", sql: &[SWAP], relink: true, seq: None },
    Crime { name: "a forged entry inserted", sql: &[SHIFT_UP, FORGE], relink: false, seq: Some(13) },
    Crime { name: "a forged entry inserted and linked", sql: &[SHIFT_UP, FORGE], relink: true, seq: None },
    Crime {
        name: "the first entry deleted",
        sql: &["DELETE FROM audit_entry WHERE org_id = :org AND seq = 1"],
        relink: false,
        seq: None,
    },
    Crime {
        name: "cut below the newest checkpoint, with batches and checkpoints",
        sql: &[
            "DELETE FROM audit_entry WHERE org_id = :org AND seq > 7",
            "DELETE FROM audit_checkpoint WHERE org_id = :org AND size > 7",
        ],
        relink: true,
        seq: None,
    },
    Crime {
        name: "everything cut",
        sql: &["DELETE FROM audit_entry WHERE org_id = :org", "DELETE FROM audit_checkpoint WHERE org_id = :org"],
        relink: true,
        seq: None,
    },
    Crime {
        name: "a batch signature changed",
        sql: &["UPDATE audit_batch SET signature = zeroblob(64) WHERE org_id = :org AND number = \
                (SELECT min(number) FROM audit_batch WHERE org_id = :org)"],
        relink: false,
        seq: None,
    },
    Crime {
        name: "a batch deleted",
        sql: &["DELETE FROM audit_batch WHERE org_id = :org AND number = 2"],
        relink: false,
        seq: None,
    },
    Crime {
        name: "the head moved back",
        sql: &["UPDATE audit_head SET seq = seq - 1, link = (SELECT link FROM audit_entry e WHERE e.org_id = \
                audit_head.org_id AND e.seq = audit_head.seq - 1) WHERE org_id = :org"],
        relink: false,
        seq: None,
    },
];

#[tokio::test]
async fn every_change_to_the_stored_record_is_found_and_an_untouched_one_verifies() {
    let upstream = Upstream::start();
    let gateway = with_history(&upstream).await;
    let innocent = TempDir::new();
    let kept = innocent.path().join("kept.db");
    keep(&gateway, &kept).await;
    for crime in CRIMES {
        put_back(&gateway, &kept);
        let mut database = Database::open(&gateway.database()).await;
        for sql in crime.sql {
            let touched = database.run(&sql.replace(":org", &format!("'{}'", gateway.org_id))).await;
            assert!(touched > 0, "{}: nothing was touched", crime.name);
        }
        if crime.relink {
            relink(&mut database, &gateway.org_id).await;
        }
        database.close().await;
        assert_found(&gateway, crime.name, crime.seq);
    }
    put_back(&gateway, &kept);
    gateway.assert_verifies();
}

#[tokio::test]
async fn a_policy_row_edited_behind_the_products_back_is_refused_at_load() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.enforce("no personal data", serde_json::json!([block_pii()])).await;
    gateway.chat(&ask("my social security number is 536-22-8145")).await.expect(403);
    gateway.stop();
    let mut database = Database::open(&gateway.database()).await;
    assert!(database.replace("policy", "BlockPII", "AllowTool").await > 0, "the rule stands in a policy's row");
    database.close().await;
    gateway.forget_chain();
    if let Err(said) = gateway.try_restart().await {
        assert!(said.contains("digest") && !said.contains("panicked"), "the operator is told why: {said}");
        assert!(upstream.requests().is_empty());
        return;
    }
    let reply = gateway.chat(&ask("my social security number is 536-22-8145")).await;
    assert!(reply.status >= 500, "decided by an edited row: {} {}", reply.status, reply.text());
    assert!(upstream.requests().is_empty());
    let ready = gateway.get("/health/ready").await;
    assert_ne!(ready.status, 200, "nobody can be served: {}", ready.text());
    gateway.get("/health").await.expect(200);
    assert!(gateway.output().contains("digest"), "the operator is told: {}", gateway.output());
    gateway.stop();
    gateway.forget_chain();
}

#[tokio::test]
async fn every_kind_of_configuration_row_is_covered_by_the_digest() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.enforce("kept", serde_json::json!([block_pii()])).await;
    gateway.budget(5.0).await;
    gateway.stop();
    let innocent = TempDir::new();
    let kept = innocent.path().join("kept.db");
    keep(&gateway, &kept).await;
    let tables = [
        "agent",
        "agent_key",
        "budget",
        "organization",
        "pipeline",
        "policy",
        "policy_assignment",
        "policy_version",
        "provider_credential",
    ];
    for table in tables {
        let mut database = Database::open(&gateway.database()).await;
        let sql = format!("UPDATE {table} SET body = body || ' ' WHERE org_id = '{}'", gateway.org_id);
        assert!(database.run(&sql).await > 0, "{table} has rows");
        database.close().await;
        // Refusing to start is as good as refusing to decide.
        if gateway.try_restart().await.is_ok() {
            let reply = gateway.chat(&ask("hi")).await;
            assert!(reply.status >= 500, "{table}: {} {}", reply.status, reply.text());
            gateway.stop();
        }
        put_back(&gateway, &kept);
    }
    assert!(upstream.requests().is_empty());
    // The copies have cut what the refusing runs recorded.
    gateway.forget_chain();
}

/// Arguments of an offline verification.
fn offline(export: &Path, jwks: &Path, checkpoint: &Path) -> (bool, String) {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments = [
        "audit".to_owned(),
        "verify".to_owned(),
        "--export".to_owned(),
        path(export),
        "--jwks".to_owned(),
        path(jwks),
        "--checkpoint".to_owned(),
        path(checkpoint),
    ];
    let output = tappass(&arguments, &[]);
    (output.status.success(), said(&output))
}

#[tokio::test]
async fn an_export_from_a_live_gateway_verifies_with_nothing_but_keys_and_a_checkpoint() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).env("TAPPASS_AUDIT__CHECKPOINT_ENTRIES", "10").start().await;
    for _ in 0..10 {
        gateway.chat(&ask("hi")).await.expect(200);
    }
    let checkpoint = until("a checkpoint", async || gateway.checkpoint()).await;
    let elsewhere = TempDir::new();
    let (export, jwks, note) =
        (elsewhere.path().join("export.jsonl"), elsewhere.path().join("jwks.json"), elsewhere.path().join("note"));
    gateway.export(&export);
    let beside: Vec<_> = fs::read_dir(elsewhere.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "an export writes one file");
    fs::write(&jwks, gateway.get("/.well-known/jwks.json").await.expect(200).body).unwrap();
    fs::copy(checkpoint, &note).unwrap();
    let (content, said) = offline(&export, &jwks, &note);
    assert!(content, "{said}");
    for verdict in ["integrity", "completeness", "freshness"] {
        assert!(said.to_lowercase().contains(verdict), "{verdict} has a verdict of its own: {said}");
    }

    // One flipped bit anywhere is found. A few places of every line stand for all.
    let text = fs::read(&export).unwrap();
    let lines = text.split(|byte| *byte == b'\n').count();
    let spoiled = elsewhere.path().join("spoiled.jsonl");
    let step = (text.len() / (2 * lines)).max(1);
    for place in (step / 2..text.len()).step_by(step).filter(|place| text[*place] != b'\n').take(60) {
        let mut copy = text.clone();
        copy[place] ^= 1;
        fs::write(&spoiled, copy).unwrap();
        let (content, said) = offline(&spoiled, &jwks, &note);
        assert!(!content, "a flipped bit at byte {place} was not found: {said}");
    }

    // Somebody else's keys prove nothing.
    let strangers = Upstream::start();
    let stranger = Gateway::start(&strangers).await;
    fs::write(&jwks, stranger.get("/.well-known/jwks.json").await.expect(200).body).unwrap();
    let (content, said) = offline(&export, &jwks, &note);
    assert!(!content, "{said}");
}

#[tokio::test]
async fn an_export_that_stops_below_the_checkpoint_is_incomplete() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder(&upstream).env("TAPPASS_AUDIT__CHECKPOINT_ENTRIES", "10").start().await;
    let elsewhere = TempDir::new();
    let (early, jwks, note) =
        (elsewhere.path().join("early.jsonl"), elsewhere.path().join("jwks.json"), elsewhere.path().join("note"));
    gateway.export(&early);
    for _ in 0..20 {
        gateway.chat(&ask("hi")).await.expect(200);
    }
    let old = gateway.checkpoint();
    let newest = until("a checkpoint", async || gateway.checkpoint().filter(|path| Some(path) != old.as_ref())).await;
    fs::write(&jwks, gateway.get("/.well-known/jwks.json").await.expect(200).body).unwrap();
    fs::copy(newest, &note).unwrap();
    let (content, said) = offline(&early, &jwks, &note);
    assert!(!content, "{said}");
    assert!(said.to_lowercase().contains("complete"), "{said}");
}

#[tokio::test]
async fn another_data_directory_cannot_be_opened_with_a_copied_database() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.stop();
    let elsewhere = TempDir::new();
    fs::copy(gateway.database(), elsewhere.path().join("tappass.db")).unwrap();
    let arguments = ["dev", "--data-dir", elsewhere.path().to_str().unwrap(), "--port", "0"];
    let output = tappass(&arguments, &[("OPENAI_API_KEY", CANARY)]);
    assert!(!output.status.success(), "started without the key-encryption key");
    assert!(said(&output).contains("key"), "{}", said(&output));
    assert!(!said(&output).contains(CANARY));
}
