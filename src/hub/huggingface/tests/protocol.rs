//! The good days: what is asked, how often, and with which credential.

use super::*;

#[tokio::test]
async fn a_hugging_face_hub_is_a_hub() {
    for resolve_cache in [false, true] {
        let fixture = Fixture {
            token: Token::new("good"),
            ..Fixture::named(|_| "hf://datasets/o/n@main".parse().expect("a reference"))
        };
        let repo = TestRepo::new("o/n")
            .kind(crate::model::Kind::Dataset)
            .files(&fixture.files)
            .gated(&["good"]);
        let config = TestHubConfig {
            page: 3,
            resolve_cache,
            ..TestHubConfig::default()
        };
        let hub = TestHub::with(config, [repo]).await.expect("a hub");
        hub_conforms(&client(&hub), &fixture).await;
        let stats = hub.stats();
        assert_eq!(stats.cdn_authorized, 0, "the CDN never sees a token");
        let repo = stats.repo("datasets/o/n");
        assert_eq!(repo.file("model.safetensors").resolve_requests, 1);
        assert!(repo.of("tree") >= 4, "pages of three rows");
        assert_eq!(repo.file("empty"), Default::default(), "never asked for");
        assert_eq!(
            stats.agents,
            [concat!("model-p2p/", env!("CARGO_PKG_VERSION"))]
        );
    }
}

/// One resolve opens a file for all its ranges, however many start at once; each byte is given once.
#[tokio::test]
async fn sixteen_ranges_at_once_cost_one_resolve() {
    let scene = Scene::new().await;
    let step = SIZE.div_ceil(16);
    let ranges = (0..16).map(|index| index * step..SIZE.min((index + 1) * step));
    let reads = ranges.clone().map(|range| scene.read(range));
    let parts = futures::future::try_join_all(reads).await.expect("bytes");
    assert!(parts.concat() == bytes(0..SIZE));
    let stats = scene.hub.stats();
    let file = stats.repo("o/n").file(WEIGHTS);
    assert_eq!((file.resolve_requests, file.cdn_requests), (1, 16));
    assert!(file.exactly_once(), "{file:?}");
    assert_eq!(stats.requests, 17);
}

/// Edge 4: offsets beyond 4 GiB are no different.
#[tokio::test]
async fn ranges_above_four_gib_are_exact() {
    let size = 5 << 30;
    let repo = TestRepo::new("o/big").pattern_unhashed(WEIGHTS, 7, size);
    let hub = TestHub::start([repo]).await.expect("a hub");
    let client = client(&hub);
    let pin = pin(&client, "hf://o/big", None).await.expect("a pin");
    let listing = client.list(&pin, None).await.expect("a listing");
    let entry = listing.get(WEIGHTS).expect("the file");
    for range in [(4 << 30) - 3..(4 << 30) + 5, size - MIB..size] {
        let got = read(&client, &pin, entry, range.clone(), None).await;
        assert!(got.expect("bytes") == bytes(range));
    }
}

/// A full commit is its own pin, and a branch that moves does not move it.
#[tokio::test]
async fn a_commit_costs_no_call_and_never_moves() {
    let scene = Scene::new().await;
    let commit = scene.pin.revision.to_string();
    let text = format!("hf://o/n@{commit}");
    assert_eq!(
        pin(&scene.client, &text, None).await.expect("a pin"),
        scene.pin
    );
    assert_eq!(scene.hub.stats().requests, 0);
    let moved = scene.hub.put(weights("o/n").file("new.txt", "x"));
    let now = pin(&scene.client, "hf://o/n@refs/pr/1", None)
        .await
        .expect("a pin");
    assert_eq!(now.revision.as_str(), moved);
    let old = scene
        .client
        .list(&scene.pin, None)
        .await
        .expect("a listing");
    assert!(old.get("new.txt").is_none());
}

/// Edge 7: a renamed repository is followed on the same origin, and its new name is the pin's.
#[tokio::test]
async fn a_renamed_repository_is_pinned_under_its_new_name() {
    let repo = weights("new/name").renamed_from("old/name");
    let hub = TestHub::start([repo]).await.expect("a hub");
    let client = client(&hub);
    let pin = pin(&client, "hf://old/name", None).await.expect("a pin");
    assert_eq!(pin.repository.repo, "new/name");
    let mut stale = pin.clone();
    stale.repository.repo = "old/name".into();
    let listing = client.list(&stale, None).await.expect("followed");
    let entry = listing.get(WEIGHTS).expect("the file");
    let got = read(&client, &stale, entry, 0..9, None).await;
    assert_eq!(got.expect("bytes"), bytes(0..9));
}

