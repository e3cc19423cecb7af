//! Reading a segment of a stopped volume: large aligned reads, and a log step by step.
//!
//! Invariant: what the disk does not give reads as zeros and is told, so that all checksums refuse it and reading goes on.

use super::report::{Findings, Place, What};
use crate::index::LogPosition;
use crate::io::SegmentId;
use crate::io::uring::{StoppedSegment, StoppedSet};
use crate::limits::BLOCK_BYTES;
use crate::log::{ALIGN_BYTES, LogScanner, ScanStep, SegmentHeader};
use std::io;
use std::ops::ControlFlow;

/// Bytes of a log that are read at a time.
pub const WINDOW_BYTES: u32 = 4 << 20;

/// Memory that reads go to, used again and again.
#[derive(Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// `length` bytes that start at a multiple of 4096 in memory.
    fn aligned(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length + ALIGN_BYTES as usize {
            self.0 = vec![0; length + ALIGN_BYTES as usize];
        }
        let start = self.0.as_ptr().align_offset(ALIGN_BYTES as usize);
        &mut self.0[start..start + length]
    }
}

/// A log that is read step by step.
pub struct LogToRead<'a> {
    pub header: &'a SegmentHeader,
    pub watermark: Option<u32>,
    /// The batch that it is read from.
    pub from: LogPosition,
    /// Bytes that are read at a time.
    pub window_bytes: u32,
}

/// A segment that is read.
pub struct Reading<'a> {
    pub id: SegmentId,
    file: Option<StoppedSegment>,
    size_bytes: u32,
    findings: &'a Findings,
}

impl<'a> Reading<'a> {
    /// A segment that cannot be opened reads as zeros, and is told.
    pub fn open(volumes: &StoppedSet, id: SegmentId, size_bytes: u32, findings: &'a Findings) -> Reading<'a> {
        let file = match volumes.segment(id) {
            Ok(file) => Some(file),
            Err(error) => {
                findings.add(
                    What::Unreadable,
                    Place::whole(id),
                    format!("cannot be opened: {error}"),
                );
                None
            }
        };
        Reading {
            id,
            file,
            size_bytes,
            findings,
        }
    }

    /// Bytes that the segment's file has, if it was opened.
    pub fn length_bytes(&self) -> Option<u64> {
        self.file.as_ref().map(|file| file.length_bytes)
    }

    /// `length` bytes from `from` on, both multiples of 4096, as far as the segment goes.
    pub fn read<'b>(&self, from: u32, length: u32, buffer: &'b mut Buffer) -> &'b [u8] {
        let length = length.min(self.size_bytes.saturating_sub(from));
        let into = buffer.aligned(length as usize);
        let Some(file) = &self.file else {
            into.fill(0);
            return into;
        };
        if file.read(from, into).is_err() {
            self.read_in_pieces(file, from, into, BLOCK_BYTES);
        }
        into
    }

    /// Where a long read fails, short ones find what can be read.
    fn read_in_pieces(&self, file: &StoppedSegment, from: u32, into: &mut [u8], piece_bytes: usize) {
        for (piece, into) in into.chunks_mut(piece_bytes).enumerate() {
            let at = from + (piece * piece_bytes) as u32;
            let Err(error) = file.read(at, into) else {
                continue;
            };
            if into.len() > ALIGN_BYTES as usize {
                self.read_in_pieces(file, at, into, ALIGN_BYTES as usize);
                continue;
            }
            into.fill(0);
            // A file that is too short is told once.
            if error.kind() != io::ErrorKind::UnexpectedEof {
                let place = Place::new(self.id, at, into.len() as u32);
                self.findings
                    .add(What::Unreadable, place, format!("cannot be read: {error}"));
            }
        }
    }

    /// Gives `take` each step of the log, until it has enough. `read_bytes` is told what was read.
    pub fn for_each_step(
        &self,
        log: &LogToRead<'_>,
        buffer: &mut Buffer,
        read_bytes: impl Fn(u64),
        mut take: impl FnMut(ScanStep<'_>) -> ControlFlow<()>,
    ) {
        let mut scanner = LogScanner::new(log.header, log.watermark).from(log.from.offset, log.from.batch);
        let (mut window, mut window_from): (&[u8], u32) = (&[], 0);
        let mut furthest = 0;
        loop {
            match scanner.next(window, window_from) {
                ScanStep::NeedMore { from, length_min } => {
                    window = self.read(from, length_min.max(log.window_bytes), buffer);
                    window_from = from;
                    let end = u64::from(from) + window.len() as u64;
                    read_bytes(end.saturating_sub(furthest.max(u64::from(from))));
                    furthest = furthest.max(end);
                }
                step => {
                    let is_end = matches!(step, ScanStep::End { .. });
                    if take(step).is_break() || is_end {
                        return;
                    }
                }
            }
        }
    }
}
