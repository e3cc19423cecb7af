//! Dates of conditions: ISO 8601 as the W3C profiles it, or seconds since 1970.

/// Milliseconds since 1970 of `2013-05-24`, `2013-05-24T00:00Z`, `2013-05-24T00:00:00.5+02:00` or `1369353600`.
pub fn parse(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>()
        && text.len() > 4
    {
        return seconds.checked_mul(1000);
    }
    let (date, time) = match text.split_once('T') {
        None => (text, None),
        Some((date, time)) => (date, Some(time)),
    };
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts.next().map_or(Some(1), |text| digits(text, 2))?;
    let day = parts.next().map_or(Some(1), |text| digits(text, 2))?;
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let midnight_ms = days_since_1970(year, month, day) * 86_400_000;
    Some(midnight_ms + time.map_or(Some(0), time_ms)?)
}

/// Milliseconds since midnight UTC.
fn time_ms(text: &str) -> Option<i64> {
    let zone_at = text.find(['Z', '+', '-'])?;
    let (clock, zone) = text.split_at(zone_at);
    let offset_min = match zone {
        "Z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let minutes = digits(hours, 2)? * 60 + digits(minutes, 2)?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let (clock, fraction) = match clock.split_once('.') {
        None => (clock, ""),
        Some((clock, fraction)) => (clock, fraction),
    };
    let mut parts = clock.split(':');
    let hours = digits(parts.next()?, 2)?;
    let minutes = digits(parts.next()?, 2)?;
    let seconds = parts.next().map_or(Some(0), |text| digits(text, 2))?;
    let is_time = parts.next().is_none() && hours < 24 && minutes < 60 && seconds <= 60;
    if !is_time || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
    let seconds_of_day = (hours * 60 + minutes - offset_min) * 60 + seconds;
    Some(seconds_of_day * 1000 + thousandths.parse::<i64>().ok()?)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of the Gregorian calendar: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn dates_are_read_as_the_profile_has_them() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2013-05-24T00:00:00Z", Some(1_369_353_600_000)),
            ("2013-05-24T02:00:00+02:00", Some(1_369_353_600_000)),
            ("2013-05-23T22:30-01:30", Some(1_369_353_600_000)),
            ("2013-05-24T00:00:00.25Z", Some(1_369_353_600_250)),
            ("1369353600", Some(1_369_353_600_000)),
            ("2000-02-29", Some(951_782_400_000)),
            ("2013", Some(1_356_998_400_000)),
            ("1900-02-29", None),
            ("2013-13-01", None),
            ("2013-05-24T25:00:00Z", None),
            ("2013-05-24T00:00:00", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
