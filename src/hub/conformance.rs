//! What every hub must do, as one function that each of them passes.

use super::{Hub, HubError};
use crate::model::{Entry, FailureKind, Listing, PIECE_BYTES, Pin, Reference, Token};
use futures::TryStreamExt;
use std::ops::Range;

/// A repository whose content is known, and how to name it.
pub struct Fixture {
    pub reference: Reference,
    pub token: Option<Token>,
    pub files: Vec<(String, Vec<u8>)>,
}

impl Fixture {
    /// The standard content, put wherever `place` puts it.
    pub fn named(place: impl FnOnce(&[(String, Vec<u8>)]) -> Reference) -> Fixture {
        let files = standard_files();
        Fixture {
            reference: place(&files),
            token: None,
            files,
        }
    }
}

/// Names that need encoding, and sizes at the seams: empty, one byte, one piece, just over two.
pub fn standard_files() -> Vec<(String, Vec<u8>)> {
    let piece = PIECE_BYTES as usize;
    [
        ("config.json", 700),
        (".gitattributes", 30),
        ("empty", 0),
        ("one", 1),
        ("a space/#1 50%+[x]?^|.txt", 12),
        ("ünï/文/e\u{301}.txt", 5),
        ("ünï/文/é.txt", 6),
        ("trailing. ", 3),
        ("deep/er/and/deeper/x", 4),
        ("piece.bin", piece),
        ("model.safetensors", 2 * piece + 77),
    ]
    .into_iter()
    .map(|(path, size)| (path.to_owned(), content(path, size)))
    .collect()
}

fn content(path: &str, size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    blake3::Hasher::new()
        .update(path.as_bytes())
        .finalize_xof()
        .fill(&mut content);
    content
}

/// Panics where the hub breaks the contract.
pub async fn hub_conforms(hub: &dyn Hub, fixture: &Fixture) {
    let token = fixture.token.as_ref();
    let pin = hub.resolve(&fixture.reference, token).await;
    let pin = pin.expect("the reference resolves");
    let again = hub.resolve(&fixture.reference, token).await;
    assert_eq!(pin, again.expect("it resolves again"), "pins are stable");
    hub.authorize(&pin, token).await.expect("allowed");
    let listing = hub.list(&pin, token).await.expect("a listing");
    check_listing(&listing, fixture);
    for (path, content) in &fixture.files {
        let entry = listing.get(path).expect(path);
        for range in odd_ranges(entry.size) {
            let bytes = read(hub, &pin, entry, range.clone(), token).await;
            let bytes = bytes.unwrap_or_else(|error| panic!("{path} {range:?}: {error}"));
            let wanted = &content[range.start as usize..range.end as usize];
            assert!(bytes == wanted, "{path} {range:?}: other bytes");
        }
    }
    absences_are_not_found(hub, &pin, &listing, fixture).await;
}

fn check_listing(listing: &Listing, fixture: &Fixture) {
    let mut wanted: Vec<(&str, u64)> = fixture
        .files
        .iter()
        .map(|(path, content)| (path.as_str(), content.len() as u64))
        .collect();
    wanted.sort();
    let files = listing.files().iter();
    let found: Vec<(&str, u64)> = files.map(|f| (f.path.as_str(), f.size)).collect();
    assert_eq!(found, wanted);
}

/// The whole, the ends, and across a piece border. An empty file has no range and is never asked for.
fn odd_ranges(size: u64) -> Vec<Range<u64>> {
    let border = PIECE_BYTES - 3..PIECE_BYTES + 5;
    [0..size, 0..1, size.saturating_sub(1)..size, 1..size, border]
        .into_iter()
        .filter(|range| !range.is_empty() && range.end <= size)
        .collect()
}

/// Reads a range to its end.
pub async fn read(
    hub: &dyn Hub,
    pin: &Pin,
    entry: &Entry,
    range: Range<u64>,
    token: Option<&Token>,
) -> Result<Vec<u8>, HubError> {
    let stream = hub.read(pin, entry, range, token).await?;
    let append = |mut all: Vec<u8>, part: bytes::Bytes| async move {
        all.extend_from_slice(&part);
        Ok(all)
    };
    stream.try_fold(Vec::new(), append).await
}

async fn absences_are_not_found(hub: &dyn Hub, pin: &Pin, listing: &Listing, fixture: &Fixture) {
    let token = fixture.token.as_ref();
    let mut elsewhere = fixture.reference.clone();
    elsewhere.repo.push_str("-that-is-not-there");
    let error = hub.resolve(&elsewhere, token).await;
    assert_eq!(kind(error), FailureKind::NotFound, "unknown repository");
    if fixture.reference.revision.is_some() {
        let error = hub.resolve(&fixture.reference.at("no-branch"), token).await;
        assert_eq!(kind(error), FailureKind::NotFound, "unknown revision");
    }
    let mut entry = listing.get("config.json").expect("the file").clone();
    entry.path = "not-there.json".into();
    let error = hub.read(pin, &entry, 0..1, token).await;
    assert_eq!(kind(error), FailureKind::NotFound, "unknown file");
}

fn kind<T>(result: Result<T, HubError>) -> FailureKind {
    result.err().expect("an error").kind()
}
