//! The directory tree of a view, and its node numbers.
//!
//! Items are numbered breadth first with the names of a directory in byte order, so the numbers follow
//! from the listing alone: a daemon that takes over a mount, or another node, gives the same ones. Item 0
//! is the root with node 1. Any other item `i` has node `2i`; a file also has `2i + 1`, its *complete*
//! twin (see [`super::volume`]). A directory's children lie side by side: a lookup is a binary search, a
//! directory offset an index, and nothing is allocated per item. 28 bytes each beside the listing.

use crate::model::view::ViewError;
use crate::model::{Entry, Listing, View};
use std::ops::Range;
use std::sync::Arc;

/// FUSE fixes the root's number.
pub const ROOT: u64 = 1;

/// An index into the tree's items; 0 is the root.
pub type ItemId = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

/// What `stat` says, but for what is the same for every item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    pub kind: Kind,
    pub size: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    /// The file, or for a directory a file below it, whose path spells this item's name.
    entry: u32,
    /// Where in that path the name stands. Paths are at most 4096 bytes long.
    name: (u16, u16),
    parent: ItemId,
    /// Items of a directory; files have none.
    children: (ItemId, ItemId),
    kind: Kind,
}

/// An immutable tree over a listing.
#[derive(Debug)]
pub struct Tree {
    listing: Arc<Listing>,
    items: Vec<Item>,
    bytes: u64,
    files: u64,
}

/// A directory whose children are still to be numbered: its item, its rows, where their names start.
struct Pending {
    item: ItemId,
    rows: Range<usize>,
    depth: usize,
}

/// A row: a file's index in the listing and where its shown path starts in its path.
type Row = (u32, u16);

impl Tree {
    /// The tree of what `view` shows of `listing`; an empty one is an empty root.
    pub fn new(listing: Arc<Listing>, view: &View) -> Result<Tree, ViewError> {
        let rows = rows(&listing, view)?;
        let entries = |rows: &[Row]| -> Vec<u32> { rows.iter().map(|row| row.0).collect() };
        let bytes = entries(&rows)
            .iter()
            .map(|entry| listing.files()[*entry as usize].size)
            .sum();
        let files = rows.len() as u64;
        let items = number(&listing, &rows);
        Ok(Tree {
            listing,
            items,
            bytes,
            files,
        })
    }

    pub fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    /// The sum of the shown files' sizes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn files(&self) -> u64 {
        self.files
    }

    /// Whether nothing but the root is here.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// The item of a node number, lazy or complete. `None` for numbers that were never given out.
    pub fn item(&self, node: u64) -> Option<ItemId> {
        if node == ROOT {
            return Some(0);
        }
        let id = u32::try_from(node / 2).ok().filter(|id| *id > 0)?;
        let item = self.items.get(id as usize)?;
        (item.kind == Kind::File || node.is_multiple_of(2)).then_some(id)
    }

    /// The lazy node of an item; the only one of a directory.
    pub fn lazy(id: ItemId) -> u64 {
        if id == 0 { ROOT } else { 2 * u64::from(id) }
    }

    /// The complete node of a file.
    pub fn complete(id: ItemId) -> u64 {
        2 * u64::from(id) + 1
    }

    /// Whether a file's node number is the complete one.
    pub fn is_complete(node: u64) -> bool {
        node != ROOT && node % 2 == 1
    }

    /// The child of a directory. `None` also when `parent` is a file.
    pub fn lookup(&self, parent: ItemId, name: &[u8]) -> Option<ItemId> {
        let range = self.children(parent);
        let children = &self.items[range.start as usize..range.end as usize];
        let at = children
            .binary_search_by(|item| self.name_of(item).as_bytes().cmp(name))
            .ok()?;
        Some(range.start + at as u32)
    }

    /// The children of a directory, in the order in which they are listed.
    pub fn children(&self, id: ItemId) -> Range<ItemId> {
        let (start, end) = self.items[id as usize].children;
        start..end
    }

    /// Every file, in the order of the listing's breadth-first walk.
    pub fn all_files(&self) -> impl Iterator<Item = ItemId> + '_ {
        (0..self.items.len() as u32).filter(|id| self.attr(*id).kind == Kind::File)
    }

    pub fn attr(&self, id: ItemId) -> Attr {
        let item = &self.items[id as usize];
        let size = match item.kind {
            Kind::File => self.entry(id).size,
            Kind::Directory => 0,
        };
        Attr {
            kind: item.kind,
            size,
        }
    }

    pub fn name(&self, id: ItemId) -> &str {
        self.name_of(&self.items[id as usize])
    }

    pub fn parent(&self, id: ItemId) -> ItemId {
        self.items[id as usize].parent
    }

    /// A file's index in [`Listing::files`].
    pub fn entry_index(&self, id: ItemId) -> usize {
        self.items[id as usize].entry as usize
    }

    /// The listing's entry of a file.
    pub fn entry(&self, id: ItemId) -> &Entry {
        &self.listing.files()[self.entry_index(id)]
    }

    fn name_of(&self, item: &Item) -> &str {
        let path = self.listing.files().get(item.entry as usize);
        path.map_or("", |entry| {
            &entry.path[item.name.0 as usize..item.name.1 as usize]
        })
    }
}

