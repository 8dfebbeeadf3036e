//! The layer before every service: no secret of a call reaches a log or an answer.
//!
//! Which field of a request holds secrets is read from the proto files when the program is built (every
//! map named `secrets`), so a call that is added later is covered too. Requests are logged at trace level:
//! names of calls and fields, the text of plain fields, of maps nothing but how many bytes they have, for a
//! volume context may carry service-account tokens. A refusal that quotes a secret of its own call, from
//! wherever it got the words, goes out with the quotation struck.

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::fmt::Write as _;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

// `METHODS`: each CSI call's path and the fields of its request: number, name, whether it is plain text.
include!(concat!(env!("OUT_DIR"), "/csi_requests.rs"));

type Fields = &'static [(u32, &'static str, bool)];

/// The field name that the specification's `csi_secret` option marks.
const SECRETS: &str = "secrets";

/// What tonic takes itself.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Flag and length before a gRPC message.
const FRAME_BYTES: usize = 5;

/// Shorter values are words of the language, not credentials; to strike them would tell them.
const SECRET_BYTES_MIN: usize = 4;

#[derive(Clone)]
pub(super) struct Redact<S>(S);

/// Puts the layer before a server's services.
pub(super) fn layer<S>(inner: S) -> Redact<S> {
    Redact(inner)
}

impl<S> Service<http::Request<Body>> for Redact<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let next = self.0.clone();
        let mut inner = std::mem::replace(&mut self.0, next);
        let path = request.uri().path();
        let Some((_, fields)) = METHODS.iter().find(|(method, _)| *method == path) else {
            return Box::pin(inner.call(request));
        };
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = axum::body::Body::new(body);
            let Ok(bytes) = axum::body::to_bytes(body, REQUEST_BYTES_MAX).await else {
                let refused = Status::invalid_argument("request: broken off or above 4 MiB");
                return Ok(refused.into_http());
            };
            tracing::trace!(method = head.uri.path(), request = %describe(fields, &bytes), "csi request");
            let secrets = secrets(fields, &bytes);
            let body = Body::new(axum::body::Body::from(bytes));
            let mut answer = inner.call(http::Request::from_parts(head, body)).await?;
            strike(&mut answer, &secrets);
            Ok(answer)
        })
    }
}

/// The fields of a message that have a length, as far as it can be read; the service judges the rest.
fn parts(mut message: Bytes) -> Vec<(u32, Bytes)> {
    let mut parts = Vec::new();
    while let Ok((wire, number)) = decode_key(&mut message).map(|(number, wire)| (wire, number)) {
        if wire != WireType::LengthDelimited {
            match skip_field(wire, number, &mut message, DecodeContext::default()) {
                Ok(()) => continue,
                Err(_) => break,
            }
        }
        match decode_varint(&mut message) {
            Ok(len) if len <= message.remaining() as u64 => {
                parts.push((number, message.split_to(len as usize)));
            }
            _ => break,
        }
    }
    parts
}

fn message(framed: &Bytes) -> Bytes {
    framed.slice(FRAME_BYTES.min(framed.len())..)
}

