//! Another hub's address, as an administrator names it beside a reference.

use super::secrets::without_secrets;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use url::{Host, Url};

/// A hub's base URL, `http[s]://HOST[:PORT][/PREFIX]`, in one spelling for all that mean the same. Never an
/// address that only machines of one network segment answer at: whoever reads there reads what the
/// machine's owner left for himself, a cloud's credentials above all. A name can stand for such an address
/// all the same, so a seed reads from hubs of its own list only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HubUrl(Arc<str>);

/// Why a text is no hub's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {cause}; an example that works: https://hub.example.com")]
pub struct HubUrlError {
    pub text: String,
    pub cause: &'static str,
}

/// The bound of CSI for a value of a volume's context.
const BYTES_MAX: usize = 128;

/// Names of clouds' metadata services.
const METADATA_NAMES: [&str; 4] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
];

/// Their addresses outside the link-local ranges: Alibaba's, Azure's, Oracle's, Amazon's by IPv6.
const METADATA_ADDRESSES: [&str; 4] = [
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
];

impl FromStr for HubUrl {
    type Err = HubUrlError;

    fn from_str(text: &str) -> Result<HubUrl, HubUrlError> {
        let error = |cause| HubUrlError {
            text: without_secrets(text).chars().take(80).collect(),
            cause,
        };
        let url: Url = text.parse().map_err(|_| error("is not a URL"))?;
        let host = check(&url).map_err(error)?;
        if is_local(&host) {
            return Err(error("is an address of this machine or its segment alone"));
        }
        // Of the spelling that is stored: escapes make it longer than what was written.
        let spelled = url.as_str().trim_end_matches('/');
        if spelled.len() > BYTES_MAX {
            return Err(error("is longer than 128 bytes"));
        }
        Ok(HubUrl(spelled.into()))
    }
}

/// What a reference can carry: a plain base, without what its own text form needs.
fn check(url: &Url) -> Result<Host<&str>, &'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http:// nor https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds credentials");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("holds a query or fragment");
    }
    if url.as_str().contains(['(', ')', '@']) {
        return Err("holds one of ( ) @");
    }
    url.host().ok_or("names no host")
}

/// Whether a host says by itself that only one machine or segment has it, or a cloud's metadata service.
pub fn is_local(host: &Host<&str>) -> bool {
    let Some(ip) = address(host) else {
        let name = name_of(host);
        return METADATA_NAMES.contains(&name.as_str());
    };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let is_metadata = METADATA_ADDRESSES.contains(&ip.to_string().as_str());
    is_link_local || is_metadata || ip.is_unspecified() || ip.is_multicast()
}

/// The address that a host is, an IPv4 one however it is wrapped.
fn address(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some((*ip).into()),
        Host::Ipv6(ip) => Some(unwrapped(*ip)),
    }
}

/// IPv4 as IPv6 writes it: mapped, compatible, or through a NAT64 at its well-known prefix (RFC 6052).
fn unwrapped(ip: Ipv6Addr) -> IpAddr {
    let within = Ipv4Addr::from_bits(ip.to_bits() as u32);
    match ip.segments() {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip.into(),
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => within.into(),
        _ => ip.into(),
    }
}

/// A host's name without the root's dot.
fn name_of(host: &Host<&str>) -> String {
    host.to_string().trim_end_matches('.').to_owned()
}

impl HubUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the address says by itself that it is the reader's own machine.
    pub fn is_loopback(&self) -> bool {
        let url: Option<Url> = self.0.parse().ok();
        let host = url.as_ref().and_then(|url| url.host());
        host.is_some_and(|host| match address(&host) {
            Some(ip) => ip.is_loopback(),
            None => name_of(&host).rsplit('.').next() == Some("localhost"),
        })
    }
}

impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Spellings of addresses that nobody may be sent to.
#[cfg(test)]
pub const LOCAL: [&str; 21] = [
    "http://169.254.169.254",
    "http://169.254.169.254./latest",
    "http://2852039166/latest",
    "http://0xA9FEA9FE",
    "http://0251.0376.0251.0376",
    "http://[::ffff:169.254.169.254]",
    "http://[::169.254.169.254]",
    "http://[64:ff9b::169.254.169.254]",
    "http://[64:ff9b::100.100.100.200]",
    "http://[fe80::1]",
    "http://[fd00:ec2::254]",
    "http://100.100.100.200",
    "http://168.63.129.16",
    "http://0.0.0.0",
    "http://[::ffff:0.0.0.0]",
    "http://[::]",
    "http://224.0.0.1",
    "http://255.255.255.255",
    "http://metadata.google.internal",
    "http://METADATA.google.internal./",
    "http://metadata",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_address_has_one_spelling() {
        for (text, spelled) in [
            ("https://Hub.Example.com/", "https://hub.example.com"),
            (
                "https://hub.example.com:443/hf/",
                "https://hub.example.com/hf",
            ),
            ("http://10.1.2.3:8080", "http://10.1.2.3:8080"),
            ("http://[2001:db8::1]/hf", "http://[2001:db8::1]/hf"),
        ] {
            let url: HubUrl = text.parse().expect(text);
            assert_eq!(url.as_str(), spelled);
            assert_eq!(spelled.parse(), Ok(url));
        }
    }

    #[test]
    fn what_is_no_hub_or_nobody_elses_business_is_refused() {
        for text in [
            "",
            "hub.example.com",
            "ftp://hub.example.com",
            "file:///etc",
            "https://u:p@hub.example.com",
            "https://u@hub.example.com",
            "https://hub.example.com/?x=1",
            "https://hub.example.com/#x",
            "https://hub.example.com/a(b)",
            "https://hub.example.com/@x",
        ]
        .into_iter()
        .chain(LOCAL)
        {
            let error = text.parse::<HubUrl>().expect_err(text);
            assert!(error.to_string().contains("hub.example.com"), "{error}");
        }
        let long = format!("https://hub.example.com/{}", "a".repeat(128));
        assert!(long.parse::<HubUrl>().is_err());
    }

    /// An endpoint with a password was quoted whole in the events of pods and in logs.
    #[test]
    fn an_error_does_not_repeat_credentials() {
        let long = format!("https://u:SECRET{}@h", "x".repeat(90));
        for text in [
            "https://u:SECRET@hub",
            "https://SECRET@hub",
            "https://u:SE@SECRET@hub",
            "https://u:SECRET/x@hub",
            "ftp://u:SECRET@hub",
            "u:SECRET@hub",
            &long,
        ] {
            let error = text.parse::<HubUrl>().expect_err(text).to_string();
            assert!(!error.contains("SECRET"), "{error}");
            assert!(error.contains("…@h"), "{error}");
        }
    }

    proptest! {
        /// An address with letters that are escaped was stored longer than an address may be.
        #[test]
        fn what_is_printed_parses_again(text in "https?://[a-z()é]{1,8}[.]example(:[0-9]{1,4})?(/[a-zé %.]{0,60}){0,2}/{0,2}") {
            if let Ok(url) = text.parse::<HubUrl>() {
                prop_assert!(url.as_str().len() <= BYTES_MAX);
                prop_assert!(!url.as_str().contains(['(', ')', '@']));
                prop_assert_eq!(url.as_str().parse(), Ok(url));
            }
        }
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        let is = |text: &str| text.parse::<HubUrl>().expect(text).is_loopback();
        for text in [
            "http://127.0.0.1:80",
            "http://127.1",
            "http://2130706433",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]",
            "http://localhost:8080/hf",
            "http://a.LOCALHOST.",
        ] {
            assert!(is(text), "{text}");
        }
        assert!(!is("https://localhost.example.com") && !is("http://10.0.0.1"));
    }
}
