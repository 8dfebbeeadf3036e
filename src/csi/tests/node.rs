//! Pods: checklist items 10 to 14.

use super::twins::{BYTES, FILES};
use super::*;
use crate::csi::PublishError;
use crate::csi::v1::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodeUnpublishVolumeRequest,
};
use crate::model::{FailureKind, News, Reads, Token, Verify};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Driver {
    pub(super) async fn publish(
        &self,
        request: &NodePublishVolumeRequest,
    ) -> Result<(), tonic::Status> {
        let answer = self.node().node_publish_volume(request.clone()).await;
        answer.map(|_| ())
    }

    async fn unpublish(&self, volume_id: &str, target: &Path) -> Result<(), tonic::Status> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume_id.into(),
            target_path: target.display().to_string(),
        };
        self.node().node_unpublish_volume(request).await.map(|_| ())
    }

    async fn stats(
        &self,
        volume_id: &str,
        path: &str,
    ) -> Result<NodeGetVolumeStatsResponse, tonic::Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: volume_id.into(),
            volume_path: path.into(),
            ..NodeGetVolumeStatsRequest::default()
        };
        let answer = self.node().node_get_volume_stats(request).await?;
        Ok(answer.into_inner())
    }
}

fn hopeless(target: &Path) -> PublishError {
    PublishError::Mount {
        target: target.into(),
        source: std::io::ErrorKind::NotConnected.into(),
    }
}

#[tokio::test]
async fn a_claim_is_shown_at_its_commit_in_every_access_mode() {
    let driver = Driver::start().await;
    let mut request = driver.claim("v", "pod").await;
    driver.catalog.move_branch('b');
    for mode in [
        Mode::SingleNodeWriter,
        Mode::MultiNodeReaderOnly,
        Mode::SingleNodeSingleWriter,
        Mode::MultiNodeMultiWriter,
    ] {
        let pod = format!("{mode:?}");
        request.target_path = driver.target(&pod).display().to_string();
        request.volume_capability = Some(mount(mode));
        driver.publish(&request).await.expect(&pod);
        assert_eq!(driver.publisher.commit(&driver.target(&pod)), Some('a'));
    }
}

#[tokio::test]
async fn publishing_ten_times_mounts_once_and_other_arguments_are_refused() {
    let driver = Driver::start().await;
    let request = driver.claim("v", "pod").await;
    for _ in 0..10 {
        driver.publish(&request).await.expect("idempotent");
    }
    assert_eq!(driver.publisher.mounted.load(Ordering::SeqCst), 1);
    let mut other = request.clone();
    other
        .volume_context
        .insert("include".into(), "*.json".into());
    assert_eq!(
        refused(driver.publish(&other).await, "unpublish it first"),
        6
    );
    let mut foreign = driver.claim("w", "pod").await;
    assert_eq!(refused(driver.publish(&foreign).await, "something else"), 6);
    foreign.target_path = driver.target("pod-2").display().to_string();
    driver.publish(&foreign).await.expect("another target");
    driver
        .publish(&request)
        .await
        .expect("the first still stands");
}

/// A pin a pod for ever was a leak; a static volume's must stay, for other nodes show it too.
#[tokio::test]
async fn the_pin_of_an_inline_volume_goes_with_its_pod_and_a_static_ones_stays() {
    let driver = Driver::start().await;
    let inline = driver.inline("csi-1", [("model", MODEL)]);
    let mut fixed = driver.inline("static", [("model", MODEL)]);
    fixed.volume_context = map([("model", MODEL)]);
    for request in [&fixed, &inline] {
        driver.publish(request).await.expect("published");
        let target = PathBuf::from(&request.target_path);
        let gone = driver.unpublish(&request.volume_id, &target).await;
        gone.expect("unpublished");
    }
    let _one = driver.catalog.forgotten.acquire().await.expect("open");
    driver.catalog.move_branch('b');
    for (request, commit) in [(&fixed, 'a'), (&inline, 'b')] {
        driver.publish(request).await.expect("published");
        let target = PathBuf::from(&request.target_path);
        assert_eq!(driver.publisher.commit(&target), Some(commit));
    }
}

