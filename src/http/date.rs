//! The dates of HTTP and S3, both ways. Every one is UTC; the caller says what time it is.
//!
//! Invariant: formatting never allocates and knows years 1970 to 9999, later moments being shown as the
//! last of these; parsing gives a moment that exists or nothing, never one rounded or wrapped. No clock here.

use std::time::UNIX_EPOCH;

const SECONDS_PER_DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A date as ASCII text of `N` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DateText<const N: usize>([u8; N]);

impl<const N: usize> DateText<N> {
    pub fn as_str(&self) -> &str {
        // Made from ASCII below.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl<const N: usize> AsRef<[u8]> for DateText<N> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// `2009-10-12T17:50:30.000Z`, S3's dates in XML, from Unix milliseconds.
pub fn iso8601_ms(unix_ms: u64) -> DateText<24> {
    let moment = Moment::at(unix_ms / 1000);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[0..4], moment.year);
    put(&mut text[5..7], moment.month);
    put(&mut text[8..10], moment.day);
    put(&mut text[11..13], moment.hour);
    put(&mut text[14..16], moment.minute);
    put(&mut text[17..19], moment.second);
    put(&mut text[20..23], unix_ms % 1000);
    DateText(text)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, IMF-fixdate (RFC 9110 5.6.7), from Unix seconds.
pub fn http_date(unix_s: u64) -> DateText<29> {
    let moment = Moment::at(unix_s);
    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    text[0..3].copy_from_slice(DAYS[moment.weekday].as_bytes());
    put(&mut text[5..7], moment.day);
    text[8..11].copy_from_slice(MONTHS[moment.month as usize - 1].as_bytes());
    put(&mut text[12..16], moment.year);
    put(&mut text[17..19], moment.hour);
    put(&mut text[20..22], moment.minute);
    put(&mut text[23..25], moment.second);
    DateText(text)
}

/// Writes `value` into all of `digits`, in decimal with leading zeroes.
fn put(digits: &mut [u8], value: u64) {
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// The Date header's value, made once a second.
#[derive(Debug)]
pub struct DateCache {
    unix_s: u64,
    text: DateText<29>,
}

impl Default for DateCache {
    fn default() -> Self {
        DateCache {
            unix_s: 0,
            text: http_date(0),
        }
    }
}

impl DateCache {
    /// The [`http_date`] of `unix_s`, which may go back.
    pub fn at(&mut self, unix_s: u64) -> &str {
        if self.unix_s != unix_s {
            *self = DateCache {
                unix_s,
                text: http_date(unix_s),
            };
        }
        self.text.as_str()
    }
}

/// Unix seconds of an HTTP date in any of its three forms: IMF-fixdate, RFC 850, asctime (RFC 9110 5.6.7).
/// None also for dates before 1970.
pub fn parse_http_date(text: &str) -> Option<u64> {
    let moment = httpdate::parse_http_date(text).ok()?;
    moment
        .duration_since(UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

/// Unix seconds of `20130524T000000Z`, the form of x-amz-date. None also for dates before 1970.
pub fn parse_amz_date(text: &str) -> Option<u64> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let [year, month, day] = [
        digits(&bytes[0..4])?,
        digits(&bytes[4..6])?,
        digits(&bytes[6..8])?,
    ];
    let [hour, minute, second] = [
        digits(&bytes[9..11])?,
        digits(&bytes[11..13])?,
        digits(&bytes[13..15])?,
    ];
    unix_seconds(year, month, day, hour, minute, second)
}

/// Unix seconds of an ISO 8601 moment as S3's XML and policies have them: `2009-10-12T17:50:30[.fraction]`
/// and `Z` or `+hh:mm`, `-hh:mm`; the fraction is dropped. A date alone is its midnight.
/// None also for dates before 1970.
pub fn parse_iso8601(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let (date, time) = bytes.split_at_checked(10)?;
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let [year, month, day] = [digits(&date[0..4])?, digits(&date[5..7])?, digits(&date[8..10])?];
    if time.is_empty() {
        return unix_seconds(year, month, day, 0, 0, 0);
    }
    let (clock, rest) = time.split_at_checked(9)?;
    if clock[0] != b'T' || clock[3] != b':' || clock[6] != b':' {
        return None;
    }
    let [hour, minute, second] = [
        digits(&clock[1..3])?,
        digits(&clock[4..6])?,
        digits(&clock[7..9])?,
    ];
    let local = unix_seconds(year, month, day, hour, minute, second)?;
    local.checked_add_signed(-parse_offset(skip_fraction(rest)?)?)
}

/// What follows `.digits`, or `text` itself if it has no fraction.
fn skip_fraction(text: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = text.strip_prefix(b".") else {
        return Some(text);
    };
    let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=9).contains(&length).then(|| &fraction[length..])
}

/// Seconds that `Z`, `+hh:mm` or `-hh:mm` is east of Greenwich.
fn parse_offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] => {
            let (hours, minutes) = (digits(&[h1, h0])?, digits(&[m1, m0])?);
            let seconds = (hours < 24 && minutes < 60).then_some((hours * 60 + minutes) as i64 * 60)?;
            Some(if sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// The number that at most four digits stand for.
fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}

/// Unix seconds of a moment that exists; a leap second is none.
fn unix_seconds(year: u64, month: u64, day: u64, hour: u64, minute: u64, second: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    if day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    Some(days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second)
}

fn days_in_month(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of `month` of `year`, by Howard Hinnant's `days_from_civil`.
fn days_before(year: u64, month: u64) -> u64 {
    let (year, month_from_march) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month_from_march + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A moment in calendar and clock.
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// Index into [`DAYS`].
    weekday: usize,
}

impl Moment {
    /// By Howard Hinnant's `civil_from_days`.
    fn at(unix_s: u64) -> Moment {
        let unix_s = unix_s.min(UNIX_SECONDS_MAX);
        let (days, second_of_day) = (unix_s / SECONDS_PER_DAY, unix_s % SECONDS_PER_DAY);
        let days_from_march_0000 = days + 719_468;
        let (era, day_of_era) = (days_from_march_0000 / 146_097, days_from_march_0000 % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Moment {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            weekday: (days % 7) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn s3_dates_have_milliseconds() {
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_255_369_830_000, "2009-10-12T17:50:30.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ];
        for (unix_ms, text) in table {
            assert_eq!(iso8601_ms(unix_ms).as_str(), text);
        }
        assert!(iso8601_ms(u64::MAX).as_str().starts_with("9999-12-31T23:59:59"));
    }

    #[test]
    fn http_dates_are_those_of_httpdate_and_come_back() {
        assert_eq!(http_date(784_111_777).as_str(), "Sun, 06 Nov 1994 08:49:37 GMT");
        // A prime step over 8,000 years, so that every month, weekday and kind of year comes up.
        for unix_s in (0..=UNIX_SECONDS_MAX).step_by(2_999_999 * 7 + 2) {
            let text = http_date(unix_s);
            assert_eq!(
                text.as_str(),
                httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s))
            );
            assert_eq!(parse_http_date(text.as_str()), Some(unix_s));
            assert_eq!(
                parse_iso8601(iso8601_ms(unix_s * 1000 + 1).as_str()),
                Some(unix_s)
            );
        }
        assert_eq!(http_date(u64::MAX).as_str(), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn all_three_http_forms_are_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text), Some(784_111_777), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "0",
            "é",
        ] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn the_date_is_made_again_when_the_second_changes() {
        let mut cache = DateCache::default();
        assert_eq!(cache.at(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(cache.at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.at(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(cache.at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn amz_dates_are_read_strictly() {
        assert_eq!(parse_amz_date("20130524T000000Z"), Some(1_369_353_600));
        assert_eq!(parse_amz_date("20240229T235959Z"), Some(1_709_251_199));
        let wrong = [
            "",
            "20130524",
            "20130524T000000",
            "20130524t000000Z",
            "20130524T000000z",
            "20130524T0000000",
            "2013-0524T00000Z",
            "20130229T000000Z",
            "20131301T000000Z",
            "20130100T000000Z",
            "20130101T240000Z",
            "20130101T006000Z",
            "20130101T000060Z",
            "19691231T235959Z",
            "+0130524T000000Z",
            "2013052éT000000Z",
        ];
        for text in wrong {
            assert_eq!(parse_amz_date(text), None, "{text}");
        }
    }

    #[test]
    fn iso_dates_are_read_with_fraction_and_offset() {
        let table = [
            ("2009-10-12T17:50:30.000Z", Some(1_255_369_830)),
            ("2009-10-12T17:50:30Z", Some(1_255_369_830)),
            ("2009-10-12T17:50:30.123456789Z", Some(1_255_369_830)),
            ("2009-10-12T19:50:30+02:00", Some(1_255_369_830)),
            ("2009-10-12T12:20:30.5-05:30", Some(1_255_369_830)),
            ("2009-10-12", Some(1_255_305_600)),
            ("2009-10-12T17:50:30", None),
            ("2009-10-12T17:50:30.Z", None),
            ("2009-10-12T17:50Z", None),
            ("2009-10-12 17:50:30Z", None),
            ("2009-10-12T17:50:30+24:00", None),
            ("2009-10-12T17:50:30+02:60", None),
            ("2009-10-12T17:50:30Zx", None),
            ("2009-02-29", None),
            ("1970-01-01T00:00:00+00:01", None),
            ("2009/10/12", None),
            ("2009-1é-1", None),
            ("", None),
        ];
        for (text, unix_s) in table {
            assert_eq!(parse_iso8601(text), unix_s, "{text}");
        }
    }
}
