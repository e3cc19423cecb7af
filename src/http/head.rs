//! The head of a request: request line and fields, from bytes to a value (RFC 9112).
//!
//! httparse finds the tokens; what is here refuses everything that two parsers could read in two ways,
//! since a request that we frame otherwise than a proxy before us does is how requests are smuggled.
//!
//! Invariant: a [`Head`] has an unambiguous end, body framing and host; its target is printable ASCII,
//! its field names are lower-case tokens, its field values hold no control byte but the tab. It must
//! not look at the body or know what a field means to S3.

use std::mem::MaybeUninit;

use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};

/// Empty lines before a request line that are skipped (RFC 9112 2.2: at least one).
const LEADING_EMPTY_LINES_MAX: usize = 2;

const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);

/// A request's method. S3 has five, browsers add OPTIONS; [`Head::method_str`] has the name of any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
    Delete,
    Options,
    Other,
}

/// How the body after a head is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Neither Content-Length nor Transfer-Encoding: there is no body.
    None,
    /// Content-Length, at most `i64::MAX` bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`; decode with [`super::ChunkedDecoder`].
    Chunked,
}

/// Why a head was refused. Nothing after it on the connection can be trusted: answer and close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadError {
    /// The request line alone fills [`HEAD_BYTES_MAX`].
    TargetTooLong,
    /// The head does not end within [`HEAD_BYTES_MAX`].
    TooLarge,
    /// More than [`HEADERS_MAX`] fields.
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    UnsupportedVersion,
    /// A transfer coding that is not exactly `chunked`.
    UnknownTransferCoding,
    /// The request line is not `method SP target SP version`, or is preceded by more than empty lines.
    MalformedRequestLine,
    /// A field line that is not `name:value`: whitespace before the colon, folding, a control byte.
    MalformedField,
    /// A line that ends in anything but CR LF.
    MalformedLineEnd,
    /// A target that is neither a path, an http(s) URI, nor the `*` of OPTIONS, or is not printable ASCII.
    BadTarget,
    /// Host missing from HTTP/1.1, repeated, or not a host.
    BadHost,
    /// Content-Length repeated, not digits only, or past `i64::MAX`.
    BadContentLength,
    /// Transfer-Encoding repeated, with a tab, or in HTTP/1.0.
    BadTransferEncoding,
    /// Both Content-Length and Transfer-Encoding.
    AmbiguousFraming,
}

impl HeadError {
    /// The status that answers it (RFC 9110 15.5, RFC 6585 5).
    pub fn status(self) -> u16 {
        match self {
            HeadError::TargetTooLong => 414,
            HeadError::TooLarge | HeadError::TooManyHeaders => 431,
            HeadError::UnsupportedVersion => 505,
            HeadError::UnknownTransferCoding => 501,
            HeadError::MalformedRequestLine
            | HeadError::MalformedField
            | HeadError::MalformedLineEnd
            | HeadError::BadTarget
            | HeadError::BadHost
            | HeadError::BadContentLength
            | HeadError::BadTransferEncoding
            | HeadError::AmbiguousFraming => 400,
        }
    }
}

/// Bytes `start..end` of a head.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u16,
    end: u16,
}

impl Span {
    fn bytes(self, input: &[u8]) -> &[u8] {
        &input[usize::from(self.start)..usize::from(self.end)]
    }
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Span,
    value: Span,
}

/// A request head. It owns a copy of its bytes and costs two allocations.
#[derive(Debug)]
pub struct Head {
    bytes: Box<[u8]>,
    fields: Box<[Field]>,
    method_name: Span,
    target: Target,
    method: Method,
    meaning: Meaning,
}

