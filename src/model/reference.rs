//! References: how a user names a model.
//!
//! `hf://[models|datasets|spaces/]OWNER/NAME[@REV][/SUBDIR]`, `modelscope://` alike, `s3://`, `gs://` and
//! `az://BUCKET[/PREFIX]`, `oci://HOST/REPO[:TAG|@DIGEST]`, `https://HOST/PATH`, `file:///PATH`.
//! A revision that holds `/` is written `%2F`; only `refs/pr/N` and `refs/convert/NAME` may stand as they
//! are, as huggingface_hub reads them. A repository of another hub than the configured one carries that
//! hub's address, `hf(https://hub.example.com)://OWNER/NAME`, so that nothing of it is taken for the same
//! name's at the other; where users may name such a hub is not decided here. Printing gives back the shortest text that parses to the same value.

mod parse;

use super::HubUrl;
use super::secrets::shown;
use parse::{parse, split_hub};
use std::fmt;
use std::str::FromStr;

/// Where a model lives. Each scheme has one hub client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    HuggingFace,
    ModelScope,
    S3,
    Gcs,
    Azure,
    Oci,
    Https,
    File,
}

/// Each scheme's prefix and an example that a wrong reference's error shows.
const SCHEMES: [(Scheme, &str, &str); 8] = [
    (Scheme::HuggingFace, "hf", "hf://Qwen/Qwen3-8B@main"),
    (
        Scheme::ModelScope,
        "modelscope",
        "modelscope://Qwen/Qwen3-8B@master",
    ),
    (Scheme::S3, "s3", "s3://bucket/models/qwen3-8b"),
    (Scheme::Gcs, "gs", "gs://bucket/models/qwen3-8b"),
    (Scheme::Azure, "az", "az://container/models/qwen3-8b"),
    (
        Scheme::Oci,
        "oci",
        "oci://registry.example.com/models/qwen3:8b",
    ),
    (
        Scheme::Https,
        "https",
        "https://example.com/models/qwen3-8b.gguf",
    ),
    (Scheme::File, "file", "file:///srv/models/qwen3-8b"),
];

impl Scheme {
    pub fn name(self) -> &'static str {
        SCHEMES[self as usize].1
    }

    fn example(self) -> &'static str {
        SCHEMES[self as usize].2
    }
}

/// What kind of repository, on hubs that tell them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    #[default]
    Model,
    Dataset,
    Space,
}

impl Kind {
    /// The plural that hub APIs and references use.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
            Kind::Space => "spaces",
        }
    }

    fn from_plural(word: &str) -> Option<Kind> {
        [Kind::Model, Kind::Dataset, Kind::Space]
            .into_iter()
            .find(|kind| kind.plural() == word)
    }
}

/// A parsed reference. `repo` is the hub's own name for the repository: `owner/name`, a bucket, a registry
/// path, a host and path, or an absolute directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub scheme: Scheme,
    /// A hub that is not the scheme's configured one.
    pub hub: Option<HubUrl>,
    pub kind: Kind,
    pub repo: String,
    /// Branch, tag, commit or digest as the user wrote it; `None` is the hub's default.
    pub revision: Option<String>,
    /// A folder or prefix inside the repository, without slashes at its ends.
    pub subdir: Option<String>,
}

/// Why a text is not a reference: the part that is wrong, and one that is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reference `{text}`: {part} {cause}; an example that works: {example}")]
pub struct ReferenceError {
    pub text: String,
    pub part: &'static str,
    pub cause: String,
    pub example: &'static str,
}

type Problem = (&'static str, String);

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let (name, _) = text.split_once([':', '(']).unwrap_or_default();
        let parsed = split_hub(text).and_then(|(text, hub)| Ok((parse(&text)?, hub)));
        let parsed = parsed.map(|(reference, hub)| Reference { hub, ..reference });
        parsed.map_err(|(part, cause)| {
            let (text, cause) = shown(text, cause, is_repository);
            ReferenceError {
                text,
                part,
                cause,
                example: scheme_named(name).unwrap_or(Scheme::HuggingFace).example(),
            }
        })
    }
}

