//! What the databases do when they cannot write, and that every row comes back as it went in.

use super::*;
use crate::domain::{
    digest::Digest,
    ids::{BootId, EntryId, OrgId},
    money::NanoUsd,
    rows::{Table, Write},
    stamp::ConfigStamp,
};

#[path = "../../../tests/it/support/postgres.rs"]
#[expect(dead_code, unreachable_pub, reason = "the whole of what starts a server; this module needs a part of it")]
pub(crate) mod postgres_server;

pub(crate) struct Database {
    pub(crate) sql: Sql,
    dir: Option<std::path::PathBuf>,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        let dir = std::env::temp_dir().join(format!("tappass-sql-{}", hex::encode(name)));
        std::fs::create_dir(&dir).unwrap();
        Self { sql: Sql::open(&dir.join("tappass.db")).await.unwrap(), dir: Some(dir) }
    }

    /// A database of its own on this process's Postgres.
    pub(crate) async fn postgres() -> Self {
        Self { sql: Sql::connect(&settings(&postgres_url().await)).await.unwrap(), dir: None }
    }

    /// Writes behind the product's back.
    pub(crate) async fn tamper(&self, text: &'static str) {
        self.sql.write(text, args![]).await.unwrap();
    }

    /// Open admissions, in order of their ids: (boot, counter), version, amount and windows with their limits.
    pub(crate) async fn holds(&self, org: &OrgId) -> Vec<Hold> {
        let text = match &self.sql.0 {
            Arm::Sqlite(_) => {
                "SELECT boot, counter, config_version, amount_nano, windows FROM hold WHERE org_id = $1 ORDER BY 1, 2"
            }
            Arm::Postgres(_) => {
                "SELECT boot, counter, config_version, amount_nano, coalesce((SELECT json_agg(json_build_array(w.n, w.l)) \
                 FROM unnest(windows, limits) AS w (n, l)), '[]')::TEXT FROM hold WHERE org_id = $1 ORDER BY 1, 2"
            }
        };
        let rows = self.sql.read(text, args![org.as_str()]).await.unwrap();
        rows.iter().map(|row| holds::read(org, row).unwrap()).collect()
    }

    /// What windows have spent, in order of their names; those without anything are left out.
    pub(crate) async fn spent(&self, org: &OrgId) -> Vec<(String, Spending)> {
        let text = "SELECT spending_window, settled_nano, held_nano FROM spending \
                    WHERE org_id = $1 AND (settled_nano <> 0 OR held_nano <> 0) ORDER BY 1";
        let read = |row: &Row| {
            let spending = Spending { settled: NanoUsd(row.int(1).unwrap()), held: NanoUsd(row.int(2).unwrap()) };
            (row.text(0).unwrap(), spending)
        };
        self.sql.read(text, args![org.as_str()]).await.unwrap().iter().map(read).collect()
    }

    /// The embedded database's write transaction.
    async fn begin(&self) -> WriteTx {
        self.sql.begin().await.unwrap().unwrap()
    }
}

/// The address of a new database on this process's Postgres.
pub(crate) async fn postgres_url() -> String {
    postgres_server::Postgres::shared().await.database().await
}

