//! Public keys are bound to the data folder: what somebody puts into the database signs nothing.

use std::fs;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::{database::Database, gateway::Gateway, openai::ask, upstream::Upstream};

/// A public key that is not ours (RFC 8032, 7.1, test 1).
const FOREIGN: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// Puts a copy of our own row with another name and public key into the database of a stopped gateway.
async fn insert_key(gateway: &Gateway, kid: &str, public: &str) {
    let mut database = Database::open(&gateway.database()).await;
    let sql = format!(
        "INSERT INTO signing_key (kid, purpose, state, public_key, data_key_id, sealed, created_at) \
         SELECT '{kid}', purpose, 'retired', x'{public}', data_key_id, sealed, created_at FROM signing_key"
    );
    assert_eq!(database.run(&sql).await, 1);
    database.close().await;
}

async fn delete_keys(gateway: &Gateway) {
    let mut database = Database::open(&gateway.database()).await;
    assert!(database.run("DELETE FROM signing_key").await > 0);
    database.close().await;
}

#[tokio::test]
async fn a_key_that_stands_in_the_database_alone_stops_the_start() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.chat(&ask("hi")).await.expect(200);
    gateway.stop();
    let anchor = gateway.data_dir().join("anchors/jwks.json");
    let kept = fs::read(&anchor).unwrap();
    let kid: String = hex::encode(Sha256::digest(hex::decode(FOREIGN).unwrap())).chars().take(16).collect();
    insert_key(&gateway, &kid, FOREIGN).await;
    let said = gateway.try_restart().await.unwrap_err();
    assert!(said.contains(&kid) && said.contains("jwks.json"), "the key is named: {said}");
    assert_eq!(fs::read(&anchor).unwrap(), kept, "what is kept is not replaced");
    gateway.assert_verifies();

    let mut database = Database::open(&gateway.database()).await;
    database.run(&format!("DELETE FROM signing_key WHERE kid = '{kid}'")).await;
    database.close().await;
    insert_key(&gateway, "0123456789abcdef", FOREIGN).await;
    let said = gateway.try_restart().await.unwrap_err();
    assert!(said.contains("0123456789abcdef"), "the misnamed key is named: {said}");

    delete_keys(&gateway).await;
    let ours = serde_json::from_slice::<Value>(&kept).unwrap()["keys"][0]["kid"].as_str().unwrap().to_owned();
    let said = gateway.try_restart().await.unwrap_err();
    assert!(said.contains(&ours), "the lost key is named, and none made in its place: {said}");
}

#[tokio::test]
async fn what_a_key_signed_that_is_not_kept_does_not_verify() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream).await;
    gateway.chat(&ask("hi")).await.expect(200);
    gateway.stop();
    let anchor = gateway.data_dir().join("anchors/jwks.json");
    let kept = fs::read(&anchor).unwrap();
    // Without both it is a first start to the gateway, which signs with a new key.
    fs::remove_file(&anchor).unwrap();
    delete_keys(&gateway).await;
    gateway.restart().await;
    gateway.chat(&ask("hi")).await.expect(200);
    gateway.stop();
    let made = serde_json::from_slice::<Value>(&fs::read(&anchor).unwrap()).unwrap();
    let made = made["keys"][0]["kid"].as_str().unwrap();
    fs::write(&anchor, kept).unwrap();
    let (content, said) = gateway.verify();
    assert!(!content && said.contains(made), "the key is named: {said}");
    let said = gateway.try_restart().await.unwrap_err();
    assert!(said.contains(made), "{said}");
    gateway.forget_chain();
}
