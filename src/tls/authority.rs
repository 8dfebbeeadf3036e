//! A CA and the certificates it signs, and when each is made anew.
//!
//! A CA lives ten years, a certificate of a role one; each is replaced when less than a third of that is
//! left. A new CA is published beside the old one before anything is signed with it: the run that makes it
//! only adds it to every `ca.crt`, and the next run signs with it, when all processes trust both.

use super::dir::certificates;
use super::{Role, TlsError, provider};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::UnixTime;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

const DAY: Duration = Duration::from_secs(86_400);
const CA_LIFE: Duration = Duration::from_secs(3650 * DAY.as_secs());
const LEAF_LIFE: Duration = Duration::from_secs(365 * DAY.as_secs());

/// A certificate with its key and whom it trusts, all PEM. There is no `Debug`: it would print the key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertSet {
    pub ca: String,
    pub cert: String,
    pub key: String,
    /// Seconds since 1970; what somebody else made has none and is never replaced for its age.
    pub not_after: Option<u64>,
}

/// The CA to put in the place of `held`; `None` when that is good for longer.
pub(super) fn renew_ca(
    held: Option<&CertSet>,
    now: SystemTime,
) -> Result<Option<CertSet>, TlsError> {
    let wanted = seconds(now + CA_LIFE / 3);
    let is_good = |held: &CertSet| held.not_after.is_none_or(|end| end > wanted);
    if held.is_some_and(is_good) {
        return Ok(None);
    }
    let key = KeyPair::generate()?;
    let cert = ca_params(now).self_signed(&key)?.pem();
    let old = held.map_or("", |held| &held.cert);
    Ok(Some(CertSet {
        ca: format!("{cert}{old}"),
        cert,
        key: key.serialize_pem(),
        not_after: Some(seconds(now + CA_LIFE)),
    }))
}

/// The certificate to put in the place of `held`; `None` when that is good for longer.
pub(super) fn renew_leaf(
    role: Role,
    ca: &CertSet,
    held: Option<&CertSet>,
    now: SystemTime,
) -> Result<Option<CertSet>, TlsError> {
    let later = now + LEAF_LIFE / 3;
    match held {
        // Everybody has heard of the present CA: its predecessor's signature is no longer enough.
        Some(held) if held.ca == ca.ca && is_valid(role, &held.cert, &ca.cert, later) => Ok(None),
        Some(held) if held.ca != ca.ca && is_valid(role, &held.cert, &ca.ca, later) => {
            let ca = ca.ca.clone();
            Ok(Some(CertSet { ca, ..held.clone() }))
        }
        _ => issue(role, ca, now).map(Some),
    }
}

fn issue(role: Role, ca: &CertSet, now: SystemTime) -> Result<CertSet, TlsError> {
    let ca_key = KeyPair::from_pem(&ca.key).map_err(|_| TlsError::ForeignCa)?;
    let issuer = Issuer::new(ca_params(now), ca_key);
    let key = KeyPair::generate()?;
    let cert = leaf_params(role, now)?.signed_by(&key, &issuer)?.pem();
    // The issuer's name is taken to be ours; another CA's certificate shows here.
    if !is_valid(role, &cert, &ca.cert, now) {
        return Err(TlsError::ForeignCa);
    }
    Ok(CertSet {
        ca: ca.ca.clone(),
        cert,
        key: key.serialize_pem(),
        not_after: Some(seconds(now + LEAF_LIFE)),
    })
}

fn ca_params(now: SystemTime) -> CertificateParams {
    let mut ca = params("model-p2p CA", now, CA_LIFE);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca
}

fn leaf_params(role: Role, now: SystemTime) -> Result<CertificateParams, TlsError> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let mut leaf = params(&format!("model-p2p {role}"), now, LEAF_LIFE);
    leaf.subject_alt_names = vec![SanType::DnsName(role.dns().try_into()?)];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ServerAuth, ClientAuth];
    leaf.use_authority_key_identifier_extension = true;
    Ok(leaf)
}

/// Valid from a day ago: clocks of machines differ.
fn params(name: &str, now: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - DAY).into();
    params.not_after = (now + life).into();
    params
}

fn is_valid(role: Role, cert: &str, roots: &str, at: SystemTime) -> bool {
    let (Ok(chain), Ok(roots)) = (
        certificates(cert.as_bytes()),
        certificates(roots.as_bytes()),
    ) else {
        return false;
    };
    let anchors: Vec<_> = roots
        .iter()
        .filter_map(|root| anchor_from_trusted_cert(root).ok())
        .collect();
    let algorithms = provider().signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds(at)));
    let usage = KeyUsage::client_auth();
    let is_signed = EndEntityCert::try_from(&chain[0]).is_ok_and(|leaf| {
        leaf.verify_for_usage(algorithms, &anchors, &[], at, usage, None, None)
            .is_ok()
    });
    is_signed && Role::of(&chain[0]) == Some(role)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
