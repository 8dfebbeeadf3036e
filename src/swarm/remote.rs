//! The seeds' catalog as others see it: one call to one seed, and a [`Catalog`] made of such calls.
//!
//! The seed for a reference is chosen by its repository, so that all ask the same one and it asks the hub
//! once; the next is asked only when that one cannot be reached. A listing is checked as if it came from
//! the hub. A token goes to seeds that are reached over TLS and to those on this machine, to no other.

use super::failure::failure_of;
use super::v1::{self, fellow_client::FellowClient, seed_client::SeedClient};
use super::wire;
use crate::model::{Digest, Failure, FailureKind, Listing, Pin, Reference, Token};
use crate::source::{Catalog, FileRef};
use crate::tls::{Callee, TlsDir};
use async_trait::async_trait;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The most bytes of content that come along with a listing are 4 MiB; more is the seed's mistake.
const CONTENT_BYTES_MAX: usize = 8 << 20;

/// A seed behind a cable that was cut is found lost within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

const REACH: Duration = Duration::from_secs(3);

/// A catalog for who is not in the swarm: the controller, the command line.
pub struct RemoteCatalog {
    seeds: Vec<RemoteSeed>,
}

/// A seed's answer about a pin.
pub struct Listed {
    pub listing: Arc<Listing>,
    /// Small files that the pin's repository is proven to hold.
    pub contents: Vec<v1::Content>,
    /// The hub lets everybody read it.
    pub public: bool,
}

/// A seed's control port. Connects when it is first used, and again after a break.
#[derive(Clone)]
pub struct RemoteSeed {
    /// `host:port` as configured.
    pub name: String,
    channel: Channel,
    is_secure: bool,
}

impl RemoteSeed {
    /// Must run within a tokio runtime. Without certificates the seed is reached in the clear.
    pub fn new(name: &str, tls: Option<&Arc<TlsDir>>) -> Result<RemoteSeed, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{name}")).map_err(|error| {
            let message = format!("seed `{name}`: {error}: write host:port");
            Failure::new(FailureKind::BadReference, message)
        })?;
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(3))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = match tls {
            Some(tls) => tls.dial(&endpoint, Callee::Seed),
            None => endpoint.connect_lazy(),
        };
        Ok(RemoteSeed {
            name: name.to_owned(),
            channel,
            is_secure: tls.is_some(),
        })
    }

    pub fn client(&self) -> SeedClient<Channel> {
        SeedClient::new(self.channel.clone())
    }

    /// As one seed speaks with another.
    pub fn fellow(&self) -> FellowClient<Channel> {
        FellowClient::new(self.channel.clone())
    }

    /// Fails when the token would cross a network in the clear.
    pub fn check_token(&self, token: Option<&Token>) -> Result<(), Failure> {
        let host = self
            .name
            .rsplit_once(':')
            .map_or(&*self.name, |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let is_local =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if token.is_none() || self.is_secure || is_local {
            return Ok(());
        }
        let message = format!(
            "token not sent to seed {}: use --tls-dir instead of --insecure on both sides",
            self.name
        );
        Err(Failure::new(FailureKind::Unauthenticated, message))
    }

    pub async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        self.check_token(token)?;
        let request = v1::ResolveRequest {
            reference: reference.to_string(),
            volume: volume.map(str::to_owned),
            token: token.map(|token| token.reveal().to_owned()),
        };
        let reply = self
            .client()
            .resolve(request)
            .await
            .map_err(|status| failure_of(&status))?;
        reply
            .into_inner()
            .pin
            .parse()
            .map_err(|error| self.bad_answer(error))
    }

    /// Asks for the hub's word that the file's repository holds it.
    pub async fn prove(&self, file: &FileRef) -> Result<(), Failure> {
        self.check_token(file.token.get().as_ref())?;
        let answer = self.client().prove(wire::interest_of(file)).await;
        answer.map(drop).map_err(|status| failure_of(&status))
    }

    /// Best effort: a pin that stays is forgotten when it is the oldest.
    pub async fn forget(&self, volume: &str) {
        let volume = volume.to_owned();
        if let Err(status) = self.client().forget(v1::ForgetRequest { volume }).await {
            tracing::debug!(seed = %self.name, cause = status.message(), "volume not forgotten");
        }
    }

    /// The files of a pin, and what comes along.
    pub async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Listed, Failure> {
        self.check_token(token)?;
        let request = v1::ListingRequest {
            pin: pin.to_string(),
            token: token.map(|token| token.reveal().to_owned()),
        };
        let failure = |status| failure_of(&status);
        let mut pages = self
            .client()
            .listing(request)
            .await
            .map_err(failure)?
            .into_inner();
        let (mut rows, mut contents, mut bytes, mut public) = (Vec::new(), Vec::new(), 0, false);
        while let Some(page) = pages.message().await.map_err(failure)? {
            public |= page.public;
            rows.extend(page.entries);
            bytes += page
                .contents
                .iter()
                .map(|content| content.bytes.len())
                .sum::<usize>();
            if rows.len() > crate::model::listing::FILES_MAX || bytes > CONTENT_BYTES_MAX {
                return Err(self.bad_answer("listing is too large"));
            }
            contents.extend(page.contents);
        }
        let listing = read(pin, rows).map_err(|cause| self.bad_answer(cause))?;
        Ok(Listed {
            listing,
            contents,
            public,
        })
    }

    /// Fails when nobody answers within 3 s. An empty reference is refused by the seed itself.
    async fn reach(&self) -> Result<(), Failure> {
        let mut client = self.client();
        let call = client.resolve(v1::ResolveRequest::default());
        let silent = |cause: String| {
            let message = format!("seed {} does not answer: {cause}", self.name);
            Failure::new(FailureKind::Unavailable, message)
        };
        match tokio::time::timeout(REACH, call).await {
            Err(_) => Err(silent(format!("{} s have passed", REACH.as_secs()))),
            Ok(Err(status)) if failure_of(&status).kind == FailureKind::Unavailable => {
                Err(silent(status.message().to_owned()))
            }
            Ok(_) => Ok(()),
        }
    }

    fn bad_answer(&self, cause: impl std::fmt::Display) -> Failure {
        let message = format!("seed {} gave no usable answer: {cause}", self.name);
        Failure::new(FailureKind::Unavailable, message)
    }
}

