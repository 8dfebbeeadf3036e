//! Claims: checklist items 2 to 9 and 18.

use super::twins::{BYTES, FILES};
use super::*;
use crate::csi::v1::volume_content_source::{SnapshotSource, Type};
use crate::csi::v1::{
    CapacityRange, DeleteVolumeRequest, ValidateVolumeCapabilitiesRequest, Volume,
    VolumeContentSource,
};
use crate::model::{FailureKind, Token};
use std::sync::atomic::Ordering;

impl Driver {
    async fn create(&self, request: CreateVolumeRequest) -> Result<Volume, tonic::Status> {
        let answer = self.controller().create_volume(request).await?;
        Ok(answer.into_inner().volume.expect("a volume"))
    }
}

fn sized(name: &str, required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        capacity_range: Some(CapacityRange {
            required_bytes,
            limit_bytes,
        }),
        ..creation(name, [("model", MODEL)])
    }
}

#[tokio::test]
async fn a_created_volume_shows_its_commit_and_sizes() {
    let driver = Driver::start().await;
    let mut request = creation(
        &"ü".repeat(64),
        [
            ("model", "hf://owner/name@main/onnx"),
            ("revision", "refs/pr/3"),
            ("exclude", "*.json"),
            ("prefetch", "all"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
        ],
    );
    request.secrets = map([("token", "hf_canary")]);
    let volume = driver.create(request).await.expect("a volume");
    assert_eq!((volume.volume_id.len(), volume.capacity_bytes), (32, 7));
    let commit = "a".repeat(40);
    let expected = map([
        ("model", "hf://owner/name"),
        ("revision", "refs/pr/3"),
        ("subdir", "onnx"),
        ("commit", &commit),
        ("bytes", "7"),
        ("files", "1"),
        ("exclude", "*.json"),
        ("prefetch", "all"),
    ]);
    assert_eq!(volume.volume_context, expected);
    let tokens = driver.catalog.tokens.lock().expect("no panic").clone();
    assert_eq!(tokens, vec![Token::new("hf_canary"); 2]);
}

#[tokio::test]
async fn identifier_and_context_stay_within_the_bounds_or_are_refused_by_name() {
    let driver = Driver::start().await;
    let (owner, long) = ("o".repeat(96), "n".repeat(96));
    let reference = format!("hf://{owner}/{long}");
    let answer = driver.create(creation("v", [("model", &reference)])).await;
    assert_eq!(refused(answer, "`model`: 198 bytes"), 3);
    let globs = ["*.safetensors"; 10].join(",");
    let request = creation("v", [("model", MODEL), ("include", &globs)]);
    assert_eq!(
        refused(driver.create(request).await, "`include`: 139 bytes"),
        3
    );
    let huge = "x,".repeat(3000);
    let request = creation("v", [("model", MODEL), ("include", &huge)]);
    assert_eq!(refused(driver.create(request).await, "`include`"), 3);

    let longest = format!("hf://{}/{}", "o".repeat(96), "n".repeat(26));
    let request = creation("w", [("model", &longest)]);
    let volume = driver.create(request).await.expect("128 bytes fit");
    let bytes = |(name, value): (&String, &String)| name.len() + value.len();
    assert!(volume.volume_id.len() <= 128);
    assert!(volume.volume_context.iter().map(bytes).sum::<usize>() <= 4096);
    assert!(
        volume
            .volume_context
            .values()
            .all(|value| value.len() <= 128)
    );
}

#[tokio::test]
async fn the_same_name_keeps_its_commit_after_the_branch_moved_and_after_a_restart() {
    let mut driver = Driver::start().await;
    let request = || creation("v", [("model", MODEL)]);
    let first = driver.create(request()).await.expect("a volume");
    driver.catalog.move_branch('b');
    assert_eq!(driver.create(request()).await.expect("again"), first);
    assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 1);
    driver.created = MemoryRecords::new(100);
    driver.restart().await;
    assert_eq!(driver.create(request()).await.expect("restarted"), first);
    let other = driver.create(creation("w", [("model", MODEL)])).await;
    let other = other.expect("another volume");
    assert_ne!(other.volume_id, first.volume_id);
    assert_eq!(other.volume_context["commit"], "b".repeat(40));
}

#[tokio::test]
async fn other_parameters_or_another_size_under_a_used_name_are_refused() {
    let driver = Driver::start().await;
    driver.create(sized("v", 10, 20)).await.expect("a volume");
    let mut other = sized("v", 10, 20);
    other.parameters.insert("include".into(), "*.json".into());
    assert_eq!(refused(driver.create(other).await, "volume v exists"), 6);
    assert_eq!(refused(driver.create(sized("v", 11, 0)).await, "exists"), 6);
    assert_eq!(refused(driver.create(sized("v", 0, 9)).await, "exists"), 6);
    let again = driver.create(sized("v", 5, 0)).await;
    assert_eq!(again.expect("10 bytes fit").capacity_bytes, 10);
}

