//! What `weft format` was given becomes what is valid.

use super::{ConfigError, size_of};
use crate::io::uring::{FormatOptions, Formatting};
use std::path::PathBuf;

/// What was given, as it was given.
#[derive(Default)]
pub struct RawFormat {
    pub paths: Vec<PathBuf>,
    pub force: bool,
    pub join: bool,
    pub capacity: Option<String>,
    pub segment_size: Option<String>,
}

/// What is to be formatted, and how.
pub struct Format {
    pub paths: Vec<PathBuf>,
    pub options: FormatOptions,
}

impl Format {
    /// Judges what was given. Whether the sizes suit the volumes is seen there.
    ///
    /// # Errors
    /// `Size`.
    pub fn from_raw(raw: RawFormat) -> Result<Format, ConfigError> {
        let capacity_bytes = size_of("--capacity", &raw.capacity)?;
        // What is too large for the type is too large for a segment.
        let segment_size_bytes = size_of("--segment-size", &raw.segment_size)?
            .map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        Ok(Format {
            options: FormatOptions {
                capacity_bytes,
                segment_size_bytes,
                purpose: match (raw.force, raw.join) {
                    (true, _) => Formatting::Force,
                    (false, true) => Formatting::Join,
                    (false, false) => Formatting::Empty,
                },
            },
            paths: raw.paths,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_judged() {
        let raw = |capacity: &str, segment_size: &str| RawFormat {
            capacity: Some(capacity.to_owned()),
            segment_size: Some(segment_size.to_owned()),
            ..RawFormat::default()
        };
        let format = Format::from_raw(raw("1GiB", "4MiB")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(format.options.capacity_bytes, Some(1 << 30));
        assert_eq!(format.options.segment_size_bytes, Some(4 << 20));
        for (capacity, segment_size, flag, wrong) in [
            ("1GB", "4MiB", "--capacity", "1GB"),
            ("1GiB", "4", "--segment-size", "4"),
        ] {
            let refused = Format::from_raw(raw(capacity, segment_size)).err();
            let given = wrong.to_owned();
            assert_eq!(refused, Some(ConfigError::Size { flag, given }));
        }
    }
}