impl Head {
    /// Parses the head at the start of `buf`. Gives it with the bytes that it took; what follows them,
    /// the body or the next request, is not looked at. `None` means that the head is not complete: call again
    /// with the same bytes and more.
    ///
    /// A head that can no longer become valid is refused as early as its tokens show it.
    pub fn parse(buf: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
        let window = &buf[..buf.len().min(HEAD_BYTES_MAX)];
        let Some(skipped) = skip_empty_lines(window)? else {
            return Ok(None);
        };
        let input = &window[skipped..];

        let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(input, &mut slots) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if window.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(too_large(input)),
            Err(error) => return Err(refuse(error, input)),
        };
        let head = Head::from_tokens(&request, &input[..length])?;
        Ok(Some((head, skipped + length)))
    }

    fn from_tokens(request: &httparse::Request<'_, '_>, input: &[u8]) -> Result<Head, HeadError> {
        let (Some(method_name), Some(target), Some(minor_version)) =
            (request.method, request.path, request.version)
        else {
            return Err(HeadError::MalformedRequestLine);
        };
        check_line_ends(request.headers, input)?;
        let target = Target::parse(span_of(target.as_bytes(), input), input)?;
        let method = method_of(method_name);
        if target.form == TargetForm::Asterisk && method != Method::Options {
            return Err(HeadError::BadTarget);
        }
        let meaning = Meaning::of_fields(request.headers, minor_version, input)?;
        // Signatures cover the Host field and routing follows the target: two hosts would be two requests.
        if let (Some(target), Some(field)) = (target.host, meaning.host)
            && !target.bytes(input).eq_ignore_ascii_case(field.bytes(input))
        {
            return Err(HeadError::BadHost);
        }

        let mut bytes: Box<[u8]> = input.into();
        let fields: Box<[Field]> = request
            .headers
            .iter()
            .map(|field| Field {
                name: span_of(field.name.as_bytes(), input),
                value: span_of(field.value, input),
            })
            .collect();
        for field in &fields {
            bytes[usize::from(field.name.start)..usize::from(field.name.end)].make_ascii_lowercase();
        }
        let method_name = span_of(method_name.as_bytes(), input);
        Ok(Head {
            bytes,
            fields,
            method_name,
            target,
            method,
            meaning,
        })
    }

    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as sent; methods are case-sensitive.
    pub fn method_str(&self) -> &str {
        self.text(self.method_name)
    }

    /// The path as sent: percent-encoded, without query, never empty. It starts with `/`, or is the `*` of OPTIONS.
    pub fn path(&self) -> &str {
        match self.text(self.target.path) {
            "" => "/",
            path => path,
        }
    }

    /// The query as sent, without its `?`; empty if there is none.
    pub fn query(&self) -> &str {
        self.text(self.target.query)
    }

    /// The first value of field `name` (in any case), without whitespace around it.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let field = self.fields.iter().find(|field| self.is_named(field, name))?;
        Some(self.slice(field.value))
    }

    /// How many fields are called `name` (in any case).
    pub fn header_count(&self, name: &str) -> usize {
        self.fields
            .iter()
            .filter(|field| self.is_named(field, name))
            .count()
    }

    /// All fields in the order sent: name in lower case, value without whitespace around it.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields
            .iter()
            .map(|field| (self.text(field.name), self.slice(field.value)))
    }

    /// The host, with its port if given: that of an absolute target, else the Host field (RFC 9112 3.2.2).
    pub fn host(&self) -> Option<&str> {
        let host = self.target.host.or(self.meaning.host)?;
        Some(self.text(host))
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.meaning.framing
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.meaning.expects_continue
    }

    /// Whether the connection may carry another request (RFC 9112 9.3).
    pub fn keep_alive(&self) -> bool {
        self.meaning.keep_alive
    }

    fn is_named(&self, field: &Field, name: &str) -> bool {
        self.slice(field.name).eq_ignore_ascii_case(name.as_bytes())
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[usize::from(span.start)..usize::from(span.end)]
    }

    /// For spans of names and targets, which are ASCII.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.slice(span)).unwrap_or_default()
    }
}

/// The offset of the request line; `None` if what is there may still be an empty line.
fn skip_empty_lines(buf: &[u8]) -> Result<Option<usize>, HeadError> {
    let mut at = 0;
    for _ in 0..=LEADING_EMPTY_LINES_MAX {
        match buf[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => at += 2,
            [b'\n', ..] => return Err(HeadError::MalformedLineEnd),
            _ => return Ok(Some(at)),
        }
    }
    Err(HeadError::MalformedRequestLine)
}

fn too_large(input: &[u8]) -> HeadError {
    if input.contains(&b'\n') {
        HeadError::TooLarge
    } else {
        HeadError::TargetTooLong
    }
}

fn refuse(error: httparse::Error, input: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HeadError::MalformedField,
        // httparse also says Version when the target has a space in it.
        httparse::Error::Version => match input.splitn(3, |&byte| byte == b' ').nth(2) {
            Some(version) if version.starts_with(b"HTTP/") => HeadError::UnsupportedVersion,
            _ => HeadError::MalformedRequestLine,
        },
        httparse::Error::NewLine => HeadError::MalformedLineEnd,
        httparse::Error::Token | httparse::Error::Status => HeadError::MalformedRequestLine,
    }
}

