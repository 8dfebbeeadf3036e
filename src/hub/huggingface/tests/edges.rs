//! The bad days: every failure ends in the right bytes or in an error that says why.

use super::*;

/// Edge 10: a URL that dies in mid-body is replaced once and the read goes on from its last byte.
#[tokio::test]
async fn a_signed_url_that_expires_in_mid_body_is_replaced() {
    let scene = Scene::new().await;
    let fault = Fault::once(On::Cdn, FaultKind::ExpireAfter(MIB + 5));
    scene.hub.fault(fault);
    assert!(scene.read(0..SIZE).await.expect("bytes") == bytes(0..SIZE));
    let file = scene.hub.stats().repo("o/n").file(WEIGHTS);
    // Cut off, refused on the old URL, served on the new one.
    assert_eq!((file.resolve_requests, file.cdn_requests), (2, 3));
    assert!(file.exactly_once(), "{file:?}");
}

/// Edge 10: a refusal of a new URL is meant.
#[tokio::test]
async fn a_cdn_that_refuses_twice_is_believed() {
    let scene = Scene::new().await;
    for status in [403, 400, 410] {
        scene.hub.reset();
        let refusal = FaultKind::Status(status);
        scene.hub.fault(Fault::always(On::Cdn, refusal));
        assert_eq!(kind(scene.read(0..9).await), FailureKind::Denied);
        assert_eq!(scene.requests("cdn"), 2, "{status}");
    }
}

/// Several ranges that meet the dead URL together share its replacement.
#[tokio::test]
async fn many_ranges_replace_a_dead_url_once() {
    let scene = Scene::new().await;
    scene
        .hub
        .fault(Fault::once(On::Cdn, FaultKind::ExpireAfter(0)));
    let reads = (0..8).map(|index| scene.read(index * 1000..(index + 1) * 1000));
    let parts = futures::future::try_join_all(reads).await.expect("bytes");
    assert!(parts.concat() == bytes(0..8000));
    let file = scene.hub.stats().repo("o/n").file(WEIGHTS);
    assert_eq!(file.resolve_requests, 2);
    assert!(
        file.given_bytes == 8000 && file.repeated_bytes == 0,
        "{file:?}"
    );
}

/// Edge 26: a body cut off goes on from its last byte; progress gives all tries back.
#[tokio::test]
async fn a_body_cut_off_many_times_is_still_read_once() {
    let scene = Scene::new().await;
    scene
        .hub
        .fault(Fault::always(On::Cdn, FaultKind::Truncate(300_000)));
    assert!(scene.read(0..SIZE).await.expect("bytes") == bytes(0..SIZE));
    let file = scene.hub.stats().repo("o/n").file(WEIGHTS);
    assert_eq!(file.resolve_requests, 1);
    assert_eq!(file.cdn_requests, SIZE.div_ceil(300_000));
    assert!(file.exactly_once(), "{file:?}");
}

/// A host that gives nothing is left after the policy's tries.
#[tokio::test]
async fn no_progress_is_the_end() {
    let scene = Scene::new().await;
    for fault in [FaultKind::Truncate(0), FaultKind::Status(503)] {
        scene.hub.reset();
        scene.hub.fault(Fault::always(On::Cdn, fault.clone()));
        let error = scene.read(0..SIZE).await;
        assert_eq!(kind(error), FailureKind::Unavailable, "{fault:?}");
        assert_eq!(scene.requests("cdn"), 3, "{fault:?}");
    }
}

/// A silent host is a transient error after the idle timeout.
#[tokio::test]
async fn a_hanging_host_is_asked_again() {
    let scene = Scene::new().await;
    scene.hub.fault(Fault::once(On::Cdn, FaultKind::Hang));
    assert_eq!(scene.read(5..99).await.expect("bytes"), bytes(5..99));
    assert_eq!(scene.requests("cdn"), 2);
}

