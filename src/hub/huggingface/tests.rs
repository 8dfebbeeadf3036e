//! The protocol's edges, each played by the test hub and counted there.

use super::*;
use crate::hub::conformance::{Fixture, hub_conforms, read};
use crate::model::{Digest, FailureKind};
use crate::testing::hub::{Fault, FaultKind, On, TestHub, TestHubConfig, TestRepo};
use crate::testing::pattern;
use std::time::Duration;

mod edges;
mod protocol;

const MIB: u64 = 1 << 20;
/// Three pieces and a bit: more than one part of the test hub, cheap to hash.
const SIZE: u64 = 3 * MIB + 77;
const WEIGHTS: &str = "model.safetensors";

/// A client that gives up soon: tests fail faults on purpose.
fn client(hub: &TestHub) -> HuggingFace {
    client_at(hub.url())
}

fn client_at(endpoint: &str) -> HuggingFace {
    let http = HttpConfig {
        idle_timeout: Duration::from_secs(2),
        ..HttpConfig::default()
    };
    let backoff = Backoff {
        first: Duration::from_millis(1),
        most: Duration::from_millis(5),
        tries: 3,
    };
    HuggingFace::with_backoff(endpoint, &http, backoff).expect("a client")
}

fn weights(id: &str) -> TestRepo {
    TestRepo::new(id)
        .pattern(WEIGHTS, 7, SIZE)
        .file("config.json", r#"{"a":1}"#)
}

fn bytes(range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    pattern::fill(7, range.start, &mut bytes);
    bytes
}

/// A hub with one repository, its client, pin and weights.
struct Scene {
    hub: TestHub,
    client: HuggingFace,
    pin: Pin,
    weights: Entry,
    config: Entry,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(TestHubConfig::default()).await
    }

    async fn with(config: TestHubConfig) -> Scene {
        let hub = TestHub::with(config, [weights("o/n")])
            .await
            .expect("a hub");
        let client = client(&hub);
        let pin = pin(&client, "hf://o/n", None).await.expect("a pin");
        let listing = client.list(&pin, None).await.expect("a listing");
        let entry = |path| listing.get(path).expect("a file").clone();
        hub.reset();
        Scene {
            weights: entry(WEIGHTS),
            config: entry("config.json"),
            hub,
            client,
            pin,
        }
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, HubError> {
        read(&self.client, &self.pin, &self.weights, range, None).await
    }

    fn requests(&self, operation: &str) -> u64 {
        self.hub.stats().repo("o/n").of(operation)
    }
}

async fn pin(client: &HuggingFace, text: &str, token: Option<&Token>) -> Result<Pin, HubError> {
    let reference = text.parse().expect("a reference");
    client.resolve(&reference, token).await
}

fn kind<T>(result: Result<T, HubError>) -> FailureKind {
    result.err().expect("an error").kind()
}