/// httparse takes LF for a line end. Its tokens hold none, so every line end is right before a name or at the end.
fn check_line_ends(fields: &[httparse::Header<'_>], input: &[u8]) -> Result<(), HeadError> {
    if !input.ends_with(b"\r\n\r\n") {
        return Err(HeadError::MalformedLineEnd);
    }
    for field in fields {
        let start = usize::from(span_of(field.name.as_bytes(), input).start);
        if !input[..start].ends_with(b"\r\n") {
            return Err(HeadError::MalformedLineEnd);
        }
    }
    Ok(())
}

/// Where `token`, a slice of `input`, lies in it.
fn span_of(token: &[u8], input: &[u8]) -> Span {
    let start = (token.as_ptr() as usize).wrapping_sub(input.as_ptr() as usize);
    let end = start.wrapping_add(token.len());
    if token.is_empty() || end > input.len() {
        return Span::default();
    }
    // A head is shorter than u16::MAX: asserted above.
    Span {
        start: start as u16,
        end: end as u16,
    }
}

fn method_of(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "POST" => Method::Post,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TargetForm {
    Origin,
    Absolute,
    Asterisk,
}

/// The parts of a request target (RFC 9112 3.2).
#[derive(Debug)]
struct Target {
    form: TargetForm,
    host: Option<Span>,
    path: Span,
    query: Span,
}

impl Target {
    fn parse(whole: Span, input: &[u8]) -> Result<Target, HeadError> {
        let bytes = &input[usize::from(whole.start)..usize::from(whole.end)];
        if !bytes.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(HeadError::BadTarget);
        }
        if bytes == b"*" {
            return Ok(Target {
                form: TargetForm::Asterisk,
                host: None,
                path: whole,
                query: Span::default(),
            });
        }
        if bytes.starts_with(b"/") {
            let (path, query) = split_query(bytes, input);
            return Ok(Target {
                form: TargetForm::Origin,
                host: None,
                path,
                query,
            });
        }
        let rest = [&b"http://"[..], b"https://"]
            .iter()
            .find(|scheme| {
                bytes
                    .get(..scheme.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            })
            .map(|scheme| &bytes[scheme.len()..])
            .ok_or(HeadError::BadTarget)?;
        let host_length = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (host, rest) = rest.split_at(host_length);
        if host.is_empty() || !is_host(host) {
            return Err(HeadError::BadTarget);
        }
        let (path, query) = split_query(rest, input);
        Ok(Target {
            form: TargetForm::Absolute,
            host: Some(span_of(host, input)),
            path,
            query,
        })
    }
}

fn split_query(bytes: &[u8], input: &[u8]) -> (Span, Span) {
    match bytes.iter().position(|&byte| byte == b'?') {
        Some(at) => (span_of(&bytes[..at], input), span_of(&bytes[at + 1..], input)),
        None => (span_of(bytes, input), Span::default()),
    }
}

/// Whether `host` is made of what a host and port may be made of (RFC 3986 3.2.2), user information excluded.
fn is_host(host: &[u8]) -> bool {
    host.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte))
}

/// What the fields say about the message itself.
#[derive(Debug)]
struct Meaning {
    host: Option<Span>,
    framing: Framing,
    expects_continue: bool,
    keep_alive: bool,
}

