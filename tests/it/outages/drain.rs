//! SIGTERM under load: one of three gateways goes in time and in order, and nobody else notices.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::Rig;
use crate::support::{
    chain::Entry,
    load::{Load, tally},
    openai::{self, ask, ask_stream, event, text_chunk},
    sse::Sum,
    upstream::{Answer, Gate},
    wait::until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_told_to_go_under_load_goes_in_time_and_leaves_nothing_behind() {
    let rig = Rig::start(3).await;
    let never = Gate::new();
    rig.upstream.then(Answer::stream([event(&text_chunk("so far"))]).pause(&never).piece(openai::DONE));
    let mut stream = rig.cluster.chat_call(&ask_stream("hi")).begin(rig.address(1)).await;
    assert_eq!(stream.head().await.status, 200);
    let start = stream.read_until("so far").await;
    let load = Load::start(18, &rig.addresses(), &rig.cluster.chat_call(&ask("hi")));
    until("some load", async || (load.count() > 60).then_some(())).await;
    let began = Instant::now();
    rig.cluster.nodes[1].server.stop(Signal::TERM).await;
    let took = began.elapsed();
    let at_the_end = load.count();
    until("more load on the others", async || (load.count() > at_the_end + 60).then_some(())).await;
    let (rest, whole) = stream.rest().await;
    let heard = load.stop().await;
    let server = &rig.cluster.nodes[1].server;
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    println!("gone after {took:?}: {}", tally(&heard));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let sum = Sum::of(&[start, rest].concat());
    assert!(!whole && !sum.done && sum.errors == ["shutting_down"], "{sum:?}");
    let addresses = rig.addresses();
    let of = |node: usize| {
        let address = addresses[node];
        heard.iter().filter(move |one| one.address == address)
    };
    assert!(of(0).chain(of(2)).all(|one| one.status == 200), "the others are not disturbed: {}", tally(&heard));
    let during = of(0).chain(of(2)).filter(|one| one.began > began && one.began < began + took);
    let slowest = during.map(|one| one.took).max().expect("calls at the others meanwhile");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // A caller whose connection ended before an answer was not served; all others were.
    assert!(of(1).all(|one| [0, 200].contains(&one.status)), "{}", tally(&heard));
    let chain = rig.books().await;
    let admitted: HashSet<String> = chain.admissions().map(Entry::name).collect();
    let answered: Vec<&String> = heard.iter().filter_map(|one| one.id.as_ref()).collect();
    assert!(answered.iter().all(|id| admitted.contains(*id)));
    assert_eq!(chain.admissions().count(), rig.upstream.requests().len(), "as many calls as admissions");
    assert!(chain.closings().any(|closing| closing.outcome() == "shutdown"));
    assert!(chain.closings().all(|closing| closing.outcome() != "unknown"), "nothing was left to recovery");
    rig.cluster.nodes[1].start_again().await;
    rig.cluster.chat(1, &ask("hi")).await.expect(200);
}
