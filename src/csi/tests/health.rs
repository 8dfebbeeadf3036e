//! Health, checklist item 16, what a restart brings back, and what kubelet's plugin watcher asks.

use super::*;
use crate::csi::registration::proto::registration_client::RegistrationClient;
use crate::csi::registration::proto::{InfoRequest, RegistrationStatus};
use crate::csi::v1::{
    NodeGetStorageHealthRequest, NodeGetVolumeHealthRequest, NodeUnpublishVolumeRequest,
};
use crate::csi::{DRIVER_NAME, Registration, RegistrationError, StorageFacts, VolumeFacts};
use crate::model::FailureKind;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVED: VolumeFacts = VolumeFacts {
    is_served: true,
    is_complete: false,
    revoked: None,
    starving: None,
};

impl Driver {
    async fn health(
        &self,
        volume_id: &str,
        path: &str,
    ) -> Result<Vec<(i32, String)>, tonic::Status> {
        let request = NodeGetVolumeHealthRequest {
            volume_id: volume_id.into(),
            volume_publish_path: path.into(),
            ..Default::default()
        };
        let answer = self
            .node()
            .node_get_volume_health(request)
            .await?
            .into_inner();
        let health = answer.volume_health.expect("a health");
        assert_eq!(health.volume_id, volume_id);
        let statuses = health.health_statuses.into_iter();
        Ok(statuses
            .map(|status| (status.status, status.reason))
            .collect())
    }

    async fn storage_health(&self) -> Vec<(i32, String)> {
        let request = NodeGetStorageHealthRequest::default();
        let answer = self.node().node_get_storage_health(request).await;
        let all = answer.expect("an answer").into_inner().backend_health;
        all.into_iter()
            .map(|health| (health.status, health.reason))
            .collect()
    }

    fn is(&self, facts: VolumeFacts, storage: StorageFacts) {
        *self.publisher.facts.lock().expect("no panic") = facts;
        *self.publisher.storage.lock().expect("no panic") = storage;
    }
}

fn seeds(connected: usize) -> StorageFacts {
    StorageFacts {
        seeds: 2,
        connected,
        is_full: false,
    }
}

fn status(status: i32, reason: &str) -> (i32, String) {
    (status, reason.to_owned())
}

/// 1 is DEGRADED, 2 INACCESSIBLE; nothing is ever 3, DATA_LOSS.
#[tokio::test]
async fn each_trouble_of_a_volume_has_its_status_and_goes_with_its_cause() {
    let driver = Driver::start().await;
    let request = driver.inline("csi-1", [("model", MODEL)]);
    driver
        .node()
        .node_publish_volume(request.clone())
        .await
        .expect("published");
    let (complete, starving, revoked) = (
        VolumeFacts {
            is_complete: true,
            ..SERVED
        },
        VolumeFacts {
            starving: Some("w: no source".into()),
            ..SERVED
        },
        VolumeFacts {
            revoked: Some("w".into()),
            ..SERVED
        },
    );
    let dead = VolumeFacts {
        is_served: false,
        ..revoked.clone()
    };
    for (facts, storage, expected) in [
        (SERVED, seeds(2), vec![]),
        (SERVED, seeds(1), vec![]),
        (SERVED, seeds(0), vec![status(1, "NoSeed")]),
        (complete, seeds(0), vec![]),
        (
            starving,
            seeds(0),
            vec![status(1, "NoSeed"), status(1, "NoSource")],
        ),
        (revoked, seeds(2), vec![status(1, "ContentMismatch")]),
        (
            dead,
            seeds(2),
            vec![status(2, "MountDead"), status(1, "ContentMismatch")],
        ),
        (SERVED, StorageFacts::default(), vec![]),
    ] {
        driver.is(facts, storage);
        let seen = driver.health("csi-1", &request.target_path).await;
        assert_eq!(seen.expect("a health"), expected);
    }
    let anywhere = driver.health("csi-1", "").await;
    assert_eq!(anywhere.expect("a health"), [], "the path is optional");
    for (volume_id, path, code) in [
        ("csi-2", request.target_path.as_str(), 5),
        ("csi-1", "/some/path", 5),
        ("", "/some/path", 3),
    ] {
        assert_eq!(refused(driver.health(volume_id, path).await, "vol"), code);
    }
}

#[tokio::test]
async fn a_republish_that_was_not_authorised_is_told_until_one_is() {
    let driver = Driver::start().await;
    driver.is(SERVED, seeds(2));
    let request = driver.inline("csi-1", [("model", MODEL)]);
    for (failure, expected) in [
        (None, vec![]),
        (Some(FailureKind::Denied), vec![status(1, "NotRenewed")]),
        (
            Some(FailureKind::Unavailable),
            vec![status(1, "NotRenewed")],
        ),
        (None, vec![]),
    ] {
        driver.catalog.fail(failure);
        driver
            .node()
            .node_publish_volume(request.clone())
            .await
            .expect("the mount stays");
        let seen = driver.health("csi-1", &request.target_path).await;
        assert_eq!(seen.expect("a health"), expected);
    }
}