impl Meaning {
    fn of_fields(
        fields: &[httparse::Header<'_>],
        minor_version: u8,
        input: &[u8],
    ) -> Result<Meaning, HeadError> {
        let mut host = None;
        let mut content_length = None;
        let mut chunked = false;
        let mut expects_continue = false;
        let mut says_close = false;
        let mut says_keep_alive = false;
        for field in fields {
            let value = field.value;
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => {
                    if host.is_some() || !is_host(value) {
                        return Err(HeadError::BadHost);
                    }
                    host = Some(span_of(value, input));
                }
                6 if field.name.eq_ignore_ascii_case("expect") => {
                    expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    says_close |= has_token(value, b"close");
                    says_keep_alive |= has_token(value, b"keep-alive");
                }
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    if content_length.is_some() || has_tab(field, input) {
                        return Err(HeadError::BadContentLength);
                    }
                    content_length = Some(parse_content_length(value)?);
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    if chunked || has_tab(field, input) || minor_version == 0 {
                        return Err(HeadError::BadTransferEncoding);
                    }
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(HeadError::UnknownTransferCoding);
                    }
                    chunked = true;
                }
                _ => {}
            }
        }
        if host.is_none() && minor_version > 0 {
            return Err(HeadError::BadHost);
        }
        let framing = match (content_length, chunked) {
            (None, false) => Framing::None,
            (Some(length), false) => Framing::Length(length),
            (None, true) => Framing::Chunked,
            (Some(_), true) => return Err(HeadError::AmbiguousFraming),
        };
        Ok(Meaning {
            host,
            framing,
            expects_continue: expects_continue && minor_version > 0,
            keep_alive: !says_close && (minor_version > 0 || says_keep_alive),
        })
    }
}

/// Digits only: no sign, no list, no whitespace (RFC 9110 8.6).
fn parse_content_length(value: &[u8]) -> Result<u64, HeadError> {
    let mut length: u64 = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(HeadError::BadContentLength);
        }
        length = length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(byte - b'0')))
            .filter(|&length| length <= i64::MAX as u64)
            .ok_or(HeadError::BadContentLength)?;
    }
    if value.is_empty() {
        Err(HeadError::BadContentLength)
    } else {
        Ok(length)
    }
}

/// Whether the line of `field` has a tab, which some parsers take for part of the value and some do not.
fn has_tab(field: &httparse::Header<'_>, input: &[u8]) -> bool {
    let value_start = usize::from(span_of(field.name.as_bytes(), input).end);
    input[value_start..]
        .iter()
        .take_while(|&&byte| byte != b'\n')
        .any(|&byte| byte == b'\t')
}

/// Whether `list`, comma-separated, has `token` (RFC 9110 5.6.1).
fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether `name` may be the name of a field (RFC 9110 5.6.2).
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token_byte)
}

