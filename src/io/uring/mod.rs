//! The real machine: io_uring, direct I/O, one executor per core. The only folder that names them.
//!
//! [`volume`] takes the directories and devices, [`launch`] starts the cores and gives each its [`Machine`],
//! [`disk`] and [`mesh`] are what a machine is made of, [`socket`] is what the server has besides. Below
//! them lie [`ring`], the kernel's side, and [`tasks`], the loop of a core.
//!
//! What leaves this folder is `std`'s or our own.

mod buffer;
mod disk;
mod hangup;
mod launch;
mod mesh;
mod patience;
mod ring;
#[cfg(test)]
mod scratch;
mod socket;
mod tasks;
mod timers;
mod volume;

pub use buffer::Buffer;
pub use disk::ReadBuf;
pub use hangup::Hangups;
pub use launch::{CoreChoice, Cores, LaunchError, check_limits, launch};
pub use socket::{Acceptor, Listener, Stream, StreamHandle};
pub use volume::{
    Access, CAPACITY_BYTES_MIN, FormatOptions, Formatting, Inspected, MEMO_BYTES, Memo, StoppedSegment,
    StoppedSet, StoppedVolume, StoredShape, Volume, VolumeError, VolumeSet, inspect,
};

use crate::io::{CoreId, DISK_ALIGN_BYTES, Io, SegmentId, VolumeShape, VolumeState};
use buffer::Pool;
use disk::Disk;
use mesh::Mesh;
use patience::{Patience, StuckCores};
use ring::{Durability, Ring};
use socket::OpenConnections;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tasks::Tasks;
use timers::Timers;
use volume::Made;

/// One core's handle on the real machine.
pub struct Machine<M: Send + 'static>(Rc<Parts<M>>);

struct Parts<M: Send + 'static> {
    started: Instant,
    volumes: Arc<VolumeSet>,
    patience: Rc<Patience>,
    stuck: StuckCores,
    disk: Rc<Disk>,
    mesh: Mesh<M>,
    timers: Rc<Timers>,
    ring: Rc<Ring>,
    pool: Rc<Pool>,
    tasks: Tasks,
    connections: OpenConnections,
}

impl<M: Send + 'static> Machine<M> {
    /// Completes when the process got SIGTERM or SIGINT, or some core called [`Machine::shut_down`].
    /// Any number of tasks may wait.
    pub async fn shutdown(&self) {
        self.0.mesh.shutdown().await;
    }

    /// Whether [`Machine::shutdown`] would complete at once.
    pub fn is_shutting_down(&self) -> bool {
        self.0.mesh.is_shutting_down()
    }

    /// Completes [`Machine::shutdown`] on every core.
    pub fn shut_down(&self) {
        self.0.mesh.shut_down();
    }

    /// Has another core run `work`, which must not wait, and gives its result: between two of its tasks, so at once
    /// unless it is at work. One that has ended may leave this waiting.
    ///
    /// # Errors
    /// That core has ended.
    pub async fn on_core<R: Send + 'static>(
        &self,
        to: CoreId,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        self.0.mesh.on_core(to, work).await
    }

    /// Seconds since 1970-01-01T00:00:00Z, up to a tick of the kernel late: for a date that is told, at a quarter of the
    /// price of [`Io::unix_ms`].
    pub fn unix_s(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        u64::try_from(now.tv_sec).unwrap_or(0)
    }

    /// CPU time that the thread of this core has taken: what it did, and what the kernel did for it.
    pub fn busy(&self) -> Duration {
        let taken = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(
            u64::try_from(taken.tv_sec).unwrap_or(0),
            u32::try_from(taken.tv_nsec).unwrap_or(0),
        )
    }

    /// Whether the disk answers in time, to all cores.
    pub fn does_disk_answer(&self) -> bool {
        !self.0.stuck.are_some()
    }

    /// The next connection that an [`Acceptor`] gave to this core. One task per core calls this.
    pub async fn next_connection(&self) -> Stream {
        let socket = self.0.mesh.next_socket().await;
        let counted = self.0.connections.counted(self.core());
        Stream::new(socket, Rc::clone(&self.0.ring), Some(counted))
    }
}

impl<M: Send + 'static> Clone for Machine<M> {
    fn clone(&self) -> Self {
        Machine(Rc::clone(&self.0))
    }
}

