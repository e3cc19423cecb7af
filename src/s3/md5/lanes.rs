//! Gathers what the uploads of one core have ready and hashes it together.
//!
//! An update registers its bytes and lets the core's other tasks run once. Whoever is polled next hashes the
//! bytes of everyone who has registered by then; the others find theirs done when their turn comes. So a lone
//! upload pays for one more poll and never waits for company, and uploads that are ready together go together.
//!
//! No waker is kept: every update has woken its own task before it is hashed, and any later poll of it either
//! finds it done or hashes it. That holds whatever runtime, or `join` and `select` inside a task, polls it.
//!
//! Ownership: [`Lanes::update`] takes the bytes and gives them back, so it is sound whatever becomes of its
//! future. With a borrowed slice it would not be: a future that is forgotten ([`std::mem::forget`]) never says
//! so, its borrow ends, and another task's run would read what is no longer there. [`Lanes::update_borrowed`]
//! leaves that one promise to its caller, and is otherwise the same.
//!
//! Cancelling: an update that is dropped is taken off the list, with its bytes and its hash.
//!
//! Must not: hold a borrow of the list while hashing or across an await; hash more in one run than `RUN_JOBS_MAX` steps.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use crate::limits::BLOCK_BYTES;
use crate::s3::md5::{Md5, update_many};

/// Bytes of one update that a run hashes at most; longer ones take several runs.
const STEP_BYTES_MAX: usize = BLOCK_BYTES;
/// Updates of one run: what the widest kernel hashes side by side. With 64 KiB each that is 0.2 ms on AVX-512,
/// 0.3 ms on AVX2, 1.4 ms without either.
const RUN_JOBS_MAX: usize = 32;
/// Up to this many bytes are hashed at once: an extra poll would cost about as much.
const ALONE_BYTES_MAX: usize = 1024;

/// The lanes of one core.
#[derive(Default)]
pub struct Lanes {
    /// Updates with bytes left to hash, in order of arrival. Bounded by the bodies that the core has in flight.
    waiting: RefCell<VecDeque<Rc<RefCell<dyn Work>>>>,
}

/// An update: `data` from `hashed` on is still to be added to `md5`.
struct Job<D> {
    md5: Md5,
    data: D,
    hashed: usize,
}

/// A job whose data's type does not matter.
trait Work {
    /// The hash, and what the next run adds to it.
    fn step(&mut self) -> (&mut Md5, &[u8]);
    /// Counts what [`Work::step`] gave as hashed; whether any is left.
    fn advance(&mut self) -> bool;
}

impl Lanes {
    /// Without work.
    pub fn new() -> Lanes {
        Lanes::default()
    }

    /// Adds `data` to `md5`, together with what other tasks of this core add meanwhile, and returns both.
    pub async fn update<D: AsRef<[u8]> + 'static>(&self, mut md5: Md5, data: D) -> (Md5, D) {
        if data.as_ref().len() <= ALONE_BYTES_MAX {
            md5.update(data.as_ref());
            return (md5, data);
        }
        let registered = Registered::new(self, Job { md5, data, hashed: 0 });
        loop {
            let_others_run().await;
            let job = registered.job();
            if !job.borrow().is_done() {
                self.run(job.clone());
            }
            if job.borrow().is_done() {
                return registered.into_parts();
            }
        }
    }

    /// Adds `data` to `md5`, as [`Lanes::update`], in place. Dropped before it completes, it leaves `md5` as new.
    ///
    /// # Safety
    /// The future completes or is dropped before the borrow of `data` ends: it is not forgotten, nor is a
    /// future that it is part of, unless what owns `data` is forgotten with it. Awaiting it where it is made,
    /// in a task that owns the bytes, is enough.
    pub async unsafe fn update_borrowed(&self, md5: &mut Md5, data: &[u8]) {
        let (updated, _) = self.update(std::mem::take(md5), Borrowed(data)).await;
        *md5 = updated;
    }

    /// Hashes a step of `own` and of as many others as go in one run.
    fn run(&self, own: Rc<RefCell<dyn Work>>) {
        let jobs = self.take_for_run(own);
        let mut borrowed: Vec<_> = jobs.iter().map(|job| job.borrow_mut()).collect();
        let mut steps: Vec<_> = borrowed.iter_mut().map(|job| job.step()).collect();
        update_many(&mut steps);
        let left: Vec<bool> = borrowed.iter_mut().map(|job| job.advance()).collect();
        drop(borrowed);
        let unfinished = jobs
            .into_iter()
            .zip(left)
            .filter(|(_, left)| *left)
            .map(|(job, _)| job);
        self.waiting.borrow_mut().extend(unfinished);
    }

    /// `own` and the first others, which leave the list.
    fn take_for_run(&self, own: Rc<RefCell<dyn Work>>) -> Vec<Rc<RefCell<dyn Work>>> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|job| !Rc::ptr_eq(job, &own));
        let others = waiting.len().min(RUN_JOBS_MAX - 1);
        std::iter::once(own).chain(waiting.drain(..others)).collect()
    }
}

