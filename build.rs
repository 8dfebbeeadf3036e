//! Compiles every `proto/*/*.proto` to Rust. No protoc is needed.

use std::path::PathBuf;

/// Messages that carry credentials get no `Debug`: no log line can be written that prints them.
const SECRET: [&str; 12] = [
    ".csi.v1.CreateVolumeRequest",
    ".csi.v1.DeleteVolumeRequest",
    ".csi.v1.ValidateVolumeCapabilitiesRequest",
    ".csi.v1.NodePublishVolumeRequest",
    ".csi.v1.NodeGetStorageHealthRequest",
    ".csi.v1.ControllerGetVolumeHealthRequest",
    ".model_p2p.control.v1.Request",
    ".model_p2p.swarm.v1.ResolveRequest",
    ".model_p2p.swarm.v1.ListingRequest",
    ".model_p2p.swarm.v1.Interest",
    ".model_p2p.swarm.v1.ToSeed",
    ".model_p2p.swarm.v1.ToSeed.message",
];

/// The CSI calls and the fields of their requests, for the layer that keeps secrets out of logs. A macro,
/// for the descriptors' types belong to a library that this script does not name.
macro_rules! csi_requests {
    ($descriptors:expr) => {{
        let mut table = String::from("const METHODS: &[(&str, Fields)] = &[\n");
        for file in $descriptors
            .file
            .iter()
            .filter(|file| file.package() == "csi.v1")
        {
            for service in &file.service {
                for method in &service.method {
                    let input = method.input_type().trim_start_matches(".csi.v1.");
                    table += &format!("    (\"/csi.v1.{}/{}\", &[", service.name(), method.name());
                    let request = file
                        .message_type
                        .iter()
                        .find(|message| message.name() == input);
                    for field in request.iter().flat_map(|message| &message.field) {
                        // 9: string; 3: repeated.
                        let is_text = field.r#type == Some(9) && field.label != Some(3);
                        table += &format!("({}, {:?}, {is_text}), ", field.number(), field.name());
                    }
                    table += "]),\n";
                }
            }
        }
        table + "];\n"
    }};
}

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
    let requests = std::path::Path::new(&std::env::var("OUT_DIR")?).join("csi_requests.rs");
    std::fs::write(requests, csi_requests!(descriptors))?;
    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .compile_fds(descriptors)?;
    Ok(())
}
