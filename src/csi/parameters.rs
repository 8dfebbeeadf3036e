//! What a StorageClass, a PersistentVolume or a pod may ask for, parsed.
//!
//! One table of words for all of them. A pod's words are less trusted: its author chooses neither a hub nor
//! a path of the seed's machine. An unknown word is an error that lists the known ones, and every error
//! names the word it is about.

use crate::model::hub_url::HubUrlError;
use crate::model::reads::parse_timeout;
use crate::model::{HubUrl, Prefetch, Reads, Reference, Scheme, View};
use std::collections::{BTreeMap, HashMap};

/// Words and values, sorted so that two equal wishes are equal maps.
pub(super) type Words = BTreeMap<String, String>;

/// The public words, in the order an error lists them.
const KNOWN: [&str; 9] = [
    "model",
    "revision",
    "include",
    "exclude",
    "layout",
    "prefetch",
    "verify",
    "readTimeout",
    "endpoint",
];

/// Kubernetes puts its own keys beside the user's: names of the claim and pod, the provisioner's identity.
const FOREIGN: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];

/// Set by kubelet, and only by it, for a volume written into a pod.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// The map that the specification allows, 4 KiB, bounds what a pattern may cost us.
pub(super) const WORDS_BYTES_MAX: usize = 4096;

/// Who wrote the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// An administrator: StorageClass or PersistentVolume.
    Admin,
    /// Whoever may create a pod.
    Pod,
}

impl Author {
    pub(super) fn of_context(context: &HashMap<String, String>) -> Author {
        match context.get(EPHEMERAL).map(String::as_str) {
            Some("true") => Author::Pod,
            _ => Author::Admin,
        }
    }
}

/// How a revision is shown; what is left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) prefetch: Prefetch,
    pub(super) reads: Reads,
}

impl Options {
    /// The part of a revision that is shown, with `subdir` as its root.
    pub(super) fn view(&self, subdir: Option<String>) -> View {
        View {
            subdir,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            reads: self.reads,
        }
    }
}

/// A parameter that cannot be honoured.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    #[error("parameter `{name}` is not known: known are {}", KNOWN.join(", "))]
    Unknown { name: String },
    #[error("parameter `{name}` is missing: {remedy}")]
    Missing {
        name: &'static str,
        remedy: &'static str,
    },
    #[error("annotation model-p2p.dev/{name} of the claim: {source}")]
    Annotation {
        name: String,
        source: Box<ParameterError>,
    },
    #[error("parameter `{name}`: {cause}")]
    Wrong { name: &'static str, cause: String },
    #[error("parameter `{name}` is not allowed in a pod or claim: {remedy}")]
    NotInPods {
        name: &'static str,
        remedy: &'static str,
    },
    #[error(
        "parameter `{name}`: {bytes} bytes are more than the {limit} that CSI allows: shorten it"
    )]
    TooLong {
        name: String,
        bytes: usize,
        limit: usize,
    },
}

fn wrong(name: &'static str, cause: impl Into<String>) -> ParameterError {
    ParameterError::Wrong {
        name,
        cause: cause.into(),
    }
}

impl ParameterError {
    /// The word it is about.
    pub(super) fn name(&self) -> &str {
        match self {
            ParameterError::Unknown { name }
            | ParameterError::Annotation { name, .. }
            | ParameterError::TooLong { name, .. } => name,
            ParameterError::Missing { name, .. }
            | ParameterError::Wrong { name, .. }
            | ParameterError::NotInPods { name, .. } => name,
        }
    }
}

/// The user's words, without those of Kubernetes.
pub(super) fn own_words(all: HashMap<String, String>) -> Words {
    let foreign = |key: &str| FOREIGN.iter().any(|prefix| key.starts_with(prefix));
    all.into_iter().filter(|(key, _)| !foreign(key)).collect()
}

/// Refuses unknown words and more of them than the specification allows.
pub(super) fn check_words(words: &Words, extra: &[&str]) -> Result<(), ParameterError> {
    let known = |name: &str| KNOWN.contains(&name) || extra.contains(&name);
    if let Some(name) = words.keys().find(|name| !known(name)) {
        return Err(ParameterError::Unknown {
            name: name.chars().take(64).collect(),
        });
    }
    check_size(words, WORDS_BYTES_MAX)
}

/// Whether the map is at most 4 KiB in all and no value is longer than `value_bytes_max`.
pub(super) fn check_size(words: &Words, value_bytes_max: usize) -> Result<(), ParameterError> {
    let all = |(name, value): (&String, &String)| name.len() + value.len();
    let Some((name, value)) = words.iter().max_by_key(|(_, value)| value.len()) else {
        return Ok(());
    };
    let (bytes, limit) = match words.iter().map(all).sum::<usize>() {
        _ if value.len() > value_bytes_max => (value.len(), value_bytes_max),
        sum if sum > WORDS_BYTES_MAX => (sum, WORDS_BYTES_MAX),
        _ => return Ok(()),
    };
    Err(ParameterError::TooLong {
        name: name.clone(),
        bytes,
        limit,
    })
}

