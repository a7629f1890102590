//! The file, as a region of memory that a jemalloc arena takes its pages from.
//!
//! One range of addresses is mapped to the file from its beginning on, far longer than it will ever be. The arena
//! takes ranges of it (`reserve`), has the file system set blocks aside before it hands them out (`commit`), and
//! gives them back when they have not been used for a while (`decommit`). Invariant: memory that is handed out has
//! its blocks, so that no full disk can take it away: who asks for more is refused instead.
#![allow(unsafe_code, reason = "maps a file, and is called by jemalloc")]

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{
    FallocateFlags, Mode, OFlags, fallocate, fstatvfs, ftruncate, mkdir, open as open_file, unlink,
};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use tikv_jemalloc_sys as jemalloc;

/// How long the region is, in addresses: 1 TiB. The file has blocks for what is used.
const REGION_BYTES: usize = 1 << 40;
/// What is left free on the disk, for the log: at most this, and at most a twentieth of it.
const SPARED_BYTES: u64 = 1 << 30;

struct Region {
    file: OwnedFd,
    /// Its first address.
    start: usize,
    /// How much of it has been reserved.
    reserved: AtomicUsize,
    /// The disk had no room when there was last something to put there.
    full: AtomicBool,
}

/// The one region of the process.
static REGION: OnceLock<Option<Region>> = OnceLock::new();
/// The flags that say its arena.
static ARENA: OnceLock<c_int> = OnceLock::new();

/// Opens it, if that was not tried before. Returns whether there is one.
pub(crate) fn open(directory: &Path) -> bool {
    let region = REGION.get_or_init(|| match Region::open(directory) {
        Ok(region) => Some(region),
        Err(error) => {
            tracing::error!(directory = %directory.display(), %error, "state cannot go to disk");
            None
        }
    });
    if region.is_none() {
        return false;
    }
    ARENA.get_or_init(|| {
        make_arena().map_or(0, |arena| jemalloc::MALLOCX_ARENA(arena) | jemalloc::MALLOCX_TCACHE_NONE)
    });
    // Another allocator would know nothing of the region.
    crate::within(true, || has(Box::new(0u64).as_ref() as *const u64 as *const u8))
}

/// jemalloc's flags for memory of the region; None before it is there.
pub(crate) fn arena() -> Option<c_int> {
    ARENA.get().copied().filter(|flags| *flags != 0)
}

/// Whether memory lies in it.
#[inline]
pub(crate) fn has(memory: *const u8) -> bool {
    region().is_some_and(|region| (memory as usize).wrapping_sub(region.start) < REGION_BYTES)
}

pub(crate) fn is_full() -> bool {
    region().is_some_and(|region| region.full.load(Ordering::Relaxed))
}

/// How much of it has ever been in use, bytes from its start.
pub(crate) fn reserved() -> usize {
    region().map_or(0, |region| region.reserved.load(Ordering::Relaxed))
}

/// Takes pages of it out of memory: they are in the file, or in the system's cache of it.
pub(crate) fn let_go(from: usize, bytes: usize) {
    let Some(region) = region() else { return };
    let bytes = bytes.min(REGION_BYTES.saturating_sub(from));
    // SAFETY: the range is the region's, whose pages are the file's: whoever reads them next finds them there.
    let done = unsafe { madvise((region.start + from) as *mut c_void, bytes, Advice::LinuxDontNeed) };
    if let Err(error) = done {
        tracing::warn!(%error, "pages of the spill file stay in memory");
    }
}

#[inline]
fn region() -> Option<&'static Region> {
    REGION.get().and_then(Option::as_ref)
}

impl Region {
    fn open(directory: &Path) -> Result<Self, Errno> {
        match mkdir(directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let path = directory.join("state");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = open_file(&path, flags, Mode::RUSR | Mode::WUSR)?;
        // It goes with the process, however that ends.
        unlink(&path)?;
        ftruncate(&file, REGION_BYTES as u64)?;
        let (access, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::NORESERVE);
        // SAFETY: the system chooses addresses that nothing else has; the file is only reached through them.
        let start = unsafe { mmap(null_mut(), REGION_BYTES, access, shared, &file, 0) }?;
        // SAFETY: it is the range just mapped. State is looked up by hash: what lies beside it is not next.
        unsafe { madvise(start, REGION_BYTES, Advice::Random) }?;
        Ok(Self { file, start: start as usize, reserved: AtomicUsize::new(0), full: AtomicBool::new(false) })
    }

    /// A part of the region that nobody has had.
    fn reserve(&self, bytes: usize, alignment: usize) -> Option<usize> {
        let place = |reserved: usize| {
            let at = (self.start + reserved).checked_next_multiple_of(alignment)? - self.start;
            Some((at, at.checked_add(bytes).filter(|end| *end <= REGION_BYTES)?))
        };
        let taken = self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reserved| {
            place(reserved).map(|(_, end)| end)
        });
        place(taken.ok()?).map(|(at, _)| at)
    }

