//! Appends that meet at a head: who waits, what is seen after the wait, and what becomes of an id that two attempts carry.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::*;
use crate::{
    domain::{
        digest::Digest,
        ids::{BootId, EntryId, OrgId},
        money::NanoUsd,
        stamp::ConfigStamp,
    },
    storage::sql::{
        BatchRow, Sql, Verdict,
        tests::{postgres_server, postgres_url, settings},
    },
};

const ZERO: Seen = Seen { seq: 0, link: Digest::ZERO };

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

fn boot() -> BootId {
    BootId::parse("boot_a").unwrap()
}

/// A database with an open boot. Locks are waited for as long as a test may take, unless it wants otherwise.
async fn database(url: &str, lock_timeout: Duration) -> Sql {
    let bounds = PostgresSettings { lock_timeout, statement_timeout: Duration::from_secs(20), ..settings(url) };
    let sql = Sql::connect(&bounds).await.unwrap();
    sql.register_boot(&boot(), "1", Duration::from_secs(30)).await.unwrap();
    sql
}

const LONG: Duration = Duration::from_secs(15);

/// What one group holds besides its items: the batch, which a group borrows.
struct Sent {
    org: OrgId,
    boot: BootId,
    batch: BatchRow,
}

impl Sent {
    fn new(name: &str, number: u64) -> Self {
        let batch = BatchRow {
            boot: "boot_a".to_owned(),
            number,
            message: vec![1],
            kid: "k".to_owned(),
            signature: vec![2],
            unwritten: "[]".to_owned(),
        };
        Self { org: org(name), boot: boot(), batch }
    }

    fn of<'a>(&'a self, items: Vec<Item<'a>>) -> Group<'a> {
        Group { org: &self.org, boot: &self.boot, batch: &self.batch, seen: ZERO, items }
    }

    fn note(&self, counter: u64) -> Group<'_> {
        self.of(vec![item(counter, Act::Plain)])
    }
}

fn item(counter: u64, act: Act<'_>) -> Item<'_> {
    let kind = match act {
        Act::Plain => "note",
        Act::Refusal(_) => "refusal",
        Act::Admission { .. } => "admission",
        Act::Completion { .. } | Act::Extension { .. } | Act::Late { .. } => "other",
    };
    Item { counter, kind, body: "{}", digest: Digest([3; 32]), may_be_stored: false, act }
}

fn admission(amount: i64, windows: &[Window]) -> Act<'_> {
    Act::Admission { stamp: ConfigStamp::NONE, amount: NanoUsd(amount), windows, until: 0 }
}

fn hundred() -> Vec<Window> {
    vec![Window { name: "total:1".to_owned(), limit: Some(NanoUsd(100)) }]
}

fn stored() -> Verdict {
    Verdict::Stored(String::new())
}

/// Kinds and counters of what stands in a chain.
async fn entries(sql: &Sql, name: &str) -> Vec<(String, u64)> {
    let mut tx = sql.begin_read().await.unwrap();
    let rows = tx.entries_after(&org(name), 0, 1_000).await.unwrap();
    tx.end().await;
    rows.into_iter().map(|row| (row.kind, row.counter)).collect()
}

/// A session that holds the heads of these chains.
async fn holding(sql: &Sql, names: &[&str]) -> PgConnection {
    let mut session = sql.postgres().unwrap().own_connection().await.unwrap();
    session.execute("BEGIN").await.unwrap();
    let text = "SELECT 1 FROM audit_head WHERE org_id = ANY ($1) FOR NO KEY UPDATE";
    let held = sqlx::query(text).bind(names).fetch_all(&mut session).await.unwrap();
    assert_eq!(held.len(), names.len(), "chains are begun before their heads are held");
    session
}

/// Returns once so many sessions wait for a lock.
async fn waiting(sql: &Sql, count: i64) {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(sql, text, count).await;
}

/// Returns once nothing runs any more.
async fn quiet(sql: &Sql) {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' \
                AND pid <> pg_backend_pid()";
    until(sql, text, 0).await;
}

async fn until(sql: &Sql, text: &'static str, count: i64) {
    let mut session = sql.postgres().unwrap().own_connection().await.unwrap();
    let asked = async {
        while sqlx::query(text).fetch_one(&mut session).await.unwrap().get::<i64, _>(0) != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, asked).await.unwrap_or_else(|_| panic!("never {count}: {text}"));
    session.close().await.unwrap();
}

async fn begin(sql: &Sql, names: &[&str]) {
    for (number, name) in names.iter().enumerate() {
        let sent = Sent::new(name, 1_000 + number as u64);
        sql.append(&[sent.note(1_000)], true).await.unwrap();
    }
}

