//! Piece requests as they stand on the wire: parsed from bytes of a stranger, printed for one.
//!
//! `GET /v1/pieces/{key}/{first}[-{last}]`, with an optional `Range` inside that run, and
//! `POST /v1/any/{key}[?wanted=N]` with the need bitmap as its body. A head is 8 KiB at most with 32
//! headers; whatever else comes is [`BadRequest`], never a panic.

use super::client::AnyAsk;
use super::slots::Class;
use crate::model::FileKey;
use std::ops::Range;

/// The longest head of a request or an answer.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// The most pieces in a run: 4 MiB is under 20 ms at 2 Gb/s.
pub const RUN_PIECES_MAX: u32 = 4;

/// The longest need bitmap: 2 MiB, a file of 16 TiB.
const BODY_BYTES_MAX: usize = 2 << 20;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Pieces(Range<u32>),
    /// Any of the pieces in the body's bitmap; `wanted` is the one a reader waits for.
    Any {
        wanted: Option<u32>,
        body_bytes: usize,
    },
}

/// One request without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub ask: Ask,
    pub key: FileKey,
    pub class: Class,
    /// The asking node's id.
    pub node: String,
    /// The named holder was asked in vain.
    pub tried: bool,
    /// The longest run that a seed may choose.
    pub run_max: u32,
    /// First and last byte, counted from the start of the run.
    pub range: Option<(u64, Option<u64>)>,
    pub keep_alive: bool,
}

/// What is wrong with a request; sent back as the body of a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub &'static str);

/// Parses a head. `None` while it is incomplete, else the request and the length of its head.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|_| BadRequest("not HTTP/1.1"))?;
    let httparse::Status::Complete(len) = parsed else {
        let too_long = bytes.len() >= HEAD_BYTES_MAX;
        return if too_long {
            Err(BadRequest("head is longer than 8 KiB"))
        } else {
            Ok(None)
        };
    };
    let fields = Fields(head.headers);
    let path = head.path.unwrap_or_default();
    let (ask, key) = match head.method.unwrap_or_default() {
        "GET" => pieces(path)?,
        "POST" => any_of(path, &fields)?,
        _ => return Err(BadRequest("method is neither GET nor POST")),
    };
    let request = Request {
        ask,
        key,
        class: Class::from_name(fields.get("x-class").unwrap_or_default()),
        node: fields
            .get("x-node")
            .unwrap_or_default()
            .chars()
            .take(128)
            .collect(),
        tried: fields.get("x-tried").is_some(),
        run_max: fields.get("x-run-max").and_then(number).unwrap_or(1),
        range: fields.get("range").map(byte_range).transpose()?,
        keep_alive: !fields
            .get("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close")),
    };
    Ok(Some((request, len)))
}

/// A head's headers by name.
pub struct Fields<'a>(pub &'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let header = self
            .0
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    }
}

fn pieces(path: &str) -> Result<(Ask, FileKey), BadRequest> {
    let path = path.strip_prefix("/v1/pieces/");
    let (key, run) = path
        .and_then(|path| path.split_once('/'))
        .ok_or(BadRequest("unknown path"))?;
    let run = run_of(run).ok_or(BadRequest("run is not FIRST or FIRST-LAST"))?;
    if run.is_empty() || run.len() > RUN_PIECES_MAX as usize {
        return Err(BadRequest("run is not of one to four pieces"));
    }
    Ok((Ask::Pieces(run), key_of(key)?))
}

/// `5` or `5-7`, last included, as a half-open range.
pub fn run_of(text: &str) -> Option<Range<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let end = number(last)?.checked_add(1)?;
    Some(number(first)?..end)
}

/// Digits only: `parse` would also take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|digit| digit.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn any_of(path: &str, fields: &Fields<'_>) -> Result<(Ask, FileKey), BadRequest> {
    let path = path
        .strip_prefix("/v1/any/")
        .ok_or(BadRequest("unknown path"))?;
    let (key, query) = path.split_once('?').unwrap_or((path, ""));
    let wanted = match query {
        "" => None,
        query => {
            let wanted = query.strip_prefix("wanted=").and_then(number);
            Some(wanted.ok_or(BadRequest("wanted is not a piece"))?)
        }
    };
    let length = fields
        .get("content-length")
        .and_then(|length| length.parse().ok());
    let body_bytes = length.ok_or(BadRequest("no content-length"))?;
    if body_bytes > BODY_BYTES_MAX {
        return Err(BadRequest("bitmap is longer than 2 MiB"));
    }
    Ok((Ask::Any { wanted, body_bytes }, key_of(key)?))
}

