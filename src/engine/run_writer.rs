//! Writing one run of the index: pages as they fill, to stretches of index segments, and a sync at the end.
//!
//! Invariant: a run that is given out is on stable storage. One that is not finished leaves nothing behind.

use crate::engine::Machine;
use crate::engine::core::{Core, count};
use crate::engine::message::{Lack, Purpose, Refusal};
use crate::engine::planted::{Fault, planted};
use crate::engine::segments::DataSegment;
use crate::index::{PageAddress, RunBuilder, RunPlace};
use crate::io::SegmentId;
use std::rc::Rc;

/// Bytes that a run reserves at a time.
const RESERVED_BYTES: u32 = 4 << 20;
/// Bytes of one write.
const WRITE_BYTES: usize = 256 * 1024;

/// A run that is being written.
pub struct RunWriter<I: Machine> {
    core: Rc<Core<I>>,
    builder: RunBuilder,
    purpose: Purpose,
    /// What was reserved, and how much of it has pages.
    stretches: Vec<Stretch>,
    is_finished: bool,
}

struct Stretch {
    segment: Rc<DataSegment>,
    reserved: PageAddress,
    used_bytes: u32,
}

impl<I: Machine> RunWriter<I> {
    pub fn new(core: Rc<Core<I>>, purpose: Purpose) -> RunWriter<I> {
        RunWriter {
            builder: RunBuilder::new(core.next_tag()),
            core,
            purpose,
            stretches: Vec::new(),
            is_finished: false,
        }
    }

    /// Adds an item; keys rise.
    pub fn push(&mut self, key: &[u8], sequence: u64, value: Option<&[u8]>) {
        self.builder.push(key, sequence, value);
    }

    /// Writes the pages that are full.
    ///
    /// # Errors
    /// `Full`, `DiskFailed`.
    pub async fn write(&mut self) -> Result<(), Refusal> {
        loop {
            while let Some((address, bytes)) = self.builder.take_output(WRITE_BYTES) {
                self.write_pages(address, &bytes).await?;
            }
            let Some(least) = self.builder.wants_room() else {
                return Ok(());
            };
            let stretch = self.reserve(least).await?;
            self.builder.give_room(stretch);
        }
    }

    /// Ends the run; none without items.
    ///
    /// # Errors
    /// `Full`, `DiskFailed`.
    pub async fn finish(mut self) -> Result<Option<RunPlace>, Refusal> {
        self.builder.finish();
        self.write().await?;
        let Some(run) = self.builder.finished() else {
            return Ok(None);
        };
        let mut synced: Vec<Rc<DataSegment>> = Vec::new();
        for stretch in &self.stretches {
            if !synced.iter().any(|known| Rc::ptr_eq(known, &stretch.segment)) {
                synced.push(stretch.segment.clone());
            }
        }
        for segment in synced {
            if !planted(Fault::RunUnsynced) {
                self.core.sync_data(&segment).await?;
            }
        }
        self.is_finished = true;
        let mut extents: Vec<PageAddress> = Vec::new();
        for stretch in &self.stretches {
            let used = PageAddress {
                length: stretch.used_bytes,
                ..stretch.reserved
            };
            match extents.last_mut() {
                _ if used.length == 0 => {}
                Some(last) if last.segment == used.segment && last.offset + last.length == used.offset => {
                    last.length += used.length;
                }
                _ => extents.push(used),
            }
        }
        Ok(Some(RunPlace { run, extents }))
    }

    async fn reserve(&mut self, least: u32) -> Result<PageAddress, Refusal> {
        let reservation = self
            .core
            .reserve_for_run(least, RESERVED_BYTES, self.purpose)
            .await;
        let reservation = reservation.map_err(|lack| match lack {
            Lack::Refused(refusal) => refusal,
            Lack::Cleaning => Refusal::Full,
        })?;
        let reserved = PageAddress {
            segment: reservation.segment.id.0,
            offset: reservation.offset,
            length: reservation.disk_bytes,
        };
        self.stretches.push(Stretch {
            segment: reservation.segment,
            reserved,
            used_bytes: 0,
        });
        Ok(reserved)
    }

    async fn write_pages(&mut self, address: PageAddress, bytes: &[u8]) -> Result<(), Refusal> {
        let stretch = self.stretches.last_mut().expect("pages have a place");
        let mut buffer = self.core.io.buffer(bytes.len());
        buffer.as_mut().copy_from_slice(bytes);
        count(&self.core.counters.bytes_written, bytes.len() as u64);
        let written = self
            .core
            .io
            .write(SegmentId(address.segment), address.offset, buffer)
            .await;
        if let Err(error) = written {
            warn!(
                "weft: index segment {}: {error}; it takes no more",
                SegmentId(address.segment)
            );
            count(&self.core.counters.disk_errors, 1);
            stretch.segment.failed.set(true);
            return Err(Refusal::DiskFailed);
        }
        stretch.used_bytes = address.offset + address.length - stretch.reserved.offset;
        Ok(())
    }
}

impl<I: Machine> Drop for RunWriter<I> {
    /// Gives back what has no pages, or all of it.
    fn drop(&mut self) {
        for stretch in self.stretches.drain(..) {
            let kept = if self.is_finished { stretch.used_bytes } else { 0 };
            let unused = stretch.reserved.length - kept;
            if self.is_finished {
                let end = stretch.reserved.offset + stretch.reserved.length;
                stretch.segment.give_back(end, unused);
            }
            self.core.account_here(stretch.segment.id, -i64::from(unused));
            self.core.end_reservation(&stretch.segment);
        }
    }
}
