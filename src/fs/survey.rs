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
            survey.starving = survey.starving.or_else(|| starving(opener.trouble(entry)));
        }
        survey
    }
}

/// A full cache is the node's trouble, told as such.
fn starving(trouble: Option<Trouble>) -> Option<String> {
    let starving = |trouble: &Trouble| matches!(trouble, Trouble::Starving { .. });
    trouble.filter(starving).map(|trouble| trouble.to_string())
}
