//! Pods' news from a node over a seed to controllers, and whether seeds answer.

use super::*;
use crate::model::{News, PodEvent, PodRef};
use crate::source::Observer;
use tokio::sync::mpsc;

fn pod(name: &str) -> PodRef {
    PodRef {
        namespace: "team".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

async fn next(events: &mut mpsc::Receiver<PodEvent>) -> PodEvent {
    let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
    event.expect("an event in time").expect("a stream")
}

#[tokio::test]
async fn a_pods_news_reach_every_controller_and_wait_for_the_first() {
    let shutdown = CancellationToken::new();
    let seed = seed(&content(1), &shutdown).await;
    let node = node("node-1", &[&seed.addr], &shutdown).await;
    let observe = |name: &str, news, text: &str| node.swarm.observe(&pod(name), news, text.into());
    observe("a", News::Mounted, "7 bytes");
    let follow = || events::follow(std::slice::from_ref(&seed.addr), None, shutdown.clone());
    let mut first = follow().expect("a controller");
    let told = next(&mut first).await;
    assert_eq!((told.pod, told.news), (pod("a"), News::Mounted));
    assert_eq!(told.text, "7 bytes");

    let mut second = follow().expect("another controller");
    observe("a", News::Degraded, "hub limited");
    assert_eq!(next(&mut first).await.text, "hub limited");
    // The second controller may have come before or after; from the next event on it hears all.
    let joined = async {
        for turn in 0.. {
            observe(&format!("b{turn}"), News::Complete, "all here");
            tokio::select! {
                event = next(&mut second) => return event,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        unreachable!()
    };
    assert_ne!(joined.await.pod, pod("a0"));
    observe("a", News::Degraded, "again, within the minute");
    observe("c", News::Mounted, "last");
    for events in [&mut first, &mut second] {
        loop {
            let told = next(events).await;
            assert!(!told.text.starts_with("again"), "once a minute");
            if told.pod == pod("c") {
                break;
            }
        }
    }
    shutdown.cancel();
}

#[tokio::test]
async fn a_catalog_is_reached_while_one_of_its_seeds_answers() {
    let shutdown = CancellationToken::new();
    let seed = seed(&content(1), &shutdown).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = closed.local_addr().expect("an address").to_string();
    drop(closed);
    for (seeds, is_reached) in [
        (vec![seed.addr.clone()], true),
        (vec![gone.clone(), seed.addr.clone()], true),
        (vec![gone], false),
        (vec![], false),
    ] {
        let catalog = RemoteCatalog::new(&seeds, None).expect("a catalog");
        assert_eq!(catalog.reach().await.is_ok(), is_reached, "{seeds:?}");
    }
    shutdown.cancel();
}

/// A seed used to wait for its nodes' streams when it was asked to end, until it was killed.
#[tokio::test]
async fn a_seed_ends_while_nodes_and_controllers_listen() {
    let (shutdown, others) = (CancellationToken::new(), CancellationToken::new());
    let folder = folder();
    let origin = Arc::new(MemoryOrigin {
        store: folder.store.clone(),
        content: content(1),
        reads: AtomicU64::new(0),
        announced: AtomicU64::new(0),
    });
    let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (control, pieces) = (listen().await, listen().await);
    let addr = control.local_addr().expect("an address").to_string();
    let server = crate::seed::SeedServer::new(
        "seed-0".into(),
        folder.store.clone(),
        origin.clone(),
        origin,
    );
    let running = tokio::spawn(server.run(control, None, pieces, shutdown.clone()));
    let node = node("node-1", &[&addr], &others).await;
    let mut events = events::follow(&[addr], None, others.clone()).expect("a controller");
    node.swarm.observe(&pod("a"), News::Mounted, "here".into());
    next(&mut events).await;
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), running).await;
    ended
        .expect("ends in time")
        .expect("no panic")
        .expect("a clean end");
    others.cancel();
}
