//! Test doubles: what the demo, the tests and the benches run against. Never in a release.

pub mod cluster;
pub mod hub;
pub mod kubelet;
pub mod nets;
pub mod pattern;
pub mod sim;
