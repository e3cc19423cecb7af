//! Aligned memory for the disk, taken from the core's pool and given back to it.
//!
//! A buffer that comes fresh from the system costs a page fault for every 4 KiB of it, more than the disk
//! operation that it is for. So a core keeps what it has used, up to `KEPT_BYTES_MAX`, by powers of two.
//!
//! Invariant: a buffer's memory is initialised from the start, belongs to it alone, and lives until it is
//! dropped. Whoever gives its address to the kernel keeps the buffer until the kernel is done with it.

use crate::io::DISK_ALIGN_BYTES;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

/// Bytes of free buffers that a core keeps.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// Bytes of the largest buffer that is kept; larger ones go back to the system.
const KEPT_BUFFER_BYTES_MAX: usize = 2 << 20;
const CLASSES: usize = (KEPT_BUFFER_BYTES_MAX / DISK_ALIGN_BYTES).ilog2() as usize + 1;

/// The free buffers of one core.
#[derive(Default)]
pub(super) struct Pool {
    /// Index `n` has those of `DISK_ALIGN_BYTES << n` bytes.
    free: [RefCell<Vec<Memory>>; CLASSES],
    kept_bytes: Cell<usize>,
}

/// Memory of one core for a disk operation, its address a multiple of [`DISK_ALIGN_BYTES`].
pub struct Buffer {
    memory: Option<Memory>,
    length: usize,
    pool: Rc<Pool>,
}

/// An allocation.
struct Memory {
    address: NonNull<u8>,
    layout: Layout,
}

impl Pool {
    /// A buffer of `length` bytes, at least one. Its content is whatever it was last used for.
    pub(super) fn buffer(self: &Rc<Self>, length: usize) -> Buffer {
        let class = class_of(length);
        let kept = self.free.get(class).and_then(|free| free.borrow_mut().pop());
        if let Some(memory) = &kept {
            self.kept_bytes.set(self.kept_bytes.get() - memory.layout.size());
        }
        Buffer {
            memory: Some(kept.unwrap_or_else(|| Memory::allocate(DISK_ALIGN_BYTES << class))),
            length,
            pool: Rc::clone(self),
        }
    }

    fn keep(&self, memory: Memory) {
        let kept_bytes = self.kept_bytes.get() + memory.layout.size();
        let Some(free) = self.free.get(class_of(memory.layout.size())) else {
            return;
        };
        if kept_bytes <= KEPT_BYTES_MAX {
            self.kept_bytes.set(kept_bytes);
            free.borrow_mut().push(memory);
        }
    }
}

fn class_of(length: usize) -> usize {
    length.div_ceil(DISK_ALIGN_BYTES).next_power_of_two().ilog2() as usize
}

impl Memory {
    fn allocate(size_bytes: usize) -> Memory {
        let layout = Layout::from_size_align(size_bytes, DISK_ALIGN_BYTES)
            .expect("disk operations are far shorter than the address space");
        // SAFETY: the size is not zero.
        let address = unsafe { alloc_zeroed(layout) };
        let Some(address) = NonNull::new(address) else {
            handle_alloc_error(layout)
        };
        Memory { address, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and owned by this value alone.
        unsafe { dealloc(self.address.as_ptr(), self.layout) }
    }
}

impl Buffer {
    /// Where its bytes are. The kernel may read and write there for as long as the buffer lives.
    pub(super) fn address(&self) -> NonNull<u8> {
        self.memory().address
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    fn memory(&self) -> &Memory {
        self.memory
            .as_ref()
            .expect("memory is taken only when a buffer is dropped")
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: initialised, at least `length` bytes long, and written by nobody while it is borrowed: the
        // kernel writes only to buffers that an operation holds.
        unsafe { std::slice::from_raw_parts(self.address().as_ptr(), self.length) }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by this caller alone.
        unsafe { std::slice::from_raw_parts_mut(self.address().as_ptr(), self.length) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.keep(memory);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_comes_back() {
        let pool = Rc::new(Pool::default());
        for length in [1, 4096, 4097, 65536, 200_000, 1 << 20, 3 << 20] {
            let mut buffer = pool.buffer(length);
            assert_eq!(buffer.address().as_ptr() as usize % DISK_ALIGN_BYTES, 0);
            assert_eq!((buffer.as_ref().len(), buffer.as_mut().len()), (length, length));
            buffer.as_mut().fill(7);
        }
        let kept = pool.kept_bytes.get();
        assert_eq!(kept, 4096 + 8192 + 65536 + (256 << 10) + (1 << 20));
        let again = pool.buffer(65536);
        assert_eq!(again.as_ref(), [7; 65536]);
        assert_eq!(pool.kept_bytes.get(), kept - 65536);
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let pool = Rc::new(Pool::default());
        let buffers: Vec<Buffer> = (0..40).map(|_| pool.buffer(1 << 20)).collect();
        drop(buffers);
        assert_eq!(pool.kept_bytes.get(), KEPT_BYTES_MAX);
    }
}
