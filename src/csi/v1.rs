//! The generated types of `proto/csi/csi.proto`. Nothing outside `csi` uses them.

#![allow(clippy::all, clippy::unwrap_used)]

tonic::include_proto!("csi.v1");
