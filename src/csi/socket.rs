//! The unix socket that kubelet and the provisioner call: found, taken over, and taken away again.
//!
//! A socket file that nobody answers on is left by a process that was killed, and is replaced. One that is
//! answered on is refused: two drivers on one node would unmount each other's volumes. The file is readable
//! by its owner alone from the moment it is there, and no other file is made beside it.

use hyper_util::rt::TokioIo;
use socket2::{Domain, SockAddr, Type};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tonic::transport::{Channel, Uri};

/// The kernel's bound for a socket's path, without its closing NUL.
const PATH_BYTES_MAX: usize = 107;

/// A place for a socket: `unix:///path/csi.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("endpoint `{text}`: {cause}; an example that works: unix:///csi/csi.sock")]
    Endpoint { text: String, cause: &'static str },
    #[error("socket {path}: another process answers on it: stop it or use another endpoint")]
    InUse { path: PathBuf },
    #[error(
        "socket {path}: a file that is not a socket is there: remove it or use another endpoint"
    )]
    NotASocket { path: PathBuf },
    #[error("socket {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl FromStr for Endpoint {
    type Err = SocketError;

    fn from_str(text: &str) -> Result<Endpoint, SocketError> {
        let error = |cause| SocketError::Endpoint {
            text: text.to_owned(),
            cause,
        };
        let path = text
            .strip_prefix("unix://")
            .ok_or_else(|| error("only unix:// sockets are served"))?;
        match path {
            _ if !path.starts_with('/') => Err(error("the path is not absolute")),
            _ if path.ends_with('/') => Err(error("the path names a directory")),
            _ if path.len() > PATH_BYTES_MAX => Err(error("the path is longer than 107 bytes")),
            _ => Ok(Endpoint(path.into())),
        }
    }
}

impl Endpoint {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Listens, after removing what a dead process left. The directory must be there.
    pub fn bind(&self) -> Result<Socket, SocketError> {
        let io = |source| SocketError::Io {
            path: self.0.clone(),
            source,
        };
        self.clear()?;
        let listener = listen(&self.0).map_err(io)?;
        let file = fs::symlink_metadata(&self.0).map_err(io)?;
        Ok(Socket {
            listener,
            file: SocketFile {
                path: self.0.clone(),
                identity: (file.dev(), file.ino()),
            },
        })
    }

    fn clear(&self) -> Result<(), SocketError> {
        let path = self.0.clone();
        let file = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(SocketError::Io { path, source }),
            Ok(file) => file,
        };
        if !file.file_type().is_socket() {
            return Err(SocketError::NotASocket { path });
        }
        match answers(&path) {
            Ok(true) => Err(SocketError::InUse { path }),
            Ok(false) => fs::remove_file(&path).map_err(|source| SocketError::Io { path, source }),
            Err(source) => Err(SocketError::Io { path, source }),
        }
    }
}

/// Without waiting: a full backlog is an answer too.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            io::ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
    }
}

/// A client's connection to a socket, with the authority that kubelet sends: h2 refuses a path there.
pub async fn connect(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    // The address is never looked up: the connector goes to the socket.
    tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
}

/// The mode is set on the socket before it has a name, for Linux gives the file the socket's own: there is
/// no moment in which others could connect, and the process's umask, which all threads share, stays.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    nix::sys::stat::fchmod(&socket, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(128)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
}

/// A listening socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

impl Socket {
    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// The name of a socket, removed at the end unless another process has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "csi socket not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(dir: &tempfile::TempDir) -> Endpoint {
        let text = format!("unix://{}/csi.sock", dir.path().display());
        text.parse().expect("an endpoint")
    }

    #[test]
    fn only_absolute_unix_paths_are_endpoints() {
        let long = format!("unix:///{}", "x".repeat(107));
        for (text, cause) in [
            ("tcp://127.0.0.1:80", "only unix://"),
            ("/csi/csi.sock", "only unix://"),
            ("", "only unix://"),
            ("unix://csi.sock", "not absolute"),
            ("unix:///csi/", "directory"),
            (long.as_str(), "107"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(
                error.contains(cause) && error.contains("unix:///csi/csi.sock"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_goes_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = endpoint(&dir).bind().expect("a socket");
        let mode = fs::metadata(endpoint(&dir).path()).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(UnixListener::bind(endpoint(&dir).path()).expect("a socket that dies"));
        let living = endpoint(&dir).bind().expect("the dead one is replaced");
        let second = endpoint(&dir).bind();
        assert!(
            matches!(second, Err(SocketError::InUse { .. })),
            "{second:?}"
        );
        drop(living);
        fs::write(endpoint(&dir).path(), "precious").expect("a file");
        let third = endpoint(&dir).bind();
        assert!(
            matches!(third, Err(SocketError::NotASocket { .. })),
            "{third:?}"
        );
    }

    #[test]
    fn a_successors_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = endpoint(&dir).bind().expect("a socket");
        fs::remove_file(endpoint(&dir).path()).expect("a file");
        let _new = UnixListener::bind(endpoint(&dir).path()).expect("a successor");
        drop(old);
        assert!(endpoint(&dir).path().exists());
    }
}
