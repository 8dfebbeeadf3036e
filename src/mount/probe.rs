//! Questions to a filesystem that may never answer.
//!
//! They are asked in a blocking thread, one at a time under each turn, and waited for no longer than
//! [`ANSWER_MAX`]. A question that hangs keeps its turn, so a mount that is dead costs one thread however
//! often it is asked about, and every later question under that turn is answered `None` too.

use super::info;
use super::session::Session;
use crate::fs::Survey;
use nix::errno::Errno;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A health question as a whole must be answered within 100 ms.
const ANSWER_MAX: Duration = Duration::from_millis(50);

/// The right to ask.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

/// The answer, or `None` when there is none in time.
pub(super) async fn ask<T: Send + 'static>(
    turn: &Turn,
    question: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let turn = turn.clone();
    let asked = async move {
        let held = turn.lock_owned().await;
        let question = move || {
            let answer = question();
            drop(held);
            answer
        };
        tokio::task::spawn_blocking(question).await.ok()
    };
    tokio::time::timeout(ANSWER_MAX, asked).await.ok().flatten()
}

/// How the mount at one target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountHealth {
    /// The connection lives and its filesystem answers at the target.
    pub is_served: bool,
    /// As it was seen last: a look that takes longer counts for the next question.
    pub survey: Survey,
}

/// What questions about one mount share.
#[derive(Default)]
pub(super) struct Watch {
    alive: Turn,
    survey: Turn,
    seen: Arc<Mutex<Survey>>,
}

/// Asks a mount how it is.
pub(super) async fn health(session: &Arc<Session>, target: &Path) -> MountHealth {
    let (watch, target) = (session.watch(), target.to_owned());
    let (asked, looked) = (session.clone(), session.clone());
    let alive = ask(&watch.alive, move || is_served(&asked, &target));
    let seen = watch.seen.clone();
    let look = ask(&watch.survey, move || {
        let survey = looked.volume().survey();
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = survey;
    });
    let (is_served, _) = tokio::join!(alive, look);
    MountHealth {
        is_served: is_served.unwrap_or(false),
        survey: watch
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    }
}

/// The mount table first: only a filesystem that is there is asked.
fn is_served(session: &Session, target: &Path) -> bool {
    let is_shown = matches!(info::on(target), Ok(Some(line)) if line.device == session.device());
    let answers = || {
        matches!(
            nix::sys::statvfs::statvfs(target),
            Ok(_) | Err(Errno::ENOSYS)
        )
    };
    session.is_mounted() && is_shown && answers()
}