/// The reference that `model` and `revision` name together.
pub(super) fn reference(words: &Words, author: Author) -> Result<Reference, ParameterError> {
    let text = words.get("model").ok_or(ParameterError::Missing {
        name: "model",
        remedy: "name one, for example hf://Qwen/Qwen3-8B@main, in the StorageClass's parameters or the \
                 volume's attributes, or annotate the claim with `model-p2p.dev/model`",
    })?;
    let reference: Reference =
        text.parse()
            .map_err(|error: crate::model::reference::ReferenceError| {
                wrong("model", error.to_string())
            })?;
    let hub = endpoint(words, author)?;
    if reference.hub.is_some() {
        let cause =
            "names its hub: use the parameter `endpoint` of a StorageClass or PersistentVolume";
        return Err(wrong("model", cause));
    }
    if hub.is_some() && reference.scheme != Scheme::HuggingFace {
        return Err(wrong(
            "endpoint",
            "is for hf:// references alone: leave it out",
        ));
    }
    let reference = Reference { hub, ..reference };
    if author == Author::Pod && reference.scheme == Scheme::File {
        return Err(ParameterError::NotInPods {
            name: "model",
            remedy: "name a model of a hub; file:// needs a PersistentVolume or a StorageClass",
        });
    }
    match words.get("revision").map(String::as_str) {
        None | Some("") => Ok(reference),
        Some(revision) => at(&reference, revision),
    }
}

/// A revision that a reference cannot spell is none.
fn at(reference: &Reference, revision: &str) -> Result<Reference, ParameterError> {
    let asked = reference.at(revision);
    match asked.to_string().parse::<Reference>() {
        Ok(parsed) if parsed == asked => Ok(asked),
        Ok(_) => Err(wrong(
            "revision",
            format!("{reference} has no revisions: leave it out"),
        )),
        Err(error) => Err(wrong("revision", error.to_string())),
    }
}

/// Everything but the reference and its hub.
pub(super) fn options(words: &Words) -> Result<Options, ParameterError> {
    layout(words)?;
    let options = Options {
        include: list(words, "include"),
        exclude: list(words, "exclude"),
        prefetch: prefetch(words)?,
        reads: reads(words)?,
    };
    for (name, patterns) in [("include", &options.include), ("exclude", &options.exclude)] {
        let view = View {
            include: patterns.clone(),
            ..View::default()
        };
        view.check()
            .map_err(|error| wrong(name, error.to_string()))?;
    }
    Ok(options)
}

/// A hub chosen by a pod would make the seed call any address. One chosen by an administrator must be on the
/// seeds' list as well; what no list may hold is refused here.
pub(super) fn endpoint(words: &Words, author: Author) -> Result<Option<HubUrl>, ParameterError> {
    match (words.get("endpoint"), author) {
        (None, _) => Ok(None),
        (Some(_), Author::Pod) => Err(ParameterError::NotInPods {
            name: "endpoint",
            remedy: "set it in a StorageClass or PersistentVolume",
        }),
        (Some(text), Author::Admin) => text
            .parse()
            .map(Some)
            .map_err(|error: HubUrlError| wrong("endpoint", error.to_string())),
    }
}

fn layout(words: &Words) -> Result<(), ParameterError> {
    match words.get("layout").map_or("plain", String::as_str) {
        "plain" => Ok(()),
        "hf-cache" => Err(wrong(
            "layout",
            "hf-cache is not available in this release: use plain",
        )),
        other => Err(one_of("layout", other, "plain or hf-cache")),
    }
}

fn prefetch(words: &Words) -> Result<Prefetch, ParameterError> {
    let word = words.get("prefetch").map_or("auto", String::as_str);
    word.parse()
        .map_err(|_| one_of("prefetch", word, "demand, auto or all"))
}

fn reads(words: &Words) -> Result<Reads, ParameterError> {
    let word = words.get("verify").map_or("piece", String::as_str);
    let verify = word.parse();
    let timeout = words.get("readTimeout").map(|text| parse_timeout(text));
    Ok(Reads {
        verify: verify.map_err(|_| one_of("verify", word, "piece or strict"))?,
        timeout: timeout
            .transpose()
            .map_err(|cause| wrong("readTimeout", cause))?,
    })
}

fn one_of(name: &'static str, value: &str, known: &str) -> ParameterError {
    let value: String = value.chars().take(64).collect();
    wrong(name, format!("`{value}` is not known: it is {known}"))
}

/// Comma-separated patterns.
fn list(words: &Words, name: &str) -> Vec<String> {
    let text = words.get(name).map_or("", String::as_str);
    text.split(',')
        .map(str::trim)
        .filter(|pattern| !pattern.is_empty())
        .map(str::to_owned)
        .collect()
}
