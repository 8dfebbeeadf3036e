//! One call at a time for each volume, and none that stops half-way.
//!
//! A call runs in a task of its own: a client that goes away takes nothing with it, and the call that undoes
//! the first waits behind it. Identifiers that nobody waits for are forgotten. Over the limit a call is
//! refused as busy, for the caller to come back.

use super::status::Refusal;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::task::TaskTracker;

/// Calls under way and waiting, of all volumes. A node has about a hundred pods; kubelet repeats itself.
const CALLS_MAX: usize = 4096;

/// The turns of all volumes.
#[derive(Default)]
pub(super) struct Turns {
    lines: Mutex<Lines>,
    calls: TaskTracker,
}

#[derive(Default)]
struct Lines {
    by_volume: HashMap<String, Line>,
    waiting: usize,
}

/// Those who wait for one volume, and how many they are.
#[derive(Default)]
struct Line {
    turn: Arc<tokio::sync::Mutex<()>>,
    waiting: usize,
}

impl Turns {
    /// Runs `call` to its end, after those that came before it for this volume.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Turns>,
        volume_id: &str,
        call: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = self.enter(volume_id)?;
        let task = self.calls.spawn(async move {
            let _turn = place.turn.lock().await;
            call.await
        });
        task.await.unwrap_or_else(|end| {
            Err(Refusal::Broken {
                volume_id: volume_id.to_owned(),
                cause: end.to_string(),
            })
        })
    }

    /// Waits until every call has ended; new ones are not kept out.
    pub(super) async fn drained(&self) {
        self.calls.close();
        self.calls.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Turns>, volume_id: &str) -> Result<Place, Refusal> {
        let mut lines = self.lock();
        if lines.waiting == CALLS_MAX {
            return Err(Refusal::Busy {
                volume_id: volume_id.to_owned(),
                cause: "too many calls are under way",
            });
        }
        lines.waiting += 1;
        let line = lines.by_volume.entry(volume_id.to_owned()).or_default();
        line.waiting += 1;
        Ok(Place {
            turns: self.clone(),
            volume_id: volume_id.to_owned(),
            turn: line.turn.clone(),
        })
    }
}

/// A place in a volume's line; the last one to leave takes the line away.
struct Place {
    turns: Arc<Turns>,
    volume_id: String,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.turns.lock();
        lines.waiting -= 1;
        if let Entry::Occupied(mut line) =
            lines.by_volume.entry(std::mem::take(&mut self.volume_id))
        {
            line.get_mut().waiting -= 1;
            if line.get().waiting == 0 {
                line.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn calls_of_one_volume_never_overlap_and_leave_nothing() {
        let turns = Arc::new(Turns::default());
        let inside = Arc::new(AtomicUsize::new(0));
        let calls = (0..50).map(|index| {
            let (turns, inside) = (turns.clone(), inside.clone());
            async move {
                let call = async move {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    Ok(index)
                };
                turns.run("v", call).await
            }
        });
        let ends = futures::future::join_all(calls).await;
        assert!(ends.into_iter().all(|end| end.is_ok()));
        assert!(turns.lock().by_volume.is_empty());
    }

    #[tokio::test]
    async fn a_call_outlives_its_client_and_a_panic_is_an_answer() {
        let turns = Arc::new(Turns::default());
        let (done, ended) = tokio::sync::oneshot::channel();
        let call = async move {
            tokio::task::yield_now().await;
            done.send(()).expect("a listener");
            Ok(())
        };
        let mut run = Box::pin(turns.run("v", call));
        assert!(futures::poll!(&mut run).is_pending());
        drop(run);
        ended.await.expect("the call went on");
        let broken = turns.run("v", async { panic!("a bug") }).await as Result<(), _>;
        assert!(matches!(broken, Err(Refusal::Broken { .. })));
        turns.drained().await;
    }

    #[tokio::test]
    async fn the_number_of_calls_is_bounded() {
        let turns = Arc::new(Turns::default());
        let places: Vec<_> = (0..CALLS_MAX)
            .map(|index| turns.enter(&index.to_string()).expect("room"))
            .collect();
        assert!(matches!(turns.enter("v"), Err(Refusal::Busy { .. })));
        drop(places);
        assert!(turns.enter("v").is_ok());
    }
}