/// Edge 11: a small file may come whole where a range was asked; a large one may not.
#[tokio::test]
async fn an_ignored_range_is_cut_when_small_and_refused_when_large() {
    let scene = Scene::new().await;
    scene
        .hub
        .fault(Fault::always(On::Any, FaultKind::IgnoreRange));
    let range = MIB - 3..MIB + 9;
    assert_eq!(scene.read(range.clone()).await.expect("cut"), bytes(range));

    let repo = TestRepo::new("o/big").pattern_unhashed(WEIGHTS, 7, 17 * MIB);
    scene.hub.put(repo);
    let pin = pin(&scene.client, "hf://o/big", None).await.expect("a pin");
    let listing = scene.client.list(&pin, None).await.expect("a listing");
    let entry = listing.get(WEIGHTS).expect("the file");
    let error = read(&scene.client, &pin, entry, 5..9, None).await;
    let error = error.expect_err("17 MiB is too much");
    assert!(error.to_string().contains("ignores ranges"), "{error}");
}

/// Edges 12, 13: a range that is not ours, or compressed, is refused.
#[tokio::test]
async fn a_wrong_content_range_and_gzip_are_refused() {
    let scene = Scene::new().await;
    for (fault, cause) in [
        (FaultKind::WrongRange, "asked"),
        (FaultKind::Gzip, "compressed"),
    ] {
        scene.hub.reset();
        scene.hub.fault(Fault::always(On::Cdn, fault));
        let error = scene.read(5..99).await.expect_err("not the range");
        assert!(error.to_string().contains(cause), "{error}");
    }
}

/// Edge 5: a pointer in place of the content is an integrity error, by its size or by its text.
#[tokio::test]
async fn a_pointer_instead_of_content_is_an_integrity_error() {
    let scene = Scene::new().await;
    scene.hub.fault(Fault::always(On::Cdn, FaultKind::Pointer));
    for range in [0..SIZE, 0..10, MIB..MIB + 9] {
        let error = scene.read(range.clone()).await;
        assert_eq!(kind(error), FailureKind::Integrity, "{range:?}");
    }
}

/// What the hub says beside the file must be what was pinned and listed.
#[tokio::test]
async fn a_file_that_is_not_the_listed_one_is_an_integrity_error() {
    let scene = Scene::new().await;
    let mut other = scene.weights.clone();
    other.digest = Digest::Sha256([1; 32]);
    let error = read(&scene.client, &scene.pin, &other, 0..9, None).await;
    assert_eq!(kind(error), FailureKind::Integrity, "digest");
    other = scene.weights.clone();
    other.size += 1;
    let error = read(&scene.client, &scene.pin, &other, 0..9, None).await;
    assert_eq!(kind(error), FailureKind::Integrity, "size");
    scene
        .hub
        .fault(Fault::always(On::Resolve, FaultKind::WrongCommit));
    for entry in [&scene.weights, &scene.config] {
        let error = read(&scene.client, &scene.pin, entry, 0..3, None).await;
        assert_eq!(kind(error), FailureKind::Integrity, "commit");
    }
    assert_eq!(scene.requests("cdn"), 0);
}

