//! Reading a reference: each scheme's own form, and what is wrong with a text that has none.

use super::{HubUrl, Kind, Problem, Reference, Scheme, scheme_named};
use std::borrow::Cow;

/// CSI allows 4 KiB for a whole volume context; a reference longer than this is a mistake.
const REFERENCE_BYTES_MAX: usize = 1024;

/// The text without its hub's address.
pub(super) fn split_hub(text: &str) -> Result<(Cow<'_, str>, Option<HubUrl>), Problem> {
    let split = text.split_once('(');
    let Some((name, rest)) = split.filter(|(name, _)| scheme_named(name).is_some()) else {
        return Ok((text.into(), None));
    };
    let bad = |cause: String| ("hub", cause);
    if name != Scheme::HuggingFace.name() {
        return Err(bad(format!("of {name}:// cannot be named")));
    }
    let (hub, rest) = rest
        .split_once(')')
        .ok_or_else(|| bad("has no end".into()))?;
    let hub: HubUrl = hub
        .parse()
        .map_err(|error: crate::model::hub_url::HubUrlError| bad(error.to_string()))?;
    Ok((format!("{name}{rest}").into(), Some(hub)))
}

/// Reads a reference of the configured hub.
pub(super) fn parse(text: &str) -> Result<Reference, Problem> {
    if text.len() > REFERENCE_BYTES_MAX {
        return Err((
            "length",
            format!("is {} bytes, more than {REFERENCE_BYTES_MAX}", text.len()),
        ));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        return Err(("text", format!("holds the control character {bad:?}")));
    }
    let Some((name, rest)) = text.split_once("://") else {
        return Err((
            "scheme",
            "is missing: it starts with hf://, modelscope://, s3://, gs://, az://, oci://, https:// or file://".into(),
        ));
    };
    let scheme = scheme_named(name).ok_or_else(|| ("scheme", format!("`{name}` is not known")))?;
    if rest.is_empty() {
        return Err(("repository", "is missing".into()));
    }
    match scheme {
        Scheme::HuggingFace | Scheme::ModelScope => parse_repo(scheme, rest),
        Scheme::S3 | Scheme::Gcs | Scheme::Azure => parse_bucket(scheme, rest),
        Scheme::Oci => parse_oci(rest),
        Scheme::Https => parse_https(rest),
        Scheme::File => parse_file(rest),
    }
}

fn parse_repo(scheme: Scheme, rest: &str) -> Result<Reference, Problem> {
    let (kind, rest) = match rest.split_once('/') {
        Some((word, tail)) if tail.contains('/') || Kind::from_plural(word).is_some() => {
            match Kind::from_plural(word) {
                Some(kind) => (kind, tail),
                None => (Kind::Model, rest),
            }
        }
        _ => (Kind::Model, rest),
    };
    let mut parts = rest.splitn(3, '/');
    let owner = parts.next().unwrap_or_default();
    let Some(second) = parts.next() else {
        return Err(("repository", format!("`{rest}` is not OWNER/NAME")));
    };
    let tail = parts.next();
    let (name, revision) = match second.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (second, None),
    };
    check_name("owner", owner)?;
    check_name("name", name)?;
    let (revision, subdir) = match revision {
        Some(revision) => split_revision(revision, tail)?,
        None => (None, tail.map(str::to_owned)),
    };
    let subdir = subdir.map(|subdir| check_subdir(&subdir)).transpose()?;
    Ok(Reference {
        scheme,
        hub: None,
        kind,
        repo: format!("{owner}/{name}"),
        revision,
        subdir,
    })
}