#[tokio::test]
async fn what_cannot_be_a_model_volume_is_refused_by_name() {
    let driver = Driver::start().await;
    for (parameters, about) in [
        (
            [("model", MODEL), ("modle", "x")],
            "`modle` is not known: known are model, revision",
        ),
        (
            [("model", MODEL), ("layout", "hf-cache")],
            "not available in this release",
        ),
        ([("model", MODEL), ("layout", "zip")], "`layout`"),
        (
            [("model", MODEL), ("prefetch", "some")],
            "demand, auto or all",
        ),
        ([("model", MODEL), ("verify", "no")], "piece or strict"),
        (
            [("model", MODEL), ("readTimeout", "10 minutes")],
            "`readTimeout`: `10 minutes` is not a time from 1s to 24h: write it like 600s, 10m",
        ),
        ([("model", MODEL), ("readTimeout", "25h")], "24h"),
        (
            [("model", MODEL), ("endpoint", "http://169.254.169.254")],
            "`endpoint`: `http://169.254.169.254` is an address of this machine",
        ),
        (
            [("model", MODEL), ("endpoint", "ftp://h.example")],
            "http://",
        ),
        (
            [
                ("model", "s3://bucket/key"),
                ("endpoint", "https://h.example"),
            ],
            "hf:// references alone",
        ),
        (
            [
                ("model", "hf(https://h.example)://o/n"),
                ("layout", "plain"),
            ],
            "use the parameter `endpoint`",
        ),
        (
            [("model", MODEL), ("include", "a[")],
            "`include`: pattern `a[`",
        ),
        ([("model", MODEL), ("revision", "a..b")], "`revision`"),
        (
            [("model", "file:///srv/m"), ("revision", "x")],
            "has no revisions",
        ),
        ([("model", "gpt2"), ("prefetch", "all")], "`model`"),
        (
            [("revision", "main"), ("prefetch", "all")],
            "`model` is missing",
        ),
        ([("model", MODEL), ("commit", "x")], "`commit` is not known"),
    ] {
        let answer = driver.create(creation("v", parameters)).await;
        assert_eq!(refused(answer, about), 3, "{parameters:?}");
    }
    assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 0);
}

/// The same name at two hubs is two repositories, from the class to the mount.
#[tokio::test]
async fn a_class_may_name_another_hub_and_its_volumes_stay_there() {
    let driver = Driver::start().await;
    let class = [
        ("model", MODEL),
        ("endpoint", "https://Hub.example.com/hf/"),
    ];
    let volume = driver.create(creation("v", class)).await.expect("a volume");
    let context = &volume.volume_context;
    assert_eq!(context["model"], "hf://owner/name");
    let mut request = driver.claim("w", "pod").await;
    let own = driver.publish(&request).await;
    own.expect("the same name at the configured hub");
    request.volume_id = volume.volume_id;
    request.target_path = driver.target("other").display().to_string();
    request.volume_context = context.clone();
    driver.publish(&request).await.expect("a publish");
    let repository = |pod: &str| {
        let shown = driver.publisher.shown(&driver.target(pod));
        shown.expect("a mount").listing.pin().repository.to_string()
    };
    assert_eq!(repository("pod"), "hf://owner/name");
    assert_eq!(
        repository("other"),
        "hf(https://hub.example.com/hf)://owner/name"
    );
    let mut again = creation("v", class);
    again.parameters.remove("endpoint");
    assert_eq!(refused(driver.create(again).await, "exists"), 6);
}