impl<D: AsRef<[u8]>> Job<D> {
    fn rest(&self) -> &[u8] {
        self.data.as_ref().get(self.hashed..).unwrap_or(&[])
    }

    fn is_done(&self) -> bool {
        self.rest().is_empty()
    }
}

impl<D: AsRef<[u8]>> Work for Job<D> {
    fn step(&mut self) -> (&mut Md5, &[u8]) {
        let rest = self.data.as_ref().get(self.hashed..).unwrap_or(&[]);
        (&mut self.md5, &rest[..rest.len().min(STEP_BYTES_MAX)])
    }

    fn advance(&mut self) -> bool {
        self.hashed += self.rest().len().min(STEP_BYTES_MAX);
        !self.is_done()
    }
}

/// A job on the list. Dropped, it is on it no more.
struct Registered<'l, D: AsRef<[u8]> + 'static> {
    lanes: &'l Lanes,
    /// `None` once its parts were taken.
    job: Option<Rc<RefCell<Job<D>>>>,
}

impl<'l, D: AsRef<[u8]> + 'static> Registered<'l, D> {
    fn new(lanes: &'l Lanes, job: Job<D>) -> Registered<'l, D> {
        let job = Rc::new(RefCell::new(job));
        lanes.waiting.borrow_mut().push_back(job.clone());
        Registered {
            lanes,
            job: Some(job),
        }
    }

    fn job(&self) -> &Rc<RefCell<Job<D>>> {
        self.job.as_ref().expect("its parts are taken last")
    }

    /// The parts of a job that is done, which no list has.
    fn into_parts(mut self) -> (Md5, D) {
        let job = self
            .job
            .take()
            .and_then(Rc::into_inner)
            .expect("a job that is done is on no list");
        let Job { md5, data, .. } = job.into_inner();
        (md5, data)
    }
}

impl<D: AsRef<[u8]> + 'static> Drop for Registered<'_, D> {
    fn drop(&mut self) {
        if let Some(job) = &self.job {
            let job: Rc<RefCell<dyn Work>> = job.clone();
            self.lanes
                .waiting
                .borrow_mut()
                .retain(|waiting| !Rc::ptr_eq(waiting, &job));
        }
    }
}

/// Bytes whose owner outlives the job, as the caller of [`Lanes::update_borrowed`] promised.
struct Borrowed(*const [u8]);

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: made only by `update_borrowed`, whose future keeps the borrow until it ends, is dropped or,
        // as its caller promised, is gone together with the bytes; the job goes with the future.
        unsafe { &*self.0 }
    }
}