#[tokio::test]
async fn a_head_that_is_held_is_skipped_beside_another_and_times_out_where_it_is_waited_for() {
    let sql = database(&postgres_url().await, Duration::from_millis(50)).await;
    begin(&sql, &["a", "b"]).await;
    let held = holding(&sql, &["a"]).await;
    let (a, b) = (Sent::new("a", 1), Sent::new("b", 1));
    let said = sql.append(&[a.note(1), b.note(1)], false).await.unwrap();
    assert_eq!((&said[0].verdicts, said[0].head), (&vec![Verdict::Busy], None));
    assert_eq!((&said[1].verdicts, said[1].head.unwrap().0), (&vec![stored()], 2));
    let (a, b) = (Sent::new("a", 2), Sent::new("b", 2));
    let error = sql.append(&[a.note(2), b.note(2)], true).await.unwrap_err();
    assert!(error.is_lock_timeout() && error.is_outage(), "{error:?}");
    held.close().await.unwrap();
    quiet(&sql).await;
    assert_eq!(entries(&sql, "a").await, [("note".to_owned(), 1_000)]);
    assert_eq!(entries(&sql, "b").await, [("note".to_owned(), 1_000), ("note".to_owned(), 1)]);
    let said = sql.append(&[a.note(2), b.note(2)], false).await.unwrap();
    assert!(said.iter().all(|said| said.verdicts == [stored()]), "{said:?}");
}

#[tokio::test]
async fn what_was_spent_while_an_append_waited_for_the_head_is_seen_by_it() {
    let sql = database(&postgres_url().await, LONG).await;
    begin(&sql, &["a"]).await;
    let mut first = holding(&sql, &["a"]).await;
    let spend =
        "INSERT INTO spending (org_id, spending_window, settled_nano, held_nano) VALUES ('a', 'total:1', 20, 71)";
    first.execute(spend).await.unwrap();
    let (sent, windows) = (Sent::new("a", 1), hundred());
    let group = [sent.of(vec![item(1, admission(10, &windows)), item(2, admission(9, &windows))])];
    let (said, ()) = tokio::join!(sql.append(&group, true), async {
        waiting(&sql, 1).await;
        first.execute("COMMIT").await.unwrap();
    });
    let verdicts = &said.unwrap()[0].verdicts;
    assert_eq!(verdicts, &[Verdict::Short(NanoUsd(9)), Verdict::Stored("total:1".to_owned())]);
}

#[tokio::test]
async fn what_was_changed_while_an_append_waited_for_the_head_is_seen_by_it() {
    let sql = database(&postgres_url().await, LONG).await;
    begin(&sql, &["a"]).await;
    let mut first = holding(&sql, &["a"]).await;
    first.execute("UPDATE audit_head SET config_version = 1, seq = 9 WHERE org_id = 'a'").await.unwrap();
    let (sent, windows) = (Sent::new("a", 1), hundred());
    let refusal = Act::Refusal(ConfigStamp::NONE);
    let group = [sent.of(vec![item(1, admission(10, &windows)), item(2, refusal), item(3, Act::Plain)])];
    let (said, ()) = tokio::join!(sql.append(&group, true), async {
        waiting(&sql, 1).await;
        first.execute("COMMIT").await.unwrap();
    });
    let said = &said.unwrap()[0];
    assert_eq!(said.verdicts, [Verdict::Stale, Verdict::Stale, stored()]);
    assert_eq!(said.head.unwrap().0, 10, "the chain goes on where the first left it");
}

#[tokio::test]
async fn a_boot_that_was_closed_while_its_append_waited_for_the_head_is_fenced() {
    let sql = database(&postgres_url().await, LONG).await;
    begin(&sql, &["a"]).await;
    let mut first = holding(&sql, &["a"]).await;
    let sent = Sent::new("a", 1);
    let group = [sent.note(1)];
    let (said, ()) = tokio::join!(sql.append(&group, true), async {
        waiting(&sql, 1).await;
        sql.close_boot(&boot()).await.unwrap();
        first.execute("COMMIT").await.unwrap();
    });
    assert_eq!(said.unwrap()[0].verdicts, [Verdict::Fenced]);
    assert_eq!(entries(&sql, "a").await.len(), 1);
}

