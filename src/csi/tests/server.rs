//! The process: checklist items 1, 15, 18 and 19, which services are there, and how it ends.

use super::*;
use crate::csi::DRIVER_NAME;
use crate::csi::v1::{
    ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, GetPluginInfoRequest,
    NodeGetCapabilitiesRequest, NodeGetInfoRequest, ProbeRequest,
};
use crate::csi::v1::{
    DeleteVolumeRequest, NodeGetStorageHealthRequest, ValidateVolumeCapabilitiesRequest,
};
use crate::metrics::METRICS;
use crate::model::{Failure, FailureKind};
use std::sync::Mutex;

#[tokio::test]
async fn the_drivers_name_is_a_domain_of_at_most_63_letters() {
    let driver = Driver::start().await;
    let info = driver
        .identity()
        .get_plugin_info(GetPluginInfoRequest {})
        .await;
    let info = info.expect("an answer").into_inner();
    assert_eq!(info.name, DRIVER_NAME);
    assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
    let letters = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    assert!(info.name.len() <= 63 && info.name.chars().all(letters));
    let ends = [info.name.chars().next(), info.name.chars().last()];
    assert!(
        ends.iter()
            .all(|end| end.is_some_and(|c| c.is_ascii_alphabetic()))
    );
}

#[tokio::test]
async fn a_probe_tells_readiness_and_does_not_care_for_the_hub() {
    let driver = Driver::start().await;
    let mut identity = driver.identity();
    for (ready, failure) in [
        (false, None),
        (true, None),
        (true, Some(FailureKind::Unavailable)),
    ] {
        driver.readiness.set(ready);
        driver.catalog.fail(failure);
        let probe = identity.probe(ProbeRequest {}).await.expect("never fails");
        assert_eq!(probe.into_inner().ready, Some(ready));
        let own = crate::csi::probe(driver.endpoint().path()).await;
        assert_eq!(own.expect("healthy"), ready);
    }
    driver.readiness.fail("no mount table");
    assert_eq!(
        refused(identity.probe(ProbeRequest {}).await, "no mount table"),
        9
    );
    let own = crate::csi::probe(driver.endpoint().path()).await;
    assert!(
        own.expect_err("unwell")
            .to_string()
            .contains("no mount table")
    );
}

#[tokio::test]
async fn capabilities_promise_what_is_there() {
    let driver = Driver::start().await;
    let mut identity = driver.identity();
    let plugin = identity
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await;
    assert_eq!(
        plugin.expect("an answer").into_inner().capabilities.len(),
        1
    );
    let mut controller = driver.controller();
    let create = controller
        .controller_get_capabilities(ControllerGetCapabilitiesRequest {})
        .await;
    assert_eq!(
        create.expect("an answer").into_inner().capabilities.len(),
        3
    );
    let mut node = driver.node();
    let stats = node
        .node_get_capabilities(NodeGetCapabilitiesRequest {})
        .await;
    assert_eq!(stats.expect("an answer").into_inner().capabilities.len(), 3);
    let info = node
        .node_get_info(NodeGetInfoRequest {})
        .await
        .expect("an answer");
    assert_eq!(info.into_inner().node_id, "node-1");
    for wrong in ["", &"n".repeat(257)] {
        let (catalog, publisher) = (driver.catalog.clone(), driver.publisher.clone());
        let node = Node::new(catalog, publisher, driver.published.clone(), wrong);
        assert!(node.is_err());
    }
}

#[tokio::test]
async fn a_service_that_is_not_served_is_unimplemented() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = format!("unix://{}/csi.sock", dir.path().display());
    let endpoint: Endpoint = text.parse().expect("an endpoint");
    let controller = Controller::new(TwinCatalog::new(), MemoryRecords::new(1), None);
    let services = Services::new(Readiness::default()).with_controller(controller);
    let socket = endpoint.bind().expect("a socket");
    let served = tokio::spawn(serve(
        Config::default(),
        services,
        socket,
        std::future::pending(),
    ));
    let channel = connect(endpoint.path()).await;
    let mut controller = ControllerClient::new(channel.clone());
    controller
        .create_volume(creation("v", [("model", MODEL)]))
        .await
        .expect("a volume");
    let node = NodeClient::new(channel)
        .node_get_info(NodeGetInfoRequest {})
        .await;
    assert_eq!(refused(node, ""), 12);
    served.abort();
}

