//! A stated digest opens nothing: against the hub double, with every request and byte counted.

use super::*;
use crate::hub::{HttpConfig, HuggingFace};
use crate::testing::hub::{Fault, FaultKind, On, TestHub, TestRepo};

const WEIGHTS: &str = "model.safetensors";
const BYTES: u64 = 3 * PIECE_BYTES + 5;

struct Only(Arc<HuggingFace>);

impl HubSet for Only {
    fn hub(&self, _: &Reference) -> Result<Arc<dyn Hub>, HubError> {
        Ok(self.0.clone())
    }
}

/// A seed and a hub on which `owner/n` holds two files and `evil/n` lists them as its own.
struct Scene {
    hub: TestHub,
    client: Arc<HuggingFace>,
    ingest: Ingest,
    _dir: tempfile::TempDir,
}

fn owner(id: &str) -> TestRepo {
    TestRepo::new(id)
        .pattern(WEIGHTS, 7, BYTES)
        .file("config.json", r#"{"a":1}"#)
}

impl Scene {
    async fn new() -> Scene {
        let repo = owner("owner/n");
        let digest = |path: &str| repo.files[path].digest.clone();
        let evil = TestRepo::new("evil/n")
            .pattern(WEIGHTS, 8, BYTES)
            .claim(WEIGHTS, &digest(WEIGHTS))
            .file("config.json", r#"{"b":2}"#)
            .claim("config.json", &digest("config.json"));
        let hub = TestHub::start([repo, evil, owner("second/n")]).await;
        let hub = hub.expect("a hub");
        let client = HuggingFace::new(hub.url(), &HttpConfig::default());
        let client = Arc::new(client.expect("a client"));
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(&StoreConfig {
            dir: dir.path().to_owned(),
            limit_bytes: Some(1 << 30),
        });
        let ingest = Ingest::new(store.expect("a store"), Arc::new(Only(client.clone())));
        Scene {
            hub,
            client,
            ingest,
            _dir: dir,
        }
    }

    async fn file(&self, id: &str, path: &str) -> FileRef {
        let reference = self.hub.reference(id).expect("a reference");
        let pin = self.client.resolve(&reference, None).await.expect("a pin");
        let listing = self.client.list(&pin, None).await.expect("a listing");
        let entry = listing.get(path).expect("the file");
        FileRef::new(&Arc::new(pin), entry, None)
    }

    /// Reads a file through its owner, as its readers have.
    async fn held(&self, path: &str) -> FileRef {
        let file = self.file("owner/n", path).await;
        self.ingest.prove(&file).await.expect("proven");
        for index in 0..file.geometry().pieces() {
            self.ingest.demand(&file, index).await.expect("read");
        }
        self.hub.reset();
        file
    }

    /// Resolves of a path, and bytes given.
    fn cost(&self, id: &str, path: &str) -> (u64, u64) {
        let repo = self.hub.stats().repo(id);
        (
            repo.file(path).resolve_requests,
            repo.hub_bytes + repo.cdn_bytes,
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_only_states_a_digest_gets_nothing_and_nothing_is_revoked() {
    let scene = Scene::new().await;
    for path in [WEIGHTS, "config.json"] {
        let (held, claim) = (scene.held(path).await, scene.file("evil/n", path).await);
        assert_eq!(held.key, claim.key, "the same file by its listing");
        let failure = scene.ingest.prove(&claim).await.expect_err("a lie");
        assert_eq!(failure.kind, FailureKind::Integrity, "{path}: {failure}");
        let here = scene.ingest.demand(&held, 0).await;
        here.expect("the owner's readers notice nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_in_a_second_repository_costs_one_head_and_no_byte() {
    let scene = Scene::new().await;
    for path in [WEIGHTS, "config.json"] {
        scene.held(path).await;
        let second = scene.file("second/n", path).await;
        for _ in 0..3 {
            scene.ingest.prove(&second).await.expect("it has it too");
        }
        assert_eq!(scene.cost("second/n", path), (1, 0), "{path}");
    }
}

/// The question must not cost a cold file a request: what it brings is used by the reads. Once in many runs it cost
/// one more: the piece was seen before its proof was noted, and the hub was asked again.
#[tokio::test(flavor = "multi_thread")]
async fn asking_costs_a_cold_file_no_request_more() {
    let scene = Scene::new().await;
    for path in [WEIGHTS, "config.json"] {
        let file = scene.file("owner/n", path).await;
        scene.hub.reset();
        scene.ingest.prove(&file).await.expect("proven");
        scene.ingest.demand(&file, 0).await.expect("read");
        assert_eq!(scene.cost("owner/n", path).0, 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_head_is_asked_for_a_byte_and_a_missing_file_is_denied() {
    let scene = Scene::new().await;
    scene.held(WEIGHTS).await;
    let second = scene.file("second/n", WEIGHTS).await;
    scene
        .hub
        .fault(Fault::once(On::Resolve, FaultKind::Status(405)));
    scene.ingest.prove(&second).await.expect("by GET");
    let mut gone = scene.file("evil/n", WEIGHTS).await;
    gone.path = "elsewhere".into();
    let failure = scene.ingest.prove(&gone).await.expect_err("not there");
    assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_told_often_costs_the_hub_one_question() {
    let scene = Scene::new().await;
    scene.held(WEIGHTS).await;
    let claim = scene.file("evil/n", WEIGHTS).await;
    for _ in 0..20 {
        scene.ingest.prove(&claim).await.expect_err("a lie");
    }
    assert_eq!(scene.cost("evil/n", WEIGHTS), (1, 0));
}
