//! What `/metrics` serves: every family, made of what each core reports. docs/metrics.md has the same table.
//!
//! Invariant: cores report copies, taken one after the other; nothing is counted twice. What differs by core only where
//! that tells something (work, queues, memory, connections) is told by core, all else as a sum.

use super::exposition::{Family, Labels};
use super::tally::{OperationTally, Tally, Unheard};
use crate::engine::{CoreReport, Histogram, MemoryUse, Recovered, SpaceUse};
use crate::s3::operation::Operation;
use std::time::Duration;

/// What one core tells of itself.
pub struct ServerReport {
    pub tally: Tally,
    /// Connections that are open.
    pub connections: usize,
    /// Time that the core has worked.
    pub busy: Duration,
    /// Once its engine has started.
    pub engine: Option<CoreReport>,
    pub recovery: Option<Recovery>,
}

/// What a core's engine found at the start.
#[derive(Clone, Copy)]
pub struct Recovery {
    pub found: Recovered,
    /// From the start of the cores.
    pub took: Duration,
}

const NS_PER_S: f64 = 1e9;

/// Every family, made of the reports of all cores in their order.
pub fn families(reports: &[ServerReport], is_ready: bool) -> Vec<Family> {
    let mut families = vec![
        Family::gauge("build_info", "The release that runs, as a label")
            .with(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1),
        Family::gauge("ready", "1 if requests are taken").only(is_ready.into()),
    ];
    families.extend(requests(reports));
    families.extend(cores(reports));
    families.extend(log(reports));
    families.extend(space(reports));
    families.extend(reads(reports));
    families.extend(scrub(reports));
    families.extend(index(reports));
    families.extend(holdings(reports));
    families
}

fn requests(reports: &[ServerReport]) -> Vec<Family> {
    let mut by_code = Family::counter("requests", "Requests that were answered, by operation and status");
    let mut seconds = Family::histogram(
        "request_seconds",
        "Time from the end of a request's head until its response was handed to the kernel",
    );
    let mut bytes_in = Family::counter("request_body_bytes", "Bytes of request bodies that were received");
    let mut bytes_out = Family::counter("response_body_bytes", "Bytes of response bodies that were sent");
    for &operation in Operation::ALL {
        let all: Vec<&OperationTally> = reports.iter().map(|report| report.tally.of(operation)).collect();
        let durations = merged(all.iter().map(|of| &of.ns));
        if durations.count() == 0 {
            continue;
        }
        let named = || label("operation", operation.name());
        let mut counts = all[0]
            .by_status()
            .map(|(status, _)| (status, 0))
            .collect::<Vec<_>>();
        for of in &all {
            for (sum, (_, count)) in counts.iter_mut().zip(of.by_status()) {
                sum.1 += count;
            }
        }
        for (status, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            by_code = by_code.with([named(), label("code", status)].concat(), count);
        }
        seconds = seconds.with_histogram(named(), &durations, NS_PER_S);
        bytes_in = bytes_in.with(named(), all.iter().map(|of| of.bytes_in.get()).sum());
        bytes_out = bytes_out.with(named(), all.iter().map(|of| of.bytes_out.get()).sum());
    }
    let mut unheard = Family::counter(
        "requests_unheard",
        "Requests that were refused before they were looked at",
    );
    for why in Unheard::ALL {
        let count = reports.iter().map(|report| report.tally.unheard(why)).sum();
        unheard = unheard.with(label("reason", why.name()), count);
    }
    let unfinished = reports.iter().map(|report| report.tally.unfinished.get()).sum();
    vec![
        by_code,
        seconds,
        bytes_in,
        bytes_out,
        unheard,
        Family::counter(
            "responses_unfinished",
            "Responses whose connection ended before they were whole",
        )
        .only(unfinished),
    ]
}

fn cores(reports: &[ServerReport]) -> Vec<Family> {
    let by_core = |family: Family, of: &dyn Fn(&ServerReport) -> u64| {
        let counted = reports.iter().enumerate();
        counted.fold(family, |family, (core, report)| {
            family.with(label("core", core), of(report))
        })
    };
    let busy = Family::counter("core_busy_seconds", "CPU time of the core's thread");
    let busy = reports.iter().enumerate().fold(busy, |family, (core, report)| {
        family.with_real(label("core", core), report.busy.as_secs_f64())
    });
    let by_engine = |family: Family, of: &dyn Fn(&CoreReport) -> u64| {
        by_core(family, &|report| report.engine.as_ref().map_or(0, of))
    };
    let mut families = vec![
        busy,
        by_core(
            Family::gauge("connections", "Connections that are open"),
            &|report| report.connections as u64,
        ),
        by_core(
            Family::counter("connections_accepted", "Connections that were taken"),
            &|report| report.tally.connections.get(),
        ),
        by_engine(
            Family::gauge(
                "commit_queue_items",
                "Changes and answers that wait for the next batch of the log",
            ),
            &|engine| engine.commits_waiting as u64,
        ),
        by_engine(
            Family::gauge(
                "commit_queue_bytes",
                "Bytes of the records that wait for the next batch of the log",
            ),
            &|engine| engine.commit_bytes as u64,
        ),
        by_engine(
            Family::gauge(
                "calls_waiting",
                "Questions to other cores that are not answered yet",
            ),
            &|engine| engine.open_calls as u64,
        ),
        by_engine(
            Family::counter("messages_received", "Messages from other cores"),
            &|engine| engine.counters.messages.get(),
        ),
    ];
    families.extend(memory(reports));
    families
}

