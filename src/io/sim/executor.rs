//! The tasks of all cores, and which of those that are ready runs next: chance decides.
//!
//! Every order in which a real machine could run ready tasks is an order that chance can draw, and
//! many that it would not. Cores differ only in which tasks are theirs, and in that one may be
//! paused while the others go on.
//!
//! Invariant: a task is polled only after it was spawned or woken, and never while it is being
//! polled. The executor is not borrowed while a task runs or is dropped, so that either may spawn.
//!
//! `Waker` must be `Send`; that, and no second thread, is why the ready list sits behind a mutex.

use super::rng::Rng;
use crate::io::CoreId;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

pub(super) struct Executor {
    slots: Vec<Slot>,
    free: Vec<u32>,
    ready: Arc<ReadyList>,
    /// Per core: the ready tasks held back while it is paused.
    paused: Vec<Option<Vec<TaskId>>>,
    rng: Rng,
    /// Set when the power went: from then on nothing is spawned.
    halted: bool,
}

/// Names one task, not the next one that gets its slot.
#[derive(Clone, Copy)]
pub(super) struct TaskId {
    slot: u32,
    generation: u32,
}

struct Slot {
    generation: u32,
    /// `None` while the task is polled, and when the slot is free.
    task: Option<Task>,
}

pub(super) struct Task {
    core: CoreId,
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
    wake: Arc<TaskWake>,
}

struct TaskWake {
    id: TaskId,
    queued: AtomicBool,
    ready: Arc<ReadyList>,
}

#[derive(Default)]
struct ReadyList(Mutex<Vec<TaskId>>);

impl Executor {
    pub fn new(cores: usize, rng: Rng) -> Executor {
        Executor {
            slots: Vec::new(),
            free: Vec::new(),
            ready: Arc::default(),
            paused: (0..cores).map(|_| None).collect(),
            rng,
            halted: false,
        }
    }

    /// Gives the future back when the world has halted, for the caller to drop unborrowed.
    pub fn spawn(
        &mut self,
        core: CoreId,
        future: Pin<Box<dyn Future<Output = ()>>>,
    ) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
        if self.halted {
            return Some(future);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                task: None,
            });
            self.slots.len() as u32 - 1
        });
        let id = TaskId {
            slot,
            generation: self.slots[slot as usize].generation,
        };
        let wake = Arc::new(TaskWake {
            id,
            queued: AtomicBool::new(true),
            ready: self.ready.clone(),
        });
        let waker = Waker::from(wake.clone());
        self.slots[slot as usize].task = Some(Task {
            core,
            future,
            waker,
            wake,
        });
        self.ready.lock().push(id);
        None
    }

    /// Takes out a ready task of a core that is not paused. It goes back by [`Executor::put_back`]
    /// or [`Executor::finish`].
    pub fn take_ready(&mut self) -> Option<(TaskId, Task)> {
        let mut ready = self.ready.lock();
        while !ready.is_empty() {
            let index = self.rng.index(ready.len());
            let id = ready.swap_remove(index);
            let slot = &mut self.slots[id.slot as usize];
            if slot.generation != id.generation {
                continue;
            }
            let Some(task) = slot.task.take() else { continue };
            if let Some(held) = &mut self.paused[usize::from(task.core.0)] {
                held.push(id);
                slot.task = Some(task);
                continue;
            }
            return Some((id, task));
        }
        None
    }

    pub fn put_back(&mut self, id: TaskId, task: Task) {
        self.slots[id.slot as usize].task = Some(task);
    }

    /// The task taken out has ended.
    pub fn finish(&mut self, id: TaskId) {
        self.slots[id.slot as usize].generation += 1;
        self.free.push(id.slot);
    }

    /// Holds back a random core's tasks. `None` when it is paused already.
    pub fn pause_one(&mut self) -> Option<CoreId> {
        let core = self.rng.index(self.paused.len());
        if self.paused[core].is_some() {
            return None;
        }
        self.paused[core] = Some(Vec::new());
        Some(CoreId(core as u16))
    }

    pub fn resume(&mut self, core: CoreId) {
        if let Some(held) = self.paused[usize::from(core.0)].take() {
            self.ready.lock().extend(held);
        }
    }

    /// Takes every task away; they are the caller's to drop.
    pub fn halt(&mut self) -> Vec<Task> {
        self.halted = true;
        self.ready.lock().clear();
        self.slots
            .iter_mut()
            .filter_map(|slot| slot.task.take())
            .collect()
    }
}

