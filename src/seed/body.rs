//! Cuts a hub's answer, which comes in chunks of any size, into pieces.

use crate::hub::ByteStream;
use crate::model::{Failure, FailureKind};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

/// Bytes that came behind the piece they were read for.
#[derive(Default)]
pub struct Taken {
    rest: Bytes,
}

impl Taken {
    /// Takes exactly `len` bytes from the body. A body that ends early is an error, never a short piece.
    pub async fn exactly(&mut self, body: &mut ByteStream, len: usize) -> Result<Bytes, Failure> {
        if self.rest.len() >= len {
            return Ok(self.rest.split_to(len));
        }
        let mut piece = BytesMut::with_capacity(len);
        loop {
            let part = self.rest.split_to(self.rest.len().min(len - piece.len()));
            piece.extend_from_slice(&part);
            if piece.len() == len {
                return Ok(piece.freeze());
            }
            self.rest = match body.next().await {
                Some(chunk) => chunk?,
                None => {
                    return Err(Failure::new(
                        FailureKind::Unavailable,
                        "the hub's answer ended early",
                    ));
                }
            };
        }
    }
}
