//! Making and renewing certificates, with the clock in the tests' hands.

use super::*;
use crate::model::FailureKind;
use rustls::HandshakeKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn outcomes(done: &[(&'static str, Outcome)]) -> Vec<Outcome> {
    done.iter().map(|(_, outcome)| *outcome).collect()
}

async fn run(dir: &Path, now: SystemTime) -> Vec<Outcome> {
    let done = bootstrap(&Folder(dir.to_owned()), now).await;
    outcomes(&done.expect("certificates"))
}

fn text(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).expect("a file")
}

#[tokio::test]
async fn a_second_bootstrap_changes_nothing_and_keys_are_private() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    assert_eq!(run(dir.path(), now).await, [Outcome::Made; 5]);
    let before = text(dir.path(), "node/tls.crt");
    assert_eq!(run(dir.path(), now + YEAR / 2).await, [Outcome::Kept; 5]);
    assert_eq!(text(dir.path(), "node/tls.crt"), before);
    for name in ["ca", "seed", "node", "controller", "admin"] {
        let key = dir.path().join(name).join(KEY_FILE);
        let mode = key.metadata().expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        TlsDir::open(&dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let files = std::fs::read_dir(dir.path().join("seed")).expect("a folder");
    assert_eq!(files.count(), 4, "no leftovers of writing");
}

#[tokio::test]
async fn a_certificate_is_renewed_in_the_last_third_of_its_life_or_when_it_is_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    run(dir.path(), now).await;
    std::fs::remove_dir_all(dir.path().join("admin")).expect("a folder");
    let mut wanted = [Outcome::Kept; 5];
    wanted[4] = Outcome::Made;
    assert_eq!(run(dir.path(), now).await, wanted);
    let mut wanted = [Outcome::Renewed; 5];
    wanted[0] = Outcome::Kept;
    assert_eq!(run(dir.path(), now + YEAR * 3 / 4).await, wanted);
    assert_eq!(
        run(dir.path(), now + YEAR * 3 / 4).await,
        [Outcome::Kept; 5]
    );
}

/// The run that makes a CA signs nothing with it yet: a peer that has not read its `ca.crt` again would refuse
/// everybody who has.
#[tokio::test]
async fn a_new_ca_is_published_before_it_signs() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    run(dir.path(), now).await;
    let (old_ca, old_seed) = (
        text(dir.path(), "ca/tls.crt"),
        text(dir.path(), "seed/tls.crt"),
    );
    // The CA alone is old: its leaves were renewed a moment ago.
    std::fs::write(dir.path().join("ca/not-after"), "0").expect("a file");
    assert_eq!(run(dir.path(), now).await, [Outcome::Renewed; 5]);
    let new_ca = text(dir.path(), "ca/tls.crt");
    assert_ne!(new_ca, old_ca);
    assert_eq!(text(dir.path(), "seed/tls.crt"), old_seed);
    assert_eq!(text(dir.path(), "node/ca.crt"), format!("{new_ca}{old_ca}"));
    let mut wanted = [Outcome::Renewed; 5];
    wanted[0] = Outcome::Kept;
    assert_eq!(run(dir.path(), now).await, wanted);
    assert_ne!(text(dir.path(), "seed/tls.crt"), old_seed);
    assert_eq!(run(dir.path(), now).await, [Outcome::Kept; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bootstraps_at_once_end_with_one_ca() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    let both = [0, 1].map(|_| {
        let folder = Folder(dir.path().to_owned());
        tokio::spawn(async move { bootstrap(&folder, now).await })
    });
    for one in both {
        one.await.expect("no panic").expect("certificates");
    }
    assert_eq!(run(dir.path(), now).await, [Outcome::Kept; 5]);
}

#[tokio::test]
async fn a_ca_of_somebody_else_is_not_signed_with() {
    let dir = tempfile::tempdir().expect("a folder");
    run(dir.path(), SystemTime::now()).await;
    let foreign = rcgen::generate_simple_self_signed(["other".to_owned()]).expect("a certificate");
    std::fs::write(dir.path().join("ca/tls.crt"), foreign.cert.pem()).expect("a file");
    std::fs::write(dir.path().join("ca/ca.crt"), foreign.cert.pem()).expect("a file");
    let failure = bootstrap(&Folder(dir.path().to_owned()), SystemTime::now()).await;
    let failure = failure.expect_err("refused");
    assert_eq!(failure.kind, FailureKind::BadReference);
    assert!(failure.message.contains("delete it"), "{failure}");
}

#[test]
fn a_directory_without_certificates_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = TlsDir::open(dir.path()).err().expect("nothing there");
    let text = error.to_string();
    assert!(
        text.contains("ca.crt") && text.ends_with("`model-p2p bootstrap` makes them"),
        "{text}"
    );
}

/// How the client's handshake went with a server that says a byte, as a ticket comes along with the first.
async fn handshake(server: &Arc<TlsDir>, client: &TlsDir, callee: Callee) -> HandshakeKind {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address").to_string();
    let server = server.clone();
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("a connection");
        let mut shaken = server.shake(tcp).await.expect("a handshake");
        assert_eq!((shaken.role, shaken.is_http2), (Role::Node, false));
        shaken.stream.write_all(b"!").await.expect("sent");
        shaken.stream.shutdown().await.expect("closed");
    });
    let mut stream = client.connect(&addr, callee).await.expect("a handshake");
    assert_eq!(stream.read_u8().await.expect("a byte"), b'!');
    served.await.expect("no panic");
    let Stream::Tls(tls) = stream else {
        panic!("in the clear");
    };
    tls.get_ref().1.handshake_kind().expect("a handshake")
}

/// A session goes on only among those who have verified each other for the same purpose by the same files.
#[tokio::test]
async fn sessions_are_resumed_until_the_files_change() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    run(dir.path(), now).await;
    let open = |role| TlsDir::open_checked(&dir.path().join(role), Duration::ZERO).expect("files");
    let (seed, node) = (open("seed"), open("node"));
    for kind in [
        HandshakeKind::Full,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
    ] {
        assert_eq!(handshake(&seed, &node, Callee::Peer).await, kind);
    }
    assert_eq!(
        handshake(&seed, &node, Callee::Seed).await,
        HandshakeKind::Full
    );
    for role in ["node", "seed"] {
        std::fs::remove_dir_all(dir.path().join(role)).expect("a folder");
        run(dir.path(), now).await;
        assert_eq!(
            handshake(&seed, &node, Callee::Peer).await,
            HandshakeKind::Full,
            "{role}"
        );
        assert_eq!(
            handshake(&seed, &node, Callee::Peer).await,
            HandshakeKind::Resumed
        );
    }
}
