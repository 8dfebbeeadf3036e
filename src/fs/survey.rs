//! A look at all files of a volume: what a health question asks for.
//!
//! It opens the map of every file that is shown, so it may wait for the disk: ask from a thread that may.

use super::volume::Volume;
use crate::fetch::Trouble;
use crate::store::State;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Every byte is here and confirmed.
    pub is_complete: bool,
    /// A file whose content differed from its digest.
    pub revoked: Option<String>,
    /// Why pieces that readers wait for do not come.
    pub starving: Option<String>,
}

impl Volume {
    pub fn survey(&self) -> Survey {
        let (tree, opener) = (self.tree(), self.opener());
        let mut survey = Survey {
            is_complete: true,
            ..Survey::default()
        };
        for file in tree.all_files() {
            let entry = tree.entry_index(file);
            let state = opener.state(entry);
            survey.is_complete &= state == State::Final;
            if state == State::Revoked {
                survey
                    .revoked
                    .get_or_insert_with(|| tree.entry(file).path.clone());
            }
        }
        // A full cache is the node's trouble, told as such.
        let starving = |trouble: &&Trouble| matches!(trouble, Trouble::Starving { .. });
        let troubles = self.troubles();
        survey.starving = troubles.iter().find(starving).map(ToString::to_string);
        survey
    }

    /// What readers of shown files suffer from, in the order of the files.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let mut known = self.opener().troubles();
        if known.is_empty() {
            return Vec::new();
        }
        let keys = self
            .tree()
            .all_files()
            .map(|file| self.tree().entry(file).key);
        keys.filter_map(|key| known.remove(&key)).collect()
    }
}
