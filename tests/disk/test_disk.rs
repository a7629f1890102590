//! A disk in memory that fills up, fails, stalls and loses power: of what was not synced any part may be there
//! afterwards, in any order.
//!
//! It is as hard as POSIX allows. Bytes are durable after a sync of their file, names after a sync of their
//! directory. Of other writes any may be missing, whole or by sectors; of other changes to a directory the last ones.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::Rng;
use rand::rngs::StdRng;
use storage::{Error, Fs, FsFile, Result, Room};

const SECTOR_BYTES: usize = 512;
const SIZE_BYTES: u64 = 1000 << 20;

/// The disk of a machine; clones are the same disk.
#[derive(Clone, Default)]
pub struct TestDisk(Arc<Device>);

#[derive(Default)]
struct Device {
    state: Mutex<State>,
    /// Syncs wait while it is true.
    stalled: Mutex<bool>,
    goes_on: Condvar,
}

/// What is on it and what was not synced.
#[derive(Clone, Default)]
pub struct State {
    files: HashMap<u64, Content>,
    names: Names,
    durable_names: Names,
    pending_names: Vec<NameChange>,
    next_file: u64,
    /// Changes so far.
    operations: u64,
    /// Power is lost before this change.
    dies_before: Option<u64>,
    /// Bytes that may still be written, if there is a limit.
    free: Option<u64>,
    /// The next sync of a file whose name has this in it fails.
    fails: Option<String>,
}

type Names = BTreeMap<PathBuf, Node>;

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Directory,
    File(u64),
}

#[derive(Clone)]
enum NameChange {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// What an image keeps of changes that were not synced.
#[derive(Clone, Copy, Debug)]
enum Keep {
    Nothing,
    Everything,
    /// The first ones, the last of them torn.
    First,
    /// Any.
    Any,
}

struct TestFile {
    disk: TestDisk,
    file: u64,
    path: PathBuf,
}

fn failed(action: &'static str, path: &Path, kind: io::ErrorKind) -> Error {
    Error::Io { action, path: path.to_owned(), source: kind.into() }
}

impl TestDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Has room for so many bytes more, or for any number of them.
    pub fn has_room(&self, bytes: Option<u64>) {
        self.state().free = bytes;
    }

    /// Fails the next sync of a file whose path has `part` in it, and loses what was to be synced.
    pub fn fails_to_sync(&self, part: &str) {
        self.state().fails = Some(part.to_owned());
    }

    /// Lets syncs wait, or go on.
    pub fn stalls(&self, stalled: bool) {
        *self.0.stalled.lock().unwrap() = stalled;
        self.0.goes_on.notify_all();
    }

    fn wait_while_stalled(&self) {
        let stalled = self.0.stalled.lock().unwrap();
        drop(self.0.goes_on.wait_while(stalled, |stalled| *stalled).unwrap());
    }

    /// Loses power before the change that comes after `changes` more.
    pub fn dies_after(&self, changes: u64) {
        let mut state = self.state();
        state.dies_before = Some(state.operations + changes);
    }

    /// Whether it has lost power.
    pub fn is_dead(&self) -> bool {
        self.state().is_dead()
    }

    /// What is on it and what was not synced, at this moment or when it lost power.
    pub fn snapshot(&self) -> State {
        self.state().clone()
    }

    fn change<T>(&self, path: &Path, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state();
        state.alive(path)?;
        state.operations += 1;
        change(&mut state)
    }
}

impl State {
    fn is_dead(&self) -> bool {
        self.dies_before.is_some_and(|last| self.operations >= last)
    }

    fn alive(&self, path: &Path) -> Result<()> {
        if self.is_dead() { Err(failed("reach", path, io::ErrorKind::BrokenPipe)) } else { Ok(()) }
    }

    fn in_directory(&self, path: &Path) -> Result<()> {
        let above = path.parent().unwrap();
        if is_root(above) || self.names.get(above) == Some(&Node::Directory) {
            return Ok(());
        }
        Err(failed("find the directory of", path, io::ErrorKind::NotFound))
    }