/// A repository of a hub holds no credentials, whatever revision follows it.
fn is_repository(text: &str) -> bool {
    let parsed = split_hub(text).and_then(|(text, _)| parse(&text));
    parsed.is_ok_and(|reference| reference.has_kinds())
}

fn scheme_named(name: &str) -> Option<Scheme> {
    SCHEMES
        .iter()
        .find(|(_, known, _)| *known == name)
        .map(|(scheme, ..)| *scheme)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme.name())?;
        if let Some(hub) = &self.hub {
            write!(f, "({hub})")?;
        }
        f.write_str("://")?;
        if self.kind != Kind::Model
            || Kind::from_plural(self.repo.split('/').next().unwrap_or_default()).is_some()
                && self.has_kinds()
        {
            write!(f, "{}/", self.kind.plural())?;
        }
        f.write_str(&self.repo)?;
        if let Some(revision) = &self.revision {
            let mark = if self.scheme == Scheme::Oci && !revision.starts_with("sha256:") {
                ':'
            } else {
                '@'
            };
            write!(f, "{mark}{}", printed_revision(revision))?;
        }
        match &self.subdir {
            Some(subdir) => write!(f, "/{subdir}"),
            None => Ok(()),
        }
    }
}

fn printed_revision(revision: &str) -> String {
    let eager = revision
        .strip_prefix("refs/pr/")
        .or_else(|| revision.strip_prefix("refs/convert/"))
        .is_some_and(|id| !id.contains('/'));
    match eager {
        true => revision.to_owned(),
        false => revision.replace('%', "%25").replace('/', "%2F"),
    }
}

impl Reference {
    fn has_kinds(&self) -> bool {
        matches!(self.scheme, Scheme::HuggingFace | Scheme::ModelScope)
    }

    /// The repository alone, without revision and subdirectory: what rate limits, tokens and owners hang on.
    pub fn repository(&self) -> Reference {
        Reference {
            revision: None,
            subdir: None,
            ..self.clone()
        }
    }

