//! The one table from what went wrong to what a reader's system call returns.

use crate::fetch::ReadError;

/// Why a call on the filesystem fails.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("models are read-only: copy the file elsewhere to change it")]
    ReadOnly,
    /// The name has another node by now; the kernel looks it up again by itself.
    #[error("node {node} is not this file's present node")]
    Stale { node: u64 },
    /// A bug in the content's implementation, caught before the kernel fills the gap with zeros.
    #[error("{path}: {got} bytes at {offset} instead of {want}")]
    Short {
        path: String,
        offset: u64,
        want: usize,
        got: usize,
    },
    /// The mount ended while the read waited.
    #[error("the mount is ending")]
    Ending,
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl FsError {
    /// What the reader's system call returns.
    pub fn errno(&self) -> i32 {
        match self {
            FsError::NotFound => libc::ENOENT,
            FsError::NotDirectory => libc::ENOTDIR,
            FsError::IsDirectory => libc::EISDIR,
            FsError::ReadOnly => libc::EROFS,
            FsError::Stale { .. } => libc::ESTALE,
            FsError::Short { .. } | FsError::Ending => libc::EIO,
            FsError::Read(ReadError::Denied { .. }) => libc::EACCES,
            FsError::Read(
                ReadError::Timeout { .. }
                | ReadError::Revoked { .. }
                | ReadError::Failed { .. }
                | ReadError::Store { .. },
            ) => libc::EIO,
        }
    }

    /// Whether the operator should hear of it: content failed, not a caller's question.
    pub fn is_content(&self) -> bool {
        matches!(self, FsError::Read(_) | FsError::Short { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_denied_and_everything_else_that_content_can_do_as_io_errors() {
        let path = || "w".to_string();
        let denied = ReadError::Denied {
            path: path(),
            cause: "gated".into(),
        };
        let timeout = ReadError::Timeout {
            path: path(),
            piece: 1,
            seconds: 600,
            cause: "no peer".into(),
        };
        assert_eq!(FsError::from(denied).errno(), libc::EACCES);
        assert_eq!(FsError::from(timeout).errno(), libc::EIO);
        assert_eq!(
            FsError::from(ReadError::Revoked { path: path() }).errno(),
            libc::EIO
        );
        assert_eq!(FsError::ReadOnly.errno(), libc::EROFS);
    }
}
