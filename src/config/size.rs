//! Sizes as people write them: `512MiB`, `2TiB`.
//!
//! Strict on purpose: a capacity that was meant otherwise than it was read shows when the disk is full. So
//! powers of ten, fractions, spaces and bare numbers are refused rather than guessed at.

const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("PiB", 50)];

/// Bytes of a whole number and a unit; `None` for anything else, and past 2^64.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, power) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(1 << power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_of_binary_units_are_sizes() {
        for (text, bytes) in [
            ("1KiB", 1 << 10),
            ("512MiB", 512 << 20),
            ("010GiB", 10 << 30),
            ("2TiB", 2 << 40),
            ("16383PiB", 16383 << 50),
            ("0MiB", 0),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "1",
            "MiB",
            "1MB",
            "1M",
            "1mib",
            "1 MiB",
            " 1MiB",
            "1MiB ",
            "+1MiB",
            "-1MiB",
            "1.5GiB",
            "1_000MiB",
            "1MiBMiB",
            "0x1MiB",
            "١MiB",
            "16384PiB",
            "18446744073709551616KiB",
            "1é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