/// Edge 15: the size of a redirect's body is not the file's.
#[tokio::test]
async fn a_small_file_may_come_by_way_of_a_cache_route() {
    let config = TestHubConfig {
        resolve_cache: true,
        ..TestHubConfig::default()
    };
    let scene = Scene::with(config).await;
    let got = read(&scene.client, &scene.pin, &scene.config, 0..7, None).await;
    assert_eq!(got.expect("bytes"), br#"{"a":1}"#);
    assert_eq!(
        (scene.requests("resolve"), scene.requests("resolve_cache")),
        (1, 1)
    );
}

/// Edge 16: a file that shrank under us.
#[tokio::test]
async fn a_range_beyond_the_hubs_end_is_an_integrity_error() {
    let scene = Scene::new().await;
    let mut longer = scene.config.clone();
    longer.size = 100;
    let error = read(&scene.client, &scene.pin, &longer, 50..60, None).await;
    assert_eq!(kind(error), FailureKind::Integrity);
}

/// Edge 17: a spent quota is waited for; the listing goes on where it was.
#[tokio::test]
async fn a_rate_limit_in_mid_listing_is_waited_for() {
    let config = TestHubConfig {
        page: 1,
        ..TestHubConfig::default()
    };
    let scene = Scene::with(config).await;
    let limited = FaultKind::Limited { reset_s: 0 };
    scene.hub.fault(Fault::once(On::Tree, limited).after(1));
    let started = std::time::Instant::now();
    let listing = scene.client.list(&scene.pin, None).await;
    assert_eq!(listing.expect("a listing").files().len(), 2);
    assert!(started.elapsed() >= Duration::from_secs(1), "t + 1 s");
    assert_eq!(scene.requests("tree"), 3);
}

/// Edge 17: a limit that outlasts a quota window is the caller's to know.
#[tokio::test]
async fn a_rate_limit_of_an_hour_is_reported_at_once() {
    let scene = Scene::new().await;
    let limited = FaultKind::Limited { reset_s: 3000 };
    scene.hub.fault(Fault::once(On::Tree, limited));
    let error = scene.client.list(&scene.pin, None).await;
    assert_eq!(kind(error), FailureKind::RateLimited);
}

/// Edge 17: a login page is no listing, whatever its status.
#[tokio::test]
async fn html_where_json_belongs_is_a_clear_error() {
    let scene = Scene::new().await;
    scene.hub.fault(Fault::always(On::Any, FaultKind::Html));
    let error = scene.client.list(&scene.pin, None).await.expect_err("html");
    assert_eq!(error.kind(), FailureKind::Unavailable);
    assert!(error.to_string().contains("login page"), "{error}");
    assert_eq!(scene.requests("tree"), 1, "no retry");
}

/// Edge 17: a hub that is being restarted.
#[tokio::test]
async fn passing_trouble_is_tried_again() {
    let scene = Scene::new().await;
    scene
        .hub
        .fault(Fault::once(On::Any, FaultKind::Status(503)));
    scene
        .hub
        .fault(Fault::once(On::Any, FaultKind::Status(500)));
    let again = pin(&scene.client, "hf://o/n", None).await;
    assert_eq!(again.expect("a pin"), scene.pin);
    assert_eq!(scene.requests("revision"), 3);
}

/// Edge 19: pages that lead back to themselves end.
#[tokio::test]
async fn a_cursor_loop_is_an_error() {
    let config = TestHubConfig {
        page: 1,
        ..TestHubConfig::default()
    };
    let scene = Scene::with(config).await;
    scene
        .hub
        .fault(Fault::always(On::Tree, FaultKind::NextLoop));
    let error = scene
        .client
        .list(&scene.pin, None)
        .await
        .expect_err("a loop");
    assert!(error.to_string().contains("do not end"), "{error}");
}

/// Edge 7: the API is never followed to another host, which would want the token.
#[tokio::test]
async fn an_api_redirect_to_another_host_is_refused() {
    let scene = Scene::new().await;
    let elsewhere = FaultKind::Redirect(format!("{}/api/x?secret=1", scene.hub.cdn_url()));
    scene.hub.fault(Fault::always(On::Any, elsewhere));
    let error = pin(&scene.client, "hf://o/n", None)
        .await
        .expect_err("elsewhere");
    assert_eq!(error.kind(), FailureKind::Unsupported);
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(scene.hub.stats().requests, 1);
}

/// Edge 7: a redirect that leads to itself ends.
#[tokio::test]
async fn a_redirect_loop_is_an_error() {
    let scene = Scene::new().await;
    let same = FaultKind::Redirect("/api/models/o/n/revision/main".into());
    scene.hub.fault(Fault::always(On::Revision, same));
    let error = pin(&scene.client, "hf://o/n", None)
        .await
        .expect_err("a loop");
    assert!(error.to_string().contains("redirects"), "{error}");
    assert_eq!(scene.requests("revision"), 6);
}

/// Edge 8: a commit that a force push took away.
#[tokio::test]
async fn a_commit_that_is_gone_is_not_found() {
    let scene = Scene::new().await;
    scene.hub.put(weights("o/n").file("new.txt", "x"));
    scene.hub.forget("o/n", scene.pin.revision.as_str());
    let error = scene.client.list(&scene.pin, None).await;
    assert_eq!(kind(error), FailureKind::NotFound);
    assert_eq!(kind(scene.read(0..9).await), FailureKind::NotFound);
}

/// Edge 22: a listing that cannot be a directory is refused whole.
#[tokio::test]
async fn a_listing_with_hostile_paths_is_refused() {
    let repo = TestRepo::new("o/n").file("../../etc/passwd", "x");
    let hub = TestHub::start([repo]).await.expect("a hub");
    let client = client(&hub);
    let pin = pin(&client, "hf://o/n", None).await.expect("a pin");
    let error = client.list(&pin, None).await.expect_err("hostile");
    assert!(error.to_string().contains("passwd"), "{error}");
}

/// A hub that is not there is an error that names it.
#[tokio::test]
async fn an_unreachable_hub_is_named() {
    let client = client_at("http://127.0.0.1:9");
    let error = pin(&client, "hf://o/n", None)
        .await
        .expect_err("nobody there");
    assert_eq!(error.kind(), FailureKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
}

/// A wrong byte of the right length passes here: only the file's digest, checked by who stores it, tells.
#[tokio::test]
async fn a_flipped_byte_is_left_to_the_digest() {
    let scene = Scene::new().await;
    let flip = FaultKind::Flip(MIB + 1);
    scene.hub.fault(Fault::once(On::Cdn, flip));
    let got = scene.read(MIB..MIB + 3).await.expect("bytes");
    let good = bytes(MIB..MIB + 3);
    assert_eq!(got, [good[0], good[1] ^ 1, good[2]]);
}

/// A listing is an error or whole: a page that fails for good leaves nothing behind.
#[tokio::test]
async fn a_listing_is_never_silently_short() {
    let config = TestHubConfig {
        page: 1,
        ..TestHubConfig::default()
    };
    let scene = Scene::with(config).await;
    let gone = FaultKind::Status(503);
    scene.hub.fault(Fault::always(On::Tree, gone).after(1));
    let error = scene.client.list(&scene.pin, None).await;
    assert_eq!(kind(error), FailureKind::Unavailable);
}

/// An image without any files has no system bundle to find a private CA in: the user names it.
#[tokio::test]
async fn a_hub_of_a_private_ca_is_refused_until_its_ca_file_is_given() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = TestHubConfig {
        tls_dir: Some(dir.path().to_owned()),
        ..TestHubConfig::default()
    };
    let hub = TestHub::with(config, [weights("o/n")])
        .await
        .expect("a hub");
    let reference = hub.reference("o/n").expect("a reference");
    let refused = client(&hub).resolve(&reference, None).await;
    let refused = refused.expect_err("an unknown issuer");
    let text = refused.to_string();
    assert!(
        text.contains("invalid peer certificate") && text.ends_with("with --ca-file"),
        "{text}"
    );
    assert!(
        matches!(refused, HubError::Final { .. }),
        "asking again would not help"
    );
    let http = HttpConfig {
        ca_file: Some(dir.path().join("tls.crt")),
        ..HttpConfig::default()
    };
    let client = HuggingFace::new(hub.url(), &http).expect("a client");
    let pin = client.resolve(&reference, None).await.expect("a pin");
    let listing = client.list(&pin, None).await.expect("a listing");
    let entry = listing.files().iter().find(|entry| entry.path == WEIGHTS);
    let entry = entry.expect("weights");
    let read = read(&client, &pin, entry, 5..SIZE, None).await;
    assert_eq!(read.expect("bytes by way of the CDN"), bytes(5..SIZE));
}
