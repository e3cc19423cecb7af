//! How much memory one core's engine takes for what grows with what is stored.

/// Bytes of one core, and of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of the index in memory; behind it, it is written to a run. Twice that while it is written.
    pub table_bytes: usize,
    /// Of pages of runs that are kept.
    pub page_cache_bytes: u64,
    /// Of lookups, small bodies among them, that are kept.
    pub lookup_cache_bytes: u64,
    /// Of its log that a start may have to read; behind them, the index is written to a run.
    pub log_tail_bytes: u64,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            table_bytes: 32 << 20,
            page_cache_bytes: 64 << 20,
            lookup_cache_bytes: 64 << 20,
            log_tail_bytes: 256 << 20,
        }
    }
}