/// Plans are kept by their session, made for a table as it is at that moment; `hold` is empty between calls.
#[tokio::test]
async fn an_append_reads_no_table_whole_also_where_its_plan_was_made_for_an_empty_one() {
    let url = postgres_url().await;
    let sql = database(&url, LONG).await;
    begin(&sql, &["a"]).await;
    let mut session = sql.postgres().unwrap().own_connection().await.unwrap();
    // Making an index counts as reading a table; what a session has counted is told when it has ended.
    sql.close().await;
    alone(&mut session).await;
    let before = scans(&mut session).await;
    let sql = Sql::connect(&settings(&url)).await.unwrap();
    let windows = hundred();
    // A plan is made for each of the first calls, and then kept.
    for number in 0..20 {
        if number % 10 == 0 {
            session.execute("VACUUM ANALYZE hold, spending, audit_head, audit_entry, audit_batch, boot").await.unwrap();
        }
        let (sent, counter) = (Sent::new("a", number), number * 2);
        let id = EntryId { org: org("a"), boot: boot(), counter };
        let closing = Act::Completion { admission: &id, settle: NanoUsd(1) };
        let group = [sent.of(vec![item(counter, admission(2, &windows))])];
        assert!(sql.append(&group, true).await.unwrap()[0].verdicts[0].is_stored());
        let sent = Sent::new("a", 100 + number);
        let group = [sent.of(vec![item(counter + 1, closing)])];
        assert_eq!(sql.append(&group, true).await.unwrap()[0].verdicts, [stored()]);
    }
    sql.close().await;
    alone(&mut session).await;
    let after = scans(&mut session).await;
    let whole: Vec<_> = before.iter().zip(&after).map(|(before, after)| (&after.0, after.1 - before.1)).collect();
    assert_eq!(whole.iter().map(|(_, scans)| scans).sum::<i64>(), 0, "{whole:?}");
    let by_key = |scans: &[(String, i64, i64)]| scans.iter().find(|(table, ..)| table == "hold").unwrap().2;
    assert!(by_key(&after) - by_key(&before) >= 20, "{before:?} {after:?}");
}

/// Returns once no other session is left.
async fn alone(session: &mut PgConnection) {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
                AND backend_type = 'client backend'";
    let asked = async {
        while sqlx::query(text).fetch_one(&mut *session).await.unwrap().get::<i64, _>(0) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, asked).await.expect("the sessions end");
}

