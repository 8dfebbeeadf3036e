//! A node's way to tell pods' owners: through its seed.
//!
//! Of a pod and kind the first is told, then one a minute at most. Over 4,096 pods and kinds a minute the
//! rest is dropped, as is what 64 waiting messages leave no room for.

use super::events::message_of;
use super::node::Swarm;
use super::v1::to_seed::Message;
use crate::model::{News, PodEvent, PodRef};
use crate::source::Observer;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);
const TOLD_MAX: usize = 4096;

/// When which pod was last told what.
#[derive(Default)]
pub(super) struct Told(Mutex<HashMap<(String, News), Instant>>);

impl Told {
    /// Whether it may be told now; then it counts as told.
    fn admits(&self, pod: &PodRef, news: News) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.retain(|_, at| at.elapsed() < PAUSE);
        }
        let key = (pod.uid.clone(), news);
        let lately = told.get(&key).is_some_and(|at| at.elapsed() < PAUSE);
        let admitted = !lately && told.len() < TOLD_MAX;
        if admitted {
            told.insert(key, Instant::now());
        }
        admitted
    }
}

impl Observer for Swarm {
    fn observe(&self, pod: &PodRef, news: News, text: String) {
        let up = self.links.iter().find(|link| link.is_likely_up());
        if let Some(link) = up.or(self.links.first())
            && self.told.admits(pod, news)
        {
            let event = PodEvent::now(pod.clone(), news, text);
            link.tell(Message::Event(message_of(event)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_told_the_first_of_a_kind_and_one_a_minute() {
        let told = Told::default();
        let pod = |uid: &str| PodRef {
            namespace: "ns".into(),
            name: "same".into(),
            uid: uid.into(),
        };
        assert!(told.admits(&pod("a"), News::Degraded));
        assert!(!told.admits(&pod("a"), News::Degraded));
        assert!(told.admits(&pod("a"), News::Mounted));
        assert!(told.admits(&pod("b"), News::Degraded));
        tokio::time::advance(PAUSE).await;
        assert!(told.admits(&pod("a"), News::Degraded));
        let admitted =
            (0..TOLD_MAX * 2).filter(|uid| told.admits(&pod(&uid.to_string()), News::Mounted));
        assert!(admitted.count() < TOLD_MAX, "bounded");
        tokio::time::advance(PAUSE).await;
        assert!(told.admits(&pod("a"), News::Degraded), "room again");
    }
}