#[tokio::test]
async fn an_inline_volume_keeps_its_commit_over_republish_and_restart() {
    let mut driver = Driver::start().await;
    let request = driver.inline("csi-1", [("model", MODEL), ("exclude", "*.bin")]);
    driver.publish(&request).await.expect("a pod");
    driver.catalog.move_branch('b');
    driver.publish(&request).await.expect("a republish");
    driver.restart().await;
    driver.publish(&request).await.expect("a restart");
    assert_eq!(driver.publisher.commit(&driver.target("csi-1")), Some('a'));
    assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 1);
    let shown = driver
        .publisher
        .shown(&driver.target("csi-1"))
        .expect("a mount");
    assert_eq!(shown.view.exclude, ["*.bin"]);

    driver
        .unpublish("csi-1", &driver.target("csi-1"))
        .await
        .expect("gone");
    assert_eq!(driver.published.get("csi-1").await.expect("memory"), None);
}

#[tokio::test]
async fn a_static_volume_is_resolved_by_the_first_node_that_shows_it() {
    let driver = Driver::start().await;
    let mut request = driver.inline("static", [("model", "file:///srv/model")]);
    request
        .volume_context
        .remove("csi.storage.k8s.io/ephemeral");
    driver
        .publish(&request)
        .await
        .expect("an administrator may name files");
    request.volume_context.insert("model".into(), MODEL.into());
    assert_eq!(refused(driver.publish(&request).await, "something else"), 6);
    driver
        .unpublish("static", &driver.target("static"))
        .await
        .expect("gone");
    driver
        .publish(&request)
        .await
        .expect("made anew under its old name");
    let shown = driver.publisher.shown(&driver.target("static"));
    let shown = shown.expect("a mount").listing.pin().to_string();
    assert!(shown.starts_with("hf://owner/name@"), "{shown}");
}