/// Edge 19: a mirror passes on links that name the original; the token stays with the mirror.
#[tokio::test]
async fn a_next_link_on_another_host_is_asked_of_our_endpoint() {
    let config = TestHubConfig {
        page: 1,
        ..TestHubConfig::default()
    };
    let scene = Scene::with(config).await;
    let elsewhere = FaultKind::NextOn("http://127.0.0.1:9".into());
    scene.hub.fault(Fault::always(On::Tree, elsewhere));
    let listing = scene.client.list(&scene.pin, None).await;
    assert_eq!(listing.expect("a listing").files().len(), 2);
}

/// Gated and private repositories, with no token, a wrong one, one without access and a good one.
#[tokio::test]
async fn tokens_open_what_they_may() {
    let config = TestHubConfig {
        tokens: vec!["stranger".into()],
        ..TestHubConfig::default()
    };
    let repos = [
        weights("o/gated").gated(&["good"]),
        weights("o/private").private(&["good"]),
    ];
    let hub = TestHub::with(config, repos).await.expect("a hub");
    let client = client(&hub);
    let (good, stranger, wrong) = (Token::new("good"), Token::new("stranger"), Token::new("x"));
    let gated = pin(&client, "hf://o/gated", None)
        .await
        .expect("metadata is open");
    for (token, wanted, remedy) in [
        (&None, FailureKind::Unauthenticated, "/o/gated"),
        (&wrong, FailureKind::Unauthenticated, "token rejected"),
        (&stranger, FailureKind::Denied, "accept the terms"),
    ] {
        let error = client.authorize(&gated, token.as_ref()).await;
        let error = error.expect_err("not allowed");
        assert_eq!(error.kind(), wanted, "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
    client
        .authorize(&gated, good.as_ref())
        .await
        .expect("allowed");
    for token in [&None, &stranger] {
        let error = pin(&client, "hf://o/private", token.as_ref()).await;
        assert_eq!(kind(error), FailureKind::NotFound);
    }
    pin(&client, "hf://o/private", good.as_ref())
        .await
        .expect("allowed");
}

/// A signed URL belongs to the token that got it: another token asks for its own, and is refused.
#[tokio::test]
async fn a_signed_url_is_not_shared_between_tokens() {
    let config = TestHubConfig {
        tokens: vec!["stranger".into()],
        ..TestHubConfig::default()
    };
    let repo = weights("o/n").gated(&["good"]);
    let hub = TestHub::with(config, [repo]).await.expect("a hub");
    let client = client(&hub);
    let (good, stranger) = (Token::new("good"), Token::new("stranger"));
    let pin = pin(&client, "hf://o/n", None).await.expect("a pin");
    let listing = client.list(&pin, None).await.expect("a listing");
    let entry = listing.get(WEIGHTS).expect("the file");
    let got = read(&client, &pin, entry, 0..9, good.as_ref()).await;
    assert_eq!(got.expect("bytes"), bytes(0..9));
    let got = read(&client, &pin, entry, 0..9, stranger.as_ref()).await;
    assert_eq!(kind(got), FailureKind::Denied);
}

/// Edge 23: a mirror without auth-check is asked for a byte of the weights instead.
#[tokio::test]
async fn a_mirror_without_auth_check_is_asked_for_a_file() {
    let config = TestHubConfig {
        auth_check: false,
        tokens: vec!["stranger".into()],
        ..TestHubConfig::default()
    };
    let repo = weights("o/n").gated(&["good"]);
    let hub = TestHub::with(config, [repo]).await.expect("a hub");
    let client = client(&hub);
    let pin = pin(&client, "hf://o/n", None).await.expect("a pin");
    let good = Token::new("good");
    client
        .authorize(&pin, good.as_ref())
        .await
        .expect("allowed");
    let stats = hub.stats().repo("o/n");
    assert_eq!((stats.of("resolve"), stats.of("cdn")), (1, 0));
    let denied = client
        .authorize(&pin, Token::new("stranger").as_ref())
        .await;
    assert_eq!(kind(denied), FailureKind::Denied);
}

/// Edge 2, 6: a small file that reads like a pointer is content.
#[tokio::test]
async fn a_git_file_may_read_like_a_pointer() {
    let text = "version https://git-lfs.github.com/spec/v1\n".repeat(40);
    let repo = TestRepo::new("o/n").file("doc.md", text.clone());
    let hub = TestHub::start([repo]).await.expect("a hub");
    let client = client(&hub);
    let pin = pin(&client, "hf://o/n", None).await.expect("a pin");
    let listing = client.list(&pin, None).await.expect("a listing");
    let entry = listing.get("doc.md").expect("the file");
    assert!(matches!(entry.digest, Digest::GitSha1(_)));
    let got = read(&client, &pin, entry, 0..entry.size, None).await;
    assert_eq!(got.expect("bytes"), text.as_bytes());
}
