//! User metadata outside ASCII, as S3 returns it: RFC 2047 encoded words.
//!
//! S3 reads a header's bytes as ISO 8859-1, and returns text that then has characters outside ASCII as one
//! encoded word of its UTF-8. A client that sent UTF-8 therefore gets it back encoded twice, which is what
//! S3's user guide shows (`ÄMÄZÕÑ S3` comes back as `=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?=`) and what
//! clients that decode expect. ASCII stays as it is, encoded words that the client sent among it.
//!
//! Invariant: what is returned is printable ASCII and tabs, if what was given has no control characters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `value` as it is stored and returned.
pub fn encode(value: Vec<u8>) -> Vec<u8> {
    let high = value.iter().filter(|byte| !byte.is_ascii()).count();
    if high == 0 {
        return value;
    }
    let text: String = value.iter().copied().map(char::from).collect();
    // Mostly ASCII stays readable; S3's mail library decides by majority.
    if value.len() - high > high {
        quoted(&text)
    } else {
        base64(&text)
    }
}

fn base64(text: &str) -> Vec<u8> {
    format!("=?UTF-8?B?{}?=", STANDARD.encode(text)).into_bytes()
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = b"=?UTF-8?Q?".to_vec();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push(b'_'),
            b'=' | b'?' | b'_' | 0..=0x1f | 0x7f..=0xff => {
                out.extend_from_slice(format!("={byte:02X}").as_bytes())
            }
            _ => out.push(byte),
        }
    }
    out.extend_from_slice(b"?=");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_the_user_guide_shows() {
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            (b"AMAZONS3", "AMAZONS3"),
            (b"=?UTF-8?B?w4Q=?=", "=?UTF-8?B?w4Q=?="),
            ("ÄMÄZÕÑ S3".as_bytes(), "=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?="),
            (b"Hello World\xe9", "=?UTF-8?Q?Hello_World=C3=A9?="),
            (b"a=b?c_d e\xe9", "=?UTF-8?Q?a=3Db=3Fc=5Fd_e=C3=A9?="),
            (b"\xff", "=?UTF-8?B?w78=?="),
        ];
        for (value, expected) in table {
            assert_eq!(String::from_utf8(encode(value.to_vec())).unwrap(), *expected);
        }
    }

    #[test]
    fn every_byte_becomes_printable_ascii() {
        for byte in 0x80..=0xffu8 {
            for value in [vec![byte], vec![b'a', b'b', b'c', byte]] {
                assert!(encode(value).iter().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
