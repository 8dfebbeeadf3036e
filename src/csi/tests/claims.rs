//! Claims: their annotations, clones, health and events, with a cluster in memory.

use super::*;
use crate::csi::v1::volume_content_source::{Type, VolumeSource};
use crate::csi::v1::{
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse, DeleteVolumeRequest,
    Volume, VolumeContentSource,
};
use crate::csi::{Claim, ClaimError, Event, Object};
use crate::model::{FailureKind, Token};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// A cluster in memory.
#[derive(Default)]
struct TwinClaims {
    claims: Mutex<HashMap<String, Claim>>,
    /// Name and identifier, then the context.
    volumes: Mutex<HashMap<(String, String), HashMap<String, String>>>,
    events: Mutex<BTreeMap<String, Event>>,
    denies: Mutex<bool>,
}

impl TwinClaims {
    fn annotate<const N: usize>(&self, name: &str, annotations: [(&str, &str); N]) {
        let key = |(key, value): (&str, &str)| (format!("model-p2p.dev/{key}"), value.to_owned());
        let claim = Claim {
            uid: format!("uid-{name}"),
            annotations: annotations.map(key).into(),
        };
        let claims = &mut self.claims.lock().expect("no panic");
        claims.insert(format!("team/{name}"), claim);
    }

    /// As the provisioner does with what it was answered.
    fn persist(&self, name: &str, volume: &Volume) {
        let mut context = volume.volume_context.clone();
        context.extend(map([(
            "storage.kubernetes.io/csiProvisionerIdentity",
            "1-2-csi",
        )]));
        let key = (name.to_owned(), volume.volume_id.clone());
        self.volumes.lock().expect("no panic").insert(key, context);
    }

    fn events(&self) -> Vec<Event> {
        self.events
            .lock()
            .expect("no panic")
            .values()
            .cloned()
            .collect()
    }
}

#[async_trait]
impl Claims for TwinClaims {
    async fn claim(&self, namespace: &str, name: &str) -> Result<Option<Claim>, ClaimError> {
        if *self.denies.lock().expect("no panic") {
            let (verb, what) = ("get", "persistentvolumeclaims");
            return Err(ClaimError::Denied { verb, what });
        }
        let claims = self.claims.lock().expect("no panic");
        Ok(claims.get(&format!("{namespace}/{name}")).cloned())
    }

    async fn context(
        &self,
        volume_id: &str,
        name: Option<&str>,
    ) -> Result<Option<HashMap<String, String>>, ClaimError> {
        let volumes = self.volumes.lock().expect("no panic");
        let fits =
            |key: &&(String, String)| key.1 == volume_id && name.is_none_or(|name| key.0 == name);
        let key = volumes.keys().find(fits);
        Ok(key.and_then(|key| volumes.get(key)).cloned())
    }

    async fn record(&self, event: &Event) -> Result<(), ClaimError> {
        let events = &mut self.events.lock().expect("no panic");
        events.entry(event.name()).or_insert_with(|| event.clone());
        Ok(())
    }
}

/// What every cluster must do. In it: claim `team/claim` with the annotation `model-p2p.dev/model: m` and
/// volume `pv-1` of this driver, with identifier `v1` and `commit: c` in its context; nothing else.
pub(crate) async fn conforms(cluster: &dyn Claims) {
    let claim = cluster.claim("team", "claim").await.expect("an answer");
    let claim = claim.expect("a claim");
    assert_eq!(claim.annotations["model-p2p.dev/model"], "m");
    assert_eq!(
        cluster.claim("other", "claim").await.expect("an answer"),
        None
    );
    for name in [None, Some("pv-1")] {
        let context = cluster.context("v1", name).await.expect("an answer");
        assert_eq!(context.expect("a volume")["commit"], "c");
    }
    for (volume_id, name) in [("v2", None), ("v2", Some("pv-1")), ("v1", Some("pv-2"))] {
        let context = cluster.context(volume_id, name).await.expect("an answer");
        assert_eq!(context, None, "{volume_id} {name:?}");
    }
    let event = Event {
        object: Object {
            kind: "PersistentVolumeClaim",
            namespace: "team".into(),
            name: "claim".into(),
            uid: claim.uid,
        },
        reason: "ModelResolved",
        is_warning: false,
        text: "é".repeat(2000),
        at: 1_800_000_000,
    };
    for _replica in 0..2 {
        cluster.record(&event).await.expect("written once");
    }
}