    fn add(&mut self, path: &Path, node: Node) {
        self.names.insert(path.to_owned(), node);
        self.pending_names.push(NameChange::Add(path.to_owned(), node));
    }

    /// A disk that a machine may find after this one lost power.
    pub fn image(&self, random: &mut StdRng) -> TestDisk {
        let keep =
            [Keep::Nothing, Keep::Everything, Keep::First, Keep::Any, Keep::Any][random.random_range(0..5)];
        let names = self.names_after(keep, random);
        let files: HashMap<u64, Content> = names
            .values()
            .filter_map(|node| if let Node::File(file) = node { Some(*file) } else { None })
            .map(|file| (file, self.files[&file].after(keep, random)))
            .collect();
        let state = State {
            files,
            durable_names: names.clone(),
            names,
            next_file: self.next_file,
            ..State::default()
        };
        TestDisk(Arc::new(Device { state: Mutex::new(state), ..Device::default() }))
    }

    fn names_after(&self, keep: Keep, random: &mut StdRng) -> Names {
        let mut names = self.durable_names.clone();
        // Changes of one directory come in their order; directories know nothing of one another.
        let mut left: HashMap<PathBuf, usize> = HashMap::new();
        for change in &self.pending_names {
            *left.entry(change.directory().to_owned()).or_default() += 1;
        }
        let mut directories: Vec<_> = left.keys().cloned().collect();
        directories.sort();
        for directory in directories {
            let all = left[&directory];
            let kept = match keep {
                Keep::Nothing => 0,
                Keep::Everything => all,
                Keep::First | Keep::Any => random.random_range(0..=all),
            };
            left.insert(directory, kept);
        }
        for change in &self.pending_names {
            let left = left.entry(change.directory().to_owned()).or_default();
            if *left > 0 {
                *left -= 1;
                change.apply(&mut names);
            }
        }
        // What is in a directory that has no name cannot be reached.
        let directories: Vec<PathBuf> = names
            .iter()
            .filter(|(_, node)| **node == Node::Directory)
            .map(|(path, _)| path.clone())
            .collect();
        names.retain(|path, _| {
            path.ancestors().skip(1).all(|above| is_root(above) || directories.iter().any(|d| d == above))
        });
        names
    }
}

/// The test's own directory and those above it are there.
fn is_root(path: &Path) -> bool {
    path.components().count() <= 2
}

impl NameChange {
    fn directory(&self) -> &Path {
        let (Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path)) = self;
        path.parent().unwrap()
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
            Self::Rename(from, to) => {
                let moved: Vec<_> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                for name in moved {
                    let node = names.remove(&name).unwrap();
                    let rest = name.strip_prefix(from).unwrap();
                    // Joining nothing would leave a slash behind.
                    let name = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                    names.insert(name, node);
                }
            }
        }
    }
}

impl Content {
    fn after(&self, keep: Keep, random: &mut StdRng) -> Self {
        let mut bytes = self.durable.clone();
        let first = random.random_range(0..=self.pending.len());
        for (n, change) in self.pending.iter().enumerate() {
            match keep {
                Keep::Nothing => {}
                Keep::Everything => change.apply(&mut bytes),
                Keep::First if n < first => change.apply(&mut bytes),
                Keep::First if n == first => change.apply_torn(&mut bytes, random),
                Keep::First => {}
                Keep::Any => match random.random_range(0..3) {
                    0 => {}
                    1 => change.apply(&mut bytes),
                    _ => change.apply_torn(&mut bytes, random),
                },
            }
        }
        Self { durable: bytes.clone(), now: bytes, pending: Vec::new() }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, written) => {
                bytes.resize(bytes.len().max(at + written.len()), 0);
                bytes[*at..at + written.len()].copy_from_slice(written);
            }
            Self::Truncate(len) => bytes.resize(*len, 0),
        }
    }

    /// Some sectors of a write; a hole where the others are. The length of a file changes whole or not at all.
    fn apply_torn(&self, bytes: &mut Vec<u8>, random: &mut StdRng) {
        let Self::Write(at, written) = self else { return };
        let mut from = 0;
        while from < written.len() {
            let until = written.len().min((at + from) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - at);
            if random.random_bool(0.5) {
                Self::Write(at + from, written[from..until].to_vec()).apply(bytes);
            }
            from = until;
        }
    }
}

