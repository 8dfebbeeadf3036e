//! The seed's side of one node's stream: tells the present state of what changed.
//!
//! What was told is remembered per file (one bit a piece), so only what is new goes out. While the node is
//! slow to take it, changes gather as keys, not as messages. A node that takes nothing for 30 s is dropped;
//! it reconnects and is told everything.

use super::tracker::{DEBOUNCE, Session, Tracker, View};
use super::v1::{self, to_node::Message};
use crate::model::{Bitfield, FileKey};
use crate::store::{CacheFile, State};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

/// Messages to one node on their way into its stream.
pub const QUEUE: usize = 16;

/// Hashes a message: 256 KiB, well below gRPC's 4 MiB.
pub const HASHES_MAX: usize = 8192;

const STALLED: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Told {
    hashes: Option<Bitfield>,
    crowd: u64,
    peers: Option<v1::PeerSet>,
    owner: Option<String>,
    is_asked: bool,
    is_final: bool,
    is_revoked: bool,
}

/// Tells `session`'s node what changes, until it is gone.
pub async fn tell(
    tracker: Arc<Tracker>,
    session: Arc<Session>,
    stream: mpsc::Sender<Result<v1::ToNode, Status>>,
) {
    let mut told: HashMap<FileKey, Told> = HashMap::new();
    loop {
        let changed = tokio::select! {
            changed = session.changed() => changed,
            () = stream.closed() => return,
        };
        for key in changed {
            let told_before = told.entry(key).or_default();
            let Some(view) = tracker.view(&session, key, told_before.crowd) else {
                told.remove(&key);
                continue;
            };
            for message in news(told_before, view) {
                let message = Ok(v1::ToNode {
                    message: Some(message),
                });
                if !matches!(timeout(STALLED, stream.send(message)).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

/// Peers first, so that a node knows whom to ask when hashes arrive.
fn news(told: &mut Told, view: View) -> Vec<Message> {
    let (cache, crowd) = (view.cache.as_ref(), view.crowd);
    let (mut news, key) = (Vec::new(), cache.key().0.to_vec());
    if let Some(seed) = view.owner.filter(|seed| told.owner.as_ref() != Some(seed)) {
        told.owner = Some(seed.clone());
        let key = key.clone();
        news.push(Message::Owner(v1::Owner { key, seed }));
    }
    // Pieces that another seed has read and that are not here: nodes may hold them.
    if view.asks && !told.is_asked && !cache.orphans().is_empty() {
        told.is_asked = true;
        let keys = vec![key.clone()];
        news.push(Message::AskInventory(v1::AskInventory { keys }));
    }
    if let Some(crowd) = crowd {
        told.crowd = crowd.id;
        if told.peers.as_ref() != Some(&crowd.set) {
            told.peers = Some(crowd.set.clone());
            news.push(Message::PeerSet(crowd.set));
        }
    }
    let state = cache.state();
    if state == State::Revoked {
        if !std::mem::replace(&mut told.is_revoked, true) {
            news.push(Message::Revoke(v1::Revoke { key }));
        }
        return news;
    }
    news.extend(new_hashes(told, cache));
    if let (State::Final, Some(root), false) = (state, cache.root(), told.is_final) {
        told.is_final = true;
        news.push(Message::Final(v1::Final {
            key,
            root: root.to_vec(),
        }));
    }
    news
}

fn new_hashes(told: &mut Told, cache: &CacheFile) -> Vec<Message> {
    let pieces = cache.geometry().pieces();
    let before = told.hashes.get_or_insert_with(|| Bitfield::new(pieces));
    let new: Vec<u32> = cache.known().minus(before).iter().collect();
    new.iter().for_each(|index| before.set(*index, true));
    let message = |indices: &[u32]| {
        Message::Hashes(v1::Hashes {
            key: cache.key().0.to_vec(),
            runs: runs(cache, indices),
        })
    };
    new.chunks(HASHES_MAX).map(message).collect()
}

/// The hashes of these pieces, as far as they are known, in runs.
pub fn runs(cache: &CacheFile, indices: &[u32]) -> Vec<v1::HashRun> {
    let run = |run: &[u32]| v1::HashRun {
        first: run[0],
        hashes: run
            .iter()
            .map_while(|index| cache.hash(*index))
            .flatten()
            .collect(),
    };
    indices.chunk_by(|a, b| a + 1 == *b).map(run).collect()
}