/// Of each budget of memory, on each core.
fn memory(reports: &[ServerReport]) -> [Family; 3] {
    let of = |family: Family, part: fn(&MemoryUse) -> usize| {
        let mut family = family;
        for (core, engine) in engines(reports) {
            for (budget, usage) in [
                ("bodies", &engine.bodies),
                ("copies", &engine.copies),
                ("documents", &engine.documents),
                ("last_document", &engine.last_document),
            ] {
                let labels = [label("core", core), label("budget", budget)].concat();
                family = family.with(labels, part(usage) as u64);
            }
        }
        family
    };
    [
        of(
            Family::gauge(
                "memory_held_bytes",
                "Memory that bodies and documents in flight hold",
            ),
            |usage| usage.held_bytes,
        ),
        of(
            Family::gauge("memory_waiters", "Bodies and documents that wait for memory"),
            |usage| usage.waiters,
        ),
        of(
            Family::gauge("memory_wanted_bytes", "Memory that is waited for"),
            |usage| usage.wanted_bytes,
        ),
    ]
}

fn log(reports: &[ServerReport]) -> Vec<Family> {
    let sum = |of: fn(&CoreReport) -> u64| sum(reports, of);
    vec![
        Family::histogram("batch_records", "Records of a group commit").with_histogram(
            Labels::new(),
            &merged(engines(reports).map(|(_, engine)| &engine.counters.batch_records)),
            1.0,
        ),
        Family::histogram("batch_bytes", "Bytes of a group commit on disk").with_histogram(
            Labels::new(),
            &merged(engines(reports).map(|(_, engine)| &engine.counters.batch_bytes)),
            1.0,
        ),
        Family::histogram(
            "batch_seconds",
            "Time until a group commit was written and synced",
        )
        .with_histogram(
            Labels::new(),
            &merged(engines(reports).map(|(_, engine)| &engine.counters.batch_ns)),
            NS_PER_S,
        ),
        Family::counter(
            "disk_syncs",
            "Syncs of log segments, a synced write among them, and of data segments",
        )
        .with(label("of", "log"), sum(|engine| engine.counters.log_syncs.get()))
        .with(
            label("of", "data"),
            sum(|engine| engine.counters.data_syncs.get()),
        ),
        Family::counter(
            "disk_written_bytes",
            "Bytes that were written to segments: bodies, records, headers, padding, and what was moved",
        )
        .only(sum(|engine| engine.counters.bytes_written.get())),
        Family::counter(
            "disk_read_bytes",
            "Bytes that were read of bodies, with the blocks that they lie in",
        )
        .only(sum(|engine| engine.counters.bytes_read.get())),
        Family::counter(
            "accepted_body_bytes",
            "Bytes of the bodies of objects and parts that were stored",
        )
        .only(sum(|engine| engine.counters.body_bytes.get())),
        Family::counter("disk_errors", "Reads, writes and syncs that a disk failed")
            .only(sum(|engine| engine.counters.disk_errors.get())),
        Family::counter("checksum_errors", "Bodies and blocks that a checksum refused")
            .only(sum(|engine| engine.counters.checksum_errors.get())),
    ]
}

