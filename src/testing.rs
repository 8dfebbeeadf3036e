//! Test doubles: what the demo, the tests and the benches run against. Never in a release.

pub mod hub;
pub mod pattern;
