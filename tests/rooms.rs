//! The rules of the house, read from the source: who may know which library, which room may use which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every source file of the program below src/, by its path there, without its tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let code = text
                    .split("#[cfg(test)]\nmod")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                files.insert(
                    path.strip_prefix(&root)
                        .expect("below")
                        .display()
                        .to_string(),
                    code,
                );
            }
        }
    }
    files.retain(|path, _| {
        !path.starts_with("testing") && !path.contains("tests") && !path.ends_with("twin.rs")
    });
    files
}

/// Lines of code that use `word` as a path, comments aside.
fn users(word: &str) -> Vec<String> {
    let uses = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains(&format!("{word}::")) || code.contains(&format!("use {word};"))
    };
    let files = sources();
    let found = files.iter().filter(|(_, code)| code.lines().any(uses));
    found.map(|(path, _)| path.clone()).collect()
}

fn only(word: &str, allowed: &[&str]) {
    let found = users(word);
    assert!(
        !found.is_empty(),
        "nobody uses {word}: the rule has lost its object"
    );
    for path in found {
        let fine = allowed
            .iter()
            .any(|room| path == *room || path.starts_with(&format!("{room}/")));
        assert!(fine, "src/{path} knows {word}; only {allowed:?} may");
    }
}

#[test]
fn each_library_is_known_to_one_place() {
    only("fuser", &["fs/fuse.rs", "fs/fuse", "mount/session.rs"]);
    only("sled", &["store/index.rs"]);
    only("reqwest", &["hub/http.rs", "hub/http"]);
    only("clap", &["cli.rs", "cli"]);
    only("indicatif", &["run/progress.rs"]);
    only("httparse", &["swarm"]);
    only("kube", &["kubernetes.rs", "kubernetes"]);
    only("k8s_openapi", &["kubernetes.rs", "kubernetes"]);
    let csi_types =
        |(path, code): &(&String, &String)| !path.starts_with("csi") && code.contains("csi::v1");
    assert_eq!(
        sources().iter().find(csi_types),
        None,
        "CSI types stay in their room"
    );
}

/// The rooms from top to bottom. A room may use those below it, never those above.
const ORDER: [&str; 13] = [
    "cli",
    "run",
    "kubernetes",
    "csi",
    "mount",
    "fs",
    "fetch",
    "seed",
    "swarm",
    "hub",
    "store",
    "source",
    "model",
];

#[test]
fn imports_go_downward_only() {
    for (path, code) in sources() {
        let room = path.split(['/', '.']).next().unwrap_or_default();
        let Some(height) = ORDER.iter().position(|name| *name == room) else {
            continue;
        };
        for line in code
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
        {
            for above in &ORDER[..height] {
                let climbs = line.contains(&format!("crate::{above}::"))
                    || line.contains(&format!("crate::{above};"));
                assert!(
                    !climbs,
                    "src/{path} uses {above}, which stands above {room}: {line}"
                );
            }
        }
    }
}

#[test]
fn the_model_imports_nothing_and_the_filesystem_knows_no_network() {
    for (path, code) in sources() {
        let uses = |word: &str| code.contains(&format!("crate::{word}"));
        if path == "model.rs" || path.starts_with("model/") {
            for room in ORDER.iter().filter(|room| **room != "model") {
                assert!(!uses(room), "src/{path} uses {room}");
            }
        }
        if path == "fetch.rs" || path.starts_with("fetch/") || path.starts_with("fs") {
            for room in ["swarm", "seed", "hub"] {
                assert!(
                    !uses(room),
                    "src/{path} can tell where pieces come from: it uses {room}"
                );
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    for (path, code) in sources() {
        assert!(
            code.lines().count() <= 500,
            "src/{path} has {} lines before its tests",
            code.lines().count()
        );
    }
}