fn space(reports: &[ServerReport]) -> Vec<Family> {
    let told = engines(reports).find_map(|(_, engine)| Some((engine.space?, engine.segment_bytes)));
    let mut segments = Family::gauge("segments", "Segments of the volume, by what they are");
    let mut capacity = Family::gauge("capacity_bytes", "Bytes of all segments that the volume may have");
    let mut live = Family::gauge("live_bytes", "Bytes in segments that something refers to");
    let mut dead = Family::gauge("dead_bytes", "Bytes in full segments that nothing refers to");
    let mut full = Family::gauge(
        "full",
        "1 if the last write that needed a segment was refused with 507",
    );
    let mut missing = Family::gauge(
        "clean_debt_segments",
        "Segments that are to be free for cleaning to rest, and are not",
    );
    let mut shortage = Family::gauge(
        "shortage_ratio",
        "How short room is: 1 if only the cleaner still gets segments",
    );
    if let Some((space, segment_bytes)) = told {
        for (state, count) in by_state(&space) {
            segments = segments.with(label("state", state), count as u64);
        }
        capacity = capacity.only(space.segments as u64 * segment_bytes);
        live = live.only(space.live_bytes);
        dead = dead.only(space.dead_bytes);
        full = full.only(space.is_full.into());
        missing = missing.only(space.missing as u64);
        shortage = shortage.with_real(Labels::new(), space.shortage);
    }
    let delay = engines(reports).map(|(_, engine)| engine.delay_per_mib).max();
    let sum = |of: fn(&CoreReport) -> u64| sum(reports, of);
    vec![
        segments,
        capacity,
        live,
        dead,
        full,
        missing,
        shortage,
        Family::gauge(
            "write_delay_seconds_per_mib",
            "What a write of a MiB waits so that the cleaner keeps up; of the core where it is most",
        )
        .with_real(Labels::new(), delay.unwrap_or_default().as_secs_f64()),
        Family::counter(
            "uploads_expired",
            "Uploads that were ended because they were too old",
        )
        .only(sum(|engine| engine.counters.uploads_expired.get())),
        Family::counter("clean_rounds", "Rounds of cleaning")
            .only(sum(|engine| engine.counters.clean_rounds.get())),
        Family::counter("clean_segments", "Segments that rounds of cleaning have emptied")
            .only(sum(|engine| engine.counters.segments_cleaned.get())),
        Family::counter("clean_moved_entries", "Entries whose bytes the cleaner has moved")
            .only(sum(|engine| engine.counters.entries_moved.get())),
        Family::counter("clean_moved_bytes", "Bytes that the cleaner has moved")
            .only(sum(|engine| engine.counters.bytes_moved.get())),
    ]
}