/// What the view shows, in the listing's order. A shown path is always the tail of its path.
fn rows(listing: &Listing, view: &View) -> Result<Vec<Row>, ViewError> {
    let mut index = 0;
    let row = |(shown, entry): (&str, &Entry)| {
        // Both are in the listing's order, so one walk over the listing finds all.
        while !std::ptr::eq(&listing.files()[index], entry) {
            index += 1;
        }
        (index as u32, (entry.path.len() - shown.len()) as u16)
    };
    Ok(view.select(listing)?.into_iter().map(row).collect())
}

/// Numbers all items: the children of one directory after the other, first made first served.
fn number(listing: &Listing, rows: &[Row]) -> Vec<Item> {
    let root = Item {
        entry: 0,
        name: (0, 0),
        parent: 0,
        children: (1, 1),
        kind: Kind::Directory,
    };
    let mut items = vec![root];
    let mut pending = std::collections::VecDeque::from([Pending {
        item: 0,
        rows: 0..rows.len(),
        depth: 0,
    }]);
    while let Some(directory) = pending.pop_front() {
        let first = items.len() as u32;
        for (item, rows, depth) in children(listing, rows, &directory) {
            if item.kind == Kind::Directory {
                pending.push_back(Pending {
                    item: items.len() as u32,
                    rows,
                    depth,
                });
            }
            items.push(item);
        }
        items[directory.item as usize].children = (first, items.len() as u32);
    }
    items.shrink_to_fit();
    items
}

