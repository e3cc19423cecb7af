//! Walks the log of one segment's life, from windows of the segment that the caller reads.
//!
//! One write is in flight at a time, and the next batch is not written before the one before it is on stable
//! storage. So only the last batch can be torn, and a header of this life *behind* an invalid place proves that what
//! lay in that place was once durable: that is damage, not a tail. The scanner therefore never ends a log before
//! it has looked for a later header at every aligned offset up to the segment's end, unless the log was sealed.
//!
//! Invariant: it yields each record of a whole batch once, in order, and nothing of an earlier life or of a torn tail.
//! Each call returns a step or names bytes that it needs; given them, the next call gets further.

use super::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchRef};
use super::{ALIGN_BYTES, SegmentHeader, SegmentKind};
use crate::limits::SEGMENT_HEADER_BYTES;

/// What the scanner found, or what it needs.
#[derive(Debug)]
pub enum ScanStep<'a> {
    /// A whole batch.
    Batch(BatchRef<'a>),
    /// Call again with a window that covers `length_min` bytes from `from` (both multiples of 4096, within the
    /// segment); a longer one saves calls.
    NeedMore { from: u32, length_min: u32 },
    /// Bytes `from..to` of the segment held batches that were durable once, and are not whole any more. At least
    /// `batches_lost` are gone. An alarm: acknowledged changes are missing. The scan goes on behind them.
    Damaged { from: u32, to: u32, batches_lost: u32 },
    /// What is left of a damaged batch that was just reported: its records up to the first that is not whole. Their changes
    /// are verified, and were acknowledged; their bodies are not verified.
    Salvaged(BatchRef<'a>),
    /// The log ends at `tail`, where batch `next_number` would have started.
    End {
        tail: u32,
        next_number: u32,
        end: LogEnd,
    },
}

/// How a log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEnd {
    /// With a batch that says so, or at the segment's very end.
    Sealed,
    /// With the last whole batch: behind it is nothing of this life.
    Open,
    /// With a batch of which only a part is there: a crash came in the middle of its write.
    Torn,
}

/// A scan of one life of a log segment.
#[derive(Debug)]
pub struct LogScanner {
    segment: SegmentHeader,
    /// The number of the next batch that may be believed.
    next_number: u32,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A batch should start at `at`.
    Follow { at: u32 },
    /// From `from` on there is no whole batch (`torn`: but the header of one); a later one may start at `at` or behind.
    Search {
        from: u32,
        torn: Option<BatchHeader>,
        at: u32,
    },
    /// The damage that holds batch `torn` was reported; the log goes on at `resume`.
    Salvage { torn: BatchHeader, resume: u32 },
    /// The log has ended.
    Done { tail: u32, end: LogEnd },
}

impl LogScanner {
    /// A scan of the log whose segment begins with `header`.
    ///
    /// # Panics
    /// When `header` is not that of a log.
    pub fn new(header: &SegmentHeader) -> LogScanner {
        assert!(header.kind == SegmentKind::Log, "only a log is scanned");
        let state = State::Follow {
            at: SEGMENT_HEADER_BYTES,
        };
        LogScanner {
            segment: *header,
            next_number: 0,
            state,
        }
    }

    /// The next step, from `window`: the bytes of the segment from `window_offset` on. Windows may overlap, and
    /// may be anywhere; only what they cover is looked at.
    pub fn next<'a>(&mut self, window: &'a [u8], window_offset: u32) -> ScanStep<'a> {
        let window = Window {
            bytes: window,
            offset: window_offset,
        };
        loop {
            let step = match self.state {
                State::Follow { at } => self.follow(window, at),
                State::Search { from, torn, at } => self.search(window, from, torn, at),
                State::Salvage { torn, resume } => self.salvage(window, torn, resume),
                State::Done { tail, end } => Some(ScanStep::End {
                    tail,
                    next_number: self.next_number,
                    end,
                }),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn follow<'a>(&mut self, window: Window<'a>, at: u32) -> Option<ScanStep<'a>> {
        if at >= self.segment.segment_size_bytes {
            self.state = State::Done {
                tail: at,
                end: LogEnd::Sealed,
            };
            return None;
        }
        let Some(start) = window.piece(at, BATCH_HEADER_BYTES as u32) else {
            return Some(ScanStep::NeedMore {
                from: at,
                length_min: ALIGN_BYTES,
            });
        };
        let header = BatchHeader::decode(start, &self.segment, at);
        let Some(header) = header.filter(|header| header.number == self.next_number) else {
            self.state = State::Search {
                from: at,
                torn: None,
                at,
            };
            return None;
        };
        let Some(bytes) = window.piece(at, header.disk_length_bytes()) else {
            return Some(ScanStep::NeedMore {
                from: at,
                length_min: header.disk_length_bytes(),
            });
        };
        let Some(batch) = header.verify(bytes) else {
            // Whatever else lies inside this batch, no batch starts there.
            self.state = State::Search {
                from: at,
                torn: Some(header),
                at: header.end(),
            };
            return None;
        };
        self.next_number = self.next_number.saturating_add(1);
        self.state = match header.sealed {
            true => State::Done {
                tail: header.end(),
                end: LogEnd::Sealed,
            },
            false => State::Follow { at: header.end() },
        };
        Some(ScanStep::Batch(batch))
    }

    fn search<'a>(
        &mut self,
        window: Window<'a>,
        from: u32,
        torn: Option<BatchHeader>,
        mut at: u32,
    ) -> Option<ScanStep<'a>> {
        while at < self.segment.segment_size_bytes {
            let Some(start) = window.piece(at, BATCH_HEADER_BYTES as u32) else {
                self.state = State::Search { from, torn, at };
                return Some(ScanStep::NeedMore {
                    from: at,
                    length_min: ALIGN_BYTES,
                });
            };
            if let Some(header) = BatchHeader::decode(start, &self.segment, at)
                && header.number >= self.next_number
            {
                return Some(self.damaged(from, torn, header));
            }
            at += ALIGN_BYTES;
        }
        let end = if torn.is_some() {
            LogEnd::Torn
        } else {
            LogEnd::Open
        };
        self.state = State::Done { tail: from, end };
        None
    }

    fn damaged(&mut self, from: u32, torn: Option<BatchHeader>, later: BatchHeader) -> ScanStep<'static> {
        let batches_lost = later.number - self.next_number;
        self.next_number = later.number;
        self.state = match torn {
            Some(torn) => State::Salvage {
                torn,
                resume: later.offset,
            },
            None => State::Follow { at: later.offset },
        };
        ScanStep::Damaged {
            from,
            to: later.offset,
            batches_lost,
        }
    }

    fn salvage<'a>(&mut self, window: Window<'a>, torn: BatchHeader, resume: u32) -> Option<ScanStep<'a>> {
        let length_min = torn.disk_length_bytes();
        let Some(bytes) = window.piece(torn.offset, length_min) else {
            return Some(ScanStep::NeedMore {
                from: torn.offset,
                length_min,
            });
        };
        self.state = State::Follow { at: resume };
        torn.salvage(bytes).map(ScanStep::Salvaged)
    }
}

#[derive(Clone, Copy)]
struct Window<'a> {
    bytes: &'a [u8],
    offset: u32,
}

impl<'a> Window<'a> {
    /// `length` bytes of the segment at `at`, if the window covers them.
    fn piece(&self, at: u32, length: u32) -> Option<&'a [u8]> {
        let start = at.checked_sub(self.offset)? as usize;
        self.bytes.get(start..)?.get(..length as usize)
    }
}
