//! Roles: what a certificate is for, written in it as a DNS name.
//!
//! The names stand for no host: a seed is verified as `seed.model-p2p.dev` whatever address was dialled.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::fmt;
use std::sync::Arc;
use webpki::EndEntityCert;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Seed,
    Node,
    Controller,
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Seed, Role::Node, Role::Controller, Role::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Role::Seed => "seed",
            Role::Node => "node",
            Role::Controller => "controller",
            Role::Admin => "admin",
        }
    }

    pub fn dns(self) -> String {
        format!("{self}.model-p2p.dev")
    }

    /// The role of a certificate whose issuer has been verified already.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Role> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let has = |role: &Role| {
            ServerName::try_from(role.dns())
                .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        Role::ALL.into_iter().find(has)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Accepts a server of one of these roles at any address. The address remains the name that sessions are
/// resumed by.
#[derive(Debug)]
pub(super) struct AnyOf {
    pub roles: &'static [Role],
    pub issued: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyOf {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let role = Role::of(leaf).filter(|role| self.roles.contains(role));
        // A role that is not among them fails by the name of the first one.
        let name = role.unwrap_or(self.roles[0]).dns();
        let name = ServerName::try_from(name).map_err(|error| Error::General(error.to_string()))?;
        self.issued.verify_server_cert(leaf, rest, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.issued.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}
