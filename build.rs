//! Generates the wire types of every `.proto` below `proto/`, without a system protoc.
//!
//! A file names its imports from `proto/`. Messages that carry secrets get no `Debug`, so that no log line
//! can be written that prints them.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Requests with a `secrets` map.
const SECRET: [&str; 4] = [
    ".csi.v1.CreateVolumeRequest",
    ".csi.v1.DeleteVolumeRequest",
    ".csi.v1.ValidateVolumeCapabilitiesRequest",
    ".csi.v1.NodePublishVolumeRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    collect(Path::new("proto"), &mut files)?;
    files.sort();
    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(())
}