#[tokio::test]
async fn a_wrong_request_is_refused_before_the_hub_is_asked() {
    let driver = Driver::start().await;
    let good = || creation("v", [("model", MODEL)]);
    let snapshot = Type::Snapshot(SnapshotSource::default());
    let flags = MountVolume {
        mount_flags: vec!["nodev".into(), "exec".into()],
        ..MountVolume::default()
    };
    let flagged = VolumeCapability {
        access_type: Some(AccessType::Mount(flags)),
        ..mount(Mode::SingleNodeWriter)
    };
    let with = |capabilities| CreateVolumeRequest {
        volume_capabilities: capabilities,
        ..good()
    };
    let source = VolumeContentSource {
        r#type: Some(snapshot),
    };
    for (request, about) in [
        (
            CreateVolumeRequest {
                name: "".into(),
                ..good()
            },
            "`name` is missing",
        ),
        (
            CreateVolumeRequest {
                name: "x".repeat(129),
                ..good()
            },
            "128 bytes",
        ),
        (
            CreateVolumeRequest {
                name: "a\u{1}".into(),
                ..good()
            },
            "control",
        ),
        (with(vec![]), "volume_capabilities"),
        (with(vec![VolumeCapability::default()]), "access type"),
        (
            with(vec![mount(Mode::MultiNodeMultiWriter), block()]),
            "block devices",
        ),
        (with(vec![flagged]), "\"exec\" is not allowed"),
        (
            CreateVolumeRequest {
                volume_content_source: Some(source),
                ..good()
            },
            "snapshots",
        ),
        (sized("v", -1, 0), "negative"),
    ] {
        assert_eq!(refused(driver.create(request).await, about), 3, "{about}");
    }
    assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_hubs_failures_reach_the_claim_with_code_and_message() {
    let driver = Driver::start().await;
    for (kind, code) in [
        (FailureKind::Unauthenticated, 16),
        (FailureKind::Denied, 7),
        (FailureKind::NotFound, 5),
        (FailureKind::RateLimited, 14),
        (FailureKind::Unavailable, 14),
        (FailureKind::NoRoom, 14),
    ] {
        driver.catalog.fail(kind);
        let answer = driver.create(creation("v", [("model", MODEL)])).await;
        assert_eq!(refused(answer, "hub says"), code);
    }
    driver.catalog.fail(None);
    let folder = creation("v", [("model", "hf://owner/name/nope")]);
    assert_eq!(refused(driver.create(folder).await, "`nope`"), 5);
}

#[tokio::test]
async fn a_volume_is_as_large_as_its_model_and_as_was_asked() {
    let driver = Driver::start().await;
    assert_eq!(
        refused(driver.create(sized("v", 0, 8)).await, "9 bytes"),
        11
    );
    assert_eq!(refused(driver.create(sized("v", 30, 20)).await, "30"), 11);
    for (name, required, capacity) in [("a", 0, BYTES), ("b", 100, 100), ("c", 3, BYTES)] {
        let volume = driver.create(sized(name, required, 0)).await.expect(name);
        assert_eq!(volume.capacity_bytes, capacity, "{name}");
        assert_eq!(volume.volume_context["files"], FILES.to_string());
    }
    driver
        .create(sized("v", 9, 9))
        .await
        .expect("a refusal left nothing behind");
}

#[tokio::test]
async fn deleting_needs_no_secret_and_no_volume() {
    let driver = Driver::start().await;
    let mut controller = driver.controller();
    let delete = |volume_id: &str| DeleteVolumeRequest {
        volume_id: volume_id.into(),
        ..DeleteVolumeRequest::default()
    };
    let volume = driver.create(sized("v", 10, 0)).await.expect("a volume");
    for volume_id in ["unknown", &volume.volume_id, &volume.volume_id] {
        controller
            .delete_volume(delete(volume_id))
            .await
            .expect(volume_id);
    }
    assert_eq!(
        refused(controller.delete_volume(delete("")).await, "`volume_id`"),
        3
    );
    driver
        .create(sized("v", 20, 0))
        .await
        .expect("the name is free");
}

#[tokio::test]
async fn validation_confirms_filesystems_of_known_volumes_only() {
    let driver = Driver::start().await;
    let volume = driver
        .create(creation("v", [("model", MODEL)]))
        .await
        .expect("a volume");
    let ask = |volume_id: &str, capabilities: Vec<VolumeCapability>| {
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: volume_id.into(),
            volume_capabilities: capabilities,
            ..ValidateVolumeCapabilitiesRequest::default()
        };
        let mut controller = driver.controller();
        async move { controller.validate_volume_capabilities(request).await }
    };
    let rwx = || vec![mount(Mode::MultiNodeMultiWriter)];
    assert_eq!(refused(ask("unknown", rwx()).await, "unknown"), 5);
    assert_eq!(refused(ask("", rwx()).await, "volume_id"), 3);
    assert_eq!(
        refused(ask(&volume.volume_id, vec![]).await, "capabilities"),
        3
    );
    let good = ask(&volume.volume_id, rwx())
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(
        good.confirmed.expect("confirmed").volume_capabilities,
        rwx()
    );
    let bad = ask(&volume.volume_id, vec![block()])
        .await
        .expect("an answer")
        .into_inner();
    assert!(bad.confirmed.is_none() && bad.message.contains("block"));
}

#[tokio::test]
async fn an_access_mode_of_a_later_specification_is_accepted() {
    let driver = Driver::start().await;
    let mut request = creation("v", [("model", MODEL)]);
    request.volume_capabilities[0].access_mode = Some(AccessMode { mode: 99 });
    driver.create(request).await.expect("tolerated");
}
