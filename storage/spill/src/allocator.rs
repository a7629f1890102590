//! The program's allocator: jemalloc, which takes from the file what a thread allocates inside of a room.
//!
//! Invariant: what lies in the file is given back to the file's arena and to no thread's cache, whoever gives it
//! back: memory of others never comes to lie in it.
#![allow(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};

use tikv_jemalloc_sys as jemalloc;
use tikv_jemallocator::Jemalloc;

use crate::{is_inside, region};

/// What all allocations of jemalloc are aligned to.
const ALIGNED: usize = 16;

/// jemalloc, and the file for those who are inside of a [`crate::Room`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

/// How jemalloc is told of an alignment. It must hear the same when memory is given back.
fn aligned(layout: Layout) -> c_int {
    if layout.align() <= ALIGNED && layout.align() <= layout.size() {
        0
    } else {
        jemalloc::MALLOCX_ALIGN(layout.align())
    }
}

/// Memory of the file for a thread that is inside; null when there is none.
///
/// # Safety
/// The layout has a size.
unsafe fn in_file(layout: Layout, flags: c_int) -> *mut u8 {
    let Some(arena) = region::arena() else { return std::ptr::null_mut() };
    // SAFETY: the size is not 0, and the arena is there as long as the process.
    let memory = unsafe { jemalloc::mallocx(layout.size(), arena | aligned(layout) | flags) };
    memory.cast()
}

// SAFETY: everything comes from jemalloc, whose promises are those of an allocator, and goes back to it with the
// layout it came with.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_inside() {
            // SAFETY: the caller says that the layout has a size.
            let memory = unsafe { in_file(layout, 0) };
            if !memory.is_null() {
                return memory;
            }
        }
        // SAFETY: as above.
        unsafe { Jemalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_inside() {
            // SAFETY: the caller says that the layout has a size.
            let memory = unsafe { in_file(layout, jemalloc::MALLOCX_ZERO) };
            if !memory.is_null() {
                return memory;
            }
        }
        // SAFETY: as above.
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if region::has(memory) {
            let flags = jemalloc::MALLOCX_TCACHE_NONE | aligned(layout);
            // SAFETY: the caller says that it came from here with this layout.
            unsafe { jemalloc::sdallocx(memory.cast::<c_void>(), layout.size(), flags) };
            return;
        }
        // SAFETY: as above.
        unsafe { Jemalloc.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_inside() && !region::has(memory) {
            // SAFETY: the caller says that it came from here with this layout, and that the size is not 0.
            return unsafe { Jemalloc.realloc(memory, layout, size) };
        }
        // What grows moves to where its thread allocates.
        // SAFETY: the caller says that the size, rounded up to the alignment, does not overflow.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: it has a size.
        let to = unsafe { self.alloc(new) };
        if !to.is_null() {
            // SAFETY: both have that many bytes, and one is new.
            unsafe { std::ptr::copy_nonoverlapping(memory, to, layout.size().min(size)) };
            // SAFETY: the caller gives it up.
            unsafe { self.dealloc(memory, layout) };
        }
        to
    }
}
