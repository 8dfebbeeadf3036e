//! Volumes: how one is named, what its context says, what is remembered of it.
//!
//! The identifier is a digest of the name that the claim's volume gets, so a repeated creation cannot mint
//! a second one. All that a node needs stands in the volume context; the specification bounds it to
//! 128 bytes a value and 4 KiB in all, and what does not fit is refused when the volume is created.

use super::parameters::{self, Author, Options, ParameterError, Words};
use super::records::RecordError;
use crate::model::view::ViewError;
use crate::model::{Listing, Pin, Reference, Revision, View};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// Words that only a context has: what the controller found out.
const FOUND: [&str; 4] = ["commit", "subdir", "bytes", "files"];

/// The specification's bound for a string.
const STRING_BYTES_MAX: usize = 128;

/// 32 hex digits: 128 bits of the name's digest.
pub(super) fn volume_id(name: &str) -> String {
    let digest = blake3::derive_key("model-p2p 2026 volume id", name.as_bytes());
    hex::encode(&digest[..16])
}

/// What a volume's words ask for, before any hub was asked.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) subject: Subject,
    pub(super) options: Options,
}

/// Which revision.
#[derive(Debug)]
pub(super) enum Subject {
    /// To be resolved.
    Reference(Reference),
    /// Resolved by the controller.
    Pinned(Pin, View),
}

impl Wish {
    /// Reads the parameters of a new volume.
    pub(super) fn of_parameters(words: &Words, author: Author) -> Result<Wish, ParameterError> {
        parameters::check_words(words, &[])?;
        Ok(Wish {
            subject: Subject::Reference(parameters::reference(words, author)?),
            options: parameters::options(words)?,
        })
    }

    /// Reads a volume context: the controller's, an administrator's or a pod's.
    pub(super) fn of_context(words: &Words, author: Author) -> Result<Wish, ParameterError> {
        let Some(commit) = words.get("commit").filter(|_| author == Author::Admin) else {
            return Wish::of_parameters(words, author);
        };
        parameters::check_words(words, &FOUND)?;
        let options = parameters::options(words)?;
        let view = options.view(words.get("subdir").cloned());
        let pin = pinned(words, commit)?;
        Ok(Wish {
            subject: Subject::Pinned(pin, view),
            options,
        })
    }
}

/// The context's `model` is the pin's repository to the letter: what the user asked for stands in `revision`
/// and `subdir`.
fn pinned(words: &Words, commit: &str) -> Result<Pin, ParameterError> {
    let wrong = |cause: String| ParameterError::Wrong {
        name: "commit",
        cause,
    };
    let mut words = words.clone();
    words.remove("revision");
    let repository = parameters::reference(&words, Author::Admin)?;
    if repository.revision.is_some() {
        return Err(wrong(
            "stands beside a model with a revision: leave one of them out".into(),
        ));
    }
    let revision: Revision = commit
        .parse()
        .map_err(|error: crate::model::revision::NotARevision| wrong(error.to_string()))?;
    Ok(Pin {
        repository,
        revision,
    })
}

/// The part of the pinned listing that a reference and its options show. Where the pin kept the folder, the
/// listing begins there already.
pub(super) fn view(reference: &Reference, pin: &Pin, options: &Options) -> View {
    match pin.repository.subdir {
        Some(_) => options.view(None),
        None => options.view(reference.subdir.clone()),
    }
}

/// Bytes and files that a view shows.
pub(super) fn measure(listing: &Listing, view: &View) -> Result<(u64, u64), ViewError> {
    let shown = view.select(listing)?;
    let bytes = shown.iter().map(|(_, entry)| entry.size).sum();
    Ok((bytes, shown.len() as u64))
}

/// The context of a created volume: the wish as it was spelled, and what it was resolved to.
pub(super) fn context(
    words: &Words,
    reference: &Reference,
    pin: &Pin,
    view: &View,
    (bytes, files): (u64, u64),
) -> Result<Words, ParameterError> {
    let mut context = words.clone();
    let mut put = |name: &str, value: String| context.insert(name.to_owned(), value);
    // The hub stands in `endpoint`, as it was asked for.
    let named = Reference {
        hub: None,
        ..pin.repository.clone()
    };
    put("model", named.to_string());
    put("commit", pin.revision.to_string());
    put("bytes", bytes.to_string());
    put("files", files.to_string());
    if let Some(revision) = &reference.revision {
        put("revision", revision.clone());
    }
    if let Some(subdir) = &view.subdir {
        put("subdir", subdir.clone());
    }
    parameters::check_size(&context, STRING_BYTES_MAX)?;
    Ok(context)
}