#[tokio::test]
async fn a_pod_chooses_neither_hub_nor_files_nor_commit() {
    let driver = Driver::start().await;
    for (attributes, about) in [
        (
            [("model", MODEL), ("endpoint", "http://169.254.169.254")],
            "`endpoint` is not allowed",
        ),
        (
            [("model", "file:///etc/ssl"), ("prefetch", "auto")],
            "`model` is not allowed in a pod",
        ),
        ([("model", MODEL), ("commit", "a")], "`commit` is not known"),
        ([("model", MODEL), ("size", "1Gi")], "known are model"),
    ] {
        let answer = driver.publish(&driver.inline("csi-1", attributes)).await;
        assert_eq!(refused(answer, about), 3, "{attributes:?}");
    }
    assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_wrong_publish_names_the_field() {
    let driver = Driver::start().await;
    let good = driver.claim("v", "pod").await;
    let with = |change: fn(&mut NodePublishVolumeRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, about) in [
        (with(|r| r.volume_id.clear()), "`volume_id`"),
        (with(|r| r.target_path.clear()), "`target_path`"),
        (with(|r| r.target_path = "some/path".into()), "not absolute"),
        (with(|r| r.volume_capability = None), "`volume_capability`"),
        (
            with(|r| r.volume_capability = Some(block())),
            "block devices",
        ),
        (
            with(|r| drop(r.volume_context.insert("commit".into(), "main".into()))),
            "`commit`",
        ),
        (
            with(|r| drop(r.volume_context.insert("model".into(), MODEL.into()))),
            "`commit`",
        ),
        (
            with(|r| drop(r.volume_context.remove("model"))),
            "`model` is missing",
        ),
    ] {
        assert_eq!(refused(driver.publish(&request).await, about), 3, "{about}");
    }
}

#[tokio::test]
async fn a_token_comes_from_either_key_and_is_renewed() {
    let driver = Driver::start().await;
    let mut request = driver.claim("v", "pod").await;
    for (secrets, expected) in [
        (map([("token", "hf_1")]), "hf_1"),
        (map([("HF_TOKEN", "hf_2\n")]), "hf_2"),
        (map([("token", " "), ("HF_TOKEN", "hf_3")]), "hf_3"),
    ] {
        request.secrets = secrets;
        driver.publish(&request).await.expect("a publish");
        let shown = driver
            .publisher
            .shown(&driver.target("pod"))
            .expect("a mount");
        assert_eq!(shown.token, Token::new(expected));
    }
}

#[tokio::test]
async fn a_mounted_volume_survives_a_hub_that_cannot_answer() {
    let driver = Driver::start().await;
    let request = driver.claim("v", "pod").await;
    driver.publish(&request).await.expect("a publish");
    let mut second = request.clone();
    second.target_path = driver.target("pod-2").display().to_string();
    for kind in [
        FailureKind::Unavailable,
        FailureKind::RateLimited,
        FailureKind::Denied,
    ] {
        driver.catalog.fail(kind);
        driver.publish(&request).await.expect("the mount stays");
        assert!(
            driver.publish(&second).await.is_err(),
            "a new pod has to wait"
        );
    }
    let mut other = request.clone();
    other
        .volume_context
        .insert("exclude".into(), "*.bin".into());
    assert_eq!(refused(driver.publish(&other).await, "something else"), 6);
}

/// What kubelet adds of the pod.
const POD: [(&str, &str); 3] = [
    ("csi.storage.k8s.io/pod.name", "pod"),
    ("csi.storage.k8s.io/pod.namespace", "team"),
    ("csi.storage.k8s.io/pod.uid", "uid"),
];

#[tokio::test]
async fn a_pods_owner_hears_of_the_mount_and_of_a_permission_that_is_not_renewed() {
    let driver = Driver::start().await;
    let mut request = driver.claim("v", "pod").await;
    driver
        .publish(&request)
        .await
        .expect("a publish for nobody we know");
    assert_eq!(driver.observer.heard(), []);
    request.target_path = driver.target("pod-2").display().to_string();
    request.volume_context.extend(map(POD));
    for (failure, heard) in [(None, 1), (None, 1), (Some(FailureKind::Denied), 2)] {
        driver.catalog.fail(failure);
        driver.publish(&request).await.expect("mounted");
        assert_eq!(driver.observer.heard().len(), heard);
    }
    let mounted = format!(
        "hf://owner/name@{} is mounted: 9 bytes in 2 files",
        "a".repeat(40)
    );
    let degraded = "the mount stays, but its permission could not be renewed: hub says denied";
    let heard = driver.observer.heard();
    let told: Vec<_> = heard
        .iter()
        .map(|(_, news, text)| (*news, &**text))
        .collect();
    assert_eq!(
        told,
        [(News::Mounted, &*mounted), (News::Degraded, degraded)]
    );
    let pods = ["team", "pod", "uid"];
    assert!(
        heard
            .iter()
            .all(|(pod, ..)| [&*pod.namespace, &pod.name, &pod.uid] == pods)
    );
}

#[tokio::test]
async fn a_volume_says_how_it_is_read() {
    let driver = Driver::start().await;
    for (pod, attributes, reads) in [
        (
            "csi-1",
            [("verify", "piece"), ("prefetch", "auto")],
            Reads::default(),
        ),
        (
            "csi-2",
            [("verify", "strict"), ("readTimeout", "1m30s")],
            Reads {
                verify: Verify::Strict,
                timeout: Some(Duration::from_secs(90)),
            },
        ),
    ] {
        let mut request = driver.inline(pod, attributes);
        request.volume_context.insert("model".into(), MODEL.into());
        driver.publish(&request).await.expect("a publish");
        let shown = driver.publisher.shown(&driver.target(pod));
        assert_eq!(shown.expect("a mount").view.reads, reads);
    }
}

#[tokio::test]
async fn a_pods_owner_hears_what_becomes_of_the_volume_until_it_is_gone() {
    let driver = Driver::start().await;
    let mut request = driver.claim("v", "pod").await;
    request.volume_context.extend(map(POD));
    driver.publish(&request).await.expect("a publish");
    let target = driver.target("pod");
    let follower = || {
        driver
            .publisher
            .followers
            .lock()
            .expect("a lock")
            .remove(&target)
    };
    let changes = follower().expect("the volume is followed");
    driver.publish(&request).await.expect("a republish");
    assert!(follower().is_none(), "once");
    let news = [(News::Complete, "all here"), (News::Degraded, "disk")];
    for (kind, text) in news {
        changes.send((kind, text.into())).expect("heard");
    }
    let heard = driver.observer.heard_of(3).await;
    let told: Vec<_> = heard
        .iter()
        .map(|(_, kind, text)| (*kind, &**text))
        .collect();
    assert_eq!(told[1..], news);
    let unpublished = driver.unpublish(&request.volume_id, &target).await;
    unpublished.expect("unpublished");
    changes.closed().await;
    driver.publish(&request).await.expect("a new mount");
    assert!(follower().is_some(), "followed anew");
}

#[tokio::test]
async fn a_failed_publish_leaves_nothing_and_says_why() {
    let driver = Driver::start().await;
    let request = driver.inline("csi-1", [("model", MODEL)]);
    for (failure, code) in [
        (hopeless as twins::Broken, 13),
        (
            |_| PublishError::NoRoom {
                volume_id: "csi-1".into(),
                bytes: 9,
            },
            8,
        ),
    ] {
        driver.publisher.fail(Some(failure));
        assert_eq!(refused(driver.publish(&request).await, ""), code);
        assert_eq!(driver.published.get("csi-1").await.expect("memory"), None);
        assert!(!driver.target("csi-1").exists());
    }
    driver.catalog.fail(FailureKind::NoRoom);
    assert_eq!(refused(driver.publish(&request).await, "hub says"), 8);
}

/// A second pod's publish failed, kubelet never called again for it, and the volume's record kept that target for
/// ever: each restart tried to show it, and the record outlived the last pod.
#[tokio::test]
async fn a_failed_second_target_is_not_recorded_beside_the_first() {
    let driver = Driver::start().await;
    let (first, second) = (
        driver.claim("v", "pod-1").await,
        driver.claim("v", "pod-2").await,
    );
    driver.publish(&first).await.expect("published");
    driver.publisher.fail(Some(hopeless as twins::Broken));
    assert_eq!(refused(driver.publish(&second).await, ""), 13);
    driver.publisher.fail(None);
    let target = Path::new(&first.target_path);
    driver
        .unpublish(&first.volume_id, target)
        .await
        .expect("gone");
    let left = driver.published.get(&first.volume_id).await;
    assert_eq!(left.expect("memory"), None);
}

#[tokio::test]
async fn unpublishing_succeeds_whatever_is_there() {
    let driver = Driver::start().await;
    let (never, half) = (driver.target("never"), driver.target("half"));
    std::fs::create_dir(&half).expect("a directory");
    for target in [&never, &half, &half] {
        driver
            .unpublish("unknown", target)
            .await
            .expect("nothing to do");
        assert!(!target.exists());
    }
    assert_eq!(refused(driver.unpublish("", &never).await, "volume_id"), 3);
    assert_eq!(
        refused(driver.unpublish("v", Path::new("")).await, "target_path"),
        3
    );
}

#[tokio::test]
async fn fifty_calls_at_once_make_one_mount() {
    let driver = Driver::start().await;
    let request = driver.claim("v", "pod").await;
    let calls = (0..50).map(|_| driver.publish(&request));
    for answer in futures::future::join_all(calls).await {
        assert!(matches!(
            answer.map_err(|status| status.code() as i32),
            Ok(()) | Err(10)
        ));
    }
    assert_eq!(driver.publisher.mounted.load(Ordering::SeqCst), 1);
    driver
        .unpublish(&request.volume_id, &driver.target("pod"))
        .await
        .expect("gone");
    assert!(!driver.target("pod").exists());
}

#[tokio::test]
async fn a_publish_whose_client_went_away_ends_and_is_undone_by_the_next_call() {
    let driver = Driver::start().await;
    let request = driver.claim("v", "pod").await;
    let gate = driver.catalog.gate.acquire().await.expect("never closed");
    let publish = driver.publish(&request);
    let gone = tokio::time::timeout(Duration::from_millis(200), publish).await;
    assert!(
        gone.is_err(),
        "the client gave up while the catalog was asked"
    );
    let target = driver.target("pod");
    let mut undo = Box::pin(driver.unpublish(&request.volume_id, &target));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut undo).await;
    assert!(early.is_err(), "it waits for the publish");
    drop(gate);
    undo.await.expect("undone");
    assert_eq!(driver.publisher.mounted.load(Ordering::SeqCst), 1);
    assert!(driver.publisher.shown(&target).is_none() && !target.exists());
}