#[tokio::test]
async fn a_cluster_in_memory_conforms() {
    let cluster = TwinClaims::default();
    cluster.annotate("claim", [("model", "m")]);
    let context = map([("commit", "c")]);
    let key = ("pv-1".to_owned(), "v1".to_owned());
    cluster
        .volumes
        .lock()
        .expect("no panic")
        .insert(key, context);
    conforms(&cluster).await;
    assert_eq!(cluster.events().len(), 1);
}

/// A driver in a cluster.
async fn in_cluster() -> (Driver, Arc<TwinClaims>) {
    let (mut driver, cluster) = (Driver::start().await, Arc::<TwinClaims>::default());
    driver.claims = Some(cluster.clone());
    driver.restart().await;
    (driver, cluster)
}

/// As external-provisioner asks with --extra-create-metadata.
fn claimed<const N: usize>(name: &str, class: [(&str, &str); N]) -> CreateVolumeRequest {
    let mut request = creation(&format!("pvc-{name}"), class);
    let pv = format!("pvc-{name}");
    request.parameters.extend(map([
        ("csi.storage.k8s.io/pvc/namespace", "team"),
        ("csi.storage.k8s.io/pvc/name", name),
        ("csi.storage.k8s.io/pv/name", &pv),
    ]));
    request
}

fn cloned<const N: usize>(
    name: &str,
    source: &str,
    class: [(&str, &str); N],
) -> CreateVolumeRequest {
    let volume_id = source.to_owned();
    CreateVolumeRequest {
        volume_content_source: Some(VolumeContentSource {
            r#type: Some(Type::Volume(VolumeSource { volume_id })),
        }),
        ..claimed(name, class)
    }
}

impl Driver {
    async fn make(&self, request: CreateVolumeRequest) -> Result<Volume, tonic::Status> {
        let answer = self.controller().create_volume(request).await?;
        Ok(answer.into_inner().volume.expect("a volume"))
    }

    async fn volume_health(
        &self,
        volume_id: &str,
    ) -> Result<ControllerGetVolumeHealthResponse, tonic::Status> {
        let request = ControllerGetVolumeHealthRequest {
            volume_id: volume_id.into(),
            ..ControllerGetVolumeHealthRequest::default()
        };
        let mut controller = self.controller();
        let answer = controller.controller_get_volume_health(request).await?;
        Ok(answer.into_inner())
    }
}

#[tokio::test]
async fn a_claims_annotations_win_over_its_class() {
    let (driver, cluster) = in_cluster().await;
    cluster.annotate(
        "a",
        [
            ("model", "hf://owner/claimed@v2"),
            ("exclude", "*.json"),
            ("commit", "ours"),
        ],
    );
    let class = [("model", MODEL), ("revision", "v1"), ("prefetch", "all")];
    let context = driver
        .make(claimed("a", class))
        .await
        .expect("a volume")
        .volume_context;
    let told = ["model", "revision", "exclude", "prefetch", "bytes"].map(|key| &*context[key]);
    assert_eq!(told, ["hf://owner/claimed", "v2", "*.json", "all", "7"]);

    cluster.annotate("b", [("model", "hf://owner/claimed")]);
    let part = driver
        .make(claimed("b", [("revision", "v1")]))
        .await
        .expect("from both");
    assert_eq!(part.volume_context["revision"], "v1");
    cluster.annotate("c", []);
    let default = driver
        .make(claimed("c", [("model", MODEL)]))
        .await
        .expect("the class's");
    assert_eq!(default.volume_context["model"], "hf://owner/name");
}

