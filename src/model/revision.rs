//! Revisions and pins: what a reference was resolved to, once, and what never moves again.

use super::reference::{Reference, ReferenceError};
use std::fmt;
use std::str::FromStr;

/// An immutable state of a repository: a git commit (40 hex digits) or a digest (64). A branch name or a
/// short hash is not one and cannot be made into one without asking the hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a revision: 40 or 64 lower-case hex digits are expected")]
pub struct NotARevision {
    pub text: String,
}

impl FromStr for Revision {
    type Err = NotARevision;

    fn from_str(text: &str) -> Result<Revision, NotARevision> {
        let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match hex && matches!(text.len(), 40 | 64) {
            true => Ok(Revision(text.to_owned())),
            false => Err(NotARevision {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

impl Revision {
    /// A revision that is the digest of what a repository holds, for hubs that have no commits.
    pub fn of_digest(digest: [u8; 32]) -> Revision {
        Revision(hex::encode(digest))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository at a revision: the name of a listing, valid for ever. Printed as `hf://owner/name@COMMIT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin {
    /// The repository under its canonical name, without revision and subdirectory. For object stores and
    /// other hubs where the subdirectory bounds what is listed, it stays.
    pub repository: Reference,
    pub revision: Revision,
}

/// Why a text is not a pin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Revision(#[from] NotARevision),
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Pin, PinError> {
        let (repository, revision) = text.rsplit_once('@').unwrap_or((text, ""));
        Ok(Pin {
            revision: revision.parse()?,
            repository: repository.parse()?,
        })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repository, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_commits_and_digests_are_revisions() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(commit.parse::<Revision>().is_ok());
        for text in [
            "main",
            "",
            "0123456",
            "0123456789ABCDEF0123456789abcdef01234567",
            "refs/pr/1",
        ] {
            assert!(text.parse::<Revision>().is_err(), "{text}");
        }
        assert_eq!(Revision::of_digest([0xab; 32]).as_str().len(), 64);
    }

    #[test]
    fn a_pin_prints_and_parses() {
        for repository in [
            "hf://owner/name",
            "hf://datasets/owner/name",
            "file:///srv/a@b",
            "s3://bucket/prefix",
        ] {
            let text = format!("{repository}@{}", "a".repeat(40));
            let pin: Pin = text.parse().expect(&text);
            assert_eq!(pin.to_string(), text);
        }
        assert!("hf://owner/name@main".parse::<Pin>().is_err());
        assert!("hf://owner/name".parse::<Pin>().is_err());
    }
}
