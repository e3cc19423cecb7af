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
