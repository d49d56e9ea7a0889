//! Runs a model of threads in every order, for tests/interleavings.rs and src/stream/alarm.rs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs `body` in every order with at most so many preemptions. `LOOM_MAX_PREEMPTIONS` asks for others.
pub fn in_every_order(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    let orders = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        body();
    });
    let bound = builder.preemption_bound;
    println!(
        "{} orders, preemptions at most {bound:?}",
        orders.load(Ordering::Relaxed)
    );
}
