//! Views: which files of a listing a mount shows, and under which names.

use super::listing::{Entry, Listing};
use super::reads::Reads;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// What part of a revision is shown, and how it is read. Equal views of one pin share one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// A folder that becomes the root.
    pub subdir: Option<String>,
    /// Globs over the paths as shown; none means all.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub reads: Reads,
}

/// How much of a view is fetched before anybody reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prefetch {
    /// Only what is read.
    Demand,
    /// What lies ahead of readers.
    #[default]
    Auto,
    /// The whole view, in the background.
    All,
}

/// Each mode's word in parameters and on the command line.
const PREFETCH_WORDS: [(Prefetch, &str); 3] = [
    (Prefetch::Demand, "demand"),
    (Prefetch::Auto, "auto"),
    (Prefetch::All, "all"),
];

impl std::str::FromStr for Prefetch {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefetch, String> {
        let found = PREFETCH_WORDS.iter().find(|(_, word)| *word == text);
        found
            .map(|(mode, _)| *mode)
            .ok_or_else(|| format!("prefetch `{text}`: demand, auto or all is expected"))
    }
}

impl std::fmt::Display for Prefetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = PREFETCH_WORDS.iter().find(|(mode, _)| mode == self);
        f.write_str(found.map_or("auto", |(_, word)| word))
    }
}

/// A glob that cannot be read, or a folder that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    #[error("pattern `{pattern}`: {cause}; an example that works: *.safetensors")]
    Pattern { pattern: String, cause: String },
    #[error("{pin} has no folder `{subdir}`: check the path behind the repository's name")]
    NoFolder { pin: String, subdir: String },
}

impl View {
    /// The visible files, in the listing's order, each with the path it is shown under.
    pub fn select<'a>(&self, listing: &'a Listing) -> Result<Vec<(&'a str, &'a Entry)>, ViewError> {
        let (include, exclude) = (globs(&self.include)?, globs(&self.exclude)?);
        let inside: Vec<_> = listing
            .files()
            .iter()
            .filter_map(|entry| self.shown(entry))
            .collect();
        if let Some(subdir) = &self.subdir
            && inside.is_empty()
        {
            return Err(ViewError::NoFolder {
                pin: listing.pin().to_string(),
                subdir: subdir.clone(),
            });
        }
        let visible = |path: &str| {
            (self.include.is_empty() || include.is_match(path)) && !exclude.is_match(path)
        };
        Ok(inside
            .into_iter()
            .filter(|(path, _)| visible(path))
            .collect())
    }

    /// Whether the patterns can be read; the listing need not be here yet.
    pub fn check(&self) -> Result<(), ViewError> {
        globs(&self.include).and(globs(&self.exclude)).map(|_| ())
    }

    /// A subdirectory may name a single file: it is then shown under its own name.
    fn shown<'a>(&self, entry: &'a Entry) -> Option<(&'a str, &'a Entry)> {
        let Some(subdir) = &self.subdir else {
            return Some((&entry.path, entry));
        };
        let rest = entry.path.strip_prefix(subdir.as_str())?;
        match rest {
            "" => Some((entry.path.rsplit('/').next().unwrap_or_default(), entry)),
            _ => rest.strip_prefix('/').map(|rest| (rest, entry)),
        }
    }
}

/// As in `hf download`: `*` crosses folders, so `*.bin` means every .bin.
fn globs(patterns: &[String]) -> Result<GlobSet, ViewError> {
    let error = |pattern: &str, cause: globset::Error| ViewError::Pattern {
        pattern: pattern.to_owned(),
        cause: cause.kind().to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(
            GlobBuilder::new(pattern)
                .literal_separator(false)
                .build()
                .map_err(|cause| error(pattern, cause))?,
        );
    }
    set.build()
        .map_err(|cause| error(&patterns.join(","), cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Pin};

    fn listing() -> Listing {
        let pin: Pin = format!("hf://o/n@{}", "a".repeat(40))
            .parse()
            .expect("a pin");
        let rows = [
            "a.bin",
            "config.json",
            "onnx/model.onnx",
            "onnx/q/model.bin",
            "onnxed",
        ];
        Listing::new(
            pin,
            rows.map(|path| (path.to_owned(), 1, Digest::GitSha1([0; 20]))),
        )
        .expect("a listing")
    }

    fn shown(view: View) -> Vec<String> {
        view.select(&listing())
            .expect("a view")
            .iter()
            .map(|(path, _)| path.to_string())
            .collect()
    }

    #[test]
    fn patterns_choose_and_a_folder_becomes_the_root() {
        let list = |patterns: &[&str]| patterns.iter().map(|p| p.to_string()).collect::<Vec<_>>();
        assert_eq!(shown(View::default()).len(), 5);
        assert_eq!(
            shown(View {
                exclude: list(&["*.bin"]),
                ..View::default()
            }),
            ["config.json", "onnx/model.onnx", "onnxed"]
        );
        assert_eq!(
            shown(View {
                include: list(&["*.json", "a.*"]),
                ..View::default()
            }),
            ["a.bin", "config.json"]
        );
        assert_eq!(
            shown(View {
                subdir: Some("onnx".into()),
                ..View::default()
            }),
            ["model.onnx", "q/model.bin"]
        );
        assert_eq!(
            shown(View {
                subdir: Some("onnx/model.onnx".into()),
                ..View::default()
            }),
            ["model.onnx"]
        );
    }

    #[test]
    fn a_missing_folder_and_a_broken_pattern_are_named() {
        let missing = View {
            subdir: Some("nope".into()),
            ..View::default()
        };
        assert!(
            missing
                .select(&listing())
                .expect_err("no folder")
                .to_string()
                .contains("`nope`")
        );
        let broken = View {
            include: vec!["a[".into()],
            ..View::default()
        };
        assert!(
            broken
                .check()
                .expect_err("a bad glob")
                .to_string()
                .contains("`a[`")
        );
    }
}
