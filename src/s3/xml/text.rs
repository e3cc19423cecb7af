//! Text as XML responses hold it: escaped, percent-encoded, numbers and dates, appended to a `Vec<u8>`.
//!
//! A listing writes a thousand keys in well under a millisecond, so each function looks at bytes once
//! and copies runs of them.
//!
//! Invariant: whatever the input, what is appended is UTF-8 and holds no markup and no bare control
//! character.

/// What a byte means to [`escape_into`].
const PLAIN: u8 = 0;
const SPECIAL: u8 = 1;
const HIGH: u8 = 2;

static CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut byte = 0;
    while byte < 256 {
        class[byte] = match byte as u8 {
            0..=0x1f | 0x7f | b'&' | b'<' | b'>' | b'"' | b'\'' => SPECIAL,
            0x80..=0xff => HIGH,
            _ => PLAIN,
        };
        byte += 1;
    }
    class
};

/// Appends `text` with `& < > " '` as entities and control characters as character references.
///
/// XML 1.0 forbids most control characters even as references; S3 writes them so nevertheless, and a
/// client that cannot read that asks for `encoding-type=url`. Bytes that are not UTF-8 become U+FFFD.
pub fn escape_into(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| CLASS[byte as usize] != PLAIN) {
        out.extend_from_slice(&rest[..at]);
        if CLASS[rest[at] as usize] == HIGH {
            return escape_unicode_into(out, &rest[at..]);
        }
        escape_byte_into(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// As [`escape_into`], for text that has bytes outside ASCII.
fn escape_unicode_into(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut from = 0;
        for (at, &byte) in valid.iter().enumerate() {
            if CLASS[byte as usize] == SPECIAL {
                out.extend_from_slice(&valid[from..at]);
                escape_byte_into(out, byte);
                from = at + 1;
            } else if byte == 0xef && matches!(valid.get(at + 1..at + 3), Some([0xbf, 0xbe | 0xbf])) {
                // U+FFFE and U+FFFF: the only others that XML does not have.
                out.extend_from_slice(&valid[from..at]);
                out.extend_from_slice(if valid[at + 2] == 0xbe {
                    b"&#xFFFE;"
                } else {
                    b"&#xFFFF;"
                });
                from = at + 3;
            }
        }
        out.extend_from_slice(&valid[from..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cold]
fn escape_byte_into(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'&' => out.extend_from_slice(b"&amp;"),
        b'<' => out.extend_from_slice(b"&lt;"),
        b'>' => out.extend_from_slice(b"&gt;"),
        b'"' => out.extend_from_slice(b"&quot;"),
        b'\'' => out.extend_from_slice(b"&apos;"),
        _ => {
            out.extend_from_slice(b"&#x");
            if byte >= 0x10 {
                out.push(HEX_UPPER[usize::from(byte >> 4)]);
            }
            out.push(HEX_UPPER[usize::from(byte & 15)]);
            out.push(b';');
        }
    }
}

const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";
const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";

/// What `encoding-type=url` leaves as it is.
static URL_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = matches!(byte as u8, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'*' | b'/');
        byte += 1;
    }
    plain
};

/// Appends `text` percent-encoded as listings with `encoding-type=url` have it: `/` stays, a space is
/// `%20`, never `+`. The result needs no XML escaping.
pub fn percent_encode_into(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| !URL_PLAIN[byte as usize]) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[
            b'%',
            HEX_UPPER[usize::from(byte >> 4)],
            HEX_UPPER[usize::from(byte & 15)],
        ]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends `bytes` as lower-case hexadecimal digits.
pub fn hex_into<const N: usize>(out: &mut Vec<u8>, bytes: &[u8; N]) {
    for byte in bytes {
        out.extend_from_slice(&[
            HEX_LOWER[usize::from(byte >> 4)],
            HEX_LOWER[usize::from(byte & 15)],
        ]);
    }
}

/// Appends `number` in decimal.
pub fn decimal_into(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

/// Appends a date as S3's XML has it: `2009-10-12T17:50:30.000Z`. S3 keeps whole seconds, so that
/// listings and the `Last-Modified` header agree.
///
/// `unix_ms`: milliseconds since 1970. Dates past the year 9999 are written as its last second.
pub fn timestamp_into(out: &mut Vec<u8>, unix_ms: u64) {
    const SECONDS_MAX: u64 = 253_402_300_799;
    let seconds = (unix_ms / 1000).min(SECONDS_MAX);
    let (year, month, day) = civil(seconds / 86_400);
    let second = (seconds % 86_400) as u32;
    let mut text = *b"0000-00-00T00:00:00.000Z";
    two(&mut text, 0, year / 100);
    two(&mut text, 2, year % 100);
    two(&mut text, 5, month);
    two(&mut text, 8, day);
    two(&mut text, 11, second / 3600);
    two(&mut text, 14, second / 60 % 60);
    two(&mut text, 17, second % 60);
    out.extend_from_slice(&text);
}

fn two(text: &mut [u8; 24], at: usize, number: u32) {
    text[at] = b'0' + (number / 10 % 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

/// Year, month and day of a day since 1970-01-01 (Gregorian; eras of 400 years that begin in March).
fn civil(days: u64) -> (u32, u32, u32) {
    let days = (days + 719_468) as u32;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("what is written is UTF-8")
    }

    #[test]
    fn markup_and_control_characters_are_escaped() {
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"plain/key.txt", "plain/key.txt"),
            (
                b"<a b='c' d=\"e\">&amp;",
                "&lt;a b=&apos;c&apos; d=&quot;e&quot;&gt;&amp;amp;",
            ),
            (b"\0\x01\t\n\r\x1f\x7f", "&#x0;&#x1;&#x9;&#xA;&#xD;&#x1F;&#x7F;"),
            ("é<\u{1F600}\r".as_bytes(), "é&lt;\u{1F600}&#xD;"),
            (
                "a\u{fffe}b\u{ffff}c\u{fffd}".as_bytes(),
                "a&#xFFFE;b&#xFFFF;c\u{fffd}",
            ),
            (b"a\xffb\xc3", "a\u{fffd}b\u{fffd}"),
            (b"\xef\xbf", "\u{fffd}"),
        ];
        for (text, expected) in table {
            assert_eq!(&written(|out| escape_into(out, text)), expected, "{text:?}");
        }
    }

    #[test]
    fn url_encoding_keeps_slashes_and_has_no_plus() {
        let table: &[(&str, &str)] = &[
            ("a/b-c_d.e~f*g", "a/b-c_d.e~f*g"),
            ("a b+c", "a%20b%2Bc"),
            ("test_file(3).png", "test_file%283%29.png"),
            ("é\r&<%", "%C3%A9%0D%26%3C%25"),
        ];
        for (text, expected) in table {
            assert_eq!(
                &written(|out| percent_encode_into(out, text.as_bytes())),
                expected
            );
        }
    }

    #[test]
    fn numbers_and_hex() {
        for number in [0, 9, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(written(|out| decimal_into(out, number)), number.to_string());
        }
        assert_eq!(written(|out| hex_into(out, &[0x00, 0xab, 0x7f])), "00ab7f");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_255_369_830_000, "2009-10-12T17:50:30.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.000Z"),
        ];
        for (unix_ms, expected) in table {
            assert_eq!(written(|out| timestamp_into(out, unix_ms)), expected, "{unix_ms}");
        }
        // Against httpdate, day by day over two centuries.
        for day in 0..73_000u64 {
            let (year, month, day_of_month) = civil(day);
            let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400);
            let text = httpdate::fmt_http_date(when);
            let months = [
                "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
            ];
            let ours = format!("{day_of_month:02} {} {year}", months[month as usize - 1]);
            assert!(text.contains(&ours), "{text} and {ours}");
        }
    }
}
