//! The program's counters, under their public names. Metrics, status and tests read the same ones.
//!
//! One registry a process, made at first use. Labels have small fixed sets of values: never a repository,
//! a path or a peer.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::sync::LazyLock;

/// Every counter of the program; each field's doc names its labels.
pub struct Metrics {
    registry: Registry,
    /// `hub`
    pub origin_bytes: IntCounterVec,
    /// `hub`, `operation` (resolve, list, read, authorize), `code` (HTTP status or `error`)
    pub origin_requests: IntCounterVec,
    /// `hub`
    pub origin_limited_seconds: IntCounterVec,
    /// `source` (peer, seed, origin)
    pub fetched_bytes: IntCounterVec,
    /// `to` (peer, reader)
    pub served_bytes: IntCounterVec,
    /// `mode` (passthrough, direct, cached): passthrough bytes are not seen by the program
    pub read_bytes: IntCounterVec,
    pub read_wait_seconds: Histogram,
    pub first_byte_seconds: Histogram,
    /// `from` (peer, seed, origin, disk)
    pub pieces_rejected: IntCounterVec,
    /// `outcome` (hit, joined, peer, seed, origin, busy, hedged, failed)
    pub piece_requests: IntCounterVec,
    /// `mode` (passthrough, cached)
    pub mounts: IntGaugeVec,
    pub revisions: IntGauge,
    /// `state` (kept)
    pub cache_bytes: IntGaugeVec,
    pub cache_limit_bytes: IntGauge,
    pub evicted_bytes: IntCounter,
    pub peers: IntGauge,
    /// `way` (in, out), `cause` (certificate, role, plain, silence, connection)
    pub handshakes_failed: IntCounterVec,
    /// 1 where traffic between processes is in the clear
    pub insecure: IntGauge,
    /// `method`, `grpc_status_code`
    pub csi_operations_seconds: HistogramVec,
}

/// The process's counters.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// 1 ms to 65 s in steps of four: a hit, a peer, a hub, a hub in trouble.
fn wait_buckets() -> Vec<f64> {
    (0..9).map(|step| 0.001 * 4f64.powi(step)).collect()
}

impl Metrics {
    #[allow(clippy::expect_used)] // names are constants: a wrong one fails the first test that runs
    fn new() -> Metrics {
        let registry =
            Registry::new_custom(Some("model_p2p".into()), None).expect("a valid prefix");
        macro_rules! register {
            ($metric:expr) => {{
                let metric = $metric.expect("a valid metric");
                registry
                    .register(Box::new(metric.clone()))
                    .expect("a name used once");
                metric
            }};
        }
        macro_rules! counters {
            ($name:literal, $help:literal, $($label:literal),+) => {
                register!(IntCounterVec::new(Opts::new($name, $help), &[$($label),+]))
            };
        }
        let build = register!(IntGaugeVec::new(
            Opts::new("build_info", "Version of this program"),
            &["version", "commit"]
        ));
        build
            .with_label_values(&[
                env!("CARGO_PKG_VERSION"),
                option_env!("MODEL_P2P_COMMIT").unwrap_or("unknown"),
            ])
            .set(1);
        Metrics {
            origin_bytes: counters!("origin_bytes_total", "Bytes read from hubs", "hub"),
            origin_requests: counters!(
                "origin_requests_total",
                "Requests to hubs",
                "hub",
                "operation",
                "code"
            ),
            origin_limited_seconds: counters!(
                "origin_limited_seconds_total",
                "Seconds spent waiting for a hub's rate limit",
                "hub"
            ),
            fetched_bytes: counters!("fetched_bytes_total", "Verified bytes received", "source"),
            served_bytes: counters!("served_bytes_total", "Bytes given away", "to"),
            read_bytes: counters!(
                "read_bytes_total",
                "Bytes of reads answered by this process",
                "mode"
            ),
            read_wait_seconds: register!(Histogram::with_opts(
                HistogramOpts::new("read_wait_seconds", "Time a reader waited for a piece")
                    .buckets(wait_buckets())
            )),
            first_byte_seconds: register!(Histogram::with_opts(
                HistogramOpts::new(
                    "first_byte_seconds",
                    "Time from mount to the first byte read"
                )
                .buckets(wait_buckets())
            )),
            pieces_rejected: counters!(
                "pieces_rejected_total",
                "Pieces whose hash was wrong",
                "from"
            ),
            piece_requests: counters!(
                "piece_requests_total",
                "How wanted pieces were found",
                "outcome"
            ),
            mounts: register!(IntGaugeVec::new(
                Opts::new("mounts", "FUSE mounts"),
                &["mode"]
            )),
            revisions: register!(IntGauge::new("revisions", "Revisions known to this cache")),
            cache_bytes: register!(IntGaugeVec::new(
                Opts::new("cache_bytes", "Bytes in the cache"),
                &["state"]
            )),
            cache_limit_bytes: register!(IntGauge::new(
                "cache_limit_bytes",
                "Bytes the cache may use"
            )),
            evicted_bytes: register!(IntCounter::new(
                "evicted_bytes_total",
                "Bytes evicted from the cache"
            )),
            peers: register!(IntGauge::new("peers", "Neighbours with an open connection")),
            handshakes_failed: counters!(
                "handshakes_failed_total",
                "TLS connections that were refused or not made",
                "way",
                "cause"
            ),
            insecure: register!(IntGauge::new(
                "insecure",
                "Whether traffic between processes is in the clear (--insecure)"
            )),
            csi_operations_seconds: register!(HistogramVec::new(
                HistogramOpts::new("csi_operations_seconds", "Duration of CSI calls")
                    .buckets(wait_buckets()),
                &["method", "grpc_status_code"]
            )),
            registry,
        }
    }

    /// All counters in the Prometheus text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_carry_their_public_names() {
        METRICS.origin_bytes.with_label_values(&["hf"]).inc_by(7);
        let text = METRICS.render();
        assert!(text.contains("model_p2p_origin_bytes_total{hub=\"hf\"}"));
        assert!(text.contains("model_p2p_build_info{"));
    }
}