/// One directory's children by name, each with its rows and where names below it start.
fn children(
    listing: &Listing,
    rows: &[Row],
    directory: &Pending,
) -> Vec<(Item, Range<usize>, usize)> {
    let path = |at: usize| &listing.files()[rows[at].0 as usize].path[rows[at].1 as usize..];
    let component = |at: usize| path(at)[directory.depth..].split('/').next().unwrap_or("");
    let mut found = Vec::new();
    let mut at = directory.rows.start;
    while at < directory.rows.end {
        let name = component(at);
        let end = directory.depth + name.len();
        let below = (at..directory.rows.end)
            .find(|row| component(*row) != name)
            .unwrap_or(directory.rows.end);
        let base = rows[at].1;
        let item = Item {
            entry: rows[at].0,
            name: (base + directory.depth as u16, base + end as u16),
            parent: directory.item,
            children: (0, 0),
            kind: match path(at).len() == end {
                true => Kind::File,
                false => Kind::Directory,
            },
        };
        found.push((item, at..below, end + 1));
        at = below;
    }
    // Paths sort `a-` before `a/b`, names sort `a` before `a-`.
    found.sort_by_key(|(_, rows, _)| component(rows.start));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::twin::listing;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn tree(paths: &[&str]) -> Tree {
        let files: Vec<_> = paths.iter().map(|path| (*path, 7)).collect();
        Tree::new(listing(&files), &View::default()).expect("a tree")
    }

    fn names(tree: &Tree, id: ItemId) -> Vec<&str> {
        tree.children(id).map(|child| tree.name(child)).collect()
    }

    /// Every file by its path, found by looking names up from the root.
    fn walk(tree: &Tree, id: ItemId, prefix: &str, out: &mut BTreeMap<String, ItemId>) {
        for child in tree.children(id) {
            let path = format!("{prefix}{}", tree.name(child));
            assert_eq!(tree.lookup(id, tree.name(child).as_bytes()), Some(child));
            assert_eq!(tree.parent(child), id);
            match tree.attr(child).kind {
                Kind::File => assert!(out.insert(path, child).is_none()),
                Kind::Directory => walk(tree, child, &format!("{path}/"), out),
            }
        }
    }

    #[test]
    fn an_empty_listing_is_an_empty_root() {
        let tree = tree(&[]);
        assert!(tree.is_empty());
        assert_eq!(tree.children(0), 1..1);
        assert_eq!(tree.lookup(0, b"x"), None);
        assert_eq!(tree.item(ROOT), Some(0));
        assert_eq!(tree.item(0).or(tree.item(2)).or(tree.item(3)), None);
    }

    #[test]
    fn names_that_sort_around_the_slash_are_found() {
        let tree = tree(&["a-", "a/b", "a/c/d", "a0", "b"]);
        assert_eq!(names(&tree, 0), ["a", "a-", "a0", "b"]);
        let a = tree.lookup(0, b"a").expect("a");
        assert_eq!(names(&tree, a), ["b", "c"]);
        assert_eq!(tree.lookup(0, b"c"), None);
        assert_eq!(tree.lookup(tree.lookup(0, b"b").expect("b"), b"x"), None);
    }

    #[test]
    fn only_files_have_a_complete_node_and_item_numbers_start_at_one() {
        let tree = tree(&["d/x", "f"]);
        let (d, f) = (1, 2);
        assert_eq!((tree.name(d), tree.name(f)), ("d", "f"));
        assert_eq!(tree.item(Tree::lazy(d)), Some(d));
        assert_eq!(tree.item(Tree::complete(d)), None);
        assert_eq!(tree.item(Tree::complete(f)), Some(f));
        assert_eq!(tree.item(u64::MAX), None);
    }

    #[test]
    fn a_folder_becomes_the_root_and_a_file_stands_alone() {
        let list = listing(&[("a/b/c", 1), ("a/b0", 2), ("z", 3)]);
        let view = |subdir: &str| View {
            subdir: Some(subdir.into()),
            ..View::default()
        };
        let folder = Tree::new(list.clone(), &view("a")).expect("a folder");
        assert_eq!(names(&folder, 0), ["b", "b0"]);
        assert_eq!((folder.bytes(), folder.files()), (3, 2));
        let file = Tree::new(list.clone(), &view("a/b/c")).expect("a file");
        assert_eq!(names(&file, 0), ["c"]);
        assert!(Tree::new(list, &view("nope")).is_err());
    }

    #[test]
    fn an_item_is_small() {
        assert!(size_of::<Item>() <= 28);
    }

    proptest! {
        #[test]
        fn every_file_is_found_under_its_path_and_nothing_else(
            paths in prop::collection::btree_set("[a-c.-]{1,2}(/[a-c0-]{1,2}){0,3}", 0..40)
        ) {
            let is_dir = |path: &String| paths.range(format!("{path}/")..).next()
                .is_some_and(|next| next.starts_with(&format!("{path}/")));
            let ok = |path: &&String| !is_dir(path) && path.split('/').all(|part| part != "." && part != "..");
            let files: BTreeSet<&str> = paths.iter().filter(ok).map(|path| path.as_str()).collect();
            let tree = tree(&files.iter().copied().collect::<Vec<_>>());
            let mut found = BTreeMap::new();
            walk(&tree, 0, "", &mut found);
            prop_assert_eq!(found.keys().map(|path| path.as_str()).collect::<BTreeSet<_>>(), files);
            for (path, id) in found {
                prop_assert_eq!(&tree.entry(id).path, &path);
                prop_assert_eq!(tree.item(Tree::lazy(id)), Some(id));
                prop_assert_eq!(tree.item(Tree::complete(id)), Some(id));
            }
        }
    }
}