/// Whether a byte may stand in the name of a field.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || b"!#$%&'*+.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "Host: h\r\n";

    fn parse(text: &str) -> Result<Head, HeadError> {
        let parsed = Head::parse(text.as_bytes())?;
        Ok(parsed.expect("a complete head").0)
    }

    /// A head of HTTP/1.1 with a host and `fields`, each with its line end.
    fn with_fields(fields: &str) -> Result<Head, HeadError> {
        parse(&format!("PUT /b/k HTTP/1.1\r\n{HOST}{fields}\r\n"))
    }

    fn refusal(fields: &str) -> HeadError {
        with_fields(fields).expect_err(fields)
    }

    fn target_refusal(target: &str) -> HeadError {
        parse(&format!("GET {target} HTTP/1.1\r\n{HOST}\r\n")).expect_err(target)
    }

    #[test]
    fn the_parts_of_a_request_are_found() {
        let head = parse(
            "PUT /bucket/a%20b?partNumber=1&uploadId=x HTTP/1.1\r\nHost: h:9000\r\nContent-Length: 12\r\n\
             X-Amz-Meta-A:  first value \t\r\nx-amz-meta-a: second\r\nEmpty:\r\nExpect: 100-Continue\r\n\r\n",
        )
        .unwrap();
        assert_eq!(head.method(), Method::Put);
        assert_eq!(head.method_str(), "PUT");
        assert_eq!(head.path(), "/bucket/a%20b");
        assert_eq!(head.query(), "partNumber=1&uploadId=x");
        assert_eq!(head.host(), Some("h:9000"));
        assert_eq!(head.framing(), Framing::Length(12));
        assert_eq!(head.header("X-AMZ-META-A"), Some(&b"first value"[..]));
        assert_eq!(head.header("x-amz-meta-a"), Some(&b"first value"[..]));
        assert_eq!(head.header_count("x-amz-meta-a"), 2);
        assert_eq!(head.header("empty"), Some(&b""[..]));
        assert_eq!(head.header("absent"), None);
        assert_eq!(head.header_count("absent"), 0);
        assert!(head.expects_continue() && head.keep_alive());
        let names: Vec<&str> = head.headers().map(|field| field.0).collect();
        assert_eq!(
            names,
            [
                "host",
                "content-length",
                "x-amz-meta-a",
                "x-amz-meta-a",
                "empty",
                "expect"
            ]
        );
    }

    #[test]
    fn every_method_has_its_name() {
        let methods = [
            ("GET", Method::Get),
            ("HEAD", Method::Head),
            ("PUT", Method::Put),
            ("POST", Method::Post),
            ("DELETE", Method::Delete),
            ("OPTIONS", Method::Options),
            ("PATCH", Method::Other),
            ("get", Method::Other),
        ];
        for (name, method) in methods {
            let head = parse(&format!("{name} / HTTP/1.1\r\n{HOST}\r\n")).unwrap();
            assert_eq!((head.method(), head.method_str()), (method, name));
        }
    }

    #[test]
    fn bytes_after_the_head_are_not_taken() {
        let first = format!("GET /1 HTTP/1.1\r\n{HOST}\r\n");
        let both = format!("{first}GET /2 HTTP/1.1\r\n{HOST}\r\n");
        let (head, consumed) = Head::parse(both.as_bytes()).unwrap().unwrap();
        assert_eq!((head.path(), consumed), ("/1", first.len()));
        let (head, rest) = Head::parse(&both.as_bytes()[consumed..]).unwrap().unwrap();
        assert_eq!((head.path(), consumed + rest), ("/2", both.len()));
    }

    #[test]
    fn a_growing_buffer_gives_nothing_until_the_head_is_whole() {
        let text = format!("\r\nGET /k?q HTTP/1.1\r\n{HOST}A: b\r\nContent-Length: 3\r\n\r\n");
        for length in 0..text.len() {
            assert!(
                matches!(Head::parse(&text.as_bytes()[..length]), Ok(None)),
                "at {length}"
            );
        }
        assert_eq!(Head::parse(text.as_bytes()).unwrap().unwrap().1, text.len());
    }

    #[test]
    fn targets_are_split() {
        // target, path, query, host
        let table = [
            ("/", "/", "", "h"),
            ("/?", "/", "", "h"),
            ("/?a?b", "/", "a?b", "h"),
            ("//a/../b", "//a/../b", "", "h"),
            ("/%00%2e%2E\\\"<>", "/%00%2e%2E\\\"<>", "", "h"),
            ("http://h/p?q", "/p", "q", "h"),
            ("HTTPS://[::1]:9000", "/", "", "[::1]:9000"),
            ("http://H?q", "/", "q", "H"),
        ];
        for (target, path, query, host) in table {
            let head = parse(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect(target);
            assert_eq!(
                (head.path(), head.query(), head.host()),
                (path, query, Some(host)),
                "{target}"
            );
        }
        let head = parse(&format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n")).unwrap();
        assert_eq!(head.path(), "*");
    }

    #[test]
    fn a_target_that_names_another_host_than_the_field_is_refused() {
        for target in ["http://other/p", "http://h:1/p", "http://xh/"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(parse(&head).unwrap_err(), HeadError::BadHost, "{target}");
        }
    }

    #[test]
    fn targets_of_other_forms_are_refused() {
        for target in [
            "*",
            "k",
            "?q",
            "h:443",
            "ftp://h/",
            "http://",
            "http:///k",
            "http://u@h/",
            "/k#f",
            "/é",
        ] {
            assert_eq!(target_refusal(target), HeadError::BadTarget, "{target}");
        }
        assert_eq!(target_refusal("/a\tb"), HeadError::MalformedRequestLine);
        assert_eq!(target_refusal("/a\0b"), HeadError::MalformedRequestLine);
        assert_eq!(target_refusal("/a\x7fb"), HeadError::MalformedRequestLine);
        assert_eq!(target_refusal("/a b"), HeadError::MalformedRequestLine);
    }

    #[test]
    fn only_http_1_is_spoken() {
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive());
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/11"] {
            let text = format!("GET / {version}\r\n{HOST}\r\n");
            assert_eq!(
                parse(&text).unwrap_err(),
                HeadError::UnsupportedVersion,
                "{version}"
            );
        }
        for line in [
            "GET /",
            "GET / ",
            "GET / http/1.1",
            "GET  / HTTP/1.1",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1 ",
        ] {
            let error = parse(&format!("{line}\r\n{HOST}\r\n")).unwrap_err();
            assert_eq!(error.status(), 400, "{line}");
        }
        assert_eq!(
            Head::parse(b"\x16\x03\x01\x02\x00\x01").unwrap_err(),
            HeadError::MalformedRequestLine
        );
    }

    #[test]
    fn a_few_empty_lines_before_a_request_are_skipped() {
        for lines in ["", "\r\n", "\r\n\r\n"] {
            assert_eq!(
                parse(&format!("{lines}GET / HTTP/1.1\r\n{HOST}\r\n"))
                    .unwrap()
                    .path(),
                "/"
            );
        }
        for lines in ["\r\n\r\n\r\n", "\r", "\r\r\n"] {
            let error = parse(&format!("{lines}GET / HTTP/1.1\r\n{HOST}\r\n")).unwrap_err();
            assert_eq!(error.status(), 400);
        }
        assert_eq!(Head::parse(b"\nGET").unwrap_err(), HeadError::MalformedLineEnd);
    }

    #[test]
    fn an_early_refusal_is_that_of_the_whole_head() {
        let text = b"GET / HTTP/1.1%\nHost: h\r\n b\r\n\r#";
        let whole = Head::parse(text).unwrap_err();
        assert_eq!(whole, HeadError::MalformedLineEnd);
        for length in 0..text.len() {
            match Head::parse(&text[..length]) {
                Ok(parsed) => assert!(parsed.is_none()),
                Err(error) => assert_eq!(error, whole, "at {length}"),
            }
        }
    }

    #[test]
    fn a_bare_line_feed_is_refused_wherever_it_stands() {
        let whole = format!("GET / HTTP/1.1\r\n{HOST}A: b\r\nC: d\r\n\r\n");
        let ends: Vec<usize> = whole.match_indices("\r\n").map(|found| found.0).collect();
        for end in ends {
            let mut text = whole.clone();
            text.remove(end);
            assert_eq!(parse(&text).unwrap_err(), HeadError::MalformedLineEnd, "{text:?}");
        }
    }

    #[test]
    fn malformed_fields_are_refused() {
        let fields = [
            "A : b\r\n",
            "A\t: b\r\n",
            " A: b\r\n",
            ": b\r\n",
            "A\r\n",
            "A(: b\r\n",
            "A: b\r\n folded\r\n",
            "A: b\r\n\tfolded\r\n",
            "A: b\0c\r\n",
            "A: b\rc\r\n",
            "A: b\r\r\n",
            "A: b\x7f\r\n",
            "A: \x01\r\n",
        ];
        for field in fields {
            assert_eq!(refusal(field), HeadError::MalformedField, "{field:?}");
        }
        assert_eq!(
            with_fields("A: é\tb\r\n").unwrap().header("a"),
            Some("é\tb".as_bytes())
        );
    }

    #[test]
    fn content_length_is_digits_and_once() {
        for (value, length) in [("0", 0), ("007", 7), ("9223372036854775807", i64::MAX as u64)] {
            let head = with_fields(&format!("Content-Length: {value}\r\n")).unwrap();
            assert_eq!(head.framing(), Framing::Length(length));
        }
        let values = [
            "",
            "+1",
            "-1",
            "1,1",
            "1, 1",
            "1 1",
            "0x1",
            "1.0",
            "\t1",
            "1\t",
            "9223372036854775808",
        ];
        for value in values {
            let error = refusal(&format!("Content-Length: {value}\r\n"));
            assert_eq!(error, HeadError::BadContentLength, "{value:?}");
        }
        assert_eq!(
            refusal("Content-Length: 1\r\ncontent-length: 2\r\n"),
            HeadError::BadContentLength
        );
        assert_eq!(
            refusal("Content-Length: 1\r\nCONTENT-LENGTH: 1\r\n"),
            HeadError::BadContentLength
        );
        assert_eq!(
            refusal("Content-Length: 99999999999999999999999\r\n"),
            HeadError::BadContentLength
        );
    }

    #[test]
    fn transfer_encoding_is_chunked_and_once() {
        assert_eq!(
            with_fields("Transfer-Encoding: Chunked\r\n").unwrap().framing(),
            Framing::Chunked
        );
        for value in [
            "",
            "gzip",
            "identity",
            "gzip, chunked",
            "chunked, chunked",
            "chunked;q=1",
            "xchunked",
            "\"chunked\"",
        ] {
            let error = refusal(&format!("Transfer-Encoding: {value}\r\n"));
            assert_eq!(error, HeadError::UnknownTransferCoding, "{value:?}");
        }
        let fields = [
            "Transfer-Encoding:\tchunked\r\n",
            "Transfer-Encoding: chunked\t\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ];
        for field in fields {
            assert_eq!(refusal(field), HeadError::BadTransferEncoding, "{field:?}");
        }
        let old = parse("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old.unwrap_err(), HeadError::BadTransferEncoding);
    }

    #[test]
    fn two_framings_are_refused_in_either_order() {
        let (length, chunked) = ("Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n");
        assert_eq!(
            refusal(&format!("{length}{chunked}")),
            HeadError::AmbiguousFraming
        );
        assert_eq!(
            refusal(&format!("{chunked}{length}")),
            HeadError::AmbiguousFraming
        );
        assert_eq!(with_fields("").unwrap().framing(), Framing::None);
    }

    #[test]
    fn http_1_1_has_one_host() {
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n").unwrap_err(), HeadError::BadHost);
        assert_eq!(
            parse("GET http://h/ HTTP/1.1\r\n\r\n").unwrap_err(),
            HeadError::BadHost
        );
        assert_eq!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().host(), None);
        assert_eq!(refusal("host: h\r\n"), HeadError::BadHost);
        for host in ["a b", "a/b", "a@b", "a,\"", "é"] {
            let error = parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap_err();
            assert_eq!(error, HeadError::BadHost, "{host}");
        }
        for host in ["", "b.s3.local:9000", "[::1]:9000", "127.0.0.1"] {
            let head = parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
            assert_eq!(head.host(), Some(host));
        }
    }

    #[test]
    fn connection_decides_whether_another_request_may_follow() {
        // version, Connection, keep_alive
        let table = [
            ("1.1", "keep-alive", true),
            ("1.1", "Close", false),
            ("1.1", "foo, close", false),
            ("1.1", "closed", true),
            ("1.1", "close\r\nConnection: keep-alive", false),
            ("1.0", "x", false),
            ("1.0", "Keep-Alive", true),
            ("1.0", "keep-alive, close", false),
        ];
        for (version, connection, keep_alive) in table {
            let text = format!("GET / HTTP/{version}\r\n{HOST}Connection: {connection}\r\n\r\n");
            assert_eq!(
                parse(&text).unwrap().keep_alive(),
                keep_alive,
                "{version} {connection}"
            );
        }
    }

    #[test]
    fn http_1_0_expects_nothing() {
        let head = parse("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").unwrap();
        assert!(!head.expects_continue());
        assert!(!with_fields("Expect: other\r\n").unwrap().expects_continue());
    }

    #[test]
    fn a_head_that_is_too_large_is_refused_whole_or_in_parts() {
        let start = format!("GET / HTTP/1.1\r\n{HOST}A: ");
        let exact = format!("{start}{}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX - start.len() - 4));
        assert_eq!(Head::parse(exact.as_bytes()).unwrap().unwrap().1, HEAD_BYTES_MAX);
        let over = exact.replace("A: x", "A: xx");
        for length in [HEAD_BYTES_MAX, HEAD_BYTES_MAX + 1] {
            assert_eq!(
                Head::parse(&over.as_bytes()[..length]).unwrap_err(),
                HeadError::TooLarge
            );
        }
        assert!(
            Head::parse(&over.as_bytes()[..HEAD_BYTES_MAX - 1])
                .unwrap()
                .is_none()
        );
        let long_target = format!("GET /{}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(
            Head::parse(long_target.as_bytes()).unwrap_err(),
            HeadError::TargetTooLong
        );
    }

    #[test]
    fn the_hundredth_field_is_taken_and_the_next_refused() {
        let fields = |count: usize| "A: b\r\n".repeat(count);
        assert_eq!(
            with_fields(&fields(HEADERS_MAX - 1)).unwrap().header_count("a"),
            HEADERS_MAX - 1
        );
        assert_eq!(refusal(&fields(HEADERS_MAX)), HeadError::TooManyHeaders);
    }

    #[test]
    fn errors_have_the_status_that_fits() {
        assert_eq!(HeadError::TargetTooLong.status(), 414);
        assert_eq!(HeadError::TooManyHeaders.status(), 431);
        assert_eq!(HeadError::UnsupportedVersion.status(), 505);
        assert_eq!(HeadError::UnknownTransferCoding.status(), 501);
        assert_eq!(HeadError::AmbiguousFraming.status(), 400);
    }
}
