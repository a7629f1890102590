//! Memory that lies in a file, for state that is larger than memory may be.
//!
//! A query that has more state than half of what it may have in memory runs inside of [`within`]: what is
//! allocated there lies in a file that is mapped (`region.rs`), and the operating system moves pages of it to disk
//! and back. A thread sees to it that no more of them are in memory than the rooms allow (`keeper.rs`). Invariant:
//! code that runs inside cannot tell; without a file, or without room on its disk, memory is what it always was,
//! and [`Room::is_full`] says so. Nobody reads the file after the process has ended: it has no name.

mod allocator;
mod keeper;
mod region;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

pub use allocator::Allocator;

thread_local! {
    /// Whether this thread allocates in the file.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Where the file is made when the first query needs it.
static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Says where the file is to lie. It is made when it is needed first; one that is there stays where it is.
pub fn lie_in(directory: &Path) {
    *DIRECTORY.lock() = Some(directory.to_owned());
}

/// Whether what this thread allocates lies in the file. Whoever hands work to other threads tells them with
/// [`within`].
#[must_use]
pub fn is_inside() -> bool {
    INSIDE.try_with(Cell::get).unwrap_or(false)
}

/// Runs `work`; what it allocates lies in the file if `inside` says so and there is one.
pub fn within<R>(inside: bool, work: impl FnOnce() -> R) -> R {
    /// Puts the thread back where it was, panic or not.
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let _back = Back(INSIDE.replace(inside));
    work()
}

/// The right of one query to allocate in the file, and to have so many bytes of it in memory.
#[derive(Debug)]
pub struct Room {
    resident: u64,
}

impl Room {
    /// None where there is no file: the program has another allocator, or it could not be made.
    #[must_use]
    pub fn open(resident: u64) -> Option<Self> {
        let directory = DIRECTORY.lock().clone()?;
        if !region::open(&directory) {
            return None;
        }
        keeper::allow(resident);
        Some(Self { resident })
    }

    /// Whether the disk had no room for more when there was last something to put there.
    #[must_use]
    pub fn is_full(&self) -> bool {
        region::is_full()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        keeper::disallow(self.resident);
    }
}
