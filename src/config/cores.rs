//! Which CPUs to run on, as people write it: `4` is a number of them, `0,2` and `0-3,8-11` are lists.
//!
//! A single number is always a count; CPU 3 alone is `3-3`. Whether the process may use what is listed is
//! judged when the cores start.

use crate::io::uring::CoreChoice;

/// The kernel numbers no CPU higher than this (CONFIG_NR_CPUS at its largest).
const CPU_MAX: usize = 8191;

/// The choice that `text` makes; `None` if it makes none.
pub fn parse(text: &str) -> Option<CoreChoice> {
    if let Some(count) = number(text) {
        return (count > 0).then_some(CoreChoice::Count(count));
    }
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || cpus.len() > CPU_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(CoreChoice::List(cpus))
}

fn number(text: &str) -> Option<usize> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_digits.then(|| text.parse().ok())??;
    (number <= CPU_MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_and_a_list_names() {
        for (text, choice) in [
            ("1", CoreChoice::Count(1)),
            ("64", CoreChoice::Count(64)),
            ("0,2", CoreChoice::List(vec![0, 2])),
            ("3-3", CoreChoice::List(vec![3])),
            ("0-3,8-9", CoreChoice::List(vec![0, 1, 2, 3, 8, 9])),
            ("5,1", CoreChoice::List(vec![5, 1])),
        ] {
            assert_eq!(parse(text), Some(choice), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "0", "-1", "+1", "1,", ",1", "1-", "3-1", "1--2", "a", "1 2", "0 ,1", "8192", "0-99999",
            "1.5",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
