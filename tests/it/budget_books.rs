//! The books at every look: what is settled and held is what entries and holds say, and never more than a limit allows
//! (promise 4), while callers come and go as they like.

use serde_json::json;

use crate::support::{
    chain::Entry,
    client::Call,
    database::Database,
    gateway::Gateway,
    openai::{ask, ask_stream, completion, event, last_chunk, text_chunk, usage_chunk, with},
    upstream::{Answer, End, Seen, Upstream},
    wait::until,
};

const CALLERS: usize = 50;
const CALLS: usize = 6;

fn chance(of: u8) -> u8 {
    let mut byte = [0];
    getrandom::fill(&mut byte).unwrap();
    byte[0] % of
}

/// A provider that is never twice the same: whole, streamed, beyond its bound, broken off.
fn moody(seen: &Seen) -> Answer {
    if seen.json()["stream"] != json!(true) {
        return match chance(4) {
            0 => Answer::json(500, &json!({"error": {"message": "broken"}})),
            1 => Answer::nothing(End::Close),
            _ => Answer::json(200, &completion("fine")),
        };
    }
    let mut pieces = vec![event(&text_chunk(&"word".repeat(300))); usize::from(1 + chance(8))];
    if chance(3) == 0 {
        return Answer::stream(pieces).end(End::Close);
    }
    pieces.extend([event(&last_chunk("stop")), event(&usage_chunk()), crate::support::openai::DONE.to_owned()]);
    Answer::stream(pieces)
}

/// One caller's call: it hangs up wherever it pleases.
async fn call(gateway: std::net::SocketAddr, call: Call) {
    let mut wire = call.begin(gateway).await;
    match chance(5) {
        0 => drop(wire),
        1 => wire.reset(),
        2 => {
            wire.try_head().await;
        }
        3 => {
            if wire.try_head().await.is_some_and(|head| head.header("transfer-encoding").is_some()) {
                wire.chunk().await;
            }
        }
        _ => {
            let reply = wire.reply().await;
            assert!(matches!(reply.status, 200 | 403 | 500 | 502 | 503), "{}", reply.text());
        }
    }
}

/// One caller's day.
async fn calls(gateway: std::net::SocketAddr, key: String, number: usize) {
    for _ in 0..CALLS {
        let body = if chance(3) == 0 { ask("hi") } else { ask_stream("hi") };
        let post = Call::post("/v1/chat/completions").key(&key).json(&with(body, "max_tokens", json!(1_000)));
        call(gateway, post.header("x-session-id", &format!("session-{}", number % 3))).await;
    }
}

/// One look, in one statement: windows whose sums are not what their holds say, or are beyond their limit.
fn wrong(limit: i64) -> String {
    format!(
        "WITH named AS (SELECT h.org_id, json_extract(w.value, '$[0]') AS name, sum(h.amount_nano) AS held \
           FROM hold h, json_each(h.windows) w GROUP BY 1, 2) \
         SELECT s.spending_window || ': settled ' || s.settled_nano || ', held ' || s.held_nano || ', holds ' || \
           coalesce(n.held, 0) \
         FROM spending s LEFT JOIN named n ON n.org_id = s.org_id AND n.name = s.spending_window \
         WHERE s.held_nano <> coalesce(n.held, 0) OR s.settled_nano + s.held_nano > {limit} OR s.settled_nano < 0 \
         UNION ALL SELECT 'no books for ' || n.name FROM named n WHERE NOT EXISTS \
           (SELECT 1 FROM spending s WHERE s.org_id = n.org_id AND s.spending_window = n.name)"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settled_and_held_are_within_every_limit_at_every_look_while_fifty_callers_come_and_go() {
    // Room for some twenty-five calls at a time, so that both admissions and extensions meet the limit.
    const LIMIT: f64 = 0.015;
    const NANO: i64 = 15_000_000;
    let upstream = Upstream::start();
    upstream.script(moody);
    let mut gateway = Gateway::start(&upstream).await;
    let limits = json!({"limit_usd": LIMIT, "day_usd": LIMIT, "month_usd": LIMIT, "session_usd": LIMIT});
    gateway.admin("PUT", "/api/budget", limits).await.expect(200);
    let options = json!({"max_cost_usd": LIMIT});
    gateway.raise_limits(&[("budget", options.clone()), ("session_budget", options)]).await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (address, key) = (gateway.address, gateway.agent_key.clone());
            tokio::spawn(calls(address, key, number))
        })
        .collect();
    let mut books = Database::look(&gateway.database()).await;
    let (mut looks, mut busy) = (0, 0);
    until("the callers to be done", async || {
        let found = books.texts(&wrong(NANO)).await;
        assert!(found.is_empty(), "look {looks}: {found:#?}");
        looks += 1;
        busy += i64::from(books.number("SELECT count(*) FROM hold").await > 0);
        callers.iter().all(tokio::task::JoinHandle::is_finished).then_some(())
    })
    .await;
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(busy > 10, "{busy} of {looks} looks saw calls under way");
    let chain = gateway.settled().await;
    assert!(chain.refusals().count() > 0, "the limit was met");
    assert!(chain.entries.iter().any(|entry| entry.kind() == "extension"), "streams were extended");
    let settled: u64 = chain.closings().map(Entry::settled).sum();
    gateway.stop();
    let mut database = Database::open(&gateway.database()).await;
    database.assert_nothing_held().await;
    for window in ["total:%", "day:%", "month:%", "session:%", "agent:%", "agent-session:%"] {
        let sql = format!("SELECT sum(settled_nano) FROM spending WHERE spending_window LIKE '{window}'");
        assert_eq!(database.number(&sql).await, i64::try_from(settled).unwrap(), "{window}");
    }
}
