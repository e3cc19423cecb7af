//! `weft format` and `weft volumes`: volumes made, and shown.
//!
//! Invariant: showing takes no lock and changes nothing; a daemon may run meanwhile. The id of a set is told to nobody.

use crate::config::Format;
use crate::io::SegmentId;
use crate::io::uring::{Inspected, VolumeError, VolumeSet, inspect};
use crate::log::{HeaderError, SegmentHeader, SegmentKind};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Makes volumes of what was given.
///
/// # Errors
/// What hinders it; then nothing was changed, unless it is a failure to write.
pub fn format(format: &Format) -> Result<(), VolumeError> {
    VolumeSet::format(&format.paths, format.options)
}

/// What can be said of a volume from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    pub path: PathBuf,
    pub is_device: bool,
    /// In hexadecimal; a volume of the first format has none until it is started.
    pub id: Option<String>,
    /// Its place in the set, from 1, and how many there are.
    pub number: usize,
    pub of: usize,
    pub starts: u32,
    pub segment_bytes: u64,
    pub size_bytes: u64,
    /// In segments that hold something.
    pub used_bytes: u64,
    /// In segments that are there and hold nothing.
    pub reclaimable_bytes: u64,
    /// Segments that are missing, or whose header cannot be read.
    pub errors: u64,
}

/// Looks at the volume at `path`.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn summarise(path: &Path) -> Result<Summary, VolumeError> {
    let volume = inspect(path)?;
    let segment_bytes = u64::from(volume.shape.segment_size_bytes);
    let mut summary = Summary {
        path: volume.path.clone(),
        is_device: volume.is_device,
        id: volume
            .id
            .map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()),
        number: volume.index + 1,
        of: volume.members,
        starts: volume.boot_epoch,
        segment_bytes,
        size_bytes: u64::from(volume.shape.segments_max) * segment_bytes,
        used_bytes: 0,
        reclaimable_bytes: 0,
        errors: volume.segments_missing,
    };
    for &id in &volume.segments {
        match is_used(&volume, id) {
            Some(true) => summary.used_bytes += segment_bytes,
            Some(false) => summary.reclaimable_bytes += segment_bytes,
            None => summary.errors += 1,
        }
    }
    Ok(summary)
}

/// Whether a segment holds something; `None` if that cannot be read.
fn is_used(volume: &Inspected, id: SegmentId) -> Option<bool> {
    let bytes = volume.header(id).ok()?;
    let header = SegmentHeader::decode(&bytes).and_then(|header| {
        header.expect(&volume.set, volume.shape.segment_size_bytes, id.0)?;
        Ok(header)
    });
    match header {
        Ok(header) => Some(header.kind != SegmentKind::Free),
        // Just made.
        Err(HeaderError::NotWritten) if bytes.iter().all(|&byte| byte == 0) => Some(false),
        Err(_) => None,
    }
}

/// A table with a line for each volume.
pub fn table(volumes: &[Summary]) -> String {
    let mut rows = vec![
        [
            "PATH",
            "ID",
            "VOLUME",
            "SIZE",
            "USED",
            "LIVE",
            "RECLAIMABLE",
            "ERRORS",
        ]
        .map(str::to_owned),
    ];
    for volume in volumes {
        rows.push([
            volume.path.display().to_string(),
            volume.id.as_ref().map_or("-".to_owned(), |id| id[..8].to_owned()),
            format!("{} of {}", volume.number, volume.of),
            mib(volume.size_bytes),
            mib(volume.used_bytes),
            "-".to_owned(),
            mib(volume.reclaimable_bytes),
            volume.errors.to_string(),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0..=2 => format!("{cell:width$}"),
                _ => format!("{cell:>width$}"),
            });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// An array with an object for each volume. Sizes are in bytes.
pub fn json(volumes: &[Summary]) -> String {
    let objects = volumes.iter().map(|volume| {
        let kind = if volume.is_device { "device" } else { "directory" };
        let id = volume
            .id
            .as_ref()
            .map_or("null".to_owned(), |id| format!("\"{id}\""));
        format!(
            "{{\"path\": {}, \"kind\": \"{kind}\", \"id\": {id}, \"number\": {}, \"of\": {}, \"starts\": {}, \
             \"segment_bytes\": {}, \"size_bytes\": {}, \"used_bytes\": {}, \"live_bytes\": null, \
             \"reclaimable_bytes\": {}, \"errors\": {}}}",
            quoted(&volume.path.to_string_lossy()),
            volume.number,
            volume.of,
            volume.starts,
            volume.segment_bytes,
            volume.size_bytes,
            volume.used_bytes,
            volume.reclaimable_bytes,
            volume.errors
        )
    });
    format!("[{}]\n", objects.collect::<Vec<_>>().join(",\n "))
}

/// A string of JSON (RFC 8259 section 7).
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1f' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(path: &str, id: Option<&str>) -> Summary {
        Summary {
            path: path.into(),
            is_device: path.starts_with("/dev"),
            id: id.map(str::to_owned),
            number: 1,
            of: 2,
            starts: 3,
            segment_bytes: 1 << 20,
            size_bytes: 256 << 20,
            used_bytes: 5 << 20,
            reclaimable_bytes: 1 << 20,
            errors: 0,
        }
    }

    #[test]
    fn a_table_is_aligned() {
        let volumes = [
            summary("/dev/loop0", Some("00112233445566778899aabbccddeeff")),
            summary("/a", None),
        ];
        assert_eq!(
            table(&volumes),
            "PATH        ID        VOLUME     SIZE   USED  LIVE  RECLAIMABLE  ERRORS\n\
             /dev/loop0  00112233  1 of 2  256 MiB  5 MiB     -        1 MiB       0\n\
             /a          -         1 of 2  256 MiB  5 MiB     -        1 MiB       0\n"
        );
    }

    #[test]
    fn paths_are_quoted_for_json() {
        assert_eq!(quoted("a\"b\\c\nd\u{e9}"), "\"a\\\"b\\\\c\\u000ad\u{e9}\"");
        assert!(
            json(&[summary("/a", None)])
                .starts_with("[{\"path\": \"/a\", \"kind\": \"directory\", \"id\": null,")
        );
        assert_eq!(json(&[]), "[]\n");
    }
}