#[tokio::test]
async fn what_a_claims_author_may_not_say_is_refused_by_name() {
    let (driver, cluster) = in_cluster().await;
    for (annotation, about) in [
        (
            ("endpoint", "http://169.254.169.254"),
            "model-p2p.dev/endpoint of the claim: parameter `endpoint` is not allowed in a pod or claim",
        ),
        (("model", "file:///etc"), "model-p2p.dev/model"),
        (
            ("modle", MODEL),
            "model-p2p.dev/modle of the claim: parameter `modle` is not known: known are model",
        ),
        (("prefetch", "some"), "model-p2p.dev/prefetch"),
        (("include", "a["), "model-p2p.dev/include"),
    ] {
        cluster.annotate("a", [annotation]);
        let answer = driver.make(claimed("a", [("model", MODEL)])).await;
        assert_eq!(refused(answer, about), 3, "{annotation:?}");
    }
    cluster.annotate("a", [("prefetch", "all")]);
    for about in ["StorageClass", "model-p2p.dev/model"] {
        assert_eq!(refused(driver.make(claimed("a", [])).await, about), 3);
    }
    assert_eq!(
        refused(driver.make(claimed("gone", [])).await, "team/gone"),
        5
    );
    *cluster.denies.lock().expect("no panic") = true;
    let answer = driver.make(claimed("a", [("model", MODEL)])).await;
    assert_eq!(refused(answer, "ClusterRole get persistentvolumeclaims"), 9);
    assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_pin_survives_restart_and_moved_branch_by_the_persistent_volume_alone() {
    let (mut driver, cluster) = in_cluster().await;
    cluster.annotate("a", [("model", MODEL), ("include", "*.json")]);
    let first = driver.make(claimed("a", [])).await.expect("a volume");
    cluster.persist("pvc-a", &first);
    driver.created = MemoryRecords::new(100);
    driver.catalog = TwinCatalog::new();
    driver.catalog.move_branch('b');
    driver.restart().await;
    assert_eq!(driver.make(claimed("a", [])).await.expect("again"), first);
    assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 0);
    let other = driver.make(claimed("a", [("prefetch", "all")])).await;
    assert_eq!(refused(other, "exists"), 6);
    cluster.annotate("a", [("model", "hf://owner/other"), ("include", "*.json")]);
    assert_eq!(refused(driver.make(claimed("a", [])).await, "exists"), 6);
}

#[tokio::test]
async fn an_annotation_changed_between_two_calls_is_refused_and_back_again_answered() {
    let (driver, cluster) = in_cluster().await;
    cluster.annotate("a", [("model", MODEL)]);
    let first = driver.make(claimed("a", [])).await.expect("a volume");
    cluster.annotate("a", [("model", "hf://owner/other")]);
    assert_eq!(refused(driver.make(claimed("a", [])).await, "exists"), 6);
    cluster.annotate("a", [("model", MODEL)]);
    assert_eq!(driver.make(claimed("a", [])).await.expect("again"), first);
}

#[tokio::test]
async fn a_clone_shows_its_sources_pin_without_resolving() {
    let (mut driver, cluster) = in_cluster().await;
    cluster.annotate("a", [("model", "hf://owner/name@main/onnx")]);
    cluster.annotate("b", []);
    let source = driver
        .make(claimed("a", [("prefetch", "all")]))
        .await
        .expect("a volume");
    cluster.persist("pvc-a", &source);
    driver.catalog.move_branch('b');
    for restarted in [false, true] {
        if restarted {
            driver.created = MemoryRecords::new(100);
            driver.restart().await;
        }
        let clone = cloned("b", &source.volume_id, [("prefetch", "demand")]);
        let from = clone.volume_content_source.clone();
        let clone = driver.make(clone).await.expect("a clone");
        assert_eq!(clone.content_source, from);
        let mut context = source.volume_context.clone();
        context.insert("prefetch".into(), "demand".into());
        assert_eq!(clone.volume_context, context);
        assert_eq!(driver.catalog.resolved.load(Ordering::SeqCst), 1);
    }
    let plain = driver
        .make(claimed("b", [("model", MODEL), ("prefetch", "demand")]))
        .await;
    assert_eq!(refused(plain, "exists"), 6);
    for class in [
        "hf://owner/name",
        "hf://owner/name@main",
        "hf://owner/name/onnx",
    ] {
        cluster.annotate(class, [("model", class)]);
        let same = driver.make(cloned(class, &source.volume_id, [])).await;
        same.expect(class);
    }
    for class in [
        "hf://owner/other",
        "hf://owner/name@v2",
        "hf://owner/name/other",
    ] {
        let other = driver
            .make(cloned("b", &source.volume_id, [("model", class)]))
            .await;
        assert_eq!(refused(other, "cloned volume"), 3, "{class}");
    }
    assert_eq!(
        refused(driver.make(cloned("b", "nope", [])).await, "nope"),
        5
    );
    driver.catalog.fail(FailureKind::Denied);
    cluster.annotate("c", []);
    let denied = driver.make(cloned("c", &source.volume_id, [])).await;
    assert_eq!(refused(denied, "hub says"), 7);
}

