//! kubelet's plugin watcher dials a path and sends it as the HTTP/2 authority. The `h2` library resets such a
//! call as malformed before a service sees it, so the authority is replaced on the way in.
//!
//! Only what a client of two small calls sends is understood: header blocks of one frame, without padding or
//! priority. Everything else passes as it is. Fields keep their order and kind, so both ends' tables of
//! headers stay alike. RFC 9113 (frames) and 7541 (header blocks).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, duplex};
use tokio::net::UnixStream;

const AUTHORITY: &[u8] = b"localhost";
/// `:authority` in the static table.
const AUTHORITY_INDEX: usize = 1;
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// What a peer may send before anything else is agreed on.
const FRAME_BYTES_MAX: usize = 16 << 10;
const HEADERS: u8 = 1;
/// PADDED and PRIORITY put other things before the block.
const SHIFTED: u8 = 0x8 | 0x20;

/// The same connection, with an authority that passes.
pub(super) fn with_authority(stream: UnixStream) -> DuplexStream {
    let (inner, outer) = duplex(FRAME_BYTES_MAX);
    let (from_client, mut to_client) = stream.into_split();
    let (mut from_server, to_server) = tokio::io::split(inner);
    tokio::spawn(async move {
        tokio::select! {
            // The end of either direction is the end of the connection.
            _ = forward(from_client, to_server) => {}
            _ = copy(&mut from_server, &mut to_client) => {}
        }
    });
    outer
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut preface = [0; PREFACE_BYTES];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    loop {
        let mut head = [0; FRAME_HEAD_BYTES];
        from.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if length > FRAME_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        from.read_exact(&mut payload).await?;
        if head[3] == HEADERS && head[4] & SHIFTED == 0 {
            payload = replaced(&payload).unwrap_or(payload);
            head[1..3].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        }
        to.write_all(&head).await?;
        to.write_all(&payload).await?;
    }
}

/// The block with another authority; `None` if it cannot be read.
fn replaced(block: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(block.len()), block);
    while let Some(first) = rest.first() {
        // The number's prefix has 7, 6, 5 or 4 bits by the kind of field; the first and third have no strings.
        let bits = (first.leading_zeros() + 1).min(4);
        let (index, after) = number(rest, 8 - bits)?;
        let has_strings = bits == 2 || bits == 4;
        let name_end = match has_strings && index == 0 {
            true => string(after)?,
            false => after,
        };
        out.extend_from_slice(&rest[..rest.len() - name_end.len()]);
        rest = name_end;
        if has_strings {
            let value_end = string(rest)?;
            match index {
                AUTHORITY_INDEX => {
                    out.push(AUTHORITY.len() as u8);
                    out.extend_from_slice(AUTHORITY);
                }
                _ => out.extend_from_slice(&rest[..rest.len() - value_end.len()]),
            }
            rest = value_end;
        }
    }
    (out.len() <= FRAME_BYTES_MAX).then_some(out)
}

/// A number in the low `bits` of the first byte and what follows, and the bytes after it.
fn number(bytes: &[u8], bits: u32) -> Option<(usize, &[u8])> {
    let most = (1usize << bits) - 1;
    let (first, mut rest) = bytes.split_first()?;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some((value, rest));
    }
    for shift in (0..21).step_by(7) {
        let (next, after) = rest.split_first()?;
        value += usize::from(next & 0x7f) << shift;
        rest = after;
        if next & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// The bytes after a string.
fn string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = number(bytes, 7)?;
    rest.get(length..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind, value.len() as u8], value].concat()
    }

    #[test]
    fn only_the_authority_is_replaced() {
        let before = [&[0x83, 0x86][..], &literal(0x44, b"/a.B/C")].concat();
        let after = [
            &literal(0x40, b"te")[..],
            &literal(8, b"trailers")[1..],
            &[0x20],
        ]
        .concat();
        let block = |authority: &[u8]| [&before[..], &literal(0x41, authority), &after].concat();
        let sent = block(b"%2Fvar%2Flib%2Fkubelet%2Fx.sock");
        assert_eq!(replaced(&sent), Some(block(AUTHORITY)));
        // A long value has its length in several bytes.
        let long = [&[0x41, 0x7f, 0x49][..], &[b'x'; 200], &[0x83]].concat();
        let short = [&literal(0x41, AUTHORITY)[..], &[0x83]].concat();
        assert_eq!(replaced(&long), Some(short));
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        for cut in [
            &[0x41][..],
            &[0x41, 5, b'a'],
            &[0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x7f],
        ] {
            assert_eq!(replaced(cut), None, "{cut:?}");
        }
    }
}
