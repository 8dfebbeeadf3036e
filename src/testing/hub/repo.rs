//! Repositories of the test hub: files, their digests, commits.

use crate::model::Kind;
use crate::testing::pattern;
use bytes::Bytes;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Content {
    Bytes(Bytes),
    File { file: Arc<File>, size: u64 },
    Pattern { seed: u64, size: u64 },
}

impl Content {
    pub fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { size, .. } | Content::Pattern { size, .. } => *size,
        }
    }

    /// The bytes from `offset` on, `len` of them.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        if let Content::Bytes(bytes) = self {
            return Ok(bytes.slice(offset as usize..offset as usize + len));
        }
        let mut out = vec![0; len];
        match self {
            Content::File { file, .. } => file.read_exact_at(&mut out, offset)?,
            Content::Pattern { seed, .. } => pattern::fill(*seed, offset, &mut out),
            Content::Bytes(_) => {}
        }
        Ok(out.into())
    }

    fn hash<D: sha2::Digest>(&self, mut hasher: D) -> io::Result<String> {
        let (mut at, size) = (0, self.size());
        while at < size {
            let len = (size - at).min(1 << 20) as usize;
            hasher.update(self.read(at, len)?);
            at += len as u64;
        }
        Ok(hex::encode(hasher.finalize()))
    }
}

/// A file of a commit.
#[derive(Clone, Debug)]
pub struct HubFile {
    pub content: Content,
    /// As the tree states it: sha256 for LFS, git's sha1 for others.
    pub digest: String,
    pub lfs: bool,
    /// What the tree states instead, where the repository lies.
    pub claim: Option<String>,
}

/// Weights by name, and whatever is too large for git.
fn is_lfs(path: &str, size: u64) -> bool {
    const WEIGHTS: [&str; 3] = [".safetensors", ".bin", ".gguf"];
    size > 1 << 20 || WEIGHTS.iter().any(|suffix| path.ends_with(suffix))
}

impl HubFile {
    /// Hashes the content: 3 GiB take some three seconds.
    fn new(path: &str, content: Content) -> io::Result<HubFile> {
        let lfs = is_lfs(path, content.size());
        let digest = match lfs {
            true => content.hash(Sha256::new())?,
            false => {
                let head = format!("blob {}\0", content.size());
                content.hash(Sha1::new().chain_update(head))?
            }
        };
        Ok(HubFile {
            content,
            digest,
            lfs,
            claim: None,
        })
    }
}

/// A repository to be served.
#[derive(Clone, Debug)]
pub struct TestRepo {
    pub id: String,
    pub kind: Kind,
    pub files: BTreeMap<String, HubFile>,
    pub gated: bool,
    pub private: bool,
    /// Tokens that may read it when it is gated or private.
    pub accepted: Vec<String>,
    /// Names it had before: they answer 307.
    pub old_names: Vec<String>,
}

impl TestRepo {
    pub fn new(id: &str) -> TestRepo {
        TestRepo {
            id: id.to_owned(),
            kind: Kind::Model,
            files: BTreeMap::new(),
            gated: false,
            private: false,
            accepted: Vec::new(),
            old_names: Vec::new(),
        }
    }

    pub fn kind(mut self, kind: Kind) -> TestRepo {
        self.kind = kind;
        self
    }

    /// A file of these bytes.
    pub fn file(mut self, path: &str, bytes: impl Into<Bytes>) -> TestRepo {
        let content = Content::Bytes(bytes.into());
        // Bytes in memory cannot fail to be read.
        if let Ok(file) = HubFile::new(path, content) {
            self.files.insert(path.to_owned(), file);
        }
        self
    }

    pub fn files<'a>(self, files: impl IntoIterator<Item = &'a (String, Vec<u8>)>) -> TestRepo {
        files
            .into_iter()
            .fold(self, |repo, (path, bytes)| repo.file(path, bytes.clone()))
    }

    /// A file of computed content, hashed now.
    pub fn pattern(mut self, path: &str, seed: u64, size: u64) -> TestRepo {
        if let Ok(file) = HubFile::new(path, Content::Pattern { seed, size }) {
            self.files.insert(path.to_owned(), file);
        }
        self
    }

    /// Lets the tree state another file's digest for a file of this one's size.
    pub fn claim(mut self, path: &str, digest: &str) -> TestRepo {
        if let Some(file) = self.files.get_mut(path) {
            file.claim = Some(digest.to_owned());
        }
        self
    }

    /// The same with a digest that is made up: for files too large to hash in a test that never verifies.
    pub fn pattern_unhashed(mut self, path: &str, seed: u64, size: u64) -> TestRepo {
        let file = HubFile {
            content: Content::Pattern { seed, size },
            digest: hex::encode(Sha256::digest(format!("{seed} {size}"))),
            lfs: true,
            claim: None,
        };
        self.files.insert(path.to_owned(), file);
        self
    }

    /// All regular files of a directory.
    pub fn directory(mut self, root: &Path) -> io::Result<TestRepo> {
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    directories.push(path);
                } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
                    let file = File::open(&path)?;
                    let size = file.metadata()?.len();
                    let file = Arc::new(file);
                    let content = Content::File { file, size };
                    self.files
                        .insert(name.to_owned(), HubFile::new(name, content)?);
                }
            }
        }
        Ok(self)
    }

    /// Readable with these tokens only, though everybody sees that it is there.
    pub fn gated(mut self, tokens: &[&str]) -> TestRepo {
        self.gated = true;
        self.accepted = tokens.iter().map(|token| (*token).to_owned()).collect();
        self
    }

    /// Invisible without one of these tokens.
    pub fn private(self, tokens: &[&str]) -> TestRepo {
        TestRepo {
            gated: false,
            private: true,
            ..self.gated(tokens)
        }
    }

    /// A name that redirects here.
    pub fn renamed_from(mut self, old: &str) -> TestRepo {
        self.old_names.push(old.to_owned());
        self
    }

    /// The name of exactly this content: 40 hex digits.
    pub fn commit(&self) -> String {
        let mut hasher = Sha1::new_with_prefix(self.id.as_bytes());
        for (path, file) in &self.files {
            hasher.update(format!("\n{path}\0{} {}", file.digest, file.content.size()));
        }
        hex::encode(hasher.finalize())
    }
}
