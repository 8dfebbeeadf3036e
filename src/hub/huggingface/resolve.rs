//! From a reference to a pin, and whether a token may read it.

use super::errors::{File, Object, explain};
use super::{Shared, claim, list};
use crate::hub::HubError;
use crate::hub::http::{Get, Operation};
use crate::model::{Entry, FailureKind, Pin, Reference, Revision, Token};
use serde::Deserialize;

/// What users mean when they name no revision.
const DEFAULT_REVISION: &str = "main";

#[derive(Deserialize)]
struct Info {
    /// The canonical name; differs from the one asked for when the repository was renamed.
    id: Option<String>,
    sha: String,
}

/// Pins a reference. A full commit is its own pin and costs no call; whether it exists is seen when it is
/// listed.
pub async fn resolve(
    hub: &Shared,
    reference: &Reference,
    token: Option<&Token>,
) -> Result<Pin, HubError> {
    let wanted = reference.revision.as_deref().unwrap_or(DEFAULT_REVISION);
    let repository = reference.repository();
    if let Some(revision) = commit(wanted) {
        return Ok(Pin {
            repository,
            revision,
        });
    }
    let object = Object {
        endpoint: &hub.endpoint,
        repository: &repository,
        revision: wanted,
        file: None,
    };
    let url = hub.endpoint.api(&repository, "revision", wanted)?;
    let json = hub.json(Operation::Resolve, &url, token, &object).await?;
    let info: Info = json.parse(&object)?;
    let revision = commit(&info.sha).ok_or_else(|| no_commit(&object, &info.sha))?;
    Ok(Pin {
        repository: canonical(&repository, info.id.as_deref()),
        revision,
    })
}

/// Hugging Face commits are 40 hex digits; a 64-digit revision is some other hub's.
fn commit(text: &str) -> Option<Revision> {
    (text.len() == 40).then(|| text.parse().ok()).flatten()
}

fn no_commit(object: &Object<'_>, sha: &str) -> HubError {
    HubError::last(
        FailureKind::Unavailable,
        format!(
            "{}: {} gave `{sha}` where a commit belongs: check that the endpoint is a Hugging Face hub",
            object.name(),
            object.endpoint.host()
        ),
    )
}

/// The repository under the name the hub gives it, if that is one.
fn canonical(asked: &Reference, id: Option<&str>) -> Reference {
    let named = id.filter(|id| {
        let text = format!("hf://{}/{id}", asked.kind.plural());
        text.parse::<Reference>()
            .is_ok_and(|parsed| parsed.repo == *id && parsed.subdir.is_none())
    });
    Reference {
        repo: named.unwrap_or(&asked.repo).to_owned(),
        ..asked.clone()
    }
}

/// Asks `auth-check`; mirrors that lack the route are asked for the head of a file instead, for metadata of gated repositories is readable by all.
pub async fn authorize(hub: &Shared, pin: &Pin, token: Option<&Token>) -> Result<(), HubError> {
    let object = object(hub, pin);
    let url = hub.endpoint.api(&pin.repository, "auth-check", "")?;
    let get = Get {
        operation: Operation::Authorize,
        url: &url,
        token,
        range: None,
        head: false,
    };
    let known = hub
        .retried(|| async {
            let answer = hub.ask(get, &object).await?;
            match answer.status() {
                200..=299 => Ok(true),
                404 if answer.header("x-error-code").is_none() => Ok(false),
                405 => Ok(false),
                _ => Err(explain(answer, &object, token.is_some()).await),
            }
        })
        .await?;
    match known {
        true => Ok(()),
        false => authorize_by_file(hub, pin, token).await,
    }
}

async fn authorize_by_file(hub: &Shared, pin: &Pin, token: Option<&Token>) -> Result<(), HubError> {
    let Some(entry) = list::some_file(hub, pin, token).await? else {
        return Ok(());
    };
    let object = file_object(hub, pin, &entry);
    hub.retried(|| async {
        let answer = claim::head(hub, pin, &entry, token, Operation::Authorize).await?;
        match answer.status() {
            // A redirect to a signed URL is the permission; nobody needs to follow it.
            200..=399 => Ok(()),
            _ => Err(explain(answer, &object, token.is_some()).await),
        }
    })
    .await
}

/// A pin as the object of a request.
pub fn object<'a>(hub: &'a Shared, pin: &'a Pin) -> Object<'a> {
    Object {
        endpoint: &hub.endpoint,
        repository: &pin.repository,
        revision: pin.revision.as_str(),
        file: None,
    }
}

/// A file of a pin as the object of a request.
pub fn file_object<'a>(hub: &'a Shared, pin: &'a Pin, entry: &'a Entry) -> Object<'a> {
    let file = File {
        path: &entry.path,
        size: entry.size,
        digest: entry.digest,
    };
    Object {
        file: Some(file),
        ..object(hub, pin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canonical_name_must_be_a_name() {
        let asked: Reference = "hf://old/name".parse().expect("a reference");
        let name = |id| canonical(&asked, id).repo;
        assert_eq!(name(Some("new/name")), "new/name");
        for bad in [
            None,
            Some("../x"),
            Some("a/b/c"),
            Some("gpt2"),
            Some("a/b@c"),
        ] {
            assert_eq!(name(bad), "old/name", "{bad:?}");
        }
    }

    #[test]
    fn only_forty_digits_are_a_commit() {
        assert!(commit(&"a".repeat(40)).is_some());
        assert!(commit(&"a".repeat(64)).is_none());
        assert!(commit("main").is_none());
    }
}
