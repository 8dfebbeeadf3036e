//! Pods' news on their way from nodes to controllers: in the seed a relay, in a controller the other end.
//!
//! Told at most once: a controller that is slow or away loses what does not fit. While none listens, a seed
//! keeps 1,000 events, none for longer than ten minutes.

use super::remote::RemoteSeed;
use super::v1::{self, event};
use crate::backoff::Delays;
use crate::model::event::{TEXT_BYTES_MAX, bounded};
use crate::model::{Failure, News, PodEvent, PodRef};
use crate::tls::TlsDir;
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Events kept, and events under way to one controller.
const EVENTS_MAX: usize = 1000;
const KEPT: Duration = Duration::from_secs(600);
/// Longer words are no pod's.
const WORD_BYTES_MAX: usize = 253;

/// A seed's events: from all nodes to all controllers that listen.
pub struct Relay {
    kept: Mutex<VecDeque<(Instant, v1::Event)>>,
    out: broadcast::Sender<v1::Event>,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay {
            kept: Mutex::default(),
            out: broadcast::channel(EVENTS_MAX).0,
        }
    }
}

impl Relay {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Instant, v1::Event)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes an event on, or keeps it while nobody listens. One that no node would send is dropped.
    pub fn tell(&self, event: v1::Event) {
        let words = [&event.namespace, &event.name, &event.uid];
        let proper = words
            .iter()
            .all(|word| (1..=WORD_BYTES_MAX).contains(&word.len()));
        if !proper || event.text.len() > TEXT_BYTES_MAX {
            return;
        }
        // Under the lock, so that an event is either kept or sent to whoever comes at this moment.
        let mut kept = self.lock();
        if let Err(unheard) = self.out.send(event) {
            kept.push_back((Instant::now(), unheard.0));
            trim(&mut kept);
        }
    }

    /// What was kept, then what comes.
    pub fn events(&self) -> BoxStream<'static, Result<v1::Event, Status>> {
        let mut kept = self.lock();
        trim(&mut kept);
        let first: Vec<_> = kept.drain(..).map(|(_, event)| Ok(event)).collect();
        let next = BroadcastStream::new(self.out.subscribe());
        // Who is too slow misses some.
        let next = next.filter_map(async |event| event.ok().map(Ok));
        Box::pin(stream::iter(first).chain(next))
    }
}

fn trim(kept: &mut VecDeque<(Instant, v1::Event)>) {
    while kept.len() > EVENTS_MAX || kept.front().is_some_and(|(at, _)| at.elapsed() > KEPT) {
        kept.pop_front();
    }
}

/// The events of all seeds, until `shutdown`; who reads slowly makes the seeds wait and then forget.
/// Must run within a tokio runtime. Fails when a name is no `host:port`.
pub fn follow(
    seeds: &[String],
    tls: Option<&Arc<TlsDir>>,
    shutdown: CancellationToken,
) -> Result<mpsc::Receiver<PodEvent>, Failure> {
    let seeds: Vec<_> = seeds
        .iter()
        .map(|name| RemoteSeed::new(name, tls))
        .collect::<Result<_, _>>()?;
    let (sender, receiver) = mpsc::channel(64);
    for seed in seeds {
        let listening = listen(seed, sender.clone());
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(listening));
    }
    Ok(receiver)
}

async fn listen(seed: RemoteSeed, events: mpsc::Sender<PodEvent>) {
    let fresh = || Delays::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut backoff = fresh();
    loop {
        let answer = seed.client().events(v1::EventsRequest {}).await;
        if let Ok(answer) = answer {
            let mut stream = answer.into_inner();
            backoff = fresh();
            while let Ok(Some(told)) = stream.message().await {
                if let Some(event) = event_of(told)
                    && events.send(event).await.is_err()
                {
                    return;
                }
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// An event as it travels.
pub fn message_of(event: PodEvent) -> v1::Event {
    let kind = match event.news {
        News::Mounted => event::Kind::Mounted,
        News::Complete => event::Kind::Complete,
        News::Degraded => event::Kind::Degraded,
    };
    v1::Event {
        namespace: event.pod.namespace,
        name: event.pod.name,
        uid: event.pod.uid,
        kind: kind.into(),
        text: bounded(event.text),
        at: event.at,
    }
}

/// `None` for a kind of a later release.
fn event_of(told: v1::Event) -> Option<PodEvent> {
    let news = match told.kind() {
        event::Kind::Unknown => return None,
        event::Kind::Mounted => News::Mounted,
        event::Kind::Complete => News::Complete,
        event::Kind::Degraded => News::Degraded,
    };
    let (namespace, name, uid) = (told.namespace, told.name, told.uid);
    let pod = PodRef {
        namespace,
        name,
        uid,
    };
    Some(PodEvent {
        pod,
        news,
        text: told.text,
        at: told.at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(uid: usize) -> v1::Event {
        let word = || "pod".to_owned();
        v1::Event {
            namespace: word(),
            name: word(),
            uid: uid.to_string(),
            ..v1::Event::default()
        }
    }

    async fn waiting(relay: &Relay) -> Vec<String> {
        let mut events = relay.events();
        let mut uids = Vec::new();
        while let Some(Some(event)) = futures::FutureExt::now_or_never(events.next()) {
            uids.push(event.expect("an event").uid);
        }
        uids
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_keeps_a_thousand_events_for_ten_minutes_and_nonsense_never() {
        let relay = Relay::default();
        relay.tell(event(1));
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        relay.tell(event(2));
        let endless = "x".repeat(TEXT_BYTES_MAX + 1);
        relay.tell(v1::Event {
            text: endless,
            ..event(3)
        });
        relay.tell(v1::Event {
            name: "".into(),
            ..event(4)
        });
        assert_eq!(waiting(&relay).await, ["2"]);
        assert!(waiting(&relay).await.is_empty(), "told once");
        (0..EVENTS_MAX + 5).for_each(|uid| relay.tell(event(uid)));
        let kept = waiting(&relay).await;
        assert_eq!((kept.len(), &*kept[0]), (EVENTS_MAX, "5"));
    }
}
