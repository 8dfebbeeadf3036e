//! csi-sanity, the community's conformance suite, where it is installed; skipped where it is not.

use super::*;
use std::process::Stdio;

/// `$PATH`, then where Go puts what it installs.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    std::env::split_paths(&path)
        .chain(home)
        .map(|dir| dir.join("csi-sanity"))
        .find(|program| program.is_file())
}

async fn run(program: &Path, driver: &Driver) -> String {
    let dir = driver.dir.path();
    let parameters = dir.join("parameters.yaml");
    std::fs::write(&parameters, format!("model: {MODEL}\n")).expect("a file");
    let output = tokio::process::Command::new(program)
        .args(["--ginkgo.no-color", "--ginkgo.seed=1"])
        .arg(format!(
            "--csi.endpoint=unix://{}",
            driver.endpoint().path().display()
        ))
        .arg(format!("--csi.mountdir={}/mount", dir.display()))
        .arg(format!("--csi.stagingdir={}/stage", dir.display()))
        .arg(format!(
            "--csi.testvolumeparameters={}",
            parameters.display()
        ))
        .stdin(Stdio::null())
        .output()
        .await
        .expect("csi-sanity runs");
    assert!(output.stdout.len() < 4 << 20);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Checklist item 17. The count matters: an unadvertised capability skips its specs without a word.
#[tokio::test]
async fn csi_sanity_runs_at_least_thirty_specs_and_fails_none() {
    let Some(program) = installed() else {
        eprintln!("skipped: csi-sanity is not installed");
        return;
    };
    let driver = Driver::start().await;
    driver.readiness.set(true);
    let output = run(&program, &driver).await;
    let count = |word: &str| {
        let line = output.lines().find(|line| line.contains(" Passed | "))?;
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|found| *found == word)?;
        words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
    };
    eprintln!(
        "csi-sanity: {:?} passed, {:?} skipped",
        count("Passed"),
        count("Skipped")
    );
    assert_eq!(count("Failed"), Some(0), "{output}");
    assert!(
        count("Passed").is_some_and(|passed| passed >= 30),
        "{output}"
    );
}