impl<M: Send + 'static> Io for Machine<M> {
    type Message = M;
    type WriteBuf = Buffer;
    type ReadBuf = ReadBuf;

    fn core(&self) -> CoreId {
        self.0.mesh.core()
    }

    fn cores(&self) -> usize {
        self.0.mesh.cores()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.tasks.spawn(task);
    }

    async fn yield_now(&self) {
        self.0.ring.yield_now().await;
    }

    async fn sleep(&self, duration: Duration) {
        self.0.timers.sleep(duration).await;
    }

    fn monotonic_ns(&self) -> u64 {
        // 584 years of it.
        self.0.started.elapsed().as_nanos() as u64
    }

    fn unix_ms(&self) -> u64 {
        // A clock before 1970 reads as 1970.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    fn send(&self, to: CoreId, message: M) {
        self.0.mesh.send(to, message);
    }

    async fn receive(&self) -> Vec<(CoreId, M)> {
        self.0.mesh.receive().await
    }

    fn volume_id(&self) -> [u8; 16] {
        self.0.volumes.id()
    }

    fn volume(&self) -> VolumeShape {
        self.0.volumes.shape()
    }

    fn volumes(&self) -> &[VolumeState] {
        self.0.volumes.states()
    }

    fn boot_epoch(&self) -> u32 {
        self.0.volumes.boot_epoch()
    }

    fn buffer(&self, length_bytes: usize) -> Buffer {
        assert!(
            length_bytes.is_multiple_of(DISK_ALIGN_BYTES),
            "buffer of {length_bytes} bytes"
        );
        self.0.pool.buffer(length_bytes)
    }

    async fn segments(&self) -> io::Result<Vec<SegmentId>> {
        let list = self.0.disk.lister();
        let listed = self.0.mesh.on_a_thread(list);
        self.0.patience.wait_for_thread(listed).await??
    }

    async fn allocate(&self, id: SegmentId) -> io::Result<()> {
        let make = self.0.disk.maker(id);
        let made = self.0.mesh.on_a_thread(make);
        match self.0.patience.wait_for_thread(made).await??? {
            Made::Before => Ok(()),
            Made::Now => self.0.disk.zero_ahead(id).await,
        }
    }

    async fn leave(&self, id: SegmentId) {
        self.0.disk.leave(id).await;
    }

    async fn write(&self, id: SegmentId, offset: u32, buf: Buffer) -> io::Result<()> {
        self.0.disk.write(id, offset, buf, Durability::None).await
    }

    async fn write_synced(&self, id: SegmentId, offset: u32, buf: Buffer) -> io::Result<()> {
        self.0.disk.write(id, offset, buf, Durability::Synced).await
    }

    async fn read(&self, id: SegmentId, offset: u32, length: u32) -> io::Result<ReadBuf> {
        self.0.disk.read(id, offset, length).await
    }

    async fn sync(&self, id: SegmentId) -> io::Result<()> {
        self.0.disk.sync(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::scratch::{Scratch, run};
    use super::*;
    use std::fs;

    const BLOCK: usize = 4096;

    fn filled(machine: &Machine<()>, length_bytes: usize, byte: u8) -> Buffer {
        let mut buffer = machine.buffer(length_bytes);
        buffer.as_mut().fill(byte);
        buffer
    }

    #[test]
    fn what_is_written_and_synced_is_read_back() {
        let scratch = Scratch::new();
        let volume = scratch.volumes(CAPACITY_BYTES_MIN);
        run(1, volume, |machine: Machine<()>| async move {
            let id = SegmentId(9);
            machine.allocate(id).await.unwrap();
            assert_eq!(machine.segments().await.unwrap(), [id]);
            machine.write(id, 0, filled(&machine, BLOCK, 1)).await.unwrap();
            machine
                .write(id, 8 * BLOCK as u32, filled(&machine, 2 * BLOCK, 2))
                .await
                .unwrap();
            machine.sync(id).await.unwrap();
            let synced = filled(&machine, BLOCK, 3);
            machine.write_synced(id, 16 * BLOCK as u32, synced).await.unwrap();
            let read = machine.read(id, 16 * BLOCK as u32, BLOCK as u32).await.unwrap();
            assert!(read.as_ref() == [3; BLOCK]);
            let read = machine.read(id, 0, BLOCK as u32).await.unwrap();
            assert!(read.as_ref() == [1; BLOCK]);
            let read = machine
                .read(id, 9 * BLOCK as u32, 2 * BLOCK as u32)
                .await
                .unwrap();
            assert!(read.as_ref()[..BLOCK] == [2; BLOCK] && read.as_ref()[BLOCK..] == [0; BLOCK]);
        });
    }

    #[test]
    fn an_allocated_segment_is_whole_and_left_alone_when_allocated_again() {
        let scratch = Scratch::new();
        let volume = scratch.volumes(CAPACITY_BYTES_MIN);
        let dir = scratch.dir().to_owned();
        run(1, volume, move |machine: Machine<()>| {
            let dir = dir.clone();
            async move {
                let id = SegmentId(0xff);
                machine.allocate(id).await.unwrap();
                machine.write(id, 0, filled(&machine, BLOCK, 7)).await.unwrap();
                machine.allocate(id).await.unwrap();
                assert!(machine.read(id, 0, BLOCK as u32).await.unwrap().as_ref() == [7; BLOCK]);
                let size_bytes = u64::from(machine.volume().segment_size_bytes);
                assert_eq!(
                    fs::metadata(dir.join("segments/000000ff.seg")).unwrap().len(),
                    size_bytes
                );
            }
        });
    }

    #[test]
    fn errors_keep_the_code_of_the_operating_system() {
        let scratch = Scratch::new();
        let volume = scratch.volumes(CAPACITY_BYTES_MIN);
        run(1, volume, |machine: Machine<()>| async move {
            let missing = machine.read(SegmentId(1), 0, BLOCK as u32).await.unwrap_err();
            assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
            let missing = machine.sync(SegmentId(1)).await.unwrap_err();
            assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
        });
    }

    #[test]
    fn a_read_that_comes_up_short_is_an_error() {
        let scratch = Scratch::new();
        let volume = scratch.volumes(CAPACITY_BYTES_MIN);
        fs::write(scratch.dir().join("segments/00000003.seg"), [5; BLOCK]).unwrap();
        run(1, volume, |machine: Machine<()>| async move {
            let short = machine.read(SegmentId(3), 0, 2 * BLOCK as u32).await.unwrap_err();
            assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        });
    }

    #[test]
    fn a_write_is_never_overtaken_by_the_zeroes_ahead_of_it() {
        const SEGMENT_BYTES: u32 = 64 << 20;
        const STEP: u32 = 1 << 20;
        let scratch = Scratch::new();
        let volume = scratch.volumes(256 * u64::from(SEGMENT_BYTES));
        run(1, volume, |machine: Machine<()>| async move {
            for (id, pause) in [(SegmentId(0), 0), (SegmentId(1), 10), (SegmentId(2), 50)] {
                machine.allocate(id).await.unwrap();
                machine.sleep(Duration::from_millis(pause)).await;
                for offset in (0..SEGMENT_BYTES).step_by(STEP as usize) {
                    machine
                        .write(id, offset, filled(&machine, BLOCK, 3))
                        .await
                        .unwrap();
                }
            }
            for id in [SegmentId(0), SegmentId(1), SegmentId(2)] {
                for offset in (0..SEGMENT_BYTES).step_by(STEP as usize) {
                    assert!(machine.read(id, offset, BLOCK as u32).await.unwrap().as_ref() == [3; BLOCK]);
                }
            }
        });
    }

    #[test]
    fn a_segment_that_its_maker_left_is_not_zeroed_under_its_next_writer() {
        const SEGMENT_BYTES: u32 = 64 << 20;
        const STEP: u32 = 1 << 20;
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let scratch = Scratch::new();
        let volume = scratch.volumes(256 * u64::from(SEGMENT_BYTES));
        run(2, volume, |machine: Machine<()>| async move {
            let id = SegmentId(0);
            if machine.core() == CoreId(0) {
                machine.allocate(id).await.unwrap();
                machine.leave(id).await;
                machine.send(CoreId(1), ());
                machine.receive().await;
                return;
            }
            machine.receive().await;
            for offset in (0..SEGMENT_BYTES).step_by(STEP as usize) {
                let block = filled(&machine, BLOCK, 3);
                machine.write(id, offset, block).await.unwrap();
            }
            machine.sync(id).await.unwrap();
            machine.sleep(Duration::from_secs(2)).await;
            let mut zeroed = 0;
            for offset in (0..SEGMENT_BYTES).step_by(STEP as usize) {
                let read = machine.read(id, offset, BLOCK as u32).await.unwrap();
                zeroed += u32::from(read.as_ref() != [3; BLOCK]);
            }
            machine.send(CoreId(0), ());
            assert_eq!(zeroed, 0, "synced blocks that were zeroed");
        });
    }

    #[test]
    fn more_segments_than_a_core_keeps_open_can_be_used() {
        let scratch = Scratch::new();
        let volume = scratch.volumes(CAPACITY_BYTES_MIN * 4);
        let segments = disk::OPEN_SEGMENTS_MAX as u32 + 8;
        for id in 0..segments {
            fs::write(
                scratch.dir().join(format!("segments/{id:08x}.seg")),
                [id as u8; BLOCK],
            )
            .unwrap();
        }
        run(1, volume, move |machine: Machine<()>| async move {
            for id in (0..segments).chain(0..4) {
                let read = machine.read(SegmentId(id), 0, BLOCK as u32).await.unwrap();
                assert!(read.as_ref() == [id as u8; BLOCK]);
            }
        });
    }

    #[test]
    fn clocks_do_not_go_back_and_sleep_lasts() {
        let scratch = Scratch::new();
        let volume = scratch.volumes(CAPACITY_BYTES_MIN);
        run(1, volume, |machine: Machine<()>| async move {
            let before = machine.monotonic_ns();
            machine.sleep(Duration::from_millis(2)).await;
            assert!(machine.monotonic_ns() - before >= 2_000_000);
            assert!(machine.unix_ms() > 1_700_000_000_000);
            assert_eq!(
                (machine.core(), machine.cores(), machine.boot_epoch()),
                (CoreId(0), 1, 1)
            );
        });
    }
}
