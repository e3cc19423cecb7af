//! A request head, whatever its bytes: no panic, the same result however much of it has arrived, and what is
//! accepted is what a naive reader of lines would have seen in it.

use weft::http::head::{Framing, Head, HeadError};
use weft::http::uri::{Query, Slash, decode_path, encode_sigv4};
use weft::limits::{HEAD_BYTES_MAX, HEADERS_MAX};

pub fn check(data: &[u8]) {
    let whole = Head::parse(data);
    match &whole {
        Ok(Some((head, length))) => {
            assert!(*length <= data.len() && *length <= HEAD_BYTES_MAX);
            check_against_lines(head, &data[..*length]);
            check_target(head);
            check_prefixes(data, *length - 1, None);
        }
        Ok(None) => check_prefixes(data, data.len(), None),
        Err(error) => check_prefixes(data, data.len(), Some(*error)),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        check_escapes(text);
    }
}

/// Up to `length` bytes of `data` give nothing yet, or already the `error` that all of it gives.
fn check_prefixes(data: &[u8], length: usize, error: Option<HeadError>) {
    let step = length / 64 + 1;
    for cut in (0..=length).rev().step_by(step) {
        match Head::parse(&data[..cut]) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("a head of {cut} bytes inside of one that is not"),
            Err(early) => assert_eq!(Some(early), error, "at {cut}"),
        }
    }
}

fn check_against_lines(head: &Head, bytes: &[u8]) {
    let mut bytes = bytes;
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    let text = bytes.strip_suffix(b"\r\n\r\n").expect("ends in an empty line");
    let mut lines = text
        .split(|&byte| byte == b'\n')
        .enumerate()
        .map(|(number, line)| {
            let is_last = number == text.iter().filter(|&&byte| byte == b'\n').count();
            let line = if is_last {
                line
            } else {
                line.strip_suffix(b"\r").expect("CRLF")
            };
            assert!(!line.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()));
            line
        });
    let request_line = lines.next().expect("a request line");
    let words: Vec<&[u8]> = request_line.split(|&byte| byte == b' ').collect();
    assert_eq!(words.len(), 3);
    assert_eq!(words[0], head.method_str().as_bytes());

    let mut lengths = 0;
    let mut codings = 0;
    let mut fields = head.headers();
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        let (name, value) = fields.next().expect("a field for each line");
        assert_eq!(name.as_bytes(), line[..colon].to_ascii_lowercase());
        let trimmed = String::from_utf8_lossy(&line[colon + 1..]).into_owned();
        assert_eq!(String::from_utf8_lossy(value), trimmed.trim_matches([' ', '\t']));
        assert!(head.header(name).is_some() && head.header_count(name) >= 1);
        lengths += usize::from(name == "content-length");
        codings += usize::from(name == "transfer-encoding");
    }
    assert!(fields.next().is_none() && head.headers().count() <= HEADERS_MAX);
    let expected = match head.framing() {
        Framing::None => (0, 0),
        Framing::Length(length) => {
            assert!(length <= i64::MAX as u64);
            (1, 0)
        }
        Framing::Chunked => (0, 1),
    };
    assert_eq!((lengths, codings), expected);
    let is_absolute = !words[1].starts_with(b"/") && words[1] != b"*";
    assert_eq!(
        head.host().is_some(),
        head.header_count("host") == 1 || is_absolute
    );
}

fn check_target(head: &Head) {
    assert!(head.path().starts_with('/') || head.path() == "*");
    assert!(!head.path().contains('?'));
    assert!(
        head.path()
            .bytes()
            .chain(head.query().bytes())
            .all(|byte| byte.is_ascii_graphic())
    );
    check_escapes(head.path());
    check_escapes(head.query());
}

fn check_escapes(text: &str) {
    if let Ok(decoded) = decode_path(text.as_bytes()) {
        let mut encoded = String::new();
        encode_sigv4(&decoded, Slash::Keep, &mut encoded);
        assert_eq!(decode_path(encoded.as_bytes()).expect("our own escapes"), decoded);
    }
    if let Ok(query) = Query::parse(text) {
        let mut encoded = String::new();
        for (name, value) in query.iter() {
            assert!(query.has(name));
            encode_sigv4(name.as_bytes(), Slash::Escape, &mut encoded);
            encoded.push('=');
            encode_sigv4(value.as_bytes(), Slash::Escape, &mut encoded);
            encoded.push('&');
        }
        // Escaping makes a query longer, past its bound too.
        if let Ok(again) = Query::parse(&encoded) {
            assert!(again.iter().eq(query.iter()));
        }
    }
}
