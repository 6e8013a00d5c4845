//! A gateway that the database does not hear of: what runs goes on until its lease ends, and not longer.
//!
//! Holds whether or not another gateway closes it meanwhile: then it comes back under a new boot.

use std::time::{Duration, Instant};

use super::{Rig, assert_alive, not_ready};
use crate::support::{
    chaos::Chaos,
    openai::{self, ask, ask_stream, event, text_chunk},
    sse::Sum,
    upstream::{Answer, Gate},
    wait::until,
};

/// Short, and long enough for a busy machine; its holder stops two seconds early, and renews it six times in it.
const LEASE: (&str, &str) = ("TAPPASS_DATABASE__LEASE_MS", "10000");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_its_database_until_the_lease_ends_and_is_then_cut_with_a_reason() {
    let mut rig = Rig::prepare(|builder| builder.env(LEASE.0, LEASE.1)).await;
    let chaos = Chaos::in_front_of_postgres(rig.postgres.port);
    rig.cluster.add().await;
    let through_wire = chaos.instead_of(rig.cluster.url());
    rig.cluster.add_with(&[("DATABASE_URL", &through_wire)]).await;
    rig.meet().await;
    let (more, never) = (Gate::new(), Gate::new());
    let first = Answer::stream([event(&text_chunk("before "))]).pause(&more);
    rig.upstream.then(first.piece(event(&text_chunk("during"))).pause(&never).piece(openai::DONE));
    let mut stream = rig.cluster.chat_call(&ask_stream("hi")).begin(rig.address(1)).await;
    assert_eq!(stream.head().await.status, 200);
    let mut heard = stream.read_until("before ").await;
    let (began, sent) = (Instant::now(), rig.upstream.requests().len());
    chaos.black_hole();
    // Nothing is admitted from now on, and what was admitted goes on.
    let refused = rig.cluster.chat(1, &ask("hi")).await.expect(503);
    assert!(refused.header("retry-after").is_some());
    more.open();
    heard.extend(stream.read_until("during").await);
    let (rest, whole) = stream.rest().await;
    let lasted = began.elapsed();
    heard.extend(rest);
    let sum = Sum::of(&heard);
    assert_eq!((sum.first(), sum.errors.as_slice()), ("before during", ["lease_lost".to_owned()].as_slice()));
    assert!(!whole && !sum.done, "nobody takes this for an end");
    // Renewed a moment ago it went on for seconds; how many is printed, and is eight less that moment on a quiet machine.
    assert!(lasted > Duration::from_millis(1_500), "cut after {lasted:?}");
    println!("the stream was cut {lasted:?} after the database went away; its lease ends 8 s after a heartbeat");
    rig.upstream.abandoned(sent - 1).await;
    let refused = rig.cluster.chat(1, &ask("hi")).await.expect(503);
    assert_eq!(refused.json()["error"]["code"], "lease_lost");
    let reasons = not_ready(rig.address(1)).await;
    assert!(reasons[0].as_str().unwrap().contains("lease"), "{reasons:?}");
    assert_alive(rig.address(1)).await;
    assert_eq!(rig.upstream.requests().len(), sent);
    rig.cluster.chat(0, &ask("hi")).await.expect(200);
    // Others take it for dead now, whether they close it or not.
    until("the lease to be over by the database's clock", async || {
        let live = rig.psql("SELECT count(*) FROM boot WHERE closed = 0 AND lease_until > tappass_now()").await;
        (live == "1").then_some(())
    })
    .await;
    chaos.mend().await;
    rig.cluster.nodes[1].ready().await;
    let answered = rig.cluster.chat(1, &ask("hi")).await.expect(200);
    let chain = rig.books().await;
    let id = answered.json()["tappass"]["pipeline_uuid"].as_str().unwrap().to_owned();
    assert!(chain.admission(&id).is_some());
    // Closed once: by itself, or by others as `unknown`.
    let cut = chain.closings().filter(|closing| ["lease_lost", "unknown"].contains(&closing.outcome())).count();
    assert_eq!(cut, 1, "one stream was cut");
    rig.cluster.stop().await;
    rig.cluster.assert_verifies();
}
