//! A core's timers: all of them on one timerfd, which is set to the earliest.
//!
//! A time-out given to the kernel with each wait would be set and cancelled at every turn of the core's loop.
//! A timerfd costs nothing until it fires.
//!
//! Invariants: the timerfd is never set later than the earliest deadline. A sleep that was dropped is
//! forgotten, so there are never more entries than sleeping tasks.

use super::buffer::Pool;
use super::ring::Ring;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(super) struct Timers {
    timerfd: Rc<File>,
    /// When the timerfd fires; `None` if it is not set.
    fires_at: Cell<Option<Instant>>,
    /// By deadline; the number tells sleeps of the same deadline apart.
    sleeping: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next_number: Cell<u64>,
}

impl Timers {
    /// The timers of a core, and the task that keeps them.
    pub(super) fn new(
        ring: &Rc<Ring>,
        pool: &Rc<Pool>,
    ) -> io::Result<(Rc<Timers>, impl Future<Output = ()> + use<>)> {
        let timerfd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let timers = Rc::new(Timers {
            timerfd: Rc::new(timerfd.into()),
            fires_at: Cell::new(None),
            sleeping: RefCell::default(),
            next_number: Cell::new(0),
        });
        let keeping = Rc::clone(&timers).keep(Rc::clone(ring), Rc::clone(pool));
        Ok((timers, keeping))
    }

    /// Completes after at least `duration`. Dropping it forgets it.
    pub(super) fn sleep(self: &Rc<Self>, duration: Duration) -> Sleep {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        Sleep {
            timers: Rc::clone(self),
            key: (Instant::now() + duration, number),
        }
    }

    async fn keep(self: Rc<Self>, ring: Rc<Ring>, pool: Rc<Pool>) {
        let mut count = pool.buffer(size_of::<u64>());
        loop {
            let fired;
            (fired, count) = ring.read_count(Rc::clone(&self.timerfd), count).await;
            fired.expect("a timerfd can be read");
            self.fires_at.set(None);
            self.wake_due(Instant::now());
            let earliest = self
                .sleeping
                .borrow()
                .keys()
                .next()
                .map(|&(deadline, _)| deadline);
            if let Some(deadline) = earliest {
                self.fire_by(deadline);
            }
        }
    }

    fn wake_due(&self, now: Instant) {
        loop {
            let mut sleeping = self.sleeping.borrow_mut();
            let due = sleeping.first_entry().filter(|first| first.key().0 <= now);
            let Some(due) = due.map(|first| first.remove()) else {
                break;
            };
            drop(sleeping);
            due.wake();
        }
    }

    fn fire_by(&self, deadline: Instant) {
        if self.fires_at.get().is_some_and(|fires_at| fires_at <= deadline) {
            return;
        }
        // A zero would disarm the timer.
        let wait = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let wait = Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: wait,
        };
        timerfd_settime(&self.timerfd, TimerfdTimerFlags::empty(), &once)
            .expect("a timerfd takes every time that is not negative");
        self.fires_at.set(Some(deadline));
    }
}

pub(super) struct Sleep {
    timers: Rc<Timers>,
    key: (Instant, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let (deadline, _) = self.key;
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        self.timers
            .sleeping
            .borrow_mut()
            .insert(self.key, cx.waker().clone());
        self.timers.fire_by(deadline);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timers.sleeping.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::uring::tasks::{Tasks, run};
    use crate::limits::DISK_TIMEOUT;
    use futures_util::future::{Either, join_all, select};
    use std::pin::pin;

    fn on_a_core<B: Future<Output = ()> + 'static>(body: impl FnOnce(Rc<Timers>) -> B) {
        run(DISK_TIMEOUT, |ring, executor: &Tasks| {
            let (timers, keeping) = Timers::new(ring, &Rc::default()).unwrap();
            executor.spawn(keeping);
            Ok(body(timers))
        })
        .unwrap();
    }

    #[test]
    fn sleeps_end_in_the_order_of_their_deadlines() {
        on_a_core(|timers| async move {
            let ended = RefCell::new(Vec::new());
            join_all([150, 30, 90, 0, 120, 30].map(async |ms| {
                let (started, duration) = (Instant::now(), Duration::from_millis(ms));
                timers.sleep(duration).await;
                assert!(started.elapsed() >= duration);
                ended.borrow_mut().push(ms);
            }))
            .await;
            assert_eq!(ended.into_inner(), [0, 30, 30, 90, 120, 150]);
        });
    }

    #[test]
    fn a_dropped_sleep_is_forgotten() {
        on_a_core(|timers| async move {
            let long = timers.sleep(Duration::from_secs(3600));
            let short = timers.sleep(Duration::from_millis(1));
            assert!(matches!(select(pin!(long), pin!(short)).await, Either::Right(_)));
            assert!(timers.sleeping.borrow().is_empty());
        });
    }
}
