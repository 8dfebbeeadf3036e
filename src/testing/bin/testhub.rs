//! The test hub as a program, for the demo, for benches and for tests of other processes.
//!
//! Prints one line of JSON with its addresses when it listens and serves until it is killed.

use anyhow::{Context, Result, bail};
use model_p2p::testing::hub::{TestHub, TestHubConfig, TestRepo};
use model_p2p::testing::pattern;
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

const USAGE: &str = "usage: testhub [--listen ADDR:PORT] [--cdn ADDR:PORT]
    --repo OWNER/NAME=DIR ... --pattern OWNER/NAME:PATH=BYTES ... --sparse OWNER/NAME:PATH=BYTES ...
    [--gated OWNER/NAME] [--private OWNER/NAME] [--token TOKEN] [--stranger TOKEN]
    [--claim OWNER/NAME:PATH=OWNER/NAME:PATH]
    [--rate BYTES_PER_S] [--latency-ms N] [--page ROWS]
    [--tls-dir DIR]: https with DIR/tls.crt and DIR/tls.key, made for the two addresses when absent";

#[tokio::main]
async fn main() -> Result<()> {
    let asked = parse(std::env::args().skip(1)).context(USAGE)?;
    let hub = TestHub::with(asked.config, asked.repos.into_values()).await?;
    let line = serde_json::json!({ "url": hub.url(), "cdn": hub.cdn_url() });
    println!("{line}");
    std::future::pending().await
}

#[derive(Default)]
struct Asked {
    config: TestHubConfig,
    repos: BTreeMap<String, TestRepo>,
    gated: Vec<String>,
    private: Vec<String>,
    /// Tokens that the hub knows and no repository accepts.
    strangers: Vec<String>,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Asked> {
    let mut asked = Asked::default();
    while let Some(flag) = arguments.next() {
        let Some(value) = arguments.next() else {
            bail!("{flag} wants a value");
        };
        asked
            .set(&flag, &value)
            .with_context(|| format!("{flag} {value}"))?;
    }
    asked.lock();
    asked.config.tokens.append(&mut asked.strangers);
    Ok(asked)
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(value: &str) -> Result<T> {
    Ok(value.parse()?)
}

impl Asked {
    fn set(&mut self, flag: &str, value: &str) -> Result<()> {
        let config = &mut self.config;
        match flag {
            "--listen" => config.listen = number(value)?,
            "--cdn" => config.cdn = number(value)?,
            "--rate" => config.rate = Some(number(value)?),
            "--latency-ms" => config.latency = Duration::from_millis(number(value)?),
            "--tls-dir" => config.tls_dir = Some(value.into()),
            "--page" => config.page = number(value)?,
            "--token" => config.tokens.push(value.to_owned()),
            "--gated" => self.gated.push(value.to_owned()),
            "--private" => self.private.push(value.to_owned()),
            "--stranger" => self.strangers.push(value.to_owned()),
            "--claim" => return self.claim(value),
            "--repo" => return self.directory(value),
            "--pattern" => return self.pattern(value, TestRepo::pattern),
            "--sparse" => return self.pattern(value, TestRepo::pattern_unhashed),
            _ => bail!("unknown option"),
        }
        Ok(())
    }

    /// Lets `change` add to a repository, made when it is first named.
    fn change(
        &mut self,
        id: &str,
        change: impl FnOnce(TestRepo) -> std::io::Result<TestRepo>,
    ) -> Result<()> {
        let repo = self.repos.remove(id).unwrap_or_else(|| TestRepo::new(id));
        self.repos.insert(id.to_owned(), change(repo)?);
        Ok(())
    }

    fn directory(&mut self, value: &str) -> Result<()> {
        let (id, directory) = value.split_once('=').context("is not OWNER/NAME=DIR")?;
        self.change(id, |repo| repo.directory(Path::new(directory)))
    }

    /// The first file is listed under the digest of the second.
    fn claim(&mut self, value: &str) -> Result<()> {
        let split = value
            .split_once('=')
            .and_then(|(liar, owner)| Some((liar.split_once(':')?, owner.split_once(':')?)));
        let ((liar, path), (owner, file)) =
            split.context("is not OWNER/NAME:PATH=OWNER/NAME:PATH")?;
        let file = self.repos.get(owner).and_then(|repo| repo.files.get(file));
        let digest = file.context("no such file")?.digest.clone();
        self.change(liar, |repo| Ok(repo.claim(path, &digest)))
    }

    /// The seed is the path's, so that equal paths in two repositories are one content. What is sparse states a
    /// digest that is made up: nobody reads it whole.
    fn pattern(
        &mut self,
        value: &str,
        add: fn(TestRepo, &str, u64, u64) -> TestRepo,
    ) -> Result<()> {
        let split = value
            .split_once(':')
            .and_then(|(id, rest)| Some((id, rest.rsplit_once('=')?)));
        let (id, (path, size)) = split.context("is not OWNER/NAME:PATH=BYTES")?;
        let size = number(size)?;
        let seed = pattern::seed_of(path);
        self.change(id, |repo| Ok(add(repo, path, seed, size)))
    }

    /// Gives the tokens to the repositories that ask for one.
    fn lock(&mut self) {
        let tokens = &self.config.tokens;
        for (ids, private) in [(&self.gated, false), (&self.private, true)] {
            for id in ids {
                if let Some(repo) = self.repos.get_mut(id) {
                    repo.gated = !private;
                    repo.private = private;
                    repo.accepted.clone_from(tokens);
                }
            }
        }
    }
}
