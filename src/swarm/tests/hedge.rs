//! Readers behind a neighbour that has gone silent.

use super::*;
use crate::metrics::METRICS;

/// Takes requests and answers none.
struct Silent;

#[async_trait]
impl Provider for Silent {
    async fn ready(&self, _: &Request, _: Range<u32>) -> Result<Content, Refusal> {
        std::future::pending().await
    }
}

fn hedged() -> u64 {
    METRICS.piece_requests.with_label_values(&["hedged"]).get()
}

/// A node that knows all hashes and believes that those at `holders` have every piece.
async fn reader(
    content: &Bytes,
    seeds: &[&str],
    holders: &[Arc<str>],
    shutdown: &CancellationToken,
) -> Node {
    let (node, file) = (node("reader", seeds, shutdown).await, file_ref(content));
    let (cache, geometry) = (node.cache(&file), file.geometry());
    let pieces = content.chunks(PIECE_BYTES as usize).zip(0..);
    let hashes: Vec<_> = pieces
        .map(|(piece, index)| geometry.hash(index, piece))
        .collect();
    cache.learn(0, &hashes);
    for holder in holders {
        let all = Bitfield::full(geometry.pieces()).as_bytes().to_vec();
        node.swarm
            .availability
            .learn(holder, file.key, geometry, availability::News::All(all));
    }
    // Enough quick pieces that 20 ms is unusual; whoever gave them is known, a stranger is asked before.
    for _ in 0..30 {
        let known = holders.last().expect("a holder");
        let flight = node.swarm.peers.start(known);
        tokio::time::sleep(Duration::from_millis(2)).await;
        flight.brought(1);
    }
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_takes_unusually_long_is_asked_of_another_holder() {
    let (content, shutdown) = (content(3 * PIECE_BYTES), CancellationToken::new());
    let (_folder, file, provider) = full_provider(&content);
    let good: Arc<str> = serve(provider, Slots::of_node(), None, &shutdown)
        .await
        .into();
    let silent: Arc<str> = serve(Arc::new(Silent), Slots::of_node(), None, &shutdown)
        .await
        .into();
    let reader = reader(
        &content,
        &["127.0.0.1:1"],
        &[silent.clone(), good.clone()],
        &shutdown,
    )
    .await;
    let (before, started) = (hedged(), std::time::Instant::now());
    reader.swarm.piece(&file, 1).await.expect("from the other");
    assert!(hedged() > before);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    // Who was overtaken is not the first choice again.
    let seconds = |addr: &Arc<str>| match reader.swarm.peers.standing(addr) {
        planner::Standing::Free(pace) => pace.seconds,
        _ => f64::INFINITY,
    };
    assert!(seconds(&silent) > seconds(&good));
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_other_holder_the_seed_is_asked_too() {
    let (content, shutdown) = (content(3 * PIECE_BYTES), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let silent: Arc<str> = serve(Arc::new(Silent), Slots::of_node(), None, &shutdown)
        .await
        .into();
    let reader = reader(&content, &[&seed.addr], &[silent], &shutdown).await;
    reader.swarm.open(&file).expect("an interest");
    let connected = || Source::reach(&*reader.swarm).connected == 1;
    until("the seed is there", connected).await;
    let (before, started) = (hedged(), std::time::Instant::now());
    reader.swarm.piece(&file, 2).await.expect("from the seed");
    assert!(hedged() > before);
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(seed.given.given.load(Ordering::SeqCst), 1);
    shutdown.cancel();
}
