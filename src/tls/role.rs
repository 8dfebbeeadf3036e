//! Roles: what a certificate is for, written in it as a DNS name.
//!
//! The names stand for no host: a seed is verified as `seed.model-p2p.dev` whatever address was dialled.

use rustls::pki_types::{CertificateDer, ServerName};
use std::fmt;
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
