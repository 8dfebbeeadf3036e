//! The CDN: content for those who bring a URL that the hub has signed, and nothing else.

use super::body::Giving;
use super::fault::On;
use super::refuse::{Answer, fail, refuse};
use super::route::{Asked, header, kind_named};
use super::server::{Found, State, name};
use super::stats::Giver;
use axum::extract::{Request, State as Shared};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// `/{kind}s/{owner}/{name}/{commit}/{path}`, encoded.
pub fn path(asked: &Asked, commit: &str) -> String {
    let whole = format!(
        "{}/{}/{commit}/{}",
        asked.kind.plural(),
        asked.id,
        asked.path
    );
    let segments = whole.split('/');
    segments
        .map(|segment| format!("/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC)))
        .collect()
}

fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| elapsed.as_secs())
}

fn signature(path: &str, expires: u64, number: u64) -> String {
    let key = blake3::derive_key("model-p2p 2026 test CDN", b"known to the test hub alone");
    let text = format!("{path} {expires} {number}");
    blake3::keyed_hash(&key, text.as_bytes())
        .to_hex()
        .to_string()
}

/// A URL that opens one file until it expires.
pub fn sign(state: &State, asked: &Asked, commit: &str) -> String {
    let (path, number) = (path(asked, commit), state.next_signed());
    let expires = now() + state.config.signed_s;
    let signature = signature(&path, expires, number);
    format!(
        "{}{path}?Expires={expires}&Key-Pair-Id={number}&Signature={signature}",
        state.cdn_url
    )
}

/// The number of a signed URL that is good now.
fn check(state: &State, request: &Request) -> Result<u64, &'static str> {
    let query = request.uri().query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value)
    };
    let number = |name| parameter(name)?.parse::<u64>().ok();
    let (expires, id) = (number("Expires"), number("Key-Pair-Id"));
    let (Some(expires), Some(id)) = (expires, id) else {
        return Err("Missing Key");
    };
    if parameter("Signature").as_deref() != Some(&signature(request.uri().path(), expires, id)) {
        return Err("SignatureDoesNotMatch");
    }
    match expires <= now() || state.is_expired(id) {
        true => Err("Request has expired"),
        false => Ok(id),
    }
}

fn parse(path: &str) -> Option<Asked> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let segments: Vec<String> = path
        .trim_start_matches('/')
        .split('/')
        .map(decode)
        .collect();
    let [kind, owner, name, revision, path @ ..] = segments.as_slice() else {
        return None;
    };
    Some(Asked {
        on: On::Cdn,
        kind: kind_named(kind)?,
        id: format!("{owner}/{name}"),
        revision: revision.clone(),
        path: path.join("/"),
    })
}

pub async fn answer(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    state.stats.request(header(request.headers(), "user-agent"));
    sleep(state.config.latency).await;
    let Some(asked) = parse(request.uri().path()) else {
        return refuse(404, "", "NoSuchKey");
    };
    let found = state.find(asked.kind, &asked.id, &asked.revision);
    let Found::Commit(_, repo) = found else {
        return refuse(404, "", "NoSuchKey");
    };
    let Some(file) = repo.files.get(&asked.path) else {
        return refuse(404, "", "NoSuchKey");
    };
    count(&state, &asked, file.content.size(), &request);
    let signed = match check(&state, &request) {
        Ok(signed) => signed,
        Err(cause) => return refuse(403, "", cause),
    };
    let fault = state.faults.strike(On::Cdn, &asked.path);
    if let Some(answer) = fail(fault.as_ref()).await {
        return answer;
    }
    let giving = Giving {
        state: state.clone(),
        giver: Giver::Cdn,
        repo: name(asked.kind, &asked.id),
        path: asked.path,
        file: file.clone(),
        signed,
        fault,
    };
    giving.answer(request.headers())
}

fn count(state: &State, asked: &Asked, size: u64, request: &Request) {
    let key = name(asked.kind, &asked.id);
    let headers = request.headers();
    let range = header(headers, "range")
        .and_then(|text| super::body::parse_range(text, size))
        .unwrap_or(0..size);
    let authorized = headers.contains_key("authorization");
    state.stats.operation(&key, On::Cdn.name());
    state.stats.cdn(&key, &asked.path, size, &range, authorized);
}