/// Every segment is in one of these.
fn by_state(space: &SpaceUse) -> [(&'static str, usize); 7] {
    [
        ("free", space.free),
        ("open_log", space.open_logs),
        ("open_data", space.open - space.open_logs),
        ("log", space.sealed_logs),
        ("data", space.sealed_data),
        ("retiring", space.retiring),
        ("unusable", space.unusable),
    ]
}

fn reads(reports: &[ServerReport]) -> Vec<Family> {
    let sum = |of: fn(&CoreReport) -> u64| sum(reports, of);
    vec![
        Family::counter(
            "cache_lookups",
            "Lookups of objects, by whether the core that asked had the answer",
        )
        .with(
            label("result", "hit"),
            sum(|engine| engine.counters.cache_hits.get()),
        )
        .with(
            label("result", "miss"),
            sum(|engine| engine.counters.cache_misses.get()),
        ),
        Family::gauge("cache_entries", "Lookups that are kept")
            .only(sum(|engine| engine.cache_entries as u64)),
        Family::gauge(
            "cache_bytes",
            "Bytes that these count as, small bodies among them",
        )
        .only(sum(|engine| engine.cache_bytes)),
    ]
}

fn scrub(reports: &[ServerReport]) -> [Family; 4] {
    let sum = |of: fn(&CoreReport) -> u64| sum(reports, of);
    let mut passes = Family::counter("scrub_passes", "Passes of the scrub that came to the end");
    let mut ended = Family::gauge(
        "scrub_ended_seconds",
        "When the last pass ended, since 1970-01-01; 0: none has",
    );
    for (core, engine) in engines(reports) {
        let counters = &engine.counters;
        passes = passes.with(label("core", core), counters.scrub_passes.get());
        ended = ended.with(label("core", core), counters.scrub_ended_s.get());
    }
    [
        Family::counter("scrub_read_bytes", "Bytes that the scrub has read")
            .only(sum(|engine| engine.counters.scrub_bytes.get())),
        Family::counter(
            "scrub_findings",
            "Damage that the scrub has found, in every pass anew",
        )
        .only(sum(|engine| engine.counters.scrub_findings.get())),
        passes,
        ended,
    ]
}

fn index(reports: &[ServerReport]) -> Vec<Family> {
    let sum = |of: fn(&CoreReport) -> u64| sum(reports, of);
    let by_core = |family: Family, of: fn(&CoreReport) -> u64| {
        engines(reports).fold(family, |family, (core, engine)| {
            family.with(label("core", core), of(engine))
        })
    };
    let by = |of| label("by", of);
    let checkpoints = merged(engines(reports).map(|(_, engine)| &engine.counters.checkpoint_ns));
    let merges = merged(engines(reports).map(|(_, engine)| &engine.counters.merge_ns));
    vec![
        by_core(
            Family::gauge("index_runs", "Runs of the index on disk"),
            |engine| engine.index.runs as u64,
        ),
        Family::gauge("index_run_bytes", "Bytes of these runs").only(sum(|engine| engine.index.run_bytes)),
        Family::gauge(
            "index_run_entries",
            "Entries of these runs; a key counts in each that has it",
        )
        .only(sum(|engine| engine.index.run_entries)),
        by_core(
            Family::gauge(
                "index_table_bytes",
                "Memory of what the index will write to its next run",
            ),
            |engine| engine.index.table_bytes as u64,
        ),
        by_core(
            Family::gauge(
                "index_log_tail_bytes",
                "Bytes of log behind the last checkpoint, which a start would read",
            ),
            |engine| engine.index.tail_bytes,
        ),
        Family::histogram("index_write_seconds", "Time that the making of a run took")
            .with_histogram(by("checkpoint"), &checkpoints, NS_PER_S)
            .with_histogram(by("merge"), &merges, NS_PER_S),
        Family::counter("index_written_bytes", "Bytes of runs that were made")
            .with(
                by("checkpoint"),
                sum(|engine| engine.counters.checkpoint_bytes.get()),
            )
            .with(by("merge"), sum(|engine| engine.counters.merge_bytes.get())),
        Family::counter(
            "index_page_lookups",
            "Pages of the index that were wanted, by whether they were in memory",
        )
        .with(label("result", "hit"), sum(|engine| engine.index.page_hits))
        .with(
            label("result", "miss"),
            sum(|engine| engine.counters.pages_read.get()),
        ),
        Family::counter("index_read_bytes", "Bytes that were read of the index")
            .only(sum(|engine| engine.counters.page_bytes_read.get())),
        Family::gauge("index_page_cache_bytes", "Memory of pages that are kept")
            .only(sum(|engine| engine.index.page_bytes)),
    ]
}

fn holdings(reports: &[ServerReport]) -> Vec<Family> {
    let sum = |of: fn(&CoreReport) -> u64| sum(reports, of);
    let recoveries: Vec<Recovery> = reports.iter().filter_map(|report| report.recovery).collect();
    let took = recoveries.iter().map(|recovery| recovery.took).max();
    let mut found = Recovered::default();
    recoveries.iter().for_each(|recovery| found.add(&recovery.found));
    let mut recovered = Family::gauge("recovered", "What the start found");
    for (what, count) in [
        ("objects", found.objects),
        ("uploads", found.uploads),
        ("buckets", found.buckets),
        ("records", found.records),
        ("entries", found.entries),
        ("batches_damaged", found.batches_damaged),
        ("segments_unreadable", found.segments_unreadable),
        ("segments_missing", found.segments_missing),
        ("manifests_missing", found.manifests_missing),
        ("pages_unreadable", found.pages_unreadable),
        ("extents_missing", found.extents_missing),
        ("buckets_lost", found.buckets_lost),
        ("objects_of_lost_buckets", found.objects_of_lost_buckets),
        ("orphans", found.orphans),
    ] {
        recovered = recovered.with(label("what", what), count);
    }
    vec![
        // Every core knows all of them.
        Family::gauge("buckets", "Buckets").only(
            engines(reports)
                .next()
                .map_or(0, |(_, engine)| engine.buckets as u64),
        ),
        Family::gauge("objects", "Objects").only(sum(|engine| engine.holdings.objects.get())),
        Family::gauge(
            "uploads",
            "Uploads in parts that are neither completed nor aborted",
        )
        .only(sum(|engine| engine.holdings.uploads.get())),
        Family::gauge("upload_parts", "Parts of those uploads")
            .only(sum(|engine| engine.holdings.parts.get())),
        Family::gauge("upload_part_bytes", "Bytes of those parts")
            .only(sum(|engine| engine.holdings.part_bytes.get())),
        Family::gauge(
            "recovery_seconds",
            "Time from the start of the cores until the volume was recovered",
        )
        .with_real(Labels::new(), took.unwrap_or_default().as_secs_f64()),
        recovered,
    ]
}

fn engines(reports: &[ServerReport]) -> impl Iterator<Item = (usize, &CoreReport)> {
    let counted = reports.iter().enumerate();
    counted.filter_map(|(core, report)| Some((core, report.engine.as_ref()?)))
}

fn sum(reports: &[ServerReport], of: fn(&CoreReport) -> u64) -> u64 {
    engines(reports).map(|(_, engine)| of(engine)).sum()
}

fn merged<'a, const FIRST: u32, const BUCKETS: usize>(
    all: impl Iterator<Item = &'a Histogram<FIRST, BUCKETS>>,
) -> Histogram<FIRST, BUCKETS> {
    let sum = Histogram::default();
    all.for_each(|one| sum.add(one));
    sum
}

fn label(name: &'static str, value: impl ToString) -> Labels {
    vec![(name, value.to_string())]
}
