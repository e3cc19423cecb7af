//! Faults planted on purpose, to see that the simulation finds them.
//!
//! Only the feature `planted`, which only tests switch on, makes them possible; without it [`planted`] is a
//! constant. Invariant: each point is one line at the place whose promise it breaks.

/// A fault of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Changes are acknowledged before their batch is written.
    EarlyAck,
    /// Changes enter the index before their batch is written.
    EarlyIndex,
    /// A batch is not synced.
    LogUnsynced,
    /// Bodies are not synced before their commit.
    DataUnsynced,
    /// A log is freed though no manifest says that it is not needed.
    UncoveredFreed,
    /// A merge drops tombstones that hide what an older run has.
    TombstoneDropped,
    /// Runs that were merged are given back before a manifest without them is on stable storage.
    DroppedEarly,
    /// Manifests are not synced.
    ManifestUnsynced,
    /// Runs are not synced before a manifest names them.
    RunUnsynced,
    /// Batches that failed count although a later one says that they are void.
    PoisonIgnored,
    /// A segment is reused while somebody reads it.
    NoReadGuard,
    /// Conditions look at what is committed only.
    PendingIgnored,
    /// Logs that a killed run left are believed without being made durable.
    LogUnsettled,
    /// Manifests that a killed run left are believed without being made durable.
    ManifestUnsettled,
    /// Segments count as empty before recovery has accounted for everything.
    EmptyEarly,
    /// The room of what is overwritten is not given back.
    ReplacedKept,
    /// A refusal does not wait for the pending change that caused it.
    EarlyRefusal,
    /// Changes are not counted, so that lookups are believed for ever.
    StaleCache,
    /// The cleaner swaps the pointer of an entry that has changed.
    MovedUnchecked,
    /// What an entry leaves behind is given back before its move is durable.
    MovedFreedEarly,
    /// Moved data is not synced before the record that says where it lies.
    MovedUnsynced,
    /// The cleaner moves bytes that fail their checksum.
    MovedDamage,
    /// A bucket's configuration counts without having been written.
    ConfigurationUnlogged,
    /// The watermark of a log stays where it is while batches pass it.
    WatermarkKept,
}

#[cfg(feature = "planted")]
mod selection {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static SELECTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants a fault in the engines of this thread, or none.
    pub fn plant(fault: Option<Fault>) {
        SELECTED.set(fault);
    }

    pub fn planted(fault: Fault) -> bool {
        SELECTED.get() == Some(fault)
    }
}

#[cfg(feature = "planted")]
pub use selection::{plant, planted};

#[cfg(not(feature = "planted"))]
pub const fn planted(_fault: Fault) -> bool {
    false
}
