//! How the memory that the daemon may take is shared out.
//!
//! Each core has the same share. Bodies, copies, documents and connections have bounds of their own (`limits`), for which
//! a core's least share has room; of the share a sixteenth is the index that waits to be written, which may be there
//! four times while it is written, a quarter pages of the index, and an eighth what lookups found.

use crate::engine::Sizes;
use crate::limits::{
    BODY_BUFFER_BYTES_MAX, CLEAN_MEMORY_BYTES_MAX, CONNECTIONS_PER_CORE_MAX, COPY_BYTES_MAX,
    READ_BUFFER_BYTES, XML_BODY_BYTES_MAX, XML_GATHERED_BYTES_MAX,
};

/// Bytes of the least share: what has bounds of its own, and as much again for the index and its caches.
pub const CORE_BYTES_MIN: u64 = 256 << 20;
/// Bytes of a core's share if nobody says, if the machine has that much.
const CORE_BYTES_USUAL: u64 = 1 << 30;
/// Of the machine's memory, this part is taken if nobody says.
const MACHINE_PART: u64 = 4;
/// Bytes of log that a start may have to read for each core.
const LOG_TAIL_BYTES: u64 = 256 << 20;

const TABLE_PART: u64 = 16;
const PAGES_PART: u64 = 4;
const LOOKUPS_PART: u64 = 8;

/// Bytes that a core may hold whatever its share is.
const FIXED_BYTES: usize = BODY_BUFFER_BYTES_MAX
    + COPY_BYTES_MAX
    + XML_GATHERED_BYTES_MAX
    + XML_BODY_BYTES_MAX
    + CLEAN_MEMORY_BYTES_MAX
    + CONNECTIONS_PER_CORE_MAX as usize * READ_BUFFER_BYTES / 4;

const _: () = assert!(FIXED_BYTES as u64 <= CORE_BYTES_MIN / 8 * 5);

/// What the daemon takes if nobody says: a quarter of the machine's memory, within what its cores need and can use.
pub fn usual_bytes(machine_bytes: u64, cores: usize) -> u64 {
    let cores = cores as u64;
    (machine_bytes / MACHINE_PART).clamp(cores * CORE_BYTES_MIN, cores * CORE_BYTES_USUAL)
}

/// What the engine of one core may take; `None` if that is too little.
pub fn sizes_of(memory_bytes: u64, cores: usize) -> Option<Sizes> {
    let share = memory_bytes / cores as u64;
    (share >= CORE_BYTES_MIN).then_some(Sizes {
        table_bytes: (share / TABLE_PART) as usize,
        page_cache_bytes: share / PAGES_PART,
        lookup_cache_bytes: share / LOOKUPS_PART,
        log_tail_bytes: LOG_TAIL_BYTES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_memory_follows_the_machine_within_bounds() {
        let gib = 1 << 30;
        assert_eq!(usual_bytes(gib, 2), gib / 2);
        assert_eq!(usual_bytes(4 * gib, 2), gib);
        assert_eq!(usual_bytes(24 * gib, 2), 2 * gib);
        assert_eq!(usual_bytes(256 * gib, 32), 32 * gib);
    }

    #[test]
    fn a_share_that_is_too_small_is_refused() {
        assert_eq!(sizes_of(511 << 20, 2), None);
        let sizes = sizes_of(1 << 30, 2).expect("enough");
        assert_eq!((sizes.table_bytes, sizes.page_cache_bytes), (32 << 20, 128 << 20));
    }
}