/// The values of a request's secrets, longest first: one may be part of another.
fn secrets(fields: Fields, framed: &Bytes) -> Vec<String> {
    let is_secret = |number: u32| {
        fields
            .iter()
            .any(|(n, name, _)| *n == number && *name == SECRETS)
    };
    let entries = parts(message(framed))
        .into_iter()
        .filter(|(number, _)| is_secret(*number));
    let values = entries
        .flat_map(|(_, entry)| parts(entry))
        .filter(|(number, _)| *number == 2);
    let mut values: Vec<_> = values
        .map(|(_, value)| String::from_utf8_lossy(&value).trim().to_owned())
        .filter(|value| value.len() >= SECRET_BYTES_MIN)
        .collect();
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

/// `volume_id="v" secrets=*** volume_context=<90 bytes>`
fn describe(fields: Fields, framed: &Bytes) -> String {
    let mut out = String::new();
    for (number, value) in parts(message(framed)) {
        let known = fields.iter().find(|(n, _, _)| *n == number);
        let _ = match known {
            Some((_, SECRETS, _)) => write!(out, "{SECRETS}=*** "),
            Some((_, name, true)) => write!(out, "{name}={:?} ", String::from_utf8_lossy(&value)),
            Some((_, name, false)) => write!(out, "{name}=<{} bytes> ", value.len()),
            None => write!(out, "{number}=<{} bytes> ", value.len()),
        };
    }
    out
}

fn strike(answer: &mut http::Response<Body>, secrets: &[String]) {
    let Some(status) = Status::from_header_map(answer.headers()) else {
        return;
    };
    let mut clean = status.message().to_owned();
    for secret in secrets {
        clean = clean.replace(secret.as_str(), "***");
    }
    if clean != status.message() {
        tracing::warn!("a refusal quoted a secret, which was struck");
        let _ = Status::new(status.code(), clean).add_header(answer.headers_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::v1::NodePublishVolumeRequest;
    use prost::Message;

    const PUBLISH: &str = "/csi.v1.Node/NodePublishVolume";

    fn fields(path: &str) -> Fields {
        let known = METHODS.iter().find(|(method, _)| *method == path);
        known.expect("a call").1
    }

    fn framed(request: &NodePublishVolumeRequest) -> Bytes {
        let mut framed = vec![0; FRAME_BYTES];
        framed.extend(request.encode_to_vec());
        framed.into()
    }

    fn request() -> NodePublishVolumeRequest {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        NodePublishVolumeRequest {
            volume_id: "v".into(),
            readonly: true,
            secrets: [
                pair("token", " hf_canary\n"),
                pair("x", "canary"),
                pair("y", "a"),
            ]
            .into(),
            volume_context: [pair("csi.storage.k8s.io/serviceAccount.tokens", "sa_jwt")].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_described_request_shows_neither_secrets_nor_contexts() {
        let text = describe(fields(PUBLISH), &framed(&request()));
        assert!(
            text.contains("volume_id=\"v\"") && text.contains("secrets=***"),
            "{text}"
        );
        assert!(
            !text.contains("canary") && !text.contains("sa_jwt"),
            "{text}"
        );
    }

    #[test]
    fn a_refusal_is_struck_of_every_secret_of_its_call() {
        let secrets = secrets(fields(PUBLISH), &framed(&request()));
        assert_eq!(secrets, ["hf_canary", "canary"]);
        let quoted = Status::not_found("hub at https://u:hf_canary@h/ knows no canary: é a");
        let mut answer = quoted.into_http();
        strike(&mut answer, &secrets);
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::NotFound);
        assert_eq!(
            status.message(),
            "hub at https://u:***@h/ knows no ***: é a"
        );
    }

    #[test]
    fn what_is_cut_off_or_garbage_is_no_panic() {
        let whole = framed(&request());
        for len in 0..whole.len() {
            let cut = whole.slice(..len);
            let _ = (
                describe(fields(PUBLISH), &cut),
                secrets(fields(PUBLISH), &cut),
            );
        }
        let garbage = Bytes::from_static(&[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(describe(fields(PUBLISH), &garbage), "");
    }

    /// Whoever adds a call with secrets need not think of this file.
    #[test]
    fn every_call_with_secrets_is_known() {
        let with = METHODS
            .iter()
            .filter(|(_, fields)| fields.iter().any(|(_, name, _)| *name == SECRETS));
        let with: Vec<_> = with.map(|(path, _)| *path).collect();
        for path in [
            PUBLISH,
            "/csi.v1.Controller/CreateVolume",
            "/csi.v1.Node/NodeGetStorageHealth",
        ] {
            assert!(with.contains(&path), "{with:?}");
        }
    }
}