#[tokio::test]
async fn stats_come_from_memory_while_the_hub_hangs() {
    let driver = Driver::start().await;
    let request = driver.claim("v", "pod").await;
    driver.publish(&request).await.expect("a publish");
    let _closed = driver.catalog.gate.acquire().await.expect("never closed");
    let begun = Instant::now();
    let stats = driver.stats(&request.volume_id, &request.target_path).await;
    let usage = stats.expect("stats").usage;
    assert!(begun.elapsed() < Duration::from_millis(100));
    let seen: Vec<_> = usage
        .iter()
        .map(|usage| (usage.unit, usage.total, usage.used, usage.available))
        .collect();
    assert_eq!(seen, [(1, BYTES, BYTES, 0), (2, FILES, FILES, 0)]);
    for (volume_id, path, code) in [
        ("unknown", request.target_path.as_str(), 5),
        (&request.volume_id, "some/path", 5),
        ("", "some/path", 3),
        (&request.volume_id, "", 3),
    ] {
        assert_eq!(refused(driver.stats(volume_id, path).await, ""), code);
    }
}

/// A publish as a later specification may send it: fields and an access mode that nobody knows yet.
#[derive(Clone, PartialEq, prost::Message)]
struct LaterPublish {
    #[prost(string, tag = "1")]
    volume_id: String,
    #[prost(string, tag = "4")]
    target_path: String,
    #[prost(bytes = "vec", tag = "5")]
    volume_capability: Vec<u8>,
    #[prost(map = "string, string", tag = "8")]
    volume_context: HashMap<String, String>,
    #[prost(map = "string, string", tag = "99")]
    later: HashMap<String, String>,
    #[prost(uint64, tag = "100")]
    number: u64,
}

#[tokio::test]
async fn fields_and_enum_values_of_a_later_specification_are_tolerated() {
    let driver = Driver::start().await;
    let request = driver.inline("csi-1", [("model", MODEL)]);
    let mut capability = mount(Mode::SingleNodeWriter);
    capability.access_mode = Some(AccessMode { mode: 77 });
    let later = LaterPublish {
        volume_id: request.volume_id.clone(),
        target_path: request.target_path.clone(),
        volume_capability: prost::Message::encode_to_vec(&capability),
        volume_context: request.volume_context.clone(),
        later: map([("a", "b")]),
        number: 7,
    };
    let mut grpc = tonic::client::Grpc::new(driver.channel.clone());
    grpc.ready().await.expect("a connection");
    let codec = tonic_prost::ProstCodec::<_, crate::csi::v1::NodePublishVolumeResponse>::default();
    let path =
        tonic::codegen::http::uri::PathAndQuery::from_static("/csi.v1.Node/NodePublishVolume");
    grpc.unary(tonic::Request::new(later), path, codec)
        .await
        .expect("published");
    assert!(
        driver
            .publisher
            .shown(Path::new(&request.target_path))
            .is_some()
    );
}
