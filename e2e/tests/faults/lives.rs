//! Lives of clusters, several at once.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::{
    harness::proxy::{Fate, Proxy},
    process::Operator,
    space::Space,
    tenant::Tenant,
};

/// Lives at once: most of a life is waiting, and a cluster that comes up keeps a processor busy.
pub const AT_ONCE: usize = 3;

/// More calls than any life makes.
const ENDLESS: usize = 400;

/// Lives for n = 1, 2, … with some at once, until one says that its n was beyond the last call.
/// Returns that n.
pub fn for_every_n(life: impl Fn(usize) -> bool + Sync) -> usize {
    let (next, last) = (AtomicUsize::new(1), AtomicUsize::new(ENDLESS));
    let broken = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let _alarm = Alarm(&broken);
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n > last.load(Ordering::SeqCst) || broken.load(Ordering::SeqCst) {
                        return;
                    }
                    if life(n) {
                        last.fetch_min(n, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let last = last.into_inner();
    assert!(last < ENDLESS, "no life was undisturbed");
    last
}

/// The lives of all of `these`, with some at once.
pub fn for_each<T: Sync>(these: &[T], at_once: usize, life: impl Fn(&T) + Sync) {
    let (next, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..at_once.min(these.len()) {
            scope.spawn(|| {
                let _alarm = Alarm(&broken);
                while let Some(this) = these.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if broken.load(Ordering::SeqCst) {
                        return;
                    }
                    life(this);
                }
            });
        }
    });
}

/// Tells the others that a life has failed.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// A cluster that an operator of its own keeps. Dropped at any moment, it goes.
pub struct Kept {
    // Dropped in this order: the cluster needs its operator to go.
    pub tenant: Tenant,
    pub operator: Operator,
    pub space: Space,
}

impl Kept {
    /// A namespace with an operator that hears of Docker's events; the cluster is not there yet.
    pub fn new(what: &str, proxy: Proxy) -> Self {
        let space = Space::new(what);
        let tenant = Tenant::new(what, &space);
        let operator = Operator::start(&space.name, proxy);
        operator.listens();
        Self { tenant, operator, space }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.operator.proxy.set_rule(|_| Fate::Pass);
    }
}