impl Fs for TestDisk {
    fn open(&self, path: &Path) -> Result<Box<dyn FsFile>> {
        if let Some(file) = self.open_existing(path)? {
            return Ok(file);
        }
        let file = self.change(path, |state| {
            state.in_directory(path)?;
            let file = state.next_file;
            state.next_file += 1;
            state.files.insert(file, Content::default());
            state.add(path, Node::File(file));
            Ok(file)
        })?;
        Ok(Box::new(TestFile { disk: self.clone(), file, path: path.to_owned() }))
    }

    fn open_existing(&self, path: &Path) -> Result<Option<Box<dyn FsFile>>> {
        let state = self.state();
        state.alive(path)?;
        let Some(Node::File(file)) = state.names.get(path).copied() else { return Ok(None) };
        Ok(Some(Box::new(TestFile { disk: self.clone(), file, path: path.to_owned() })))
    }

    fn create_dir(&self, path: &Path) -> Result<bool> {
        self.change(path, |state| {
            state.in_directory(path)?;
            let made = !is_root(path) && !state.names.contains_key(path);
            if made {
                state.add(path, Node::Directory);
            }
            Ok(made)
        })
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let state = self.state();
        state.alive(path)?;
        Ok(state.names.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.change(path, |state| {
            let change = NameChange::Remove(path.to_owned());
            change.apply(&mut state.names);
            state.pending_names.push(change);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        self.change(to, |state| {
            let Some(node) = state.names.get(from).copied() else { return Ok(false) };
            state.add(to, node);
            Ok(true)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.change(to, |state| {
            let change = NameChange::Rename(from.to_owned(), to.to_owned());
            change.apply(&mut state.names);
            state.pending_names.push(change);
            Ok(())
        })
    }

    fn room(&self, _: &Path) -> Result<Room> {
        Ok(Room { free: self.state().free.unwrap_or(SIZE_BYTES), size: SIZE_BYTES })
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.change(path, |state| {
            let mut durable = std::mem::take(&mut state.durable_names);
            state.pending_names.retain(|change| {
                let of_it = change.directory() == path;
                if of_it {
                    change.apply(&mut durable);
                }
                !of_it
            });
            state.durable_names = durable;
            Ok(())
        })
    }
}

impl TestFile {
    fn change(&self, change: Change) -> Result<()> {
        self.disk.change(&self.path, |state| {
            let content = state.files.get_mut(&self.file).unwrap();
            change.apply(&mut content.now);
            content.pending.push(change);
            Ok(())
        })
    }
}

impl FsFile for TestFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        let (mut bytes, mut full) = (bytes.to_vec(), false);
        if let Some(free) = &mut self.disk.state().free {
            // A full disk takes some of the bytes all the same.
            full = bytes.len() as u64 > *free;
            bytes.truncate(*free as usize);
            *free -= bytes.len() as u64;
        }
        self.change(Change::Write(position as usize, bytes))?;
        if full { Err(failed("write", &self.path, io::ErrorKind::StorageFull)) } else { Ok(()) }
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<()> {
        let state = self.disk.state();
        state.alive(&self.path)?;
        let from = position as usize;
        let bytes = state.files[&self.file].now.get(from..from + buffer.len());
        let bytes = bytes.ok_or_else(|| failed("read", &self.path, io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.disk.wait_while_stalled();
        self.disk.change(&self.path, |state| {
            let content = state.files.get_mut(&self.file).unwrap();
            let pending = std::mem::take(&mut content.pending);
            if state.fails.as_ref().is_some_and(|part| self.path.to_string_lossy().contains(part)) {
                // The pages count as written from here on, and are not.
                state.fails = None;
                return Err(failed("sync", &self.path, io::ErrorKind::Other));
            }
            pending.iter().for_each(|change| change.apply(&mut content.durable));
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.change(Change::Truncate(len as usize))
    }

    fn length(&self) -> Result<u64> {
        let state = self.disk.state();
        state.alive(&self.path)?;
        Ok(state.files[&self.file].now.len() as u64)
    }
}
