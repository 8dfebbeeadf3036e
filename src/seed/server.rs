//! The seed as a gRPC service.