/// Wakes its own task and is ready when polled again.
async fn let_others_run() {
    let mut polled = false;
    poll_fn(|context| {
        if polled {
            return Poll::Ready(());
        }
        polled = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::md5::testing::{bytes, expected};
    use futures_executor::{LocalPool, block_on};
    use futures_util::future::{join_all, poll_immediate};
    use futures_util::task::LocalSpawnExt;
    use std::pin::pin;

    #[test]
    fn lone_update_takes_one_extra_poll() {
        let lanes = Lanes::new();
        let mut update = pin!(lanes.update(Md5::new(), bytes(1, 65_520)));
        block_on(async {
            assert!(poll_immediate(&mut update).await.is_none());
            let (md5, data) = poll_immediate(&mut update)
                .await
                .expect("done at the second poll");
            assert_eq!(md5.finish(), expected(&data));
        });
        assert!(lanes.waiting.borrow().is_empty());
    }

    #[test]
    fn few_bytes_are_hashed_at_once() {
        let lanes = Lanes::new();
        let update = pin!(lanes.update(Md5::new(), bytes(1, ALONE_BYTES_MAX)));
        let (md5, data) = block_on(poll_immediate(update)).expect("done at the first poll");
        assert_eq!(md5.finish(), expected(&data));
    }

    #[test]
    fn updates_that_are_ready_together_go_in_one_run() {
        let lanes = Lanes::new();
        block_on(async {
            let mut first = pin!(lanes.update(Md5::new(), bytes(1, 5000)));
            let mut second = pin!(lanes.update(Md5::new(), bytes(2, 7000)));
            assert!(poll_immediate(&mut first).await.is_none());
            assert!(poll_immediate(&mut second).await.is_none());
            assert_eq!(lanes.waiting.borrow().len(), 2);
            assert!(poll_immediate(&mut first).await.is_some());
            assert!(
                lanes.waiting.borrow().is_empty(),
                "the second was hashed by the first"
            );
            let (md5, data) = poll_immediate(&mut second).await.expect("done by the first");
            assert_eq!(md5.finish(), expected(&data));
        });
    }

    #[test]
    fn more_updates_than_a_run_takes_all_end_right() {
        let lanes = Lanes::new();
        let updates = (0..100).map(|i| lanes.update(Md5::new(), bytes(i, 1500 + 977 * i)));
        for (md5, data) in block_on(join_all(updates)) {
            assert_eq!(md5.finish(), expected(&data));
        }
        assert!(lanes.waiting.borrow().is_empty());
    }

    #[test]
    fn long_update_is_cut_into_steps() {
        let lanes = Lanes::new();
        let mut update = pin!(lanes.update(Md5::new(), bytes(1, 3 * STEP_BYTES_MAX + 1)));
        block_on(async {
            for _ in 0..4 {
                assert!(poll_immediate(&mut update).await.is_none());
            }
            let (md5, data) = poll_immediate(&mut update)
                .await
                .expect("four steps after the first poll");
            assert_eq!(md5.finish(), expected(&data));
        });
    }

    #[test]
    fn dropped_update_leaves_the_list_and_the_others_alone() {
        let lanes = Lanes::new();
        block_on(async {
            let mut kept = pin!(lanes.update(Md5::new(), bytes(1, 5000)));
            let mut dropped = Box::pin(lanes.update(Md5::new(), bytes(2, 5000)));
            assert!(poll_immediate(&mut dropped).await.is_none());
            assert!(poll_immediate(&mut kept).await.is_none());
            drop(dropped);
            assert_eq!(lanes.waiting.borrow().len(), 1);
            let (md5, data) = poll_immediate(&mut kept).await.expect("alone");
            assert_eq!(md5.finish(), expected(&data));
        });
    }

    #[test]
    fn forgotten_update_keeps_its_bytes() {
        let lanes = Lanes::new();
        block_on(async {
            let mut forgotten = Box::pin(lanes.update(Md5::new(), bytes(2, 5000)));
            assert!(poll_immediate(&mut forgotten).await.is_none());
            std::mem::forget(forgotten);
            let (md5, data) = lanes.update(Md5::new(), bytes(1, 5000)).await;
            assert_eq!(md5.finish(), expected(&data));
        });
        assert!(lanes.waiting.borrow().is_empty());
    }

    #[test]
    fn tasks_that_hash_block_after_block_end_right() {
        let lanes = Rc::new(Lanes::new());
        let mut pool = LocalPool::new();
        let ended = Rc::new(RefCell::new(0));
        for task in 0..40 {
            let (lanes, ended) = (lanes.clone(), ended.clone());
            let body = async move {
                let data = bytes(task, 4000 * task);
                let mut md5 = Md5::new();
                for part in data.chunks(3000 + task) {
                    // SAFETY: awaited in place; `data` is this task's own.
                    unsafe { lanes.update_borrowed(&mut md5, part) }.await;
                }
                assert_eq!(md5.finish(), expected(&data));
                *ended.borrow_mut() += 1;
            };
            pool.spawner().spawn_local(body).unwrap();
        }
        pool.run();
        assert_eq!(*ended.borrow(), 40);
    }
}