#[tokio::test]
async fn a_volume_is_degraded_while_no_seed_answers() {
    let (driver, cluster) = in_cluster().await;
    cluster.annotate("a", [("model", MODEL)]);
    let volume = driver.make(claimed("a", [])).await.expect("a volume");
    for (failure, reasons) in [
        (None, vec![]),
        (
            Some(FailureKind::Unavailable),
            vec![(1, "SeedUnreachable".to_owned())],
        ),
        (None, vec![]),
    ] {
        driver.catalog.fail(failure);
        let health = driver
            .volume_health(&volume.volume_id)
            .await
            .expect("an answer");
        let health = health.volume_health.expect("health");
        let statuses = health.health_statuses.into_iter();
        let told: Vec<_> = statuses.map(|one| (one.status, one.reason)).collect();
        assert_eq!(
            (health.volume_id, told),
            (volume.volume_id.clone(), reasons)
        );
    }
    assert_eq!(refused(driver.volume_health("nope").await, "nope"), 5);
    assert_eq!(refused(driver.volume_health("").await, "volume_id"), 3);
}

#[tokio::test]
async fn a_claims_owner_hears_once_what_the_reference_was_resolved_to() {
    let (driver, cluster) = in_cluster().await;
    cluster.annotate("a", [("model", MODEL)]);
    driver.make(claimed("a", [])).await.expect("a volume");
    driver.make(claimed("a", [])).await.expect("again");
    let events = cluster.events();
    assert_eq!(events.len(), 1);
    let (event, commit) = (&events[0], "a".repeat(40));
    assert_eq!(
        event.text,
        format!("{MODEL} is {commit}: 9 bytes in 2 files")
    );
    let object = &event.object;
    let told = [
        object.kind,
        &object.namespace,
        &object.name,
        &object.uid,
        event.reason,
    ];
    assert_eq!(
        told,
        [
            "PersistentVolumeClaim",
            "team",
            "a",
            "uid-a",
            "ModelResolved"
        ]
    );
}

#[tokio::test]
async fn a_private_models_claim_is_created_with_its_secret_and_deleted_without() {
    let (driver, cluster) = in_cluster().await;
    cluster.annotate("a", [("model", MODEL)]);
    let mut request = claimed("a", []);
    request.secrets = map([("HF_TOKEN", "hf_canary")]);
    let volume = driver.make(request).await.expect("a volume");
    let tokens = driver.catalog.tokens.lock().expect("no panic").clone();
    assert_eq!(tokens, vec![Token::new("hf_canary"); 2]);
    let shown = format!("{volume:?}{:?}", cluster.events());
    assert!(!shown.contains("hf_canary"));
    driver.catalog.fail(FailureKind::Unauthenticated);
    let delete = DeleteVolumeRequest {
        volume_id: volume.volume_id,
        ..DeleteVolumeRequest::default()
    };
    driver
        .controller()
        .delete_volume(delete)
        .await
        .expect("no secret is needed");
}
