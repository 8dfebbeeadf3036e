//! The test hub's own routes, for tests in other processes: counters, faults, reset.

use super::fault::Fault;
use super::refuse::{Answer, json, refuse};
use super::repo::TestRepo;
use super::server::{Found, State};
use crate::model::Kind;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::Method;

const BODY_BYTES_MAX: usize = 1 << 20;

/// `GET /_test/stats`, `POST /_test/reset`, `POST /_test/faults` with one fault as JSON, `POST /_test/revoke`
/// with a token, `POST /_test/move` with `{"repo": "owner/name"}`: a commit with one more file becomes the
/// branch's.
pub async fn answer(state: &State, request: Request) -> Answer {
    match (request.method().clone(), request.uri().path()) {
        (Method::GET, "/_test/stats") => json(&state.stats.snapshot()),
        (Method::POST, "/_test/reset") => {
            state.faults.clear();
            state.stats.reset();
            json(&serde_json::json!({}))
        }
        (Method::POST, "/_test/revoke") => {
            let body = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
            state.revoke(&String::from_utf8_lossy(&body.unwrap_or_default()));
            json(&serde_json::json!({}))
        }
        (Method::POST, "/_test/faults") => add(state, request).await,
        (Method::POST, "/_test/move") => move_branch(state, request).await,
        _ => refuse(404, "", "no such test route"),
    }
}

async fn move_branch(state: &State, request: Request) -> Answer {
    let body = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let asked: serde_json::Value =
        serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let id = asked["repo"].as_str().unwrap_or_default();
    match state.find(Kind::Model, id, "main") {
        Found::Commit(commit, repo) => {
            let moved = TestRepo::clone(&repo).file("moved.txt", commit);
            json(&serde_json::json!({ "commit": state.put(moved) }))
        }
        _ => refuse(404, "", "no such repository"),
    }
}

async fn add(state: &State, request: Request) -> Answer {
    let body = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.unwrap_or_default();
    match serde_json::from_slice::<Fault>(&body) {
        Ok(fault) => {
            state.faults.add(fault);
            json(&serde_json::json!({}))
        }
        Err(error) => refuse(400, "", &error.to_string()),
    }
}