/// 1 is STORAGE_DEGRADED, 2 STORAGE_UNREACHABLE.
#[tokio::test]
async fn the_storage_behind_all_volumes_has_its_own_health() {
    let driver = Driver::start().await;
    let full = StorageFacts {
        is_full: true,
        ..seeds(0)
    };
    for (storage, expected) in [
        (seeds(2), vec![]),
        (seeds(1), vec![status(1, "SeedUnreachable")]),
        (
            full,
            vec![status(2, "SeedUnreachable"), status(1, "NoRoom")],
        ),
        (StorageFacts::default(), vec![]),
    ] {
        driver.is(SERVED, storage);
        assert_eq!(driver.storage_health().await, expected);
    }
}

#[tokio::test]
async fn health_comes_from_memory_while_seed_and_hub_hang() {
    let driver = Driver::start().await;
    driver.is(SERVED, seeds(0));
    let request = driver.claim("v", "pod").await;
    driver
        .node()
        .node_publish_volume(request.clone())
        .await
        .expect("published");
    let _closed = driver.catalog.gate.acquire().await.expect("never closed");
    let mut node = driver.node();
    let again = request.clone();
    let hanging = tokio::spawn(async move { node.node_publish_volume(again).await });
    let begun = Instant::now();
    let seen = driver
        .health(&request.volume_id, &request.target_path)
        .await;
    driver.storage_health().await;
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert_eq!(seen.expect("a health"), [status(1, "NoSeed")]);
    hanging.abort();
}

/// A process that was killed: the records are there, the mounts are not.
#[tokio::test]
async fn a_new_process_shows_again_what_was_published_and_forgets_pods_that_are_gone() {
    let mut driver = Driver::start().await;
    let pods = ["one", "two", "gone"].map(|pod| driver.dir.path().join(pod));
    let mut requests = Vec::new();
    for (index, pod) in pods.iter().enumerate() {
        std::fs::create_dir(pod).expect("a pod's folder");
        let mut request = driver.inline(&format!("csi-{index}"), [("model", MODEL)]);
        request.target_path = pod.join("mount").display().to_string();
        driver
            .node()
            .node_publish_volume(request.clone())
            .await
            .expect("published");
        requests.push(request);
    }
    driver.catalog.move_branch('b');
    driver.publisher = Arc::default();
    driver.is(SERVED, seeds(2));
    std::fs::remove_dir_all(&pods[2]).expect("the pod is gone");
    for pod in &pods[..2] {
        std::fs::remove_dir(pod.join("mount")).expect("the twin makes it anew");
    }
    driver.restart().await;
    let (volume_id, path) = (&requests[0].volume_id, &requests[0].target_path);
    let lost = driver.health(volume_id, path).await.expect("a health");
    assert_eq!(
        lost,
        [status(2, "MountDead")],
        "recorded, and not there yet"
    );
    let node = driver.new_node();
    node.restore(node.recorded().await.expect("memory")).await;
    for request in &requests[..2] {
        assert_eq!(
            driver.publisher.commit(Path::new(&request.target_path)),
            Some('a'),
            "its first commit"
        );
    }
    assert_eq!(driver.published.get("csi-2").await.expect("memory"), None);
    assert!(
        driver
            .health(volume_id, path)
            .await
            .expect("a health")
            .is_empty()
    );
}

/// Both wait for kubelet: one needs its token, the other's seed does not answer.
#[tokio::test]
async fn a_volume_that_cannot_be_restored_keeps_its_record_for_kubelet() {
    let mut driver = Driver::start().await;
    let request = driver.inline("csi-1", [("model", MODEL)]);
    driver
        .node()
        .node_publish_volume(request.clone())
        .await
        .expect("published");
    driver.publisher = Arc::default();
    std::fs::remove_dir(&request.target_path).expect("the twin makes it anew");
    driver.restart().await;
    for failure in [FailureKind::Denied, FailureKind::Unavailable] {
        driver.catalog.fail(failure);
        let node = driver.new_node();
        node.restore(node.recorded().await.expect("memory")).await;
        assert!(
            driver
                .published
                .get("csi-1")
                .await
                .expect("memory")
                .is_some()
        );
    }
    driver.catalog.fail(None);
    driver
        .node()
        .node_publish_volume(request.clone())
        .await
        .expect("republished");
    assert!(
        driver
            .publisher
            .shown(Path::new(&request.target_path))
            .is_some()
    );
}