    /// Has the file system set blocks aside. Returns whether it did.
    fn commit(&self, at: usize, bytes: usize) -> bool {
        let room = fstatvfs(&self.file).is_ok_and(|disk| {
            let spared = (disk.f_blocks * disk.f_frsize / 20).min(SPARED_BYTES);
            (disk.f_bavail * disk.f_frsize).saturating_sub(spared) >= bytes as u64
        });
        let done = room && fallocate(&self.file, FallocateFlags::empty(), at as u64, bytes as u64).is_ok();
        self.full.store(!done, Ordering::Relaxed);
        done
    }

    /// Gives blocks back to the file system. Returns whether it took them.
    fn decommit(&self, at: usize, bytes: usize) -> bool {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, hole, at as u64, bytes as u64).is_ok()
    }
}

/// Makes jemalloc's arena of the region; None if it refuses.
fn make_arena() -> Option<usize> {
    let mut arena: c_uint = 0;
    let mut length = size_of::<c_uint>();
    let mut hooks: *const jemalloc::extent_hooks_t = &raw const HOOKS.0;
    // SAFETY: "arenas.create" reads a pointer to hooks that stay, and writes a number.
    let failed = unsafe {
        jemalloc::mallctl(
            c"arenas.create".as_ptr(),
            (&raw mut arena).cast(),
            &raw mut length,
            (&raw mut hooks).cast(),
            size_of_val(&hooks),
        )
    };
    (failed == 0).then_some(arena as usize)
}

/// How jemalloc gets at the region. It keeps what is given back to it (`dalloc` refuses), as addresses.
struct Hooks(jemalloc::extent_hooks_t);

// SAFETY: functions only.
unsafe impl Sync for Hooks {}

static HOOKS: Hooks = Hooks(jemalloc::extent_hooks_t {
    alloc: Some(alloc),
    dalloc: Some(dalloc),
    destroy: None,
    commit: Some(commit),
    decommit: Some(decommit),
    purge_lazy: None,
    purge_forced: None,
    split: Some(split),
    merge: Some(merge),
});

type Arg = *mut jemalloc::extent_hooks_t;

/// Called with a range's start and the place of a part in it: where that is in the region.
fn place(region: &Region, address: *mut c_void, offset: usize) -> usize {
    (address as usize).wrapping_add(offset).wrapping_sub(region.start)
}

unsafe extern "C" fn alloc(
    _: Arg,
    wanted: *mut c_void,
    bytes: usize,
    alignment: usize,
    zero: *mut bool,
    commit: *mut bool,
    _: c_uint,
) -> *mut c_void {
    let Some(region) = region().filter(|_| wanted.is_null()) else { return null_mut() };
    let Some(at) = region.reserve(bytes, alignment) else { return null_mut() };
    // SAFETY: jemalloc gives pointers to its own flags.
    if unsafe { *commit } && !region.commit(at, bytes) {
        return null_mut();
    }
    // SAFETY: as above. What nobody has had is empty.
    unsafe { *zero = true };
    (region.start + at) as *mut c_void
}

unsafe extern "C" fn dalloc(_: Arg, _: *mut c_void, _: usize, _: bool, _: c_uint) -> bool {
    true
}

unsafe extern "C" fn commit(
    _: Arg,
    at: *mut c_void,
    _: usize,
    offset: usize,
    bytes: usize,
    _: c_uint,
) -> bool {
    !region().is_some_and(|region| region.commit(place(region, at, offset), bytes))
}

unsafe extern "C" fn decommit(
    _: Arg,
    at: *mut c_void,
    _: usize,
    offset: usize,
    bytes: usize,
    _: c_uint,
) -> bool {
    !region().is_some_and(|region| region.decommit(place(region, at, offset), bytes))
}

unsafe extern "C" fn split(_: Arg, _: *mut c_void, _: usize, _: usize, _: usize, _: bool, _: c_uint) -> bool {
    false
}

unsafe extern "C" fn merge(
    _: Arg,
    _: *mut c_void,
    _: usize,
    _: *mut c_void,
    _: usize,
    _: bool,
    _: c_uint,
) -> bool {
    false
}
