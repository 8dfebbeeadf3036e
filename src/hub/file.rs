//! `file:///dir`: a directory as a hub.
//!
//! The pin is a fingerprint of what the directory holds: paths, sizes, times and inodes. Content is not
//! hashed; a file that changes under its pin is noticed by these and is an `Integrity` error, never mixed
//! bytes. Symlinks are not followed and only regular files are listed.

use super::{ByteStream, Hub, HubError};
use crate::model::{Digest, Entry, FailureKind, Listing, Pin, Reference, Revision, Token};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One read of the disk, and one stop of the stream.
const PART_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default)]
pub struct FileHub;

/// A file as the directory has it now.
struct Found {
    path: String,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    inode: u64,
    digest: Digest,
}

#[async_trait]
impl Hub for FileHub {
    async fn resolve(&self, reference: &Reference, _: Option<&Token>) -> Result<Pin, HubError> {
        let directory = PathBuf::from(&reference.repo);
        let found = blocking(move || walk(&directory)).await?;
        Ok(Pin {
            repository: reference.repository(),
            revision: fingerprint(&found),
        })
    }

    async fn list(&self, pin: &Pin, _: Option<&Token>) -> Result<Listing, HubError> {
        let directory = PathBuf::from(&pin.repository.repo);
        let found = blocking(move || walk(&directory)).await?;
        if fingerprint(&found) != pin.revision {
            return Err(changed(&pin.repository.repo));
        }
        let rows = found
            .into_iter()
            .map(|file| (file.path, file.size, file.digest));
        Listing::new(pin.clone(), rows)
            .map_err(|error| HubError::last(FailureKind::Unsupported, error.to_string()))
    }

    async fn read(
        &self,
        pin: &Pin,
        entry: &Entry,
        bytes: Range<u64>,
        _: Option<&Token>,
    ) -> Result<ByteStream, HubError> {
        let path = Path::new(&pin.repository.repo).join(&entry.path);
        let (size, digest) = (entry.size, entry.digest);
        let pinned = Arc::new(blocking(move || open(&path, size, digest)).await?);
        let parts = stream::try_unfold((pinned, bytes), |(pinned, left)| async move {
            if left.is_empty() {
                return Ok(None);
            }
            let end = left.end.min(left.start + PART_BYTES);
            let file = pinned.clone();
            let part = blocking(move || file.read(left.start..end)).await?;
            Ok(Some((part, (pinned, end..left.end))))
        });
        Ok(parts.boxed())
    }

    async fn authorize(&self, pin: &Pin, _: Option<&Token>) -> Result<(), HubError> {
        let directory = PathBuf::from(&pin.repository.repo);
        blocking(move || match std::fs::read_dir(&directory) {
            Ok(_) => Ok(()),
            Err(error) => Err(unreadable(&directory, &error)),
        })
        .await
    }
}

/// An open file that must stay as it was listed.
struct Pinned {
    path: PathBuf,
    file: File,
    digest: Digest,
}

fn open(path: &Path, size: u64, digest: Digest) -> Result<Pinned, HubError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| unreadable(path, &error))?;
    let pinned = Pinned {
        path: path.to_owned(),
        file,
        digest,
    };
    match pinned.is_unchanged() && pinned.file.metadata().is_ok_and(|now| now.len() == size) {
        true => Ok(pinned),
        false => Err(changed(&path.display().to_string())),
    }
}

impl Pinned {
    fn is_unchanged(&self) -> bool {
        let metadata = self.file.metadata();
        metadata.is_ok_and(|metadata| version(&metadata) == self.digest)
    }

    /// Reads, then looks whether the file is still the same: bytes of a changed one are not given out.
    fn read(&self, bytes: Range<u64>) -> Result<Bytes, HubError> {
        let mut part = vec![0; (bytes.end - bytes.start) as usize];
        let read = self.file.read_exact_at(&mut part, bytes.start);
        if !self.is_unchanged() {
            return Err(changed(&self.path.display().to_string()));
        }
        match read {
            Ok(()) => Ok(part.into()),
            Err(error) => Err(unreadable(&self.path, &error)),
        }
    }
}

/// What tells a file's contents apart without reading them.
fn version(metadata: &Metadata) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for number in [metadata.dev(), metadata.ino(), metadata.len()] {
        hasher.update(&number.to_le_bytes());
    }
    for number in [metadata.mtime(), metadata.mtime_nsec()] {
        hasher.update(&number.to_le_bytes());
    }
    Digest::Version(*hasher.finalize().as_bytes())
}