fn key_of(text: &str) -> Result<FileKey, BadRequest> {
    FileKey::from_hex(text).ok_or(BadRequest("file key is not 64 hex digits"))
}

fn byte_range(text: &str) -> Result<(u64, Option<u64>), BadRequest> {
    const BAD: BadRequest = BadRequest("range is not bytes=FIRST-[LAST]");
    let (first, last) = text
        .strip_prefix("bytes=")
        .and_then(|text| text.split_once('-'))
        .ok_or(BAD)?;
    let last = if last.is_empty() {
        None
    } else {
        Some(last.parse().map_err(|_| BAD)?)
    };
    Ok((first.parse().map_err(|_| BAD)?, last))
}

/// The head of a request for a run, as our client sends it.
pub fn print_pieces(key: FileKey, run: &Range<u32>, class: Class, node: &str) -> String {
    let (first, last) = (run.start, run.end.saturating_sub(1));
    format!(
        "GET /v1/pieces/{key}/{first}-{last} HTTP/1.1\r\nhost: piece\r\nx-class: {}\r\nx-node: {node}\r\n\r\n",
        class.name()
    )
}

/// The head of a request for whatever the seed chooses; the need bitmap follows.
pub fn print_any(key: FileKey, ask: &AnyAsk<'_>, node: &str) -> String {
    let query = ask
        .wanted
        .map(|wanted| format!("?wanted={wanted}"))
        .unwrap_or_default();
    let class = match ask.wanted {
        Some(_) => Class::Demand,
        None => Class::Bulk,
    }
    .name();
    let tried = if ask.tried { "x-tried: 1\r\n" } else { "" };
    let (run_max, body_bytes) = (ask.run_max, ask.need.len());
    format!(
        "POST /v1/any/{key}{query} HTTP/1.1\r\nhost: piece\r\nx-class: {class}\r\nx-node: {node}\r\n{tried}x-run-max: {run_max}\r\ncontent-length: {body_bytes}\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: FileKey = FileKey([0xab; 32]);

    fn parsed(text: &str) -> Result<Request, BadRequest> {
        parse(text.as_bytes()).map(|parsed| parsed.expect("a whole head").0)
    }

    #[test]
    fn what_the_client_prints_the_server_reads() {
        let request = parsed(&print_pieces(KEY, &(3..6), Class::Window, "n1")).expect("a request");
        assert_eq!(request.ask, Ask::Pieces(3..6));
        assert_eq!(
            (request.key, request.class, request.node.as_str()),
            (KEY, Class::Window, "n1")
        );
        let ask = |wanted, need| AnyAsk {
            wanted,
            tried: wanted.is_some(),
            run_max: 3,
            need,
        };
        let request = print_any(KEY, &ask(Some(9), &[0; 17]), "n2");
        let request = parsed(&request).expect("a request");
        assert_eq!(
            request.ask,
            Ask::Any {
                wanted: Some(9),
                body_bytes: 17
            }
        );
        assert!(request.tried && request.class == Class::Demand);
    }

    #[test]
    fn a_wrong_request_says_what_is_wrong() {
        let get = |path: &str| parsed(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        let pieces = |run: &str| get(&format!("/v1/pieces/{KEY}/{run}"));
        assert!(pieces("7").is_ok() && pieces("7-10").is_ok());
        for run in ["7-11", "8-7", "", "-1", "+1", "4294967295", "0-0-0", "x"] {
            assert!(pieces(run).is_err(), "{run}");
        }
        assert_eq!(
            get("/v1/pieces/ab/0"),
            Err(BadRequest("file key is not 64 hex digits"))
        );
        assert_eq!(get("/"), Err(BadRequest("unknown path")));
        assert!(parsed(&format!("POST /v1/any/{KEY} HTTP/1.1\r\n\r\n")).is_err());
        let long = format!("content-length: {}", BODY_BYTES_MAX + 1);
        assert!(parsed(&format!("POST /v1/any/{KEY} HTTP/1.1\r\n{long}\r\n\r\n")).is_err());
        assert_eq!(
            parse(&[b'A'; HEAD_BYTES_MAX]),
            Err(BadRequest("head is longer than 8 KiB"))
        );
        assert_eq!(parse(b"GET /v1/pie"), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn any_path_and_header_are_parsed_or_refused(path in "/v1/(pieces|any)/[ab0-9]{60,66}[/?]?[a-z0-9=-]{0,12}", range in "bytes=[0-9-]{0,24}") {
            let _ = parse(format!("GET {path} HTTP/1.1\r\nrange: {range}\r\n\r\n").as_bytes());
            let _ = parse(format!("POST {path} HTTP/1.1\r\ncontent-length: 5\r\n\r\n").as_bytes());
        }
    }
}
