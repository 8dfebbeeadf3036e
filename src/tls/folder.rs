//! Certificates in folders, for machines without Kubernetes: DIR/{ca,seed,node,controller,admin}/.
//!
//! Each folder is a `--tls-dir`; copy to a machine the one it needs. Keys are readable by their owner alone,
//! files appear whole, and a folder appears with all its files.

use super::bootstrap::{Held, Shelf};
use super::{CA_FILE, CERT_FILE, CertSet, KEY_FILE};
use crate::model::{Failure, FailureKind};
use async_trait::async_trait;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// When the certificate ends, in seconds since 1970.
const NOT_AFTER_FILE: &str = "not-after";

pub struct Folder(pub PathBuf);

#[async_trait]
impl Shelf for Folder {
    async fn get(&self, name: &str) -> std::result::Result<Option<Held>, Failure> {
        match read(&self.0.join(name)) {
            Ok(set) => Ok(Some(Held {
                set,
                version: String::new(),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failure(name, &error)),
        }
    }

    async fn put(
        &self,
        name: &str,
        set: &CertSet,
        seen: Option<&str>,
    ) -> std::result::Result<bool, Failure> {
        let dir = self.0.join(name);
        let written = match seen {
            Some(_) => write(&dir, set).map(|()| true),
            None => create(&dir, set),
        };
        written.map_err(|error| self.failure(name, &error))
    }
}

impl Folder {
    fn failure(&self, name: &str, error: &std::io::Error) -> Failure {
        let dir = self.0.join(name);
        let message = format!(
            "certificates in {}: {error}: give --out a directory of your own",
            dir.display()
        );
        Failure::new(FailureKind::Internal, message)
    }
}

fn read(dir: &Path) -> Result<CertSet> {
    let text = |name: &str| std::fs::read_to_string(dir.join(name));
    Ok(CertSet {
        ca: text(CA_FILE)?,
        cert: text(CERT_FILE)?,
        key: text(KEY_FILE)?,
        not_after: text(NOT_AFTER_FILE)
            .ok()
            .and_then(|text| text.trim().parse().ok()),
    })
}

/// `false` when there is such a folder by now.
fn create(dir: &Path, set: &CertSet) -> Result<bool> {
    let partial = dir.with_extension(format!("partial-{:08x}", rand::random::<u32>()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&partial)?;
    let moved = write(&partial, set).and_then(|()| std::fs::rename(&partial, dir));
    if moved.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    match moved {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) => Err(error),
    }
}

fn write(dir: &Path, set: &CertSet) -> Result<()> {
    let not_after = set.not_after.map(|end| format!("{end}\n"));
    // Who is to be trusted first: a process that reads in between must not refuse its peers.
    write_file(dir, CA_FILE, &set.ca, 0o644)?;
    write_file(dir, KEY_FILE, &set.key, 0o600)?;
    write_file(dir, CERT_FILE, &set.cert, 0o644)?;
    write_file(dir, NOT_AFTER_FILE, &not_after.unwrap_or_default(), 0o644)
}

fn write_file(dir: &Path, name: &str, text: &str, mode: u32) -> Result<()> {
    let partial = dir.join(format!(".{name}.{:08x}", rand::random::<u32>()));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&partial, dir.join(name))
}