    /// The same repository at another revision.
    pub fn at(&self, revision: &str) -> Reference {
        Reference {
            revision: Some(revision.to_owned()),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(text: &str) -> Reference {
        text.parse().expect(text)
    }

    #[test]
    fn every_scheme_parses_and_prints_its_example() {
        for (scheme, _, example) in SCHEMES {
            let parsed = reference(example);
            assert_eq!(parsed.scheme, scheme);
            assert_eq!(parsed.to_string(), example);
        }
    }

    #[test]
    fn a_repository_may_name_kind_revision_and_subdirectory() {
        let parsed = reference("hf://datasets/owner/name@refs/pr/3/data/train");
        assert_eq!(
            (parsed.kind, parsed.repo.as_str()),
            (Kind::Dataset, "owner/name")
        );
        assert_eq!(parsed.revision.as_deref(), Some("refs/pr/3"));
        assert_eq!(parsed.subdir.as_deref(), Some("data/train"));
        let parsed = reference("hf://owner/name@feature%2Fx/onnx/");
        assert_eq!(parsed.revision.as_deref(), Some("feature/x"));
        assert_eq!(parsed.subdir.as_deref(), Some("onnx"));
        assert_eq!(
            reference("hf://models/owner/name").to_string(),
            "hf://owner/name"
        );
        assert_eq!(
            reference("oci://host:5000/a/b:v1").revision.as_deref(),
            Some("v1")
        );
        assert_eq!(reference("oci://host:5000/a/b").revision, None);
    }

    #[test]
    fn a_wrong_reference_names_the_part_and_shows_a_right_one() {
        for (text, part) in [
            ("Qwen/Qwen3-8B", "scheme"),
            ("huggingface://a/b", "scheme"),
            ("hf://", "repository"),
            ("hf://gpt2", "repository"),
            ("hf://a b/c", "owner"),
            ("hf:///name", "owner"),
            ("hf://owner/", "name"),
            ("hf://owner/../x", "name"),
            ("hf://owner/name@", "revision"),
            ("hf://owner/name@a..b", "revision"),
            ("hf://owner/name@a%2", "revision"),
            ("hf://owner/name/../etc", "subdirectory"),
            ("hf://owner/name//x", "subdirectory"),
            ("s3:///key", "bucket"),
            ("oci://justhost", "repository"),
            ("oci://h/r@sha256:zz", "tag or digest"),
            ("https://user:pw@host/file", "host"),
            ("https://host/", "path"),
            ("file://relative", "path"),
            ("file:///", "path"),
            ("file:///a/../b", "path"),
            ("hf://owner/na\nme", "text"),
            ("hf(https://h.example://o/n", "hub"),
            ("hf(http://169.254.169.254)://o/n", "hub"),
            ("hf(https://h.example)", "scheme"),
            ("s3(https://h.example)://bucket/key", "hub"),
        ] {
            let error = text.parse::<Reference>().expect_err(text);
            assert_eq!(error.part, part, "{text}: {error}");
            assert!(error.to_string().contains(error.example));
        }
    }

    #[test]
    fn an_error_does_not_repeat_credentials() {
        for text in [
            "hf(https://u:SECRET@h)://o/n",
            "hf(https://SECRET@h)://o/n@main",
            "hf(https://u:SECRET/x@h://o/n",
            "hf://u:SECRET@h/o/n",
            "hf://SECRET@h",
            "https://u:SECRET@h/file",
            "https://u:x/SECRET@h/",
            "oci://u:SECRET@h",
            "hf://u:SECRET/x@h/o",
            "hf(https://u:SECRET)@h://o/n",
            "SECRET@h://o/n",
        ] {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(!error.contains("SECRET"), "{error}");
            assert!(error.contains("…@"), "{error}");
        }
        let error = "hf://owner/name@a..b".parse::<Reference>();
        let error = error.expect_err("no branch").to_string();
        assert!(error.contains("`hf://owner/name@a..b`"), "{error}");
    }

    fn name() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}"
    }

    fn revision() -> impl Strategy<Value = Option<String>> {
        prop_oneof![
            Just(None),
            "[a-z0-9][a-z0-9%@._-]{0,8}(/[a-z0-9]{1,5})?"
                .prop_filter("git", |r| !r.contains(".."))
                .prop_map(Some),
            (1u32..99).prop_map(|n| Some(format!("refs/pr/{n}"))),
            "refs/convert/[a-z]{1,8}".prop_map(Some),
        ]
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(
            scheme in prop_oneof![Just(Scheme::HuggingFace), Just(Scheme::ModelScope)],
            hub in prop::option::of("https?://[a-z]{1,8}[.]example(:[1-9][0-9]{1,3})?(/[a-z%é]{1,15})?"),
            kind in prop_oneof![Just(Kind::Model), Just(Kind::Dataset), Just(Kind::Space)],
            owner in prop_oneof![name(), Just("models".to_owned()), Just("datasets".to_owned())],
            name in name(),
            revision in revision(),
            subdir in prop::option::of("[a-zA-Z0-9 @%#é]{1,8}(/[a-z]{1,4}){0,2}"),
        ) {
            let hub = hub.filter(|_| scheme == Scheme::HuggingFace).map(|hub| hub.parse().expect("a hub"));
            let reference = Reference { scheme, hub, kind, repo: format!("{owner}/{name}"), revision, subdir };
            prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
        }

        #[test]
        fn any_text_parses_or_explains(text in "(hf|s3|oci|file|https|x)?(://)?[ -~é]{0,40}") {
            match text.parse::<Reference>() {
                Ok(reference) => prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference)),
                Err(error) => prop_assert!(!error.cause.is_empty()),
            }
        }
    }
}
