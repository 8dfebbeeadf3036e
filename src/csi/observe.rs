//! What is seen of a call from outside: one counter and one log line, without its content.
//!
//! Method, volume, code and duration only. Requests carry secrets and contexts, and messages may quote
//! them: neither is ever logged here.

use super::status::Refusal;
use crate::metrics::METRICS;
use std::future::Future;
use std::time::Instant;
use tonic::{Code, Response, Status};

/// Answers a call: `Ok` as it is, a refusal as a status, and one observation of either.
pub(super) async fn observe<T>(
    method: &'static str,
    volume_id: &str,
    call: impl Future<Output = Result<T, Refusal>>,
) -> Result<Response<T>, Status> {
    let mut observation = Observation {
        method,
        // Longer identifiers are not ours.
        volume_id: volume_id.chars().take(128).collect(),
        begun: Instant::now(),
        code: Code::Cancelled,
    };
    let answer = call.await.map(Response::new).map_err(Status::from);
    observation.code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
    answer
}

/// Counted when it ends, also by a client that went away.
struct Observation {
    method: &'static str,
    volume_id: String,
    begun: Instant,
    code: Code,
}

impl Drop for Observation {
    fn drop(&mut self) {
        let (method, volume, code) = (self.method, &self.volume_id, self.code);
        let elapsed = self.begun.elapsed();
        METRICS
            .csi_operations_seconds
            .with_label_values(&[method, &(code as i32).to_string()])
            .observe(elapsed.as_secs_f64());
        match code {
            Code::Ok => tracing::debug!(method, ?volume, ?elapsed, "csi call"),
            _ => tracing::warn!(method, ?volume, ?code, ?elapsed, "csi call refused"),
        }
    }
}
