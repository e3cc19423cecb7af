//! The head of a response, written into a buffer that the caller owns and reuses.
//!
//! Invariant: whatever a value holds, the bytes written are one status line and one line for each
//! header. A control byte (CR, LF, NUL, tab and DEL among them) in a value is written as its percent escape,
//! so that what a client stored cannot end a line; other bytes, also above 0x7f, are written as they are. A
//! header whose name is not a token is dropped. It does not know what a header means.

use super::head::is_token;

/// The interim answer to `Expect: 100-continue` (RFC 9110 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes a response head: [`ResponseHead::begin`], headers, [`ResponseHead::end`].
#[must_use = "a head without its end is not a head"]
pub struct ResponseHead<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> ResponseHead<'a> {
    /// Appends the status line to `out`. A status outside 100 to 999 is our bug and is sent as 500.
    pub fn begin(out: &'a mut Vec<u8>, status: u16) -> ResponseHead<'a> {
        out.extend_from_slice(b"HTTP/1.1 ");
        let status = if (100..1000).contains(&status) {
            status
        } else {
            500
        };
        write_u64(u64::from(status), out);
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        ResponseHead { out }
    }

    /// Appends `name: value`, made safe as the file's header says.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        push_header(self.out, name, value.as_ref());
        self
    }

    /// Appends `name: value` in decimal: lengths, counts, seconds.
    pub fn header_u64(mut self, name: &str, value: u64) -> Self {
        if !is_token(name) {
            return self;
        }
        self.write_name(name);
        write_u64(value, self.out);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Appends lines that [`push_header`] wrote.
    pub fn lines(self, lines: &[u8]) -> Self {
        self.out.extend_from_slice(lines);
        self
    }

    /// Appends the empty line. The body, if any, is the caller's to append or send.
    pub fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn write_name(&mut self, name: &str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
    }
}

/// Appends one header line, made safe as the file's header says.
pub fn push_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !is_token(name) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    write_value(value, out);
    out.extend_from_slice(b"\r\n");
}

fn write_value(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    // Without early exit, so that it is vectorised.
    let has_control = value
        .iter()
        .fold(false, |seen, byte| seen | byte.is_ascii_control());
    if !has_control {
        out.extend_from_slice(value);
        return;
    }
    for &byte in value {
        if byte.is_ascii_control() {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

/// Appends `value` in decimal.
fn write_u64(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The reason phrase (RFC 9110 15, RFC 6585, RFC 4918 for 507).
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(name: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        ResponseHead::begin(&mut out, 200).header(name, value).end();
        out
    }

    #[test]
    fn a_head_is_a_status_line_headers_and_an_empty_line() {
        let mut out = b"before".to_vec();
        ResponseHead::begin(&mut out, 206)
            .header("Server", "weft")
            .header_u64("Content-Length", 0)
            .header_u64("X-Max", u64::MAX)
            .end();
        let text = "beforeHTTP/1.1 206 Partial Content\r\nServer: weft\r\nContent-Length: 0\r\n\
                    X-Max: 18446744073709551615\r\n\r\n";
        assert_eq!(out, text.as_bytes());
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let out = with_header("A", b"x\r\nSet-Cookie: y\n\r\n\r\nbody\0\x7f\t");
        assert_eq!(
            out,
            b"HTTP/1.1 200 OK\r\nA: x%0D%0ASet-Cookie: y%0A%0D%0A%0D%0Abody%00%7F%09\r\n\r\n"
        );
        for byte in 0..=255 {
            let out = with_header("A", &[b'a', byte, b'b']);
            let controls = out.iter().filter(|byte| byte.is_ascii_control()).count();
            assert_eq!(controls, 6, "byte {byte}");
        }
    }

    #[test]
    fn bytes_past_ascii_are_sent_as_they_are() {
        assert_eq!(
            with_header("A", "é".as_bytes()),
            b"HTTP/1.1 200 OK\r\nA: \xc3\xa9\r\n\r\n"
        );
    }

    #[test]
    fn a_header_without_a_proper_name_is_dropped() {
        for name in ["", "a b", "a:", "a\r\nb", "é"] {
            assert_eq!(with_header(name, b"x"), b"HTTP/1.1 200 OK\r\n\r\n", "{name:?}");
            let mut out = Vec::new();
            ResponseHead::begin(&mut out, 200).header_u64(name, 1).end();
            assert_eq!(out, b"HTTP/1.1 200 OK\r\n\r\n", "{name:?}");
        }
    }

    #[test]
    fn a_status_always_has_three_digits() {
        for (status, line) in [
            (404, "404 Not Found"),
            (299, "299 Unknown"),
            (7, "500 Internal Server Error"),
        ] {
            let mut out = Vec::new();
            ResponseHead::begin(&mut out, status).end();
            assert_eq!(out, format!("HTTP/1.1 {line}\r\n\r\n").as_bytes());
        }
    }
}
