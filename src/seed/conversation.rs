//! One node's stream at its seed: what it says is noted, what changes is told.

use super::owned::OwnedOrigin;
use crate::source::Origin;
use crate::store::State;
use crate::swarm::tracker::{Session, Tracker};
use crate::swarm::v1::{self, to_seed};
use crate::swarm::{Relay, session, wire};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// One node's stream.
pub struct Conversation {
    pub tracker: Arc<Tracker>,
    pub origin: Arc<dyn Origin>,
    pub relay: Arc<Relay>,
    pub owned: Option<OwnedOrigin>,
    pub session: Arc<Session>,
}

impl Conversation {
    /// Listens and tells until either side ends.
    pub async fn run(
        self,
        inbound: Streaming<v1::ToSeed>,
        sender: mpsc::Sender<Result<v1::ToNode, Status>>,
    ) {
        let (tracker, session) = (&self.tracker, &self.session);
        tracing::info!(node = %session.node, addr = %session.addr, "node joined");
        tokio::select! {
            () = self.listen(inbound) => {}
            () = session::tell(tracker.clone(), session.clone(), sender) => {}
        }
        tracker.leave(session);
        tracing::info!(node = %session.node, "node left");
    }

    async fn listen(&self, mut inbound: Streaming<v1::ToSeed>) {
        let (tracker, session) = (&self.tracker, &self.session);
        while let Ok(Some(told)) = inbound.message().await {
            match told.message {
                Some(to_seed::Message::Interest(interest)) => self.interested(&interest),
                Some(to_seed::Message::NoInterest(none)) => {
                    if let Some(key) = wire::key_of(&none.key) {
                        tracker.no_interest(session, key);
                    }
                }
                Some(to_seed::Message::Counts(counts)) => tracker.counts(session, &counts),
                Some(to_seed::Message::Report(report)) => {
                    tracing::warn!(node = %session.node, culprit = %report.peer, piece = report.piece, "corrupt piece reported");
                }
                Some(to_seed::Message::Event(event)) => self.relay.tell(event),
                Some(to_seed::Message::Reach(reach)) => tracker.reaches(session, &reach),
                Some(to_seed::Message::Inventory(inventory)) => {
                    tracker.inventory(session, &inventory)
                }
                // A second hello, and messages of later releases.
                _ => {}
            }
        }
    }

    fn interested(&self, interest: &v1::Interest) {
        let (tracker, session) = (&self.tracker, &self.session);
        let Some(file) = wire::file_of(interest) else {
            tracing::warn!(node = %session.node, path = %interest.path, "malformed interest ignored");
            return;
        };
        // What an earlier process completed and never announced is checked now, once a node and session.
        let state = tracker.store().get(file.key).map(|cache| cache.state());
        if state == Some(State::Whole) {
            let (origin, file) = (self.origin.clone(), file.clone());
            tokio::spawn(async move { origin.settle(&file).await });
        }
        let key = file.key;
        if let Err(error) = tracker.interest(session, file) {
            tracing::warn!(node = %session.node, path = %interest.path, %error, "cannot hold this file");
        }
        if let Some(owned) = self.owned.clone() {
            // So that the node hears whose file it is, also one that asks for nothing more.
            tokio::spawn(async move { drop(owned.owner(key).await) });
        }
    }
}