#[tokio::test]
async fn a_shutdown_lets_calls_end_and_takes_the_socket_away() {
    let mut driver = Driver::start().await;
    let request = driver.claim("v", "pod").await;
    let catalog = driver.catalog.clone();
    let gate = catalog.gate.acquire().await.expect("never closed");
    let mut node = driver.node();
    let publish = tokio::spawn(async move { node.node_publish_volume(request).await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    driver.stop.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    drop(gate);
    publish
        .await
        .expect("no panic")
        .expect("the call ended well");
    driver.stop().await;
    assert!(
        driver.publisher.shown(&driver.target("pod")).is_some(),
        "mounts stay"
    );
    assert!(!driver.endpoint().path().exists());
}

/// Everything that is logged, at every level, into one buffer.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Success and each failure.
fn every_kind() -> [Option<FailureKind>; 11] {
    [
        None,
        Some(FailureKind::BadReference),
        Some(FailureKind::NotFound),
        Some(FailureKind::Unauthenticated),
        Some(FailureKind::Denied),
        Some(FailureKind::RateLimited),
        Some(FailureKind::Unavailable),
        Some(FailureKind::Integrity),
        Some(FailureKind::NoRoom),
        Some(FailureKind::Unsupported),
        Some(FailureKind::Internal),
    ]
}

#[tokio::test]
async fn no_secret_reaches_logs_errors_metrics_or_records() {
    let log = Log::default();
    let sink = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || sink.clone())
        .finish();
    // With a single subscriber, tracing asks the thread that first meets an event, which may be another
    // test's, whether anybody listens, and keeps the answer.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _default = tracing::subscriber::set_default(subscriber);
    let driver = Driver::start().await;
    let secrets = map([("token", " hf_canary\n"), ("password", "canary")]);
    let mut create = creation("v", [("model", MODEL)]);
    create.secrets = secrets.clone();
    driver
        .controller()
        .create_volume(create)
        .await
        .expect("a volume");
    let mut seen = String::new();
    for kind in every_kind() {
        driver
            .catalog
            .fail_with(kind.map(|kind| Failure::new(kind, "hub: no hf_canary for canary")));
        let mut create = creation(&format!("w{kind:?}"), [("model", MODEL)]);
        create.secrets = secrets.clone();
        seen += &format!("{:?}", driver.controller().create_volume(create).await);
        let delete = DeleteVolumeRequest {
            volume_id: "w".into(),
            secrets: secrets.clone(),
        };
        seen += &format!("{:?}", driver.controller().delete_volume(delete).await);
        let validate = ValidateVolumeCapabilitiesRequest {
            volume_id: "w".into(),
            volume_capabilities: vec![mount(Mode::MultiNodeReaderOnly)],
            secrets: secrets.clone(),
            ..Default::default()
        };
        seen += &format!(
            "{:?}",
            driver
                .controller()
                .validate_volume_capabilities(validate)
                .await
        );
        let health = NodeGetStorageHealthRequest {
            secrets: secrets.clone(),
        };
        seen += &format!("{:?}", driver.node().node_get_storage_health(health).await);
        let mut request = driver.inline(&format!("csi-{kind:?}"), [("model", MODEL)]);
        request.secrets = secrets.clone();
        let answer = driver.node().node_publish_volume(request).await;
        seen += &format!("{answer:?}");
    }
    for records in [&driver.published, &driver.created] {
        let records = records.all().await.expect("memory");
        assert!(!records.is_empty());
        records
            .iter()
            .for_each(|(_, record)| seen += &String::from_utf8_lossy(record));
    }
    seen += &METRICS.render();
    seen += &String::from_utf8_lossy(&log.0.lock().expect("no panic"));
    assert!(seen.contains("csi call") && seen.contains("NodePublishVolume"));
    assert!(seen.contains("model_p2p_csi_operations_seconds_count{grpc_status_code=\"0\""));
    for words in ["csi request", "secrets=***", "no *** for ***"] {
        assert!(seen.contains(words), "{words}");
    }
    let at = seen
        .find("canary")
        .map(|at| &seen[at.saturating_sub(200)..at + 20]);
    assert_eq!(at, None);
}
