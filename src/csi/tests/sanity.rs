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

/// The whole test run installs it, so there a missing one is a mistake.
fn skip() {
    assert_ne!(
        std::env::var("MODEL_P2P_SLOW").as_deref(),
        Ok("1"),
        "csi-sanity is not installed"
    );
    eprintln!("skipped: csi-sanity is not installed");
}

/// `endpoints`: the node's, and the controller's where it is another one.
async fn run(program: &Path, driver: &Driver, endpoints: [&Endpoint; 2]) -> String {
    let (dir, [node, controller]) = (driver.dir.path(), endpoints);
    let parameters = dir.join("parameters.yaml");
    std::fs::write(&parameters, format!("model: {MODEL}\n")).expect("a file");
    let output = tokio::process::Command::new(program)
        .args(["--ginkgo.no-color", "--ginkgo.seed=1"])
        .arg(format!("--csi.endpoint=unix://{}", node.path().display()))
        .arg(format!(
            "--csi.controllerendpoint=unix://{}",
            controller.path().display()
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
fn assert_sane(output: &str) {
    let count = |word: &str| {
        let line = output.lines().find(|line| line.contains(" Passed | "))?;
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|found| *found == word)?;
        words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
    };
    let (passed, skipped) = (count("Passed"), count("Skipped"));
    eprintln!("csi-sanity: {passed:?} passed, {skipped:?} skipped");
    assert_eq!(count("Failed"), Some(0), "{output}");
    assert!(passed.is_some_and(|passed| passed >= 30), "{output}");
}

#[tokio::test]
async fn csi_sanity_accepts_all_services_on_one_socket() {
    let Some(program) = installed() else {
        return skip();
    };
    let driver = Driver::start().await;
    driver.readiness.set(true);
    let endpoint = driver.endpoint();
    assert_sane(&run(&program, &driver, [&endpoint, &endpoint]).await);
}

#[tokio::test]
async fn csi_sanity_accepts_controller_and_node_apart() {
    let Some(program) = installed() else {
        return skip();
    };
    let mut driver = Driver::start().await;
    driver.stop().await;
    driver.readiness.set(true);
    let services = || Services::new(driver.readiness.clone());
    let node = services().with_node(driver.new_node());
    let controller = services().with_controller(driver.new_controller());
    let apart = |name: &str, services: Services| {
        let text = format!("unix://{}/{name}.sock", driver.dir.path().display());
        let endpoint: Endpoint = text.parse().expect("an endpoint");
        let socket = endpoint.bind().expect("a socket");
        let forever = std::future::pending();
        tokio::spawn(serve(Config::default(), services, socket, forever));
        endpoint
    };
    let (node, controller) = (apart("node", node), apart("controller", controller));
    assert_sane(&run(&program, &driver, [&node, &controller]).await);
}
