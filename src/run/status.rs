//! What a process holds and does, as one JSON object and as a page of text.

use super::attach;
use crate::config::CacheConfig;
use crate::metrics::METRICS;
use crate::model::Failure;
use crate::mount::Mounts;
use crate::run::progress::bytes;
use crate::store::{Store, StoreError};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

/// Where a role's status comes from.
#[derive(Clone)]
pub struct StatusSource {
    pub role: &'static str,
    /// A controller has none.
    pub store: Option<Store>,
    pub mounts: Option<Arc<Mounts>>,
}

impl StatusSource {
    /// One object; fields are added, never renamed.
    pub fn json(&self) -> Value {
        let fetched = |from: &str| METRICS.fetched_bytes.with_label_values(&[from]).get();
        let served = |to: &str| METRICS.served_bytes.with_label_values(&[to]).get();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "role": self.role,
            "pid": std::process::id(),
            "mounts": self.mounts.as_ref().map(|mounts| mounts_json(mounts)).unwrap_or_default(),
            "cache": self.store.as_ref().map(cache_json),
            "models": self.store.as_ref().map(models).unwrap_or_default(),
            "fetched_bytes": {"peer": fetched("peer"), "seed": fetched("seed"), "origin": fetched("origin")},
            "served_bytes": {"peer": served("peer"), "reader": served("reader")},
            "peers": METRICS.peers.get(),
        })
    }

    /// Brings the gauges that nobody counts along up to date.
    pub fn measure(&self) {
        let Some(store) = &self.store else {
            return;
        };
        METRICS
            .cache_bytes
            .with_label_values(&["kept"])
            .set(store.used_bytes() as i64);
        let pins = store.index().pins();
        METRICS
            .revisions
            .set(pins.map_or(0, |pins| pins.len() as i64));
    }
}

fn cache_json(store: &Store) -> Value {
    json!({
        "dir": store.dir(),
        "used_bytes": store.used_bytes(),
        "limit_bytes": store.limit_bytes(),
        "files": store.keys().len(),
    })
}

/// Every revision this cache knows, with how much of it is here.
fn models(store: &Store) -> Vec<Value> {
    let pins = store.index().pins().unwrap_or_default();
    let listings = pins
        .iter()
        .filter_map(|pin| store.index().listing(pin).ok().flatten());
    listings
        .map(|listing| {
            let files = listing.files().iter();
            let here: u64 = files.map(|file| store.bytes_here(file.key)).sum();
            json!({
                "pin": listing.pin().to_string(),
                "files": listing.files().len(),
                "bytes": listing.bytes(),
                "bytes_here": here,
            })
        })
        .collect()
}

fn mounts_json(mounts: &Mounts) -> Vec<Value> {
    let list = mounts.list().into_iter();
    list.map(|mount| json!({"pin": mount.pin.to_string(), "targets": mount.targets, "mode": mount.mode.name()})).collect()
}

/// Prints the status of the cache's owner, or of the cache itself when nobody owns it.
pub async fn status(cache: CacheConfig, as_json: bool) -> Result<(), Failure> {
    let value = match super::engine::open_store(&cache) {
        Ok(store) => StatusSource {
            role: "none",
            store: Some(store),
            mounts: None,
        }
        .json(),
        Err(StoreError::Owned { .. }) => attach::status(&cache.dir).await?,
        Err(error) => return Err(error.into()),
    };
    match as_json {
        true => println!("{value}"),
        false => print!("{}", page(&value)),
    }
    Ok(())
}

fn page(status: &Value) -> String {
    let mut out = String::new();
    let number = |value: &Value| bytes(value.as_u64().unwrap_or_default());
    let cache = &status["cache"];
    let _ = writeln!(
        out,
        "role    {} (pid {})",
        text(&status["role"]),
        status["pid"]
    );
    let _ = writeln!(
        out,
        "cache   {}: {} of {} in {} files",
        text(&cache["dir"]),
        number(&cache["used_bytes"]),
        number(&cache["limit_bytes"]),
        cache["files"]
    );
    let fetched = &status["fetched_bytes"];
    let _ = writeln!(
        out,
        "fetched {} from peers, {} from seeds, {} from hubs",
        number(&fetched["peer"]),
        number(&fetched["seed"]),
        number(&fetched["origin"])
    );
    for model in status["models"].as_array().into_iter().flatten() {
        let (here, all) = (number(&model["bytes_here"]), number(&model["bytes"]));
        let _ = writeln!(
            out,
            "model   {}: {here} of {all} in {} files",
            text(&model["pin"]),
            model["files"]
        );
    }
    for mount in status["mounts"].as_array().into_iter().flatten() {
        for target in mount["targets"].as_array().into_iter().flatten() {
            let _ = writeln!(
                out,
                "mount   {} at {} ({})",
                text(&mount["pin"]),
                text(target),
                text(&mount["mode"])
            );
        }
    }
    out
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
