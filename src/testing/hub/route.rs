//! The hub's own routes: revision, tree, auth-check, resolve.

use super::body::Giving;
use super::fault::{FaultKind, On};
use super::refuse::{Answer, fail, json, no_repo, redirect, refuse, turn_away};
use super::repo::{HubFile, TestRepo};
use super::server::{Found, State, name};
use super::stats::Giver;
use super::{admin, cdn as cdn_routes};
use crate::model::Kind;
use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::serve::{Listener, ListenerExt};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json as value};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::time::sleep;

pub fn hub(state: Arc<State>) -> Router {
    Router::new().fallback(answer).with_state(state)
}

pub fn cdn(state: Arc<State>) -> Router {
    Router::new().fallback(cdn_routes::answer).with_state(state)
}

/// Answers leave at once: heads of small files would wait for the kernel's timer.
pub fn quick(listener: TcpListener) -> impl Listener<Addr = std::net::SocketAddr> {
    listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    })
}

/// What a request is about.
pub struct Asked {
    pub on: On,
    pub kind: Kind,
    pub id: String,
    pub revision: String,
    pub path: String,
}

async fn answer(Shared(state): Shared<Arc<State>>, request: Request) -> Answer {
    if request.uri().path().starts_with("/_test/") {
        return admin::answer(&state, request).await;
    }
    state.stats.request(header(request.headers(), "user-agent"));
    sleep(state.config.latency).await;
    let Some(asked) = parse(request.uri().path()) else {
        return refuse(
            404,
            "",
            "Sorry, we can't find the page you are looking for.",
        );
    };
    state
        .stats
        .operation(&name(asked.kind, &asked.id), asked.on.name());
    let fault = state.faults.strike(asked.on, &asked.path);
    if let Some(answer) = fail(fault.as_ref()).await {
        return answer;
    }
    route(&state, &asked, &request, fault)
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn route(state: &Arc<State>, asked: &Asked, request: &Request, fault: Option<FaultKind>) -> Answer {
    let headers = request.headers();
    let token = header(headers, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    let (commit, repo) = match state.find(asked.kind, &asked.id, &asked.revision) {
        Found::Renamed(new) => {
            let target = request.uri().to_string().replacen(&asked.id, &new, 1);
            return redirect(StatusCode::TEMPORARY_REDIRECT, &target);
        }
        Found::NoRepo => return no_repo(token),
        Found::NoRevision(repo) => {
            let refused = turn_away(state, &repo, token, false);
            let missing = || refuse(404, "RevisionNotFound", "Invalid rev id");
            return refused.unwrap_or_else(missing);
        }
        Found::Commit(commit, repo) => (commit, repo),
    };
    let content = !matches!(asked.on, On::Revision | On::Tree);
    if let Some(refused) = turn_away(state, &repo, token, content) {
        return refused;
    }
    match asked.on {
        On::Revision => json(&info(&repo, &commit)),
        On::Tree => tree(state, &repo, request, fault),
        On::AuthCheck if !state.config.auth_check => refuse(404, "", "Not Found"),
        On::AuthCheck => json(&value!({})),
        _ => resolve(state, asked, &commit, &repo, headers, fault),
    }
}

/// Splits a path as it came, so that an encoded slash stays inside its name.
fn parse(path: &str) -> Option<Asked> {
    let segments: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let asked = |on, kind, owner: &str, name: &str, revision: &str, path: &[&str]| {
        Some(Asked {
            on,
            kind: kind_named(kind)?,
            id: format!("{owner}/{name}"),
            revision: revision.to_owned(),
            path: path.join("/"),
        })
    };
    match segments.as_slice() {
        [
            "api",
            "resolve-cache",
            kind,
            owner,
            name,
            revision,
            path @ ..,
        ] => asked(On::ResolveCache, kind, owner, name, revision, path),
        ["api", kind, owner, name] => asked(On::Revision, kind, owner, name, "main", &[]),
        ["api", kind, owner, name, "revision", revision] => {
            asked(On::Revision, kind, owner, name, revision, &[])
        }
        ["api", kind, owner, name, "tree", revision, ..] => {
            asked(On::Tree, kind, owner, name, revision, &[])
        }
        ["api", kind, owner, name, "auth-check"] => {
            asked(On::AuthCheck, kind, owner, name, "main", &[])
        }
        [owner, name, "resolve", revision, path @ ..] => {
            asked(On::Resolve, "models", owner, name, revision, path)
        }
        [kind, owner, name, "resolve", revision, path @ ..] => {
            asked(On::Resolve, kind, owner, name, revision, path)
        }
        _ => None,
    }
}

pub fn kind_named(plural: &str) -> Option<Kind> {
    [Kind::Model, Kind::Dataset, Kind::Space]
        .into_iter()
        .find(|kind| kind.plural() == plural)
}

fn info(repo: &TestRepo, commit: &str) -> Value {
    let files = repo.files.keys();
    let siblings: Vec<Value> = files.map(|path| value!({ "rfilename": path })).collect();
    value!({
        "id": repo.id,
        "modelId": repo.id,
        "sha": commit,
        "private": repo.private,
        "gated": if repo.gated { value!("auto") } else { value!(false) },
        "disabled": false,
        "tags": [],
        "siblings": siblings,
    })
}

/// One page of rows; `cursor` is the number of the first.
fn tree(state: &State, repo: &TestRepo, request: &Request, fault: Option<FaultKind>) -> Answer {
    let query = request.uri().query().unwrap_or_default();
    let cursor = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "cursor")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let rows = rows(repo);
    let end = (cursor + state.config.page.max(1)).min(rows.len());
    let mut answer = json(&rows.get(cursor..end).unwrap_or_default());
    if end < rows.len() {
        let own = format!(
            "http://{}",
            header(request.headers(), "host").unwrap_or_default()
        );
        let (base, next) = match fault {
            Some(FaultKind::NextOn(host)) => (host, end),
            Some(FaultKind::NextLoop) => (own, cursor),
            _ => (own, end),
        };
        let path = request.uri().path();
        let link =
            format!("<{base}{path}?recursive=true&expand=false&cursor={next}>; rel=\"next\"");
        set(&mut answer, "link", &link);
    }
    answer
}

fn rows(repo: &TestRepo) -> Vec<Value> {
    let parents = |path: &str| {
        let ends = path.match_indices('/').map(|(at, _)| at);
        ends.map(|at| path[..at].to_owned()).collect::<Vec<_>>()
    };
    let directories: BTreeSet<String> = repo.files.keys().flat_map(|path| parents(path)).collect();
    let directory = |path: String| value!({ "type": "directory", "path": path, "size": 0, "oid": "0".repeat(40) });
    let mut rows: Vec<Value> = directories.into_iter().map(directory).collect();
    rows.extend(repo.files.iter().map(|(path, file)| row(path, file)));
    rows
}

fn row(path: &str, file: &HubFile) -> Value {
    let (size, digest) = (
        file.content.size(),
        file.claim.as_ref().unwrap_or(&file.digest),
    );
    match file.lfs {
        false => value!({ "type": "file", "path": path, "size": size, "oid": digest }),
        true => value!({
            "type": "file", "path": path, "size": size,
            // The pointer's, not the content's: a reader that checks it is wrong.
            "oid": "b".repeat(40),
            "lfs": { "oid": digest, "size": size, "pointerSize": 134 },
        }),
    }
}

fn set(answer: &mut Answer, name: &'static str, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        answer.headers_mut().insert(name, value);
    }
}