/// All regular files under a directory, sorted by path.
fn walk(root: &Path) -> Result<Vec<Found>, HubError> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).map_err(|e| unreadable(&directory, &e))?;
        for entry in entries {
            let path = entry.map_err(|e| unreadable(&directory, &e))?.path();
            let metadata = path.symlink_metadata().map_err(|e| unreadable(&path, &e))?;
            if metadata.is_dir() {
                directories.push(path);
            } else if metadata.is_file() {
                found.push(describe(root, &path, &metadata)?);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn describe(root: &Path, path: &Path, metadata: &Metadata) -> Result<Found, HubError> {
    let name = path.strip_prefix(root).unwrap_or(path).to_str();
    let name = name.ok_or_else(|| {
        HubError::last(
            FailureKind::Unsupported,
            format!("{}: the name is not UTF-8: rename the file", path.display()),
        )
    })?;
    Ok(Found {
        path: name.to_owned(),
        size: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        inode: metadata.ino(),
        digest: version(metadata),
    })
}

fn fingerprint(found: &[Found]) -> Revision {
    let mut hasher = blake3::Hasher::new_derive_key("model-p2p 2026 directory fingerprint");
    for file in found {
        // The length before the name, so that no two directories spell the same bytes.
        hasher
            .update(&(file.path.len() as u64).to_le_bytes())
            .update(file.path.as_bytes());
        for number in [file.size, file.inode] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [file.modified.0, file.modified.1] {
            hasher.update(&number.to_le_bytes());
        }
    }
    Revision::of_digest(*hasher.finalize().as_bytes())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HubError> + Send + 'static,
) -> Result<T, HubError> {
    let failed = |_| HubError::last(FailureKind::Internal, "a disk read was aborted");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

fn changed(what: &str) -> HubError {
    HubError::last(
        FailureKind::Integrity,
        format!(
            "{what} changed under the pin: mount it again, and replace files instead of writing into them"
        ),
    )
}

fn unreadable(path: &Path, error: &io::Error) -> HubError {
    let (kind, remedy) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            (FailureKind::NotFound, "check the path")
        }
        io::ErrorKind::PermissionDenied => (FailureKind::Denied, "check its owner and mode"),
        _ => (FailureKind::Unavailable, "check the disk"),
    };
    HubError::last(kind, format!("{}: {error}: {remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::conformance::{Fixture, hub_conforms};
    use futures::TryStreamExt;

    fn directory(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::fs::write(path, content).expect("a file");
        }
        root
    }

    fn reference(root: &Path) -> Reference {
        format!("file://{}", root.display())
            .parse()
            .expect("a reference")
    }

    #[tokio::test]
    async fn a_directory_is_a_hub() {
        let fixture = Fixture::named(|files| reference(directory(files).keep().as_path()));
        hub_conforms(&FileHub, &fixture).await;
        std::fs::remove_dir_all(&fixture.reference.repo).expect("cleaned up");
    }

    #[tokio::test]
    async fn a_file_changed_under_its_pin_is_an_integrity_error() {
        let root = directory(&[("a".into(), vec![1; 100])]);
        let pin = FileHub.resolve(&reference(root.path()), None).await;
        let pin = pin.expect("a pin");
        let listing = FileHub.list(&pin, None).await.expect("a listing");
        let entry = listing.get("a").expect("the file").clone();
        let stream = FileHub.read(&pin, &entry, 0..100, None).await;
        let before: Vec<Bytes> = stream.expect("open").try_collect().await.expect("bytes");
        assert_eq!(before.concat(), [1; 100]);

        let old = std::fs::metadata(root.path().join("a")).expect("metadata");
        std::fs::write(root.path().join("a"), [2; 100]).expect("rewritten");
        let file = File::options().write(true).open(root.path().join("a"));
        let later = old.modified().expect("a time") + std::time::Duration::from_secs(1);
        file.expect("open").set_modified(later).expect("a time");

        let error = FileHub.read(&pin, &entry, 0..100, None).await;
        assert_eq!(error.err().map(|e| e.kind()), Some(FailureKind::Integrity));
        let error = FileHub.list(&pin, None).await;
        assert_eq!(error.err().map(|e| e.kind()), Some(FailureKind::Integrity));
    }

    #[tokio::test]
    async fn symlinks_are_neither_listed_nor_followed() {
        let root = directory(&[("a/b".into(), vec![1])]);
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("link")).expect("a link");
        std::os::unix::fs::symlink("/etc", root.path().join("etc")).expect("a link");
        let pin = FileHub.resolve(&reference(root.path()), None).await;
        let listing = FileHub.list(&pin.expect("a pin"), None).await;
        let listing = listing.expect("a listing");
        let paths: Vec<&str> = listing.files().iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["a/b"]);
    }
}
