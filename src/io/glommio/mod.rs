//! The real machine: io_uring, direct I/O, one executor per core. The only folder that names the runtime.
//!
//! [`volume`] takes the data directory, [`launch`] starts the cores and gives each its [`Machine`],
//! [`disk`] and [`mesh`] are what a machine is made of, [`socket`] is what the server has besides.
//!
//! What leaves this folder is `std`'s or our own: no type of the runtime's does, but for the buffers
//! that [`Io`] hides behind `AsRef<[u8]>`.

mod disk;
mod launch;
mod mesh;
#[cfg(test)]
mod scratch;
mod socket;
mod volume;

pub use disk::{IO_BYTES_MAX, ReadBuf};
pub use launch::{CoreChoice, Cores, LaunchError, check_limits, launch};
pub use socket::{Acceptor, Listener, ShutdownHandle, Stream};
pub use volume::{CAPACITY_BYTES_MIN, Volume, VolumeError, VolumeId};

use crate::io::{CoreId, DISK_ALIGN_BYTES, Io, SegmentId, VolumeShape};
use ::glommio::io::DmaBuffer;
use disk::Disk;
use mesh::Mesh;
use socket::OpenConnections;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One core's handle on the real machine.
///
/// The runtime's queues ask that messages be `Sync` besides `Send`, though no two cores see one at once.
pub struct Machine<M: Send + Sync + 'static>(Rc<Parts<M>>);

struct Parts<M: Send + Sync + 'static> {
    core: CoreId,
    cores: usize,
    started: Instant,
    volume: Arc<Volume>,
    disk: Rc<Disk>,
    mesh: Mesh<M>,
    connections: OpenConnections,
}

impl<M: Send + Sync + 'static> Machine<M> {
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

    /// The next connection that an [`Acceptor`] gave to this core. One task per core calls this.
    pub async fn next_connection(&self) -> io::Result<Stream> {
        let socket = self.0.mesh.next_socket().await;
        Stream::new(socket, Some(self.0.connections.counted(self.0.core)))
    }
}

impl<M: Send + Sync + 'static> Clone for Machine<M> {
    fn clone(&self) -> Self {
        Machine(Rc::clone(&self.0))
    }
}

impl<M: Send + Sync + 'static> Io for Machine<M> {
    type Message = M;
    type WriteBuf = DmaBuffer;
    type ReadBuf = ReadBuf;

    fn core(&self) -> CoreId {
        self.0.core
    }

    fn cores(&self) -> usize {
        self.0.cores
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        ::glommio::spawn_local(task).detach();
    }

    async fn yield_now(&self) {
        ::glommio::executor().yield_now().await;
    }

    async fn sleep(&self, duration: Duration) {
        ::glommio::timer::sleep(duration).await;
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

    fn volume(&self) -> VolumeShape {
        self.0.volume.shape()
    }

    fn boot_epoch(&self) -> u32 {
        self.0.volume.boot_epoch()
    }

    fn buffer(&self, length_bytes: usize) -> DmaBuffer {
        assert!(
            length_bytes.is_multiple_of(DISK_ALIGN_BYTES),
            "buffer of {length_bytes} bytes"
        );
        ::glommio::allocate_dma_buffer(length_bytes)
    }

    async fn segments(&self) -> io::Result<Vec<SegmentId>> {
        self.0.disk.segments().await
    }

    async fn allocate(&self, id: SegmentId) -> io::Result<()> {
        self.0.disk.allocate(id).await
    }

    async fn write(&self, id: SegmentId, offset: u32, buf: DmaBuffer) -> io::Result<()> {
        self.0.disk.write(id, offset, buf).await
    }

    async fn read(&self, id: SegmentId, offset: u32, length: u32) -> io::Result<ReadBuf> {
        self.0.disk.read(id, offset, length).await
    }

    async fn sync(&self, id: SegmentId) -> io::Result<()> {
        self.0.disk.sync(id).await
    }
}