#[tokio::test]
async fn a_volume_with_two_targets_is_recorded_until_the_last_is_gone() {
    let driver = Driver::start().await;
    let (one, two) = (
        driver.claim("v", "one").await,
        driver.claim("v", "two").await,
    );
    for request in [&one, &two] {
        driver
            .node()
            .node_publish_volume(request.clone())
            .await
            .expect("published");
    }
    for (request, left) in [(&one, 1), (&two, 0)] {
        let undo = NodeUnpublishVolumeRequest {
            volume_id: request.volume_id.clone(),
            target_path: request.target_path.clone(),
        };
        driver
            .node()
            .node_unpublish_volume(undo)
            .await
            .expect("gone");
        assert_eq!(
            driver.new_node().recorded().await.expect("memory").len(),
            left
        );
    }
    assert_eq!(
        driver.published.get(&one.volume_id).await.expect("memory"),
        None
    );
}

#[tokio::test]
async fn kubelet_finds_the_driver_in_its_directory_and_the_file_goes_at_the_end() {
    let driver = Driver::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(format!("{DRIVER_NAME}-reg.sock"));
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket of a process that died"));
    let registration = Registration::bind(dir.path(), &driver.endpoint()).expect("a socket");
    let stop = CancellationToken::new();
    let served = tokio::spawn(registration.serve(stop.clone()));
    assert_eq!(
        std::fs::metadata(&path).expect("a socket").mode() & 0o777,
        0o600
    );
    let mut kubelet = RegistrationClient::new(connect(&path).await);
    let info = kubelet
        .get_info(InfoRequest {})
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(
        (info.r#type.as_str(), info.name.as_str()),
        ("CSIPlugin", DRIVER_NAME)
    );
    assert_eq!(info.supported_versions, ["1.0.0"]);
    // kubelet goes to the endpoint next, and only then says how it went.
    let channel = connect(Path::new(&info.endpoint)).await;
    let node_info = crate::csi::v1::NodeGetInfoRequest {};
    NodeClient::new(channel)
        .node_get_info(node_info)
        .await
        .expect("the driver");
    let registered = RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    kubelet
        .notify_registration_status(registered)
        .await
        .expect("noted");
    stop.cancel();
    served.await.expect("no panic").expect("a clean end");
    assert!(!path.exists());
}

/// kubelet dials the socket's path and sends it, escaped, as the authority; the server reset that call, and no
/// driver was ever registered. Seen in a real cluster only, for every other client sends `localhost`.
#[tokio::test]
async fn a_path_as_authority_is_answered_as_kubelet_expects() {
    let driver = Driver::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let registration = Registration::bind(dir.path(), &driver.endpoint()).expect("a socket");
    tokio::spawn(registration.serve(CancellationToken::new()));
    let path = dir.path().join(format!("{DRIVER_NAME}-reg.sock"));
    let mut kubelet = tokio::net::UnixStream::connect(&path).await.expect("there");
    let field = |kind: u8, value: &str| [&[kind, value.len() as u8], value.as_bytes()].concat();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        [&head[..], payload].concat()
    };
    let block = [
        &[0x83, 0x86][..],
        &field(0x44, "/pluginregistration.Registration/GetInfo"),
        &field(0x41, "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fx.sock"),
        &field(0x5f, "application/grpc"),
        &field(0x40, "te"),
        &field(0, "trailers")[1..],
    ]
    .concat();
    let call = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, &[]),
        &frame(1, 4, 1, &block),
        &frame(0, 1, 1, &[0; 5]),
    ]
    .concat();
    kubelet.write_all(&call).await.expect("sent");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("CSIPlugin") {
        let read = kubelet.read_buf(&mut answer).await.expect("an answer");
        assert_ne!(read, 0, "closed after {answer:?}");
        assert!(!answer.windows(4).any(|four| four == [0, 0, 4, 3]), "reset");
    }
}

#[tokio::test]
async fn a_refused_registration_ends_the_service_with_kubelets_words() {
    let driver = Driver::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let registration = Registration::bind(dir.path(), &driver.endpoint()).expect("a socket");
    let served = tokio::spawn(registration.serve(CancellationToken::new()));
    let path = dir.path().join(format!("{DRIVER_NAME}-reg.sock"));
    let mut kubelet = RegistrationClient::new(connect(&path).await);
    let refused = RegistrationStatus {
        plugin_registered: false,
        error: "name is taken".into(),
    };
    kubelet
        .notify_registration_status(refused)
        .await
        .expect("noted");
    let end = served.await.expect("no panic");
    assert!(
        matches!(&end, Err(RegistrationError::Refused { cause }) if cause == "name is taken"),
        "{end:?}"
    );
    assert!(!path.exists());
}
