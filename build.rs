//! Compiles every `proto/*/*.proto` to Rust. No protoc is needed.

use std::path::PathBuf;

/// Messages that carry credentials get no `Debug`: no log line can be written that prints them.
const SECRET: [&str; 11] = [
    ".csi.v1.CreateVolumeRequest",
    ".csi.v1.DeleteVolumeRequest",
    ".csi.v1.ValidateVolumeCapabilitiesRequest",
    ".csi.v1.NodePublishVolumeRequest",
    ".model_p2p.control.v1.Request",
    ".model_p2p.swarm.v1.ResolveRequest",
    ".model_p2p.swarm.v1.ListingRequest",
    ".model_p2p.swarm.v1.ProveRequest",
    ".model_p2p.swarm.v1.Interest",
    ".model_p2p.swarm.v1.ToSeed",
    ".model_p2p.swarm.v1.ToSeed.message",
];

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
    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .compile_fds(descriptors)?;
    Ok(())
}
