//! Compiles every `proto/*/*.proto` to Rust. No protoc is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut protos: Vec<PathBuf> = Vec::new();
    for folder in std::fs::read_dir("proto")? {
        let files = std::fs::read_dir(folder?.path())?;
        protos.extend(files.filter_map(|file| Some(file.ok()?.path())));
    }
    protos.retain(|path| path.extension().is_some_and(|kind| kind == "proto"));
    protos.sort();
    let descriptors = protox::compile(&protos, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
