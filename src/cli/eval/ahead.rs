//! Decoding ahead: a thread makes the next few items while the last one is being used.

use anyhow::Result;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

/// Items that wait at most: bounds the memory to so many frames.
const AHEAD: usize = 3;

/// Items `0..count` of `make`, in order, from a thread of `scope`. It ends when the receiver is dropped.
pub(super) fn ahead<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    mut make: impl FnMut(usize) -> Result<T> + Send + 'scope,
) -> Receiver<Result<T>> {
    let (items, receiver) = sync_channel(AHEAD);
    scope.spawn(move || {
        for index in 0..count {
            let item = make(index);
            let failed = item.is_err();
            if items.send(item).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn it_stays_a_few_ahead_and_ends_when_nobody_listens() {
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let items = ahead(scope, 1000, |index| {
                made.fetch_add(1, Ordering::SeqCst);
                Ok(index)
            });
            assert_eq!(items.recv().unwrap().unwrap(), 0);
            assert_eq!(items.recv().unwrap().unwrap(), 1);
        });
        // Two were taken, AHEAD may wait, and one was being sent.
        assert!(made.load(Ordering::SeqCst) <= 2 + AHEAD + 1);
    }

    #[test]
    fn an_error_is_the_last_item() {
        std::thread::scope(|scope| {
            let items = ahead(scope, 9, |index| match index {
                0 => Ok(0),
                _ => anyhow::bail!("broken"),
            });
            assert!(items.recv().unwrap().is_ok());
            assert!(items.recv().unwrap().is_err());
            assert!(items.recv().is_err());
        });
    }
}