/// Takes `refs/pr/N` and `refs/convert/NAME` whole, and `%2F` as a slash inside any other revision.
fn split_revision(
    head: &str,
    tail: Option<&str>,
) -> Result<(Option<String>, Option<String>), Problem> {
    if head == "refs"
        && let Some(tail) = tail
    {
        let mut parts = tail.splitn(3, '/');
        if let (Some(space @ ("pr" | "convert")), Some(id)) = (parts.next(), parts.next()) {
            let revision = check_revision(&format!("refs/{space}/{id}"))?;
            return Ok((Some(revision), parts.next().map(str::to_owned)));
        }
    }
    let decoded = percent_decode(head)
        .ok_or_else(|| ("revision", format!("`{head}` has a broken % escape")))?;
    Ok((Some(check_revision(&decoded)?), tail.map(str::to_owned)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let pair = [bytes.next()?, bytes.next()?];
        out.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

/// Git's rules for ref names, as far as they keep a revision from being something else.
fn check_revision(revision: &str) -> Result<String, Problem> {
    let bad = |cause: &str| Err(("revision", format!("`{revision}` {cause}")));
    if revision.is_empty() {
        return bad("is empty");
    }
    if revision.len() > 255 {
        return bad("is longer than 255 bytes");
    }
    if revision.contains("..") || revision.starts_with(['/', '-']) || revision.ends_with('/') {
        return bad("is not a branch, tag or commit");
    }
    if revision.contains(|c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c)) {
        return bad("holds a character that no revision has");
    }
    Ok(revision.to_owned())
}

fn check_name(part: &'static str, name: &str) -> Result<(), Problem> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match name {
        "" => Err((part, "is empty".into())),
        "." | ".." => Err((part, format!("`{name}` is not a name"))),
        _ if name.len() > 96 => Err((part, "is longer than 96 characters".into())),
        _ => match name.chars().find(|c| !legal(*c)) {
            Some(bad) => Err((
                part,
                format!("`{name}` holds {bad:?}; letters, digits, - _ . are allowed"),
            )),
            None => Ok(()),
        },
    }
}

fn check_subdir(subdir: &str) -> Result<String, Problem> {
    let subdir = subdir.strip_suffix('/').unwrap_or(subdir);
    match subdir
        .split('/')
        .find(|part| matches!(*part, "" | "." | ".."))
    {
        Some(part) => Err((
            "subdirectory",
            format!("`{subdir}` has the segment `{part}`"),
        )),
        None => Ok(subdir.to_owned()),
    }
}

fn parse_bucket(scheme: Scheme, rest: &str) -> Result<Reference, Problem> {
    let (bucket, prefix) = match rest.split_once('/') {
        Some((bucket, prefix)) => (bucket, (!prefix.is_empty()).then_some(prefix)),
        None => (rest, None),
    };
    check_name("bucket", bucket)?;
    let subdir = prefix.map(check_subdir).transpose()?;
    Ok(Reference {
        scheme,
        hub: None,
        kind: Kind::Model,
        repo: bucket.to_owned(),
        revision: None,
        subdir,
    })
}

fn parse_oci(rest: &str) -> Result<Reference, Problem> {
    let (name, revision) = match rest.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && name.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        },
    };
    let Some((host, path)) = name.split_once('/') else {
        return Err(("repository", format!("`{name}` is not HOST/REPOSITORY")));
    };
    check_host(host)?;
    for segment in path.split('/') {
        check_name("repository", segment)?;
    }
    let revision = revision.map(check_oci_revision).transpose()?;
    Ok(Reference {
        scheme: Scheme::Oci,
        hub: None,
        kind: Kind::Model,
        repo: name.to_owned(),
        revision,
        subdir: None,
    })
}

fn check_oci_revision(revision: &str) -> Result<String, Problem> {
    let digest = revision.strip_prefix("sha256:");
    let legal = match digest {
        Some(hex) => hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => {
            !revision.is_empty()
                && revision.len() <= 128
                && revision
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }
    };
    match legal {
        true => Ok(revision.to_owned()),
        false => Err((
            "tag or digest",
            format!("`{revision}` is neither a tag nor sha256:<64 hex digits>"),
        )),
    }
}

fn check_host(host: &str) -> Result<(), Problem> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-.:[]_".contains(c);
    match host.is_empty() || !host.chars().all(legal) {
        true => Err((
            "host",
            format!("`{host}` is not a host name; credentials do not belong here"),
        )),
        false => Ok(()),
    }
}

fn parse_https(rest: &str) -> Result<Reference, Problem> {
    let Some((host, path)) = rest.split_once('/') else {
        return Err(("path", "is missing".into()));
    };
    check_host(host)?;
    if path.is_empty() || path.ends_with('/') {
        return Err(("path", format!("`{path}` does not name a file")));
    }
    Ok(Reference {
        scheme: Scheme::Https,
        hub: None,
        kind: Kind::Model,
        repo: rest.to_owned(),
        revision: None,
        subdir: None,
    })
}

fn parse_file(rest: &str) -> Result<Reference, Problem> {
    if !rest.starts_with('/') {
        return Err(("path", format!("`{rest}` is not absolute")));
    }
    let path = rest.trim_end_matches('/');
    if path.is_empty() {
        return Err(("path", "is the root directory".into()));
    }
    if path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        return Err((
            "path",
            format!("`{rest}` has an empty, `.` or `..` segment"),
        ));
    }
    Ok(Reference {
        scheme: Scheme::File,
        hub: None,
        kind: Kind::Model,
        repo: path.to_owned(),
        revision: None,
        subdir: None,
    })
}