/// How often each table was read whole, and by a key.
async fn scans(session: &mut PgConnection) -> Vec<(String, i64, i64)> {
    let names = ["hold", "spending", "audit_entry", "audit_batch"];
    let text = "SELECT relname::text, seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = ANY($1) ORDER BY 1";
    let rows = sqlx::query(text).bind(&names[..]).fetch_all(session).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// A database whose language puts `a` before `B`, which by byte is the other way round; an ordinary one where the server was
/// built without languages.
async fn in_english() -> String {
    let server = postgres_server::Postgres::shared().await;
    if server.psql("postgres", "SELECT count(*) FROM pg_collation WHERE collprovider = 'i'").await.trim() == "0" {
        return postgres_url().await;
    }
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    let name = format!("english_{}", hex::encode(random));
    let text = format!("CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'");
    server.psql("postgres", &text).await;
    server.url(&name)
}

#[tokio::test]
async fn appends_to_chains_in_crossed_order_lock_them_by_byte_and_never_deadlock() {
    let sql = database(&in_english().await, LONG).await;
    begin(&sql, &["a", "B"]).await;
    let mut held = holding(&sql, &["B"]).await;
    let sent: Vec<Sent> = [("B", 1), ("a", 1), ("a", 2), ("B", 2)].map(|(name, n)| Sent::new(name, n)).into();
    let first = [sent[0].note(1), sent[1].note(1)];
    let second = [sent[2].note(2), sent[3].note(2)];
    let (one, two, ()) = tokio::join!(sql.append(&first, true), sql.append(&second, true), async {
        waiting(&sql, 2).await;
        // Both wait for `B` before they touch `a`.
        held.execute("SELECT 1 FROM audit_head WHERE org_id = 'a' FOR NO KEY UPDATE NOWAIT").await.unwrap();
        held.execute("COMMIT").await.unwrap();
    });
    for said in one.unwrap().into_iter().chain(two.unwrap()) {
        assert_eq!(said.verdicts, [stored()]);
    }
    // Chains that begin at the same time, told in crossed order, ten times.
    for round in 0..10 {
        let (x, y) = (format!("X{round}"), format!("y{round}"));
        let sent = [(&x, 1), (&y, 1), (&y, 2), (&x, 2)].map(|(name, n)| Sent::new(name, n));
        let first = [sent[0].note(1), sent[1].note(1)];
        let second = [sent[2].note(2), sent[3].note(2)];
        let (one, two) = tokio::join!(sql.append(&first, true), sql.append(&second, true));
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        assert_eq!((entries(&sql, &x).await.len(), entries(&sql, &y).await.len()), (2, 2));
    }
}

#[tokio::test]
async fn an_append_whose_client_is_gone_and_its_withdrawal_make_one_entry() {
    let sql = database(&postgres_url().await, LONG).await;
    begin(&sql, &["a"]).await;
    let mut held = holding(&sql, &["a"]).await;
    let windows = hundred();
    let orphan = Sent::new("a", 1);
    let group = [orphan.of(vec![item(1, admission(10, &windows))])];
    tokio::select! {
        said = sql.append(&group, true) => panic!("the head is held: {said:?}"),
        () = waiting(&sql, 1) => {}
    }
    // The statement waits on at the server, without anybody who would hear its answer.
    let withdrawal = Sent::new("a", 2);
    let group = [withdrawal.of(vec![Item { may_be_stored: true, kind: "withdrawn", ..item(1, Act::Plain) }])];
    let (said, ()) = tokio::join!(sql.append(&group, true), async {
        waiting(&sql, 2).await;
        held.execute("COMMIT").await.unwrap();
    });
    quiet(&sql).await;
    let entries: Vec<_> = entries(&sql, "a").await.into_iter().filter(|(_, counter)| *counter == 1).collect();
    let [(kind, _)] = &entries[..] else { panic!("one entry, and not {entries:?}") };
    // Who came first at the lock is the server's to say; a server that notices that the client is gone ends its statement.
    let expected = if kind == "withdrawn" { stored() } else { Verdict::Taken(kind.clone()) };
    assert_eq!(said.unwrap()[0].verdicts, [expected]);
    let holds = sql.open_holds(&org("a"), 1).await.unwrap().0;
    assert_eq!(holds, u64::from(kind == "admission"));
}

#[tokio::test]
async fn an_append_that_arrives_after_its_withdrawal_stores_nothing() {
    let sql = database(&postgres_url().await, LONG).await;
    let withdrawal = Sent::new("a", 2);
    let group = [withdrawal.of(vec![Item { may_be_stored: true, kind: "withdrawn", ..item(1, Act::Plain) }])];
    assert_eq!(sql.append(&group, true).await.unwrap()[0].verdicts, [stored()]);
    let (orphan, windows) = (Sent::new("a", 1), hundred());
    let late = |may_be_stored| Item { may_be_stored, ..item(1, admission(10, &windows)) };
    let error = sql.append(&[orphan.of(vec![late(false)])], true).await.unwrap_err();
    assert!(!error.is_outage(), "{error:?}");
    let said = sql.append(&[orphan.of(vec![late(true)])], true).await.unwrap();
    assert_eq!(said[0].verdicts, [Verdict::Taken("withdrawn".to_owned())]);
    assert_eq!(entries(&sql, "a").await, [("withdrawn".to_owned(), 1)]);
    assert_eq!(sql.open_holds(&org("a"), 1).await.unwrap().0, 0);
}

#[tokio::test]
async fn the_same_append_twice_is_stored_once_and_says_what_is_stored() {
    let sql = database(&postgres_url().await, LONG).await;
    let windows = hundred();
    let items = |may_be_stored| {
        let both = [item(1, admission(10, &windows)), item(2, Act::Refusal(ConfigStamp::NONE))];
        both.map(|item| Item { may_be_stored, ..item }).into()
    };
    let (first, again) = (Sent::new("a", 1), Sent::new("a", 2));
    let said = sql.append(&[first.of(items(false))], true).await.unwrap();
    assert_eq!(said[0].verdicts, [Verdict::Stored("total:1".to_owned()), stored()]);
    let head = said[0].head;
    let said = sql.append(&[again.of(items(true))], true).await.unwrap();
    assert_eq!(said[0].verdicts, ["admission", "refusal"].map(|kind| Verdict::Taken(kind.to_owned())));
    assert_eq!(said[0].head, head);
    assert_eq!(sql.open_holds(&org("a"), 1).await.unwrap().0, 1);
    assert_eq!(sql.spending(&org("a"), "total:1").await.unwrap().held, NanoUsd(10));
    let mut tx = sql.begin_read().await.unwrap();
    let batches = tx.batches_after(&org("a"), ("", 0), 9).await.unwrap();
    assert_eq!(batches.iter().map(|row| &*row.unwritten).collect::<Vec<_>>(), ["[]", "[1,2]"]);
}

#[tokio::test]
async fn one_id_twice_in_a_group_stores_nothing_of_it() {
    let sql = database(&postgres_url().await, LONG).await;
    let sent = Sent::new("a", 1);
    let error = sql.append(&[sent.of(vec![item(1, Act::Plain), item(1, Act::Plain)])], true).await.unwrap_err();
    assert!(!error.is_outage(), "{error:?}");
    assert_eq!(entries(&sql, "a").await, []);
}
