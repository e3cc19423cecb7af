//! Days, as people write them: `7`, or a part of one, `0.5`.

use std::time::Duration;

const DAY_SECONDS: f64 = 86_400.0;
/// A thousand years.
const DAYS_MAX: f64 = 365_000.0;

/// The time that `text` gives; `None` if it gives none, or one of no length.
pub fn parse(text: &str) -> Option<Duration> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let days: f64 = is_plain.then(|| text.parse().ok())??;
    (days > 0.0 && days <= DAYS_MAX).then(|| Duration::from_secs_f64(days * DAY_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_may_be_parts_of_one() {
        for (text, seconds) in [
            ("7", 604_800.0),
            ("0.5", 43_200.0),
            ("0.00001", 0.864),
            (".25", 21_600.0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", ".", "0", "0.0", "-1", "+1", "1e3", "inf", "nan", "7d", "1 ", "1.2.3", "999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
