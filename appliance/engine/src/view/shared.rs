//! The view, as threads share it.
//!
//! Invariant: a thread that has it asks for it no second time before it let go. Between the two another one may begin to wait, to
//! change it, and from then on each of them waits for the other.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::View;

thread_local! {
    /// Whether this thread has it.
    static HAS: Cell<bool> = const { Cell::new(false) };
}

/// How often a thread asked that had it.
static TWICE: AtomicUsize = AtomicUsize::new(0);

/// How often, since this process began, a thread asked for the engine's view of things while it had it. That can stop the engine for
/// good, and is a fault of its; it is told in the log too. For tests.
pub fn views_taken_twice() -> usize {
    TWICE.load(Ordering::Relaxed)
}

#[derive(Debug, Default)]
pub(crate) struct SharedView(RwLock<View>);

/// A look at the view, as it stays for as long as this lives.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    view: RwLockReadGuard<'a, View>,
    _turn: Turn,
}

impl SharedView {
    pub(crate) fn look(&self) -> Look<'_> {
        let turn = Turn::take();
        Look {
            view: self.0.read().unwrap_or_else(PoisonError::into_inner),
            _turn: turn,
        }
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        let _turn = Turn::take();
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Deref for Look<'_> {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

/// That this thread has it, or had it before.
#[derive(Debug)]
struct Turn {
    had: bool,
}

impl Turn {
    fn take() -> Self {
        let had = HAS.replace(true);
        if had {
            TWICE.fetch_add(1, Ordering::Relaxed);
            tracing::error!(backtrace = %Backtrace::force_capture(), "a thread asks for what it has, and may wait for ever");
        }
        Turn { had }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HAS.set(self.had);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_twice_is_told_of_and_who_let_go_is_not() {
        let view = SharedView::default();
        let before = views_taken_twice();
        drop(view.look());
        view.change(|_| ());
        drop(view.look());
        assert_eq!(views_taken_twice(), before);
        let first = view.look();
        drop(view.look());
        drop(first);
        assert_eq!(views_taken_twice(), before + 1);
        drop(view.look());
        assert_eq!(views_taken_twice(), before + 1);
    }
}
