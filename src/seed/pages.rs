//! A listing on its way to a node: pages of entries, then small files that are final and proven here.

use crate::model::{Entry, Listing, PIECE_BYTES};
use crate::store::{ReadOutcome, State, Store};
use crate::swarm::v1;

/// Content that travels with one listing.
const CONTENTS_BYTES_MAX: u64 = 4 << 20;
/// A small file of any text kind; the named ones below may be larger.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// A page: well below gRPC's 4 MiB.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// All pages of a listing. Blocks on the disk.
pub fn pages(listing: &Listing, store: &Store, public: bool) -> Vec<v1::ListingPage> {
    let entries = listing.files().iter().map(|entry| v1::Entry {
        path: entry.path.clone(),
        size: entry.size,
        digest: entry.digest.to_string(),
    });
    let mut pages = vec![v1::ListingPage {
        public,
        ..Default::default()
    }];
    let mut bytes = 0;
    for entry in entries {
        // Path, digest, size and their tags.
        bytes += entry.path.len() + 100;
        if bytes > PAGE_BYTES_MAX {
            bytes = 0;
            pages.push(v1::ListingPage::default());
        }
        pages
            .last_mut()
            .into_iter()
            .for_each(|page| page.entries.push(entry.clone()));
    }
    pages.extend(contents(listing, store).map(|content| v1::ListingPage {
        contents: vec![content],
        ..Default::default()
    }));
    pages
}

/// The small files that are final here and proven to be this repository's, one a page.
fn contents(listing: &Listing, store: &Store) -> impl Iterator<Item = v1::Content> {
    let repository = &listing.pin().repository;
    let proven = |entry: &&Entry| store.is_proven(repository, entry.key, &entry.digest);
    let small = listing.files().iter().filter(|entry| travels(entry));
    let small = small.filter(proven);
    let mut left = CONTENTS_BYTES_MAX;
    small.filter_map(move |entry| {
        left = left.checked_sub(entry.size)?;
        content(entry, store)
    })
}

/// Whether a file is worth sending before anybody reads it.
fn travels(entry: &Entry) -> bool {
    const NAMED: [&str; 4] = ["config", "tokenizer", "index", "vocab"];
    const TEXTS: [&str; 7] = ["json", "txt", "model", "py", "jinja", "md", "yaml"];
    let name = entry.path.rsplit('/').next().unwrap_or_default();
    let is_text = name
        .rsplit_once('.')
        .is_some_and(|(_, kind)| TEXTS.contains(&kind));
    let is_named = NAMED.iter().any(|word| name.contains(word));
    is_text
        && entry.size > 0
        && entry.size
            <= if is_named {
                PIECE_BYTES
            } else {
                SMALL_BYTES_MAX
            }
}

fn content(entry: &Entry, store: &Store) -> Option<v1::Content> {
    let file = store
        .get(entry.key)
        .filter(|file| file.state() == State::Final)?;
    let root = file.root()?;
    match file.read(0, entry.size as usize) {
        Ok(ReadOutcome::Bytes(bytes)) => Some(v1::Content {
            key: entry.key.0.to_vec(),
            bytes: bytes.to_vec(),
            root: root.to_vec(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, FileKey};

    #[test]
    fn small_texts_travel_and_weights_do_not() {
        let travels = |path: &str, size| {
            let (digest, key) = (Digest::GitSha1([0; 20]), FileKey([0; 32]));
            travels(&Entry {
                path: path.into(),
                size,
                digest,
                key,
            })
        };
        assert!(travels("config.json", 700) && travels("a/tokenizer.json", 900_000));
        assert!(travels("chat.py", 64 << 10) && !travels("chat.py", (64 << 10) + 1));
        assert!(!travels("tokenizer.json", PIECE_BYTES + 1) && !travels("model.safetensors", 9));
        assert!(!travels("config.json", 0));
    }
}
