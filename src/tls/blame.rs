//! What a failed connection says about certificates, found below the errors of the libraries between.

use rustls::{AlertDescription, CertificateError};
use std::error::Error;
use std::io;

/// Why a handshake failed; the name is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Of another CA, expired, or none at all, on either side.
    Certificate,
    /// Not the role that is needed.
    Role,
    /// The other side speaks in the clear.
    Plain,
    Silence,
    Connection,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Cause::Certificate => "certificate",
            Cause::Role => "role",
            Cause::Plain => "plain",
            Cause::Silence => "silence",
            Cause::Connection => "connection",
        }
    }
}

pub(super) fn cause(error: &io::Error) -> Cause {
    use CertificateError::{NotValidForName, NotValidForNameContext};
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented,
    };
    match tls(error) {
        Some(InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => Cause::Role,
        Some(InvalidCertificate(_) | NoCertificatesPresented) => Cause::Certificate,
        Some(AlertReceived(alert)) if is_of_certificates(*alert) => Cause::Certificate,
        Some(InvalidMessage(_)) => Cause::Plain,
        _ if error.kind() == io::ErrorKind::PermissionDenied => Cause::Role,
        _ if error.kind() == io::ErrorKind::TimedOut => Cause::Silence,
        _ => Cause::Connection,
    }
}

fn is_of_certificates(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    matches!(
        alert,
        BadCertificate
            | UnsupportedCertificate
            | CertificateRevoked
            | CertificateExpired
            | CertificateUnknown
            | CertificateRequired
            | UnknownCA
            | DecryptError
            | AccessDenied
    )
}

/// In TLS 1.3 a client learns only with its first read that its own certificate was refused.
pub fn explain_read(error: io::Error) -> io::Error {
    match cause(&error) {
        Cause::Certificate => io::Error::other(format!(
            "the other side refuses this certificate: {error}: check --tls-dir on both sides"
        )),
        _ => error,
    }
}

/// Whether this error, or one it stands on, is a certificate of the other side that was not believed.
pub fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    matches!(tls(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// The error of TLS that this one is or stands on.
fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An io::Error hides what it wraps from `source`.
        let io = error.downcast_ref::<io::Error>();
        next = match io.and_then(|io| io.get_ref()) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
