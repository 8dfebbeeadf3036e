//! Answers that are refusals, as the hub words them, and the faults that look like them.

use super::fault::FaultKind;
use super::repo::TestRepo;
use super::server::State;
use axum::body::Body;
use axum::http::{Response, StatusCode};

pub type Answer = Response<Body>;

/// JSON with an `error`, and the two headers that clients read.
pub fn refuse(status: u16, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "error": message }).to_string();
    let mut answer = Response::builder()
        .status(status)
        .header("content-type", "application/json; charset=utf-8")
        .header("x-error-message", message);
    if !code.is_empty() {
        answer = answer.header("x-error-code", code);
    }
    answer.body(body.into()).unwrap_or_default()
}

pub fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Response::builder()
            .header("content-type", "application/json; charset=utf-8")
            .body(body.into())
            .unwrap_or_default(),
        Err(error) => refuse(500, "", &error.to_string()),
    }
}

pub fn redirect(status: StatusCode, location: &str) -> Answer {
    Response::builder()
        .status(status)
        .header("location", location)
        .body(Body::from(format!("Redirecting to {location}")))
        .unwrap_or_default()
}

/// A repository that is missing and one that is hidden look the same.
pub fn no_repo(token: Option<&str>) -> Answer {
    match token {
        Some(_) => refuse(404, "RepoNotFound", "Repository not found"),
        None => refuse(401, "RepoNotFound", "Repository not found"),
    }
}

/// Why a token does not open a repository: its metadata, or with `content` its files too. `None` if it does.
pub fn turn_away(
    state: &State,
    repo: &TestRepo,
    token: Option<&str>,
    content: bool,
) -> Option<Answer> {
    if token.is_some_and(|token| !state.knows(token)) {
        let message = "Invalid credentials in Authorization header";
        return Some(refuse(401, "", message));
    }
    let accepted = token.is_some_and(|token| repo.accepted.iter().any(|known| known == token));
    if repo.private && !accepted {
        return Some(no_repo(token));
    }
    if repo.gated && content && !accepted {
        let status = if token.is_some() { 403 } else { 401 };
        let message = format!("Access to model {} is restricted", repo.id);
        return Some(refuse(status, "GatedRepo", &message));
    }
    None
}

/// The faults that are an answer of their own, whatever was asked.
pub async fn fail(fault: Option<&FaultKind>) -> Option<Answer> {
    match fault? {
        FaultKind::Limited { reset_s } => {
            let mut answer = refuse(429, "", "We had to rate limit you");
            let limit = format!("\"api\";r=0;t={reset_s}");
            if let Ok(value) = limit.parse() {
                answer.headers_mut().insert("ratelimit", value);
            }
            Some(answer)
        }
        FaultKind::Status(status) => Some(refuse(*status, "", "failing on order")),
        FaultKind::Html => Response::builder()
            .header("content-type", "text/html")
            .body("<html><body>Please log in</body></html>".into())
            .ok(),
        FaultKind::Redirect(location) => Some(redirect(StatusCode::FOUND, location)),
        FaultKind::Hang => std::future::pending().await,
        _ => None,
    }
}
