//! Nodes of two zones around a seed that is in neither.

use super::*;
use crate::swarm::vicinity;

fn lanes(node: &Node, file: &FileRef) -> Bitfield {
    let (_, wish) = node.swarm.open(file).expect("an interest");
    let pieces = file.geometry().pieces();
    wish.surroundings.crossing(pieces, Duration::ZERO)
}

/// Each zone's nodes share out all lanes, so each piece has one way into the zone.
fn are_shared_out(nodes: &[Node], file: &FileRef) -> bool {
    let shares = nodes.iter().map(|node| lanes(node, file).count());
    shares.sum::<u32>() == file.geometry().pieces()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_gateway_fetches_from_afar_what_nobody_waits_for() {
    let (content, shutdown) = (content(70 * PIECE_BYTES), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let mut zones = [Vec::new(), Vec::new()];
    for (at, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        let zone = ["east", "west"][at % 2];
        let node = node_in(zone, name, &[&seed.addr], &shutdown).await;
        zones[at % 2].push((name, node));
    }
    let named = zones.map(|nodes| nodes.into_iter().unzip::<_, _, Vec<_>, Vec<Node>>());
    for (_, nodes) in &named {
        until("all lanes have a gateway", || are_shared_out(nodes, &file)).await;
    }
    let all = || named.iter().flat_map(|(_, nodes)| nodes);
    futures::future::join_all(all().map(|node| node.fetch_all(&file, 4))).await;
    all().for_each(|node| node.assert_holds(&file, &content));
    let chosen = seed.given.chosen.lock().expect("a lock");
    assert!(!chosen.is_empty());
    for (names, nodes) in &named {
        for (name, node) in names.iter().zip(nodes) {
            let own = lanes(node, &file);
            let of_node = chosen.iter().filter(|(to, _)| to == name);
            let astray = of_node
                .flat_map(|(_, run)| run.clone())
                .find(|index| !own.get(*index));
            assert_eq!(astray, None, "given to {name}");
        }
    }
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demand_crosses_at_once_and_silence_opens_the_way() {
    let (content, shutdown) = (content(8 * PIECE_BYTES), CancellationToken::new());
    let (seed, file) = (seed(&content, &shutdown).await, file_ref(&content));
    let west = node_in("west", "a", &[&seed.addr], &shutdown).await;
    let east = node_in("east", "b", &[&seed.addr], &shutdown).await;
    west.fetch_all(&file, 2).await;
    // Alone in its zone, east is the gateway of all lanes.
    until("east is told", || lanes(&east, &file).is_full()).await;
    let mate = node_in("east", "c", &[&seed.addr], &shutdown).await;
    until("the lanes are shared out", || {
        lanes(&east, &file).count() + lanes(&mate, &file).count() == 8
    })
    .await;
    // Eight pieces are two lanes, and each mate has one or none.
    let (poor, foreign) = [&mate, &east]
        .into_iter()
        .find_map(|node| Some((node, (0..8).find(|index| !lanes(node, &file).get(*index))?)))
        .expect("one of them is not the gateway of all");
    let started = std::time::Instant::now();
    poor.swarm.piece(&file, foreign).await.expect("a piece");
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "before silence opens the way"
    );
    // Its mate never fetches a thing, so after a while it takes all of them itself.
    mate.fetch_all(&file, 2).await;
    mate.assert_holds(&file, &content);
    shutdown.cancel();
}

#[test]
fn lanes_keep_runs_together() {
    assert_eq!(vicinity::lane_of(0), vicinity::lane_of(3));
    assert_ne!(vicinity::lane_of(3), vicinity::lane_of(4));
    assert_eq!(vicinity::lane_of(0), vicinity::lane_of(256));
}
