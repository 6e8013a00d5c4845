//! What the embedded database does when it cannot write, and that every row comes back as it went in.

use super::*;
use crate::domain::{
    digest::Digest,
    ids::{BootId, EntryId, OrgId},
    money::NanoUsd,
    rows::{Table, Write},
    stamp::ConfigStamp,
};

struct Database {
    sql: Sql,
    dir: std::path::PathBuf,
}

impl Database {
    async fn new() -> Self {
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        let dir = std::env::temp_dir().join(format!("tappass-sql-{}", hex::encode(name)));
        std::fs::create_dir(&dir).unwrap();
        Self { sql: Sql::open(&dir.join("tappass.db")).await.unwrap(), dir }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn org() -> OrgId {
    OrgId::parse("org_a").unwrap()
}

fn id(counter: u64) -> EntryId {
    EntryId { org: org(), boot: BootId::parse("boot_a").unwrap(), counter }
}

fn head(seq: u64) -> Head {
    Head { seq, link: Digest([2; 32]), stamp: ConfigStamp::NONE, kid: "k".to_owned() }
}

async fn put(tx: &mut WriteTx, counter: u64, body: &str) -> Result<(), StorageError> {
    let id = id(counter);
    let batch = BatchRow {
        boot: "boot_a".to_owned(),
        number: counter,
        message: vec![1],
        kid: "k".to_owned(),
        signature: vec![2],
        unwritten: "[]".to_owned(),
    };
    let head = head(counter);
    let entry = NewEntry { seq: counter, id: &id, kind: "note", body, digest: Digest([1; 32]), link: head.link };
    tx.append(&org(), &batch, &[entry], &head).await
}

async fn append(sql: &Sql, counter: u64, body: &str) -> Result<(), StorageError> {
    let mut tx = sql.begin().await?;
    put(&mut tx, counter, body).await?;
    tx.commit().await
}

/// Pages that the database may have; SQLite answers "full" beyond them, as it does on a full disk.
async fn most_pages(sql: &Sql, pages: u32) {
    let text = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    sqlx::query(text).execute(&sql.writer).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_fails_a_write_as_an_outage_and_heals_without_a_restart() {
    let database = Database::new().await;
    append(&database.sql, 1, "before").await.unwrap();
    most_pages(&database.sql, 1).await;
    let error = append(&database.sql, 2, &"x".repeat(3_000_000)).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    // The bound was this connection's; without closing it no transaction would ever begin again.
    append(&database.sql, 2, "after").await.unwrap();
    let mut tx = database.sql.begin_read().await.unwrap();
    let bodies: Vec<String> =
        tx.entries_after(&org(), 0, 10).await.unwrap().into_iter().map(|entry| entry.body).collect();
    assert_eq!(bodies, ["before", "after"]);
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_by_the_database_and_is_no_outage() {
    let database = Database::new().await;
    append(&database.sql, 1, "once").await.unwrap();
    let error = append(&database.sql, 1, "twice").await.unwrap_err();
    assert!(!error.is_outage(), "{error:?}");
    let mut tx = database.sql.begin().await.unwrap();
    assert_eq!(tx.find_entry(&id(1)).await.unwrap().map(|(kind, seq, _)| (kind, seq)), Some(("note".to_owned(), 1)));
    assert_eq!(tx.find_entry(&id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    let database = Database::new().await;
    let mut tx = database.sql.begin().await.unwrap();
    put(&mut tx, 1, "dropped").await.unwrap();
    drop(tx);
    assert_eq!(database.sql.head(&org()).await.unwrap(), None);
    let mut tx = database.sql.begin().await.unwrap();
    assert_eq!(tx.find_entry(&id(1)).await.unwrap(), None);
    put(&mut tx, 1, "committed").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(database.sql.head(&org()).await.unwrap(), Some(head(1)));
}

#[tokio::test]
async fn holds_are_taken_once_and_spending_is_what_was_put() {
    let database = Database::new().await;
    let mut tx = database.sql.begin().await.unwrap();
    let hold = |counter| Hold { id: id(counter), config_version: 7, amount: NanoUsd(50), window: 3 };
    let spent = Spending { settled: NanoUsd(1), held: NanoUsd(100) };
    tx.settle(&org(), &[hold(1), hold(2)], &[(3, spent), (5, spent)]).await.unwrap();
    assert_eq!(tx.take_holds(&[&id(2), &id(9)]).await.unwrap(), [hold(2)]);
    assert_eq!(tx.take_holds(&[&id(2)]).await.unwrap(), []);
    assert_eq!(tx.spending(&org(), 3).await.unwrap(), Spending { settled: NanoUsd(1), held: NanoUsd(100) });
    assert_eq!(tx.spending(&org(), 4).await.unwrap(), Spending::default());
    tx.commit().await.unwrap();
    assert_eq!(database.sql.open_holds(&org()).await.unwrap(), 1);
}

#[tokio::test]
async fn configuration_comes_back_byte_for_byte_and_only_its_own_organizations() {
    let database = Database::new().await;
    let body = "{\"a\": 1.0,\u{a0}\"b\":\"ü\"}";
    let mut tx = database.sql.begin().await.unwrap();
    for table in Table::ALL {
        let put = Write { table, id: "one".to_owned(), body: Some(body.to_owned()) };
        tx.apply(&org(), std::slice::from_ref(&put)).await.unwrap();
        tx.apply(&OrgId::parse("org_b").unwrap(), &[put]).await.unwrap();
    }
    tx.apply(&org(), &[Write::delete(Table::Agent, "one")]).await.unwrap();
    let rows = tx.config_rows(&org()).await.unwrap();
    for table in Table::ALL {
        let stored: Vec<_> = rows.of(table).collect();
        assert_eq!(stored, if table == Table::Agent { vec![] } else { vec![("one", body)] }, "{}", table.name());
    }
}

#[tokio::test]
async fn closing_the_other_boots_closes_them_once() {
    let database = Database::new().await;
    let boot = |name| BootId::parse(name).unwrap();
    let mut tx = database.sql.begin().await.unwrap();
    for name in ["boot_a", "boot_b", "boot_c"] {
        tx.insert_boot(&boot(name), 1).await.unwrap();
    }
    tx.close_boot(&boot("boot_a")).await.unwrap();
    assert_eq!(tx.close_other_boots(&boot("boot_c")).await.unwrap(), ["boot_b"]);
    assert_eq!(tx.close_other_boots(&boot("boot_c")).await.unwrap(), Vec::<String>::new());
    for (name, open) in [("boot_c", true), ("boot_a", false), ("boot_b", false), ("unknown", false)] {
        assert_eq!(tx.locked(&org(), &boot(name), 1).await.unwrap().boot_is_open, open, "{name}");
    }
}

#[tokio::test]
async fn what_is_read_under_the_lock_is_what_was_written_or_nothing() {
    let database = Database::new().await;
    let boot = BootId::parse("boot_a").unwrap();
    let mut tx = database.sql.begin().await.unwrap();
    let locked = tx.locked(&org(), &boot, 3).await.unwrap();
    assert_eq!((locked.head, locked.boot_is_open, locked.spending), (None, false, Spending::default()));
    tx.insert_boot(&boot, 1).await.unwrap();
    let spent = Spending { settled: NanoUsd(7), held: NanoUsd(9) };
    tx.settle(&org(), &[], &[(3, spent)]).await.unwrap();
    tx.commit().await.unwrap();
    append(&database.sql, 1, "one").await.unwrap();
    let mut tx = database.sql.begin().await.unwrap();
    let locked = tx.locked(&org(), &boot, 3).await.unwrap();
    assert_eq!((locked.head.unwrap().seq, locked.boot_is_open, locked.spending), (1, true, spent));
    assert_eq!(tx.locked(&org(), &boot, 4).await.unwrap().spending, Spending::default());
}
