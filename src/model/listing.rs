//! A revision's files: names that are safe to show, sizes, digests and file keys.
//!
//! Listings come from hubs and are not trusted: [`Listing::new`] refuses every path that could leave its
//! volume or name two things at once. An accepted listing is immutable and sorted by path.

use super::piece::{FILE_BYTES_MAX, Geometry};
use super::revision::Pin;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// What the hub says a file's content hashes to. A claim until a seed has checked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    Sha256([u8; 32]),
    /// sha1 of `blob <len>\0` and the content, as git names small files.
    GitSha1([u8; 20]),
    /// The hub states no digest; the version or ETag of the object, hashed, tells contents apart.
    Version([u8; 32]),
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Digest::Sha256(hash) => write!(f, "sha256:{}", hex::encode(hash)),
            Digest::GitSha1(hash) => write!(f, "git-sha1:{}", hex::encode(hash)),
            Digest::Version(hash) => write!(f, "version:{}", hex::encode(hash)),
        }
    }
}

impl std::str::FromStr for Digest {
    type Err = ();

    fn from_str(text: &str) -> Result<Digest, ()> {
        fn bytes<const N: usize>(text: &str) -> Result<[u8; N], ()> {
            let mut out = [0; N];
            hex::decode_to_slice(text, &mut out)
                .map(|()| out)
                .map_err(|_| ())
        }
        match text.split_once(':').ok_or(())? {
            ("sha256", hash) => Ok(Digest::Sha256(bytes(hash)?)),
            ("git-sha1", hash) => Ok(Digest::GitSha1(bytes(hash)?)),
            ("version", hash) => Ok(Digest::Version(bytes(hash)?)),
            _ => Err(()),
        }
    }
}

/// The only name of a file on wire and disk, fixed when it is first listed: BLAKE3 of (algorithm, digest,
/// size), so that the same shard in two revisions is one file; of its hub, where that is not the configured
/// one, for what another hub gives under a digest must not reach this one's readers before it is checked;
/// and without a digest of its origin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(pub [u8; 32]);

impl FileKey {
    /// Derives the key of a file. Of `pin` only the hub counts, and `path` not at all, where there is a digest.
    pub fn derive(pin: &Pin, path: &str, size: u64, digest: &Digest) -> FileKey {
        let mut hasher = blake3::Hasher::new_derive_key("model-p2p 2026 file key");
        hasher
            .update(digest.to_string().as_bytes())
            .update(&size.to_le_bytes());
        let origin = match (digest, &pin.repository.hub) {
            (Digest::Version(_), _) => vec![pin.to_string().into(), path.into()],
            (_, Some(hub)) => vec![Cow::from(hub.as_str())],
            (_, None) => Vec::new(),
        };
        // Lengths before texts, so that no two tuples spell the same bytes.
        for part in origin {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part.as_bytes());
        }
        FileKey(*hasher.finalize().as_bytes())
    }

    /// Reads the 64 hex digits of a wire or disk name.
    pub fn from_hex(text: &str) -> Option<FileKey> {
        let mut key = [0; 32];
        (text.len() == 64 && hex::decode_to_slice(text, &mut key).is_ok()).then_some(FileKey(key))
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({})", &hex::encode(self.0)[..12])
    }
}

/// One file of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, `/`-separated, as the hub spells it: bytes are identity, nothing is normalised.
    pub path: String,
    pub size: u64,
    pub digest: Digest,
    pub key: FileKey,
}

impl Entry {
    pub fn geometry(&self) -> Geometry {
        Geometry { size: self.size }
    }
}

/// The files of one pin, sorted by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pin: Pin,
    files: Vec<Entry>,
}

/// A listing that cannot be shown as a directory tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listing of {pin}: path {path:?} {cause}")]
pub struct ListingError {
    pub pin: String,
    pub path: String,
    pub cause: &'static str,
}

/// Hub advice is below 100k files a repository; ten times that is hostile or hopeless.
pub const FILES_MAX: usize = 1_000_000;

impl Listing {
    /// Accepts the (path, size, digest) rows of a hub or of a stored listing.
    pub fn new(
        pin: Pin,
        rows: impl IntoIterator<Item = (String, u64, Digest)>,
    ) -> Result<Listing, ListingError> {
        let mut files = Vec::new();
        let error = |pin: &Pin, path: &str, cause| ListingError {
            pin: pin.to_string(),
            path: path.to_owned(),
            cause,
        };
        for (path, size, digest) in rows {
            check_path(&path).map_err(|cause| error(&pin, &path, cause))?;
            if size > FILE_BYTES_MAX {
                return Err(error(&pin, &path, "is larger than 16 TiB"));
            }
            if files.len() == FILES_MAX {
                return Err(error(&pin, &path, "is more than the millionth file"));
            }
            let key = FileKey::derive(&pin, &path, size, &digest);
            files.push(Entry {
                path,
                size,
                digest,
                key,
            });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some((path, cause)) = clash(&files) {
            return Err(error(&pin, &path, cause));
        }
        Ok(Listing { pin, files })
    }

    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    pub fn files(&self) -> &[Entry] {
        &self.files
    }

    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.files
            .binary_search_by(|entry| entry.path.as_str().cmp(path))
            .ok()
            .map(|at| &self.files[at])
    }