/// The order in which seeds are asked for what `key` names: the same everywhere, another for each key.
pub fn rank<'a, T>(
    seeds: &'a [T],
    key: &[u8; 32],
    name: impl Fn(&T) -> &str,
) -> Vec<(usize, &'a T)> {
    let mut ranked: Vec<_> = seeds.iter().enumerate().collect();
    ranked.sort_by_key(|(_, seed)| *blake3::keyed_hash(key, name(seed).as_bytes()).as_bytes());
    ranked
}

/// The key that ranks seeds for a repository.
pub fn rank_key(reference: &Reference) -> [u8; 32] {
    *blake3::hash(reference.repo.as_bytes()).as_bytes()
}

pub fn no_seed() -> Failure {
    Failure::new(
        FailureKind::Unavailable,
        "no seed is configured: set --seed host:port",
    )
}

impl RemoteCatalog {
    /// Must run within a tokio runtime. Fails when a name is no `host:port`.
    pub fn new(seeds: &[String], tls: Option<&Arc<TlsDir>>) -> Result<RemoteCatalog, Failure> {
        let seeds = seeds.iter().map(|name| RemoteSeed::new(name, tls));
        Ok(RemoteCatalog {
            seeds: seeds.collect::<Result<_, _>>()?,
        })
    }

    fn ranked(&self, reference: &Reference) -> Vec<(usize, &RemoteSeed)> {
        rank(&self.seeds, &rank_key(reference), |seed| &seed.name)
    }
}

#[async_trait]
impl Catalog for RemoteCatalog {
    async fn resolve(
        &self,
        reference: &Reference,
        volume: Option<&str>,
        token: Option<&Token>,
    ) -> Result<Pin, Failure> {
        let mut last = no_seed();
        for (_, seed) in self.ranked(reference) {
            match seed.resolve(reference, volume, token).await {
                Err(failure) if failure.kind == FailureKind::Unavailable => last = failure,
                answer => return answer,
            }
        }
        Err(last)
    }

    async fn listing(&self, pin: &Pin, token: Option<&Token>) -> Result<Arc<Listing>, Failure> {
        let mut last = no_seed();
        for (_, seed) in self.ranked(&pin.repository) {
            match seed.listing(pin, token).await {
                Err(failure) if failure.kind == FailureKind::Unavailable => last = failure,
                answer => return answer.map(|listed| listed.listing),
            }
        }
        Err(last)
    }

    async fn reach(&self) -> Result<(), Failure> {
        let asked = self.seeds.iter().map(|seed| Box::pin(seed.reach()));
        match self.seeds.is_empty() {
            true => Err(no_seed()),
            false => futures::future::select_ok(asked).await.map(|_| ()),
        }
    }

    async fn forget(&self, volume: &str) {
        for seed in &self.seeds {
            seed.forget(volume).await;
        }
    }
}

fn read(pin: &Pin, rows: Vec<v1::Entry>) -> Result<Arc<Listing>, String> {
    let row = |row: v1::Entry| {
        let digest: Result<Digest, ()> = row.digest.parse();
        let digest = digest.map_err(|()| format!("digest `{}`", row.digest))?;
        Ok((row.path, row.size, digest))
    };
    let rows: Vec<_> = rows.into_iter().map(row).collect::<Result<_, String>>()?;
    let listing = Listing::new(pin.clone(), rows);
    listing.map(Arc::new).map_err(|error| error.to_string())
}