/// A small file, or the way to a large one.
fn resolve(
    state: &Arc<State>,
    asked: &Asked,
    commit: &str,
    repo: &TestRepo,
    headers: &HeaderMap,
    fault: Option<FaultKind>,
) -> Answer {
    let key = name(asked.kind, &asked.id);
    let commit_said = match fault {
        Some(FaultKind::WrongCommit) => "c".repeat(40),
        _ => commit.to_owned(),
    };
    let Some(file) = repo.files.get(&asked.path) else {
        let mut answer = refuse(404, "EntryNotFound", "Entry not found");
        set(&mut answer, "x-repo-commit", &commit_said);
        return answer;
    };
    let size = file.content.size();
    state.stats.resolved(&key, &asked.path, size);
    let mut answer = if file.lfs {
        let mut answer = redirect(StatusCode::FOUND, &cdn_routes::sign(state, asked, commit));
        set(&mut answer, "x-linked-size", &size.to_string());
        set(
            &mut answer,
            "x-linked-etag",
            &format!("\"{}\"", file.digest),
        );
        answer
    } else if state.config.resolve_cache && asked.on == On::Resolve {
        let path = cdn_routes::path(asked, commit);
        let target = format!("/api/resolve-cache{path}");
        redirect(StatusCode::TEMPORARY_REDIRECT, &target)
    } else {
        let giving = Giving {
            state: state.clone(),
            giver: Giver::Hub,
            repo: key,
            path: asked.path.clone(),
            file: file.clone(),
            signed: 0,
            fault,
        };
        giving.answer(headers)
    };
    set(&mut answer, "x-repo-commit", &commit_said);
    set(&mut answer, "etag", &format!("\"{}\"", file.digest));
    answer
}
