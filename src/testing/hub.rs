//! A Hugging Face hub for tests: repositories in memory, on disk or computed, on loopback.
//!
//! Two listeners: the hub, and a CDN on another port that takes only signed URLs, as the real one does.
//! Small text files come from the hub itself, weights by 302. Everything asked and every byte given is
//! counted ([`Stats`]), so that tests assert numbers instead of watching clocks; [`Fault`]s make it fail on
//! purpose. It stops when it is dropped.

mod admin;
mod body;
mod cdn;
mod fault;
mod refuse;
mod repo;
mod route;
mod server;
mod stats;
mod tls;

pub use fault::{Fault, FaultKind, On};
pub use repo::{Content, TestRepo};
pub use stats::{FileStats, RepoStats, Stats};

use crate::model::Reference;
use server::State;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Clone, Debug)]
pub struct TestHubConfig {
    pub listen: SocketAddr,
    pub cdn: SocketAddr,
    /// Rows a tree page.
    pub page: usize,
    /// All content together, hub and CDN, in bytes a second.
    pub rate: Option<u64>,
    /// Before each answer.
    pub latency: Duration,
    /// Tokens the hub knows, beside those that repositories accept.
    pub tokens: Vec<String>,
    /// Small files by way of a 307 to the hub's own cache route.
    pub resolve_cache: bool,
    /// Whether `auth-check` exists; mirrors lack it.
    pub auth_check: bool,
    /// A folder with tls.crt and tls.key, or for them: both listeners speak TLS.
    pub tls_dir: Option<PathBuf>,
    /// How long signed URLs say they are valid, in seconds.
    pub signed_s: u64,
}

impl Default for TestHubConfig {
    fn default() -> TestHubConfig {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        TestHubConfig {
            listen: any,
            cdn: any,
            page: 1000,
            rate: None,
            latency: Duration::ZERO,
            tokens: Vec::new(),
            resolve_cache: false,
            auth_check: true,
            tls_dir: None,
            signed_s: 3600,
        }
    }
}

/// A listener for the double, and the URL it is reached at: its own, or that of TLS in front of it.
async fn listen(
    addr: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    stop: &CancellationToken,
) -> io::Result<(TcpListener, String)> {
    let front = TcpListener::bind(addr).await?;
    let front_addr = front.local_addr()?;
    let Some(acceptor) = acceptor else {
        return Ok((front, format!("http://{front_addr}")));
    };
    let back = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let carried = tls::terminate(acceptor, front, back.local_addr()?, stop.clone());
    tokio::spawn(carried);
    Ok((back, format!("https://{front_addr}")))
}

/// A running hub.
pub struct TestHub {
    url: String,
    cdn_url: String,
    state: Arc<State>,
    _stop: DropGuard,
}

impl TestHub {
    /// Serves repositories on free ports of 127.0.0.1.
    pub async fn start(repos: impl IntoIterator<Item = TestRepo>) -> io::Result<TestHub> {
        TestHub::with(TestHubConfig::default(), repos).await
    }

    pub async fn with(
        config: TestHubConfig,
        repos: impl IntoIterator<Item = TestRepo>,
    ) -> io::Result<TestHub> {
        let stop = CancellationToken::new();
        let acceptor = config
            .tls_dir
            .as_deref()
            .map(|dir| tls::acceptor(dir, [config.listen.ip(), config.cdn.ip()]));
        let acceptor = acceptor.transpose()?;
        let (hub, url) = listen(config.listen, acceptor.clone(), &stop).await?;
        let (cdn, cdn_url) = listen(config.cdn, acceptor, &stop).await?;
        let state = Arc::new(State::new(config, cdn_url.clone(), stop));
        for repo in repos {
            state.put(repo);
        }
        let stop = &state.stop;
        tokio::spawn(server::serve(hub, route::hub(state.clone()), stop.clone()));
        tokio::spawn(server::serve(cdn, route::cdn(state.clone()), stop.clone()));
        Ok(TestHub {
            url,
            cdn_url,
            _stop: state.stop.clone().drop_guard(),
            state,
        })
    }

    /// The endpoint, for HF_ENDPOINT or `HuggingFace::new`.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn cdn_url(&self) -> &str {
        &self.cdn_url
    }

    /// Adds a repository, or moves the `main` of one to new content; old commits stay readable. Gives the
    /// new commit.
    pub fn put(&self, repo: TestRepo) -> String {
        self.state.put(repo)
    }

    /// Takes a repository away.
    pub fn remove(&self, id: &str) {
        self.state.remove(id);
    }

    /// Forgets a commit, as a force push does.
    pub fn forget(&self, id: &str, commit: &str) {
        self.state.forget(id, commit);
    }

    /// Takes a token from everything it opened.
    pub fn revoke(&self, token: &str) {
        self.state.revoke(token);
    }

    /// Makes it fail from now on.
    pub fn fault(&self, fault: Fault) {
        self.state.faults.add(fault);
    }

    /// Forgets all faults and sets the counters to zero.
    pub fn reset(&self) {
        self.state.faults.clear();
        self.state.stats.reset();
    }

    pub fn stats(&self) -> Stats {
        self.state.stats.snapshot()
    }

    /// A repository of this hub as users write it.
    pub fn reference(&self, id: &str) -> Option<Reference> {
        format!("hf://{id}").parse().ok()
    }
}