/// The words of a clone: all that its source's context says, with the asker's own options on top. It shows
/// the source's pin; to ask for another model is an error.
pub(super) fn cloned(source: &Words, own: Words) -> Result<Words, ParameterError> {
    parameters::check_words(&own, &[])?;
    let told = |name: &str| source.get(name).cloned();
    let there = parameters::reference(source, Author::Admin)?;
    let mut asked = own.clone();
    for name in ["model", "endpoint"] {
        if let Some(value) = source.get(name) {
            asked.entry(name.into()).or_insert(value.clone());
        }
    }
    let asked = parameters::reference(&asked, Author::Admin)?;
    let fits =
        |asked: Option<String>, there: &[Option<String>]| asked.is_none() || there.contains(&asked);
    let same = told("commit").is_some()
        && asked.repository() == there.repository()
        && fits(asked.revision, &[told("revision"), told("commit")])
        && fits(asked.subdir, &[told("subdir"), there.subdir]);
    if !same {
        return Err(ParameterError::Wrong {
            name: "model",
            cause: "is not the one that the cloned volume shows: leave it out".into(),
        });
    }
    let mut words = source.clone();
    words.extend(
        own.into_iter()
            .filter(|(name, _)| !["model", "revision"].contains(&&**name)),
    );
    Ok(words)
}

/// Whether a stored context is what these words would be answered with, size aside.
pub(super) fn answers(words: &Words, wish: &Wish, stored: &Words) -> Result<bool, ParameterError> {
    let Subject::Pinned(pin, _) = Wish::of_context(stored, Author::Admin)?.subject else {
        return Ok(false);
    };
    let again = match &wish.subject {
        Subject::Reference(asked) if asked.repository() != pin.repository.repository() => {
            return Ok(false);
        }
        Subject::Reference(asked) => context(
            words,
            asked,
            &pin,
            &view(asked, &pin, &wish.options),
            (0, 0),
        )?,
        Subject::Pinned(..) => words.clone(),
    };
    let sizeless = |context: &Words| -> Words {
        let mut context = context.clone();
        context.retain(|name, _| !["bytes", "files"].contains(&name.as_str()));
        context
    };
    Ok(sizeless(&again) == sizeless(stored))
}

/// How many bytes a context says that its volume shows.
pub(super) fn bytes(context: &Words) -> u64 {
    let bytes = context.get("bytes").and_then(|bytes| bytes.parse().ok());
    bytes.unwrap_or_default()
}

/// What a controller remembers of a volume: enough to repeat its answer and to see a different question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Created {
    pub(super) parameters: Words,
    /// The volume it was cloned from.
    #[serde(default)]
    pub(super) source: Option<String>,
    pub(super) capacity_bytes: i64,
    pub(super) context: Words,
}

/// What a node remembers of a published volume: the words it was asked with, the pin they stand
/// for, and where it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    pub(super) words: Words,
    /// `hf://owner/name@COMMIT`
    pub(super) pin: String,
    /// Where it is shown, to be shown there again by the next process.
    #[serde(default)]
    pub(super) targets: Vec<PathBuf>,
    /// The words are a pod's own.
    #[serde(default)]
    pub(super) is_inline: bool,
    /// The name under which seeds keep the pin, for a volume that ends with its pod.
    #[serde(default)]
    pub(super) kept_as: Option<String>,
}

pub(super) fn encode(name: &str, record: &impl Serialize) -> Result<Vec<u8>, RecordError> {
    serde_json::to_vec(record).map_err(|cause| unreadable(name, cause))
}

pub(super) fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, RecordError> {
    serde_json::from_slice(bytes).map_err(|cause| unreadable(name, cause))
}

pub(super) fn unreadable(name: &str, cause: impl ToString) -> RecordError {
    RecordError::Content {
        name: name.to_owned(),
        cause: cause.to_string(),
    }
}
