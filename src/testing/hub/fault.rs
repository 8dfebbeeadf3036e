//! Failures on order: which requests, how many of them, and what goes wrong.

use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

/// Which requests a fault hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    #[default]
    Any,
    Revision,
    Tree,
    Resolve,
    ResolveCache,
    AuthCheck,
    Cdn,
}

impl On {
    pub fn name(self) -> &'static str {
        match self {
            On::Any => "any",
            On::Revision => "revision",
            On::Tree => "tree",
            On::Resolve => "resolve",
            On::ResolveCache => "resolve_cache",
            On::AuthCheck => "auth_check",
            On::Cdn => "cdn",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// 429 with `RateLimit: "api";r=0;t=N`.
    Limited { reset_s: u64 },
    /// A bare status.
    Status(u16),
    /// 200 with a login page.
    Html,
    /// The connection breaks after so many bytes of content.
    Truncate(u64),
    /// The same, and the signed URL is refused from then on.
    ExpireAfter(u64),
    /// 200 with the whole file.
    IgnoreRange,
    /// `Content-Encoding: gzip`.
    Gzip,
    /// The byte at this place of the file is wrong.
    Flip(u64),
    /// An LFS pointer instead of the content.
    Pointer,
    /// 206 with a Content-Range that starts a byte late.
    WrongRange,
    /// An `X-Repo-Commit` that is not the one asked for.
    WrongCommit,
    /// Never answers.
    Hang,
    /// 302 to this URL.
    Redirect(String),
    /// The next page's link names this host.
    NextOn(String),
    /// The next page is this one again.
    NextLoop,
}

/// A fault: the first `skip` requests it would hit go well, the next `times` do not (0: all).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    #[serde(default)]
    pub on: On,
    /// Only files whose path holds this text.
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub skip: u32,
    #[serde(default)]
    pub times: u32,
    pub kind: FaultKind,
}

impl Fault {
    /// Every request of an operation fails.
    pub fn always(on: On, kind: FaultKind) -> Fault {
        Fault {
            on,
            path: String::new(),
            skip: 0,
            times: 0,
            kind,
        }
    }

    /// The next request fails, those after it do not.
    pub fn once(on: On, kind: FaultKind) -> Fault {
        Fault {
            times: 1,
            ..Fault::always(on, kind)
        }
    }

    /// Only for files whose path holds `path`.
    pub fn path(mut self, path: &str) -> Fault {
        path.clone_into(&mut self.path);
        self
    }

    /// Lets so many requests go well first.
    pub fn after(mut self, skip: u32) -> Fault {
        self.skip = skip;
        self
    }
}

#[derive(Debug, Default)]
pub struct Faults {
    active: Mutex<Vec<Fault>>,
}

impl Faults {
    pub fn add(&self, fault: Fault) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.push(fault);
    }

    pub fn clear(&self) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.clear();
    }

    /// What goes wrong with this request. Counts it against the first fault that hits.
    pub fn strike(&self, on: On, path: &str) -> Option<FaultKind> {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let hits = |fault: &Fault| {
            (fault.on == On::Any || fault.on == on) && path.contains(fault.path.as_str())
        };
        let at = active.iter().position(hits)?;
        let fault = &mut active[at];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let kind = fault.kind.clone();
        if fault.times == 1 {
            active.remove(at);
        } else {
            fault.times = fault.times.saturating_sub(1);
        }
        Some(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_hit_their_requests_in_their_number() {
        let faults = Faults::default();
        let hang = Fault::once(On::Cdn, FaultKind::Hang);
        faults.add(hang.path("model").after(1));
        assert_eq!(faults.strike(On::Tree, "model"), None);
        assert_eq!(faults.strike(On::Cdn, "config"), None);
        assert_eq!(faults.strike(On::Cdn, "model"), None, "skipped");
        assert_eq!(faults.strike(On::Cdn, "model"), Some(FaultKind::Hang));
        assert_eq!(faults.strike(On::Cdn, "model"), None, "used up");
        faults.add(Fault::always(On::Any, FaultKind::Status(503)));
        for _ in 0..3 {
            assert!(faults.strike(On::Revision, "").is_some());
        }
    }
}