pub(crate) fn settings(url: &str) -> PostgresSettings {
    PostgresSettings {
        url: url.into(),
        append_connections: 2,
        read_connections: 2,
        admin_connections: 1,
        lock_timeout: Duration::from_millis(250),
        statement_timeout: Duration::from_secs(2),
        migrate: true,
        target: None,
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            std::fs::remove_dir_all(dir).unwrap();
        }
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

fn batch(number: u64) -> BatchRow {
    BatchRow {
        boot: "boot_a".to_owned(),
        number,
        message: vec![1],
        kid: "k".to_owned(),
        signature: vec![2],
        unwritten: "[]".to_owned(),
    }
}

async fn put(tx: &mut WriteTx, counter: u64, body: &str) -> Result<(), StorageError> {
    let (id, batch, head) = (id(counter), batch(counter), head(counter));
    let entry = NewEntry { seq: counter, id: &id, kind: "note", body, digest: Digest([1; 32]), link: head.link };
    let org = &org();
    tx.append(&Appending { org, batch: &batch, entries: &[entry], head: &head, holds: &[], windows: &[] }).await
}

/// Holds and sums, without an entry.
async fn settle(tx: &mut WriteTx, holds: &[Hold], windows: &[(String, Spending)]) {
    let (org, batch, head) = (&org(), &batch(99), &head(0));
    tx.append(&Appending { org, batch, entries: &[], head, holds, windows }).await.unwrap();
}

async fn append(sql: &Sql, counter: u64, body: &str) -> Result<(), StorageError> {
    let mut tx = sql.begin().await?.unwrap();
    put(&mut tx, counter, body).await?;
    tx.commit().await
}

/// Pages that the database may have; SQLite answers "full" beyond them, as it does on a full disk.
async fn most_pages(sql: &Sql, pages: u32) {
    let text = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
    let Arm::Sqlite(sqlite) = &sql.0 else { panic!("pages are SQLite's") };
    sqlx::query(text).execute(&sqlite.writer).await.unwrap();
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
    let mut tx = database.begin().await;
    assert_eq!(tx.find_entry(&id(1)).await.unwrap().map(|(kind, seq, _)| (kind, seq)), Some(("note".to_owned(), 1)));
    assert_eq!(tx.find_entry(&id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    let database = Database::new().await;
    let mut tx = database.begin().await;
    put(&mut tx, 1, "dropped").await.unwrap();
    drop(tx);
    assert_eq!(database.sql.head(&org()).await.unwrap(), None);
    let mut tx = database.begin().await;
    assert_eq!(tx.find_entry(&id(1)).await.unwrap(), None);
    put(&mut tx, 1, "committed").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(database.sql.head(&org()).await.unwrap(), Some(head(1)));
}

#[tokio::test]
async fn holds_are_taken_once_and_spending_is_what_was_put() {
    let database = Database::new().await;
    let mut tx = database.begin().await;
    let window = |name: &str, limit| Window { name: name.to_owned(), limit };
    let windows = vec![window("total:3", Some(NanoUsd(900))), window("day:3:2026-11-21", None)];
    let hold = |counter| Hold { id: id(counter), config_version: 7, amount: NanoUsd(50), windows: windows.clone() };
    let spent = Spending { settled: NanoUsd(1), held: NanoUsd(100) };
    let sums = [("total:3".to_owned(), spent), ("total:5".to_owned(), spent)];
    settle(&mut tx, &[hold(1), hold(2)], &sums).await;
    assert_eq!(tx.take_holds(&[&id(2), &id(9)]).await.unwrap(), [hold(2)]);
    assert_eq!(tx.take_holds(&[&id(2)]).await.unwrap(), []);
    assert_eq!(tx.spending(&org(), "total:3").await.unwrap(), Spending { settled: NanoUsd(1), held: NanoUsd(100) });
    assert_eq!(tx.spending(&org(), "total:4").await.unwrap(), Spending::default());
    tx.commit().await.unwrap();
    assert_eq!(database.sql.open_holds(&org(), 8).await.unwrap(), (1, 1));
    assert_eq!(database.sql.open_holds(&org(), 7).await.unwrap(), (1, 0));
}

#[tokio::test]
async fn configuration_comes_back_byte_for_byte_and_only_its_own_organizations() {
    let database = Database::new().await;
    let body = "{\"a\": 1.0,\u{a0}\"b\":\"ü\"}";
    let mut tx = database.begin().await;
    for table in Table::ALL {
        let put = Write { table, id: "one".to_owned(), body: Some(body.to_owned()) };
        tx.apply(&org(), std::slice::from_ref(&put)).await.unwrap();
        tx.apply(&OrgId::parse("org_b").unwrap(), &[put]).await.unwrap();
    }
    tx.apply(&org(), &[Write::delete(Table::Agent, "one")]).await.unwrap();
    tx.commit().await.unwrap();
    let rows = database.sql.begin_read().await.unwrap().config_rows(&org()).await.unwrap();
    for table in Table::ALL {
        let stored: Vec<_> = rows.of(table).collect();
        assert_eq!(stored, if table == Table::Agent { vec![] } else { vec![("one", body)] }, "{}", table.name());
    }
}

#[tokio::test]
async fn what_is_read_under_the_lock_is_what_was_written_or_nothing() {
    let database = Database::new().await;
    let boot = BootId::parse("boot_a").unwrap();
    let mut tx = database.begin().await;
    let locked = tx.locked(&org(), &boot, "total:3").await.unwrap();
    assert_eq!((locked.head, locked.boot_is_open, locked.spending), (None, false, Spending::default()));
    let spent = Spending { settled: NanoUsd(7), held: NanoUsd(9) };
    settle(&mut tx, &[], &[("total:3".to_owned(), spent)]).await;
    tx.commit().await.unwrap();
    database.sql.register_boot(&boot, "1", LEASE).await.unwrap();
    append(&database.sql, 1, "one").await.unwrap();
    let mut tx = database.begin().await;
    let locked = tx.locked(&org(), &boot, "total:3").await.unwrap();
    assert_eq!((locked.head.unwrap().seq, locked.boot_is_open, locked.spending), (1, true, spent));
    assert_eq!(tx.locked(&org(), &boot, "total:4").await.unwrap().spending, Spending::default());
}

#[tokio::test]
async fn an_older_database_keeps_every_entry_byte_for_byte_and_refuses_an_id_that_is_taken() {
    let database = Database::new().await;
    let path = database.dir.as_ref().unwrap().join("older.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut older = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.unwrap();
    let migrations = migrations::of(migrations::SQLITE).into();
    let migrator = sqlx::migrate::Migrator { migrations, ..sqlx::migrate::Migrator::DEFAULT };
    migrator.run_to(2, &mut older).await.unwrap();
    let row = |org: &'static str, seq: u8| {
        let (digest, link) = (vec![seq; 32], vec![100 + seq; 32]);
        let body = format!("{{\"n\":{seq},\"long\":\"{}\"}}", "ü".repeat(3_000 * usize::from(seq)));
        (org, seq, 10 - seq, body, digest, link)
    };
    let all = [row("org_b", 2), row("org_a", 1), row("org_b", 1), row("org_a", 3), row("org_a", 2)];
    let insert = "INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link) \
                  VALUES ($1, $2, 'boot_a', $3, 'note', $4, $5, $6)";
    for (org, seq, counter, body, digest, link) in &all {
        let query = sqlx::query(insert)
            .bind(*org)
            .bind(i64::from(*seq))
            .bind(i64::from(*counter))
            .bind(body)
            .bind(digest)
            .bind(link);
        query.execute(&mut older).await.unwrap();
    }
    sqlx::Connection::close(older).await.unwrap();

    let sql = Sql::open(&path).await.unwrap();
    for (org, count) in [("org_a", 3), ("org_b", 2)] {
        let org = OrgId::parse(org).unwrap();
        let mut tx = sql.begin_read().await.unwrap();
        let entries = tx.entries_after(&org, 0, 9).await.unwrap();
        assert_eq!(entries.len(), count);
        for (entry, seq) in entries.iter().zip(1_u8..) {
            let (.., counter, body, digest, link) = all.iter().find(|r| r.0 == org.as_str() && r.1 == seq).unwrap();
            assert_eq!(
                (entry.seq, entry.counter, &*entry.boot, &*entry.kind),
                (u64::from(seq), u64::from(*counter), "boot_a", "note")
            );
            assert_eq!((&entry.body, &entry.digest.0[..], &entry.link.0[..]), (body, &digest[..], &link[..]));
        }
    }
    for taken in ["'org_a', 3, 'boot_a', 99", "'org_a', 4, 'boot_a', 9"] {
        let again = format!(
            "INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link) VALUES ({taken}, '', '', x'', x'')"
        );
        let mut tx = sql.begin().await.unwrap().unwrap();
        let refused = tx.run(sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(again)), &[]).await;
        assert!(refused.is_err_and(|error| !error.is_outage()), "{taken}");
    }
    sql.close().await;
}

#[tokio::test]
async fn digests_come_in_order_and_in_pages_and_one_of_another_length_is_told() {
    for database in both().await {
        for (seq, byte) in [(2, 2), (1, 1), (3, 0xab)] {
            let text = format!(
                "INSERT INTO audit_entry (org_id, seq, boot, counter, kind, body, digest, link) \
                 VALUES ('org_a', {seq}, 'boot_a', {seq}, 'note', '{{}}', $1, $1)"
            );
            let args = [Arg::Bytes(&[byte; 32])];
            database.sql.write(Box::leak(text.into_boxed_str()), &args).await.unwrap();
        }
        let digest = |byte| Digest([byte; 32]);
        let after = async |after, most| database.sql.digests_after(&org(), after, most).await;
        assert_eq!(after(0, 9).await.unwrap(), [digest(1), digest(2), digest(0xab)]);
        assert_eq!(after(1, 1).await.unwrap(), [digest(2)]);
        assert_eq!(after(3, 9).await.unwrap(), []);
        let shorter = "UPDATE audit_entry SET digest = $1 WHERE seq = 2";
        database.sql.write(shorter, &[Arg::Bytes(&[2; 31])]).await.unwrap();
        assert!(matches!(after(0, 9).await, Err(StorageError::Inconsistent { table: "audit_entry" })));
        assert_eq!(after(2, 9).await.unwrap(), [digest(0xab)]);
    }
}

#[tokio::test]
async fn holds_are_taken_with_the_head_only_from_an_open_boot_on_the_chain_that_was_seen() {
    let database = Database::new().await;
    let boot = BootId::parse("boot_a").unwrap();
    let hold = |counter| Hold { id: id(counter), config_version: 7, amount: NanoUsd(50), windows: Vec::new() };
    let mut tx = database.begin().await;
    settle(&mut tx, &[hold(1), hold(2)], &[]).await;
    put(&mut tx, 1, "one").await.unwrap();
    tx.commit().await.unwrap();
    let take = async |seq, link, counter| {
        let mut tx = database.begin().await;
        let asked = (&org(), &boot);
        let taken = tx.locked_and_taken(asked, "", Seen { seq, link }, &[&id(counter), &id(9)]).await.unwrap().1;
        tx.commit().await.unwrap();
        taken
    };
    let link = head(1).link;
    assert_eq!(take(1, link, 1).await, Some(vec![]), "the boot is not known");
    database.sql.register_boot(&boot, "1", LEASE).await.unwrap();
    assert_eq!(take(1, Digest([9; 32]), 1).await, None, "another chain");
    assert_eq!(take(2, link, 1).await, None, "a chain that was longer");
    assert_eq!(take(1, link, 1).await, Some(vec![hold(1)]));
    assert_eq!(take(1, link, 1).await, Some(vec![]), "it is gone");
    assert_eq!(take(0, Digest::ZERO, 2).await, Some(vec![hold(2)]), "nothing was seen yet");
}

const LEASE: Duration = Duration::from_secs(30);

/// Both databases: whatever is not said twice behaves the same on each.
async fn both() -> Vec<Database> {
    vec![Database::new().await, Database::postgres().await]
}

#[tokio::test]
async fn closing_the_other_boots_closes_them_once() {
    for database in both().await {
        let sql = &database.sql;
        let boot = |name| BootId::parse(name).unwrap();
        for name in ["boot_a", "boot_b", "boot_c"] {
            sql.register_boot(&boot(name), "1.2", LEASE).await.unwrap();
        }
        sql.close_boot(&boot("boot_a")).await.unwrap();
        assert_eq!(sql.close_other_boots(&boot("boot_c")).await.unwrap(), 1);
        assert_eq!(sql.close_other_boots(&boot("boot_c")).await.unwrap(), 0);
        assert!(sql.renew_boot(&boot("boot_c"), LEASE).await.unwrap());
        assert!(!sql.renew_boot(&boot("boot_b"), LEASE).await.unwrap(), "a closed boot is never opened again");
        let live = sql.live_boots().await.unwrap();
        assert_eq!(live.iter().map(|boot| (&*boot.id, &*boot.version)).collect::<Vec<_>>(), [("boot_c", "1.2")]);
        assert_eq!(sql.close_expired_boots().await.unwrap(), Vec::<String>::new());
        sql.renew_boot(&boot("boot_c"), Duration::ZERO).await.unwrap();
        assert_eq!(sql.close_expired_boots().await.unwrap(), ["boot_c"]);
    }
}

#[tokio::test]
async fn keys_and_checkpoints_come_back_byte_for_byte_from_either_database() {
    for database in both().await {
        let sql = &database.sql;
        let wrapped = vec![0, 255, 7];
        let record = |id: &str| DataKeyRecord {
            org: org(),
            id: id.to_owned(),
            state: "active".to_owned(),
            kek: "local".to_owned(),
            wrapped: wrapped.clone(),
            created_at: 5,
        };
        assert!(!sql.has_data_keys().await.unwrap());
        assert!(sql.insert_data_key(&record("a")).await.unwrap());
        assert!(!sql.insert_data_key(&record("a")).await.unwrap());
        let keys = sql.data_keys(&org()).await.unwrap();
        assert_eq!((keys.len(), &keys[0].wrapped, keys[0].created_at), (1, &wrapped, 5));
        let row = CheckpointRow { size: 9, frontier: vec![1, 2], note: "note\n".to_owned() };
        sql.insert_checkpoint(&org(), &row).await.unwrap();
        sql.insert_checkpoint(&org(), &CheckpointRow { note: "other".to_owned(), ..row }).await.unwrap();
        let last = sql.last_checkpoint(&org()).await.unwrap().unwrap();
        assert_eq!((last.size, &*last.frontier, &*last.note), (9, &[1, 2][..], "note\n"));
        assert_eq!(sql.notes_after(&org(), 8, 9).await.unwrap(), [(9, "note\n".to_owned())]);
        assert!(sql.notes_after(&org(), 9, 9).await.unwrap().is_empty());
    }
}

/// Every statement of the two databases is prepared by running it on an empty schema.
#[tokio::test]
async fn every_statement_runs_on_either_database() {
    for database in both().await {
        let sql = &database.sql;
        assert_eq!(sql.chains().await.unwrap(), []);
        assert_eq!(sql.head(&org()).await.unwrap(), None);
        assert_eq!(sql.organization_rows().await.unwrap(), Vec::<String>::new());
        assert!(sql.entry(&id(1)).await.unwrap().is_none());
        assert_eq!(sql.bodies_of_kind(&org(), "note").await.unwrap(), Vec::<String>::new());
        assert_eq!(sql.counters_of(&org(), "boot_a").await.unwrap(), Vec::<u64>::new());
        assert_eq!(sql.digests_after(&org(), 0, 9).await.unwrap(), []);
        assert_eq!(sql.orphaned_holds(9).await.unwrap(), []);
        for window in ["total:0", "day:0:{day}", "month:0:{month}"] {
            assert_eq!(sql.spending(&org(), window).await.unwrap(), Spending::default());
        }
        assert_eq!(sql.open_holds(&org(), 1).await.unwrap(), (0, 0));
        assert_eq!(sql.closed_boots_with_unwritten().await.unwrap(), []);
        assert_eq!(sql.unwritten_of("boot_a").await.unwrap(), []);
        assert!(sql.signing_keys().await.unwrap().is_empty());
        sql.note_loaded(&BootId::parse("boot_a").unwrap(), &org(), 3).await.unwrap();
        sql.live_on(&org(), 3).await.unwrap();
        assert!(sql.tips().await.unwrap().is_empty());
        let credential = crate::domain::ids::CredentialId::parse("cred_a").unwrap();
        sql.note_credential_used(&org(), &credential).await.unwrap();
        assert!(sql.credential_checks().await.unwrap().is_empty(), "used is not checked");
        assert!(sql.put_credential_check(&org(), &credential, "invalid", 3).await.unwrap());
        assert!(!sql.put_credential_check(&org(), &credential, "valid", 2).await.unwrap(), "an older run is fenced");
        let found = sql.credential_checks().await.unwrap();
        assert_eq!(found.iter().map(|check| &*check.outcome).collect::<Vec<_>>(), ["invalid"]);
        assert!(sql.credential_rows(None).await.unwrap().is_empty());
        assert!(sql.credential_rows(Some(LEASE)).await.unwrap().is_empty());
        sql.forget_credential_checks().await.unwrap();
        assert!(sql.credential_checks().await.unwrap().is_empty(), "it is not stored any more");
        let mut tx = sql.begin_read().await.unwrap();
        assert!(tx.config_rows(&org()).await.unwrap().is_empty());
        assert_eq!(tx.head(&org()).await.unwrap(), None);
        assert!(tx.entries_after(&org(), 0, 9).await.unwrap().is_empty());
        assert!(tx.batches_after(&org(), ("", 0), 9).await.unwrap().is_empty());
        assert!(tx.notes(&org()).await.unwrap().is_empty());
        assert!(tx.closed_boots().await.unwrap().is_empty());
        tx.end().await;
        sql.close().await;
    }
}
