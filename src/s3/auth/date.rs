//! The times that signed requests carry, in the formats in which clients send them.
//!
//! Invariant: a time that was parsed lies in the years 0 to 9999, so that its compact form has 16 characters.
//! It must not read a clock.

/// A point in time with the compact form (`20130524T000000Z`) that Version 4 signs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Timestamp {
    pub compact: [u8; 16],
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix_s: i64,
}

impl Timestamp {
    /// From ISO 8601's basic format, the only one that Version 4 has for `x-amz-date`.
    pub(super) fn from_compact(text: &[u8]) -> Option<Self> {
        let compact: [u8; 16] = text.try_into().ok()?;
        let [_, _, _, _, _, _, _, _, b'T', _, _, _, _, _, _, b'Z'] = compact else {
            return None;
        };
        let field = |range: std::ops::Range<usize>| number(&compact[range]);
        let days = days_from_civil(field(0..4)?, field(4..6)?, field(6..8)?)?;
        let seconds = seconds_of_day(field(9..11)?, field(11..13)?, field(13..15)?)?;
        Some(Self {
            compact,
            unix_s: days * DAY_S + seconds,
        })
    }

    /// From a Date header: [`parse_http_date`] or the compact form.
    pub(super) fn from_date_header(text: &[u8]) -> Option<Self> {
        Self::from_compact(text).or_else(|| Self::from_unix_s(parse_http_date(text)?))
    }

    fn from_unix_s(unix_s: i64) -> Option<Self> {
        let (year, month, day) = civil_from_days(unix_s.div_euclid(DAY_S));
        if !(0..=9999).contains(&year) {
            return None;
        }
        let second = unix_s.rem_euclid(DAY_S);
        let mut compact = *b"00000000T000000Z";
        let mut put = |at: usize, digits: usize, mut value: i64| {
            for place in compact[at..at + digits].iter_mut().rev() {
                *place = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(4, 2, month);
        put(6, 2, day);
        put(9, 2, second / 3600);
        put(11, 2, second / 60 % 60);
        put(13, 2, second % 60);
        Some(Self { compact, unix_s })
    }

    /// The day, as a credential scope has it.
    pub(super) fn day(&self) -> &[u8] {
        &self.compact[..8]
    }
}

/// Seconds since 1970 from an HTTP date (RFC 9110, section 5.6.7) or an e-mail date with a numeric zone
/// (RFC 5322, section 3.3: `Tue, 27 Mar 2007 19:36:42 +0000`), which clients of Version 2 send.
pub(super) fn parse_http_date(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    parse_mail_date(text).or_else(|| {
        // The two obsolete forms of RFC 9110.
        let time = httpdate::parse_http_date(text).ok()?;
        i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
    })
}

fn parse_mail_date(text: &str) -> Option<i64> {
    let (_weekday, rest) = text.split_once(',')?;
    let mut words = rest.split_ascii_whitespace();
    let mut word = || words.next();
    let (day, month, year, time, zone) = (word()?, word()?, word()?, word()?, word()?);
    if word().is_some() || year.len() != 4 || !(1..=2).contains(&day.len()) {
        return None;
    }
    let month = 1 + MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? as i64;
    let [hour, minute, second] = <[&str; 3]>::try_from(time.splitn(3, ':').collect::<Vec<_>>()).ok()?;
    if [hour, minute, second].iter().any(|part| part.len() != 2) {
        return None;
    }
    let digits = |part: &str| number(part.as_bytes());
    let days = days_from_civil(digits(year)?, month, digits(day)?)?;
    let seconds = seconds_of_day(digits(hour)?, digits(minute)?, digits(second)?)?;
    Some(days * DAY_S + seconds - zone_offset_s(zone)?)
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAY_S: i64 = 86_400;

fn zone_offset_s(zone: &str) -> Option<i64> {
    if matches!(zone, "GMT" | "UTC" | "UT" | "Z") {
        return Some(0);
    }
    let (sign, digits) = match zone.as_bytes() {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let [_, _, _, _] = digits else { return None };
    let (hours, minutes) = (number(&digits[..2])?, number(&digits[2..])?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A number of a few decimal digits and nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |value, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + i64::from(digit - b'0'))
    })
}

fn seconds_of_day(hour: i64, minute: i64, second: i64) -> Option<i64> {
    // 60 is a leap second.
    (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar; `None` if there is no such day.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // Years that start in March, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The inverse of [`days_from_civil`]: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_times() {
        let time = Timestamp::from_compact(b"20130524T000000Z").unwrap();
        assert_eq!(time.unix_s, 1_369_353_600);
        assert_eq!(time.day(), b"20130524");
        for wrong in [
            "",
            "20130524",
            "20130524T000000",
            "20130524t000000Z",
            "2013-05-24T00:00Z",
            "20131324T000000Z",
            "20130230T000000Z",
            "20130524T240000Z",
            "20130524T006000Z",
            "+0130524T000000Z",
            "20130524T0000 0Z",
        ] {
            assert_eq!(Timestamp::from_compact(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in -719_468..=2_932_896 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), Some(days));
        }
        assert_eq!(civil_from_days(2_932_896), (9999, 12, 31));
    }

    #[test]
    fn date_headers() {
        let unix_s = 1_175_024_202;
        for same in [
            "Tue, 27 Mar 2007 19:36:42 GMT",
            "Tue, 27 Mar 2007 19:36:42 +0000",
            "Tue, 27 Mar 2007 21:06:42 +0130",
            "Tue, 27 Mar 2007 11:36:42 -0800",
            "Tuesday, 27-Mar-07 19:36:42 GMT",
            "Tue Mar 27 19:36:42 2007",
            "20070327T193642Z",
        ] {
            let time = Timestamp::from_date_header(same.as_bytes()).expect(same);
            assert_eq!(
                (time.unix_s, &time.compact),
                (unix_s, b"20070327T193642Z"),
                "{same}"
            );
        }
        assert_eq!(
            parse_http_date(b"Thu, 1 Mar 2007 00:00:00 UTC"),
            Some(1_172_707_200)
        );
        for wrong in [
            "",
            ",",
            "now",
            "Tue, 27 Mar 2007 19:36:42",
            "Tue, 27 Mar 2007 19:36:42 PST",
            "Tue, 27 Mar 2007 19:36:42 +00",
            "Tue, 31 Feb 2007 19:36:42 GMT",
            "Tue, 27 Mar 99999 19:36:42 GMT",
            "Tue, 27 Mar 2007 1:2:3 GMT",
            "Tue, 27 Mar 2007 19:36:42 GMT x",
            "Fri, 31 Dec 9999 23:59:59 -2359",
            "Tue, 999999999999999999999 Mar 2007 19:36:42 GMT",
        ] {
            assert_eq!(Timestamp::from_date_header(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(parse_http_date(b"\xff"), None);
    }
}