impl Task {
    pub fn poll(&mut self) -> Poll<()> {
        // Cleared first: a task that wakes itself while it runs must run again.
        self.wake.queued.store(false, Ordering::Relaxed);
        self.future.as_mut().poll(&mut Context::from_waker(&self.waker))
    }
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(self.id);
        }
    }
}

impl ReadyList {
    /// A panicking task leaves the list whole, so poison says nothing.
    fn lock(&self) -> MutexGuard<'_, Vec<TaskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value that will be there later, and who waits for it.
pub(super) struct Promise<T>(RefCell<State<T>>);

struct State<T> {
    value: Option<T>,
    waiter: Option<Waker>,
}

impl<T> Promise<T> {
    pub fn new() -> Rc<Promise<T>> {
        Rc::new(Promise(RefCell::new(State {
            value: None,
            waiter: None,
        })))
    }

    pub fn keep(&self, value: T) {
        let mut state = self.0.borrow_mut();
        state.value = Some(value);
        if let Some(waiter) = state.waiter.take() {
            waiter.wake();
        }
    }
}

/// Waits for a [`Promise`]. Dropping it leaves what was asked for under way.
pub(super) struct Kept<T>(pub Rc<Promise<T>>);

impl<T> Future for Kept<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.0.borrow_mut();
        match state.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.waiter = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Ready the second time it is polled.
#[derive(Default)]
pub(super) struct Yield {
    yielded: bool,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(executor: &mut Executor) {
        while let Some((id, mut task)) = executor.take_ready() {
            match task.poll() {
                Poll::Ready(()) => executor.finish(id),
                Poll::Pending => executor.put_back(id, task),
            }
        }
    }

    fn run_three(seed: u64) -> Vec<u32> {
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut executor = Executor::new(1, Rng::new(seed));
        for number in 0..3 {
            let order = order.clone();
            executor.spawn(
                CoreId(0),
                Box::pin(async move { order.borrow_mut().push(number) }),
            );
        }
        drain(&mut executor);
        order.take()
    }

    #[test]
    fn every_order_of_ready_tasks_is_drawn_by_some_seed() {
        let mut orders: Vec<_> = (0..100).map(run_three).collect();
        orders.sort();
        orders.dedup();
        assert_eq!(orders.len(), 6);
        assert_eq!(run_three(7), run_three(7));
    }

    #[test]
    fn a_late_wake_of_an_ended_task_does_not_touch_its_successor() {
        let mut executor = Executor::new(1, Rng::new(0));
        let stale: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = stale.clone();
        executor.spawn(
            CoreId(0),
            Box::pin(async move {
                std::future::poll_fn(|context| {
                    *keep.borrow_mut() = Some(context.waker().clone());
                    Poll::Ready(())
                })
                .await;
            }),
        );
        drain(&mut executor);
        let polls = Rc::new(RefCell::new(0));
        let count = polls.clone();
        executor.spawn(
            CoreId(0),
            Box::pin(std::future::poll_fn(move |_| {
                *count.borrow_mut() += 1;
                Poll::Pending
            })),
        );
        drain(&mut executor);
        stale.take().unwrap().wake();
        drain(&mut executor);
        assert_eq!(*polls.borrow(), 1);
    }

    #[test]
    fn a_paused_core_waits_and_the_others_go_on() {
        let mut executor = Executor::new(1, Rng::new(0));
        let ran: Rc<RefCell<bool>> = Rc::default();
        let flag = ran.clone();
        executor.spawn(CoreId(0), Box::pin(async move { *flag.borrow_mut() = true }));
        let core = executor.pause_one().unwrap();
        drain(&mut executor);
        assert!(!*ran.borrow());
        executor.resume(core);
        drain(&mut executor);
        assert!(*ran.borrow());
    }
}
