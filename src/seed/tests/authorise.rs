//! Who may read what, how often the hub is asked, and what counts while it cannot be.

use super::*;
use futures::future::join_all;

fn with_grace(bench: &Bench, seconds: u64) -> LocalCatalog {
    LocalCatalog::new(
        bench.store.clone(),
        Arc::new(One(bench.hub.clone())),
        Duration::from_secs(seconds),
    )
}

fn pin() -> Pin {
    file(&content(), sha256(&content())).pin.as_ref().clone()
}

fn token(text: &str) -> Option<Token> {
    Token::new(text)
}

impl RecordingHub {
    fn set(&self, down: Option<FailureKind>) {
        *self.down.lock().expect("a lock") = down;
    }

    fn asked(&self) -> usize {
        self.authorizes.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pods_with_a_bad_token_cost_the_hub_one_request_in_half_a_minute() {
    let bench = bench();
    let (catalog, pin, bad) = (catalog(&bench), pin(), token("bad"));
    bench.hub.set(Some(FailureKind::Unauthenticated));
    let denied = join_all((0..1000).map(|_| catalog.listing(&pin, bad.as_ref()))).await;
    assert!(denied.iter().all(|answer| {
        answer
            .as_ref()
            .is_err_and(|failure| failure.kind == FailureKind::Unauthenticated)
    }));
    assert_eq!(bench.hub.asked(), 1);
    // The token is good now, at the latest half a minute later.
    bench.hub.set(None);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(catalog.listing(&pin, bad.as_ref()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_permission_is_asked_again_after_five_minutes_and_a_revoked_token_is_refused() {
    let bench = bench();
    *bench.hub.private.lock().expect("a lock") = true;
    let (catalog, pin, good) = (catalog(&bench), pin(), token("good"));
    assert!(catalog.listing(&pin, good.as_ref()).await.is_ok());
    bench.hub.set(Some(FailureKind::Unauthenticated));
    tokio::time::advance(Duration::from_secs(290)).await;
    assert!(catalog.listing(&pin, good.as_ref()).await.is_ok());
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(catalog.listing(&pin, good.as_ref()).await.is_err());
}

#[tokio::test]
async fn a_permission_counts_for_its_grace_also_after_a_restart_and_never_after_a_denial() {
    let bench = bench();
    *bench.hub.private.lock().expect("a lock") = true;
    let (pin, good) = (pin(), token("good"));
    // Each catalog is a seed that has just started.
    let ask = async |grace| {
        let seed = with_grace(&bench, grace);
        seed.listing(&pin, good.as_ref()).await.map(drop)
    };
    let seed = with_grace(&bench, 3600);
    let seen = seed.resolve(&reference(), None, good.as_ref()).await;
    assert_eq!(seen.expect("a commit"), pin);
    ask(3600).await.expect("the hub lets it in");
    bench.hub.set(Some(FailureKind::Unavailable));
    ask(3600).await.expect("within its grace");
    let seed = with_grace(&bench, 3600);
    let last = seed.resolve(&reference(), Some("new"), good.as_ref()).await;
    assert_eq!(last.expect("the last known commit"), pin);
    let closed = ask(0).await.expect_err("no grace, closed");
    assert_eq!(closed.kind, FailureKind::Unavailable);
    let other = with_grace(&bench, 3600);
    let other = other.listing(&pin, token("other").as_ref()).await;
    assert!(other.is_err(), "another token was never let in");
    bench.hub.set(Some(FailureKind::Denied));
    ask(3600).await.expect_err("denied");
    bench.hub.set(Some(FailureKind::Unavailable));
    ask(3600).await.expect_err("a denial ends the grace");
}

/// Where all pods bring tokens nobody ever asked anonymously, and a public model was not served while its hub
/// was down.
#[tokio::test(start_paused = true)]
async fn a_pin_is_found_public_by_users_of_tokens_for_one_request_an_hour() {
    let bench = bench();
    let (catalog, pin) = (catalog(&bench), pin());
    assert!(!catalog.is_public(&pin));
    for (name, asked) in [("a", 2), ("b", 3), ("c", 4)] {
        let listed = catalog.listing(&pin, token(name).as_ref()).await;
        listed.expect("a listing");
        assert_eq!(bench.hub.asked(), asked, "{name}");
    }
    assert!(catalog.is_public(&pin));
    *bench.hub.private.lock().expect("a lock") = true;
    tokio::time::advance(Duration::from_secs(3601)).await;
    let listed = catalog.listing(&pin, token("a").as_ref()).await;
    listed.expect("a listing");
    assert!(!catalog.is_public(&pin), "it is private now");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_volumes_of_a_branch_cost_the_hub_one_request_and_share_a_commit() {
    let bench = bench();
    let (catalog, branch) = (catalog(&bench), reference());
    let volumes: Vec<String> = (0..1000).map(|number| format!("csi-{number}")).collect();
    let pins = join_all(
        volumes
            .iter()
            .map(|volume| catalog.resolve(&branch, Some(volume), None)),
    );
    let pins: Vec<Pin> = pins
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("pins");
    assert!(pins.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(bench.hub.resolves.load(Ordering::SeqCst), 1);

    *bench.hub.commit.lock().expect("a lock") = "b".repeat(40);
    tokio::time::advance(Duration::from_secs(61)).await;
    let again = catalog.resolve(&branch, Some(&volumes[7]), None).await;
    assert_eq!(again.expect("a pin"), pins[7], "kept for the volume");
    catalog.forget(&volumes[7]).await;
    let anew = catalog.resolve(&branch, Some(&volumes[7]), None).await;
    assert_ne!(
        anew.expect("a pin"),
        pins[7],
        "the volume was gone for good"
    );
}

/// A hub that states no digest is compared with what is here, at places it cannot know.
#[tokio::test]
async fn a_silent_hub_must_give_what_is_here() {
    let bench = bench();
    let need: Vec<u32> = (0..bench.file.geometry().pieces()).collect();
    for index in need {
        bench.ingest.demand(&bench.file, index).await.expect("read");
    }
    let other: Pin = format!("hf://evil/n@{}", "a".repeat(40))
        .parse()
        .expect("a pin");
    let claim = FileRef {
        pin: Arc::new(other),
        ..bench.file.clone()
    };
    bench.ingest.prove(&claim).await.expect("it has the same");
    let liar = Ingest::new(
        bench.store.clone(),
        Arc::new(One(RecordingHub::new(vec![0; SIZE as usize]))),
    );
    let third: Pin = format!("hf://evil/m@{}", "a".repeat(40))
        .parse()
        .expect("a pin");
    let claim = FileRef {
        pin: Arc::new(third),
        ..bench.file.clone()
    };
    let failure = liar.prove(&claim).await.expect_err("other bytes");
    assert_eq!(failure.kind, FailureKind::Integrity);
    let cached = bench.store.file(bench.file.key, bench.file.size);
    assert_ne!(
        cached.expect("a file").state(),
        State::Revoked,
        "nothing is revoked"
    );
}