    /// The sum of all sizes in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.size).sum()
    }
}

/// A path that names one thing inside the volume and that every filesystem can hold.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.len() > 4096 {
        return Err("is longer than 4096 bytes");
    }
    if path.starts_with('/') {
        return Err("is absolute");
    }
    if path.contains('\0') {
        return Err("holds a NUL");
    }
    if path.contains('\\') {
        return Err("holds a backslash");
    }
    for component in path.split('/') {
        match component {
            "" => return Err("has an empty component"),
            "." | ".." => return Err("has a `.` or `..` component"),
            _ if component.len() > 255 => return Err("has a component longer than 255 bytes"),
            _ => {}
        }
    }
    Ok(())
}

/// Two rows of one name, or a file where another row has a directory.
fn clash(files: &[Entry]) -> Option<(String, &'static str)> {
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Some((pair[0].path.clone(), "is listed twice"));
    }
    let names: BTreeSet<&str> = files.iter().map(|entry| entry.path.as_str()).collect();
    let parents = |path: &str| {
        path.match_indices('/')
            .map(|(at, _)| at)
            .collect::<Vec<_>>()
    };
    for entry in files {
        for at in parents(&entry.path) {
            if names.contains(&entry.path[..at]) {
                return Some((
                    entry.path[..at].to_owned(),
                    "is both a file and a directory",
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(repo: &str) -> Pin {
        format!("hf://{repo}@{}", "a".repeat(40))
            .parse()
            .expect("a pin")
    }

    fn row(path: &str) -> (String, u64, Digest) {
        (path.to_owned(), 3, Digest::GitSha1([1; 20]))
    }

    #[test]
    fn odd_names_are_kept_as_they_are() {
        let names = [
            "a b",
            "#1",
            "50%.bin",
            "ünï/文.txt",
            "e\u{301}",
            "é",
            ".gitattributes",
            "x.",
            "x ",
        ];
        let listing = Listing::new(pin("o/n"), names.map(row)).expect("legal names");
        assert_eq!(listing.files().len(), names.len());
        assert!(names.iter().all(|name| listing.get(name).is_some()));
        assert_eq!(listing.bytes(), 3 * names.len() as u64);
    }

    #[test]
    fn names_that_leave_the_volume_or_clash_are_refused() {
        let long = "x".repeat(256);
        for names in [
            vec![""],
            vec!["/etc/passwd"],
            vec!["../x"],
            vec!["a/../b"],
            vec!["a//b"],
            vec!["./a"],
            vec!["a\0b"],
            vec!["a\\b"],
            vec![long.as_str()],
            vec!["a", "a"],
            vec!["a", "a/b"],
            vec!["a/b", "a/b/c", "a-"],
        ] {
            assert!(
                Listing::new(pin("o/n"), names.iter().map(|name| row(name))).is_err(),
                "{names:?}"
            );
        }
    }

    #[test]
    fn equal_content_has_one_key_unless_the_hub_states_no_digest() {
        let key = |repo, digest| FileKey::derive(&pin(repo), "w", 9, &digest);
        assert_eq!(
            key("a/b", Digest::Sha256([7; 32])),
            key("c/d", Digest::Sha256([7; 32]))
        );
        assert_ne!(
            key("a/b", Digest::Version([7; 32])),
            key("c/d", Digest::Version([7; 32]))
        );
        assert_ne!(
            key("a/b", Digest::Version([7; 32])),
            key("a/b", Digest::Sha256([7; 32]))
        );
        let other = "hf(https://h.example)://a/b@".to_owned() + &"a".repeat(40);
        let other: Pin = other.parse().expect("a pin");
        let digest = Digest::Sha256([7; 32]);
        assert_ne!(
            FileKey::derive(&other, "w", 9, &digest),
            key("a/b", digest),
            "what another hub gives is apart"
        );
        assert_eq!(
            FileKey::from_hex(&key("a/b", Digest::Sha256([7; 32])).to_string()),
            Some(key("a/b", Digest::Sha256([7; 32])))
        );
    }

    #[test]
    fn digests_print_and_parse() {
        for digest in [
            Digest::Sha256([1; 32]),
            Digest::GitSha1([2; 20]),
            Digest::Version([3; 32]),
        ] {
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        assert!("md5:00".parse::<Digest>().is_err());
        assert!("sha256:00".parse::<Digest>().is_err());
    }
}
