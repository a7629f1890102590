//! A disk in memory that fails, fills up and forgets what was not synced.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use storage::{Error, Fs, FsFile, Result, Room};

/// A disk in memory. What is synced survives [`Memory::crash`]; of the rest a part, perhaps.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub files: HashMap<PathBuf, Content>,
    /// Writes until the disk is full; None is never.
    pub writes_left: Option<usize>,
    /// Syncs until one fails; None is never.
    pub syncs_left: Option<usize>,
}

#[derive(Default, Clone)]
pub struct Content {
    pub now: Vec<u8>,
    synced: Vec<u8>,
}

struct MemoryFile {
    disk: Memory,
    path: PathBuf,
}

fn failed(action: &'static str, path: &Path, kind: io::ErrorKind) -> Error {
    Error::Io { action, path: path.to_owned(), source: kind.into() }
}

impl Memory {
    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Power fails: of bytes that were not synced the first `keep` stay.
    pub fn crash(&self, keep: usize) {
        let mut state = self.state();
        for content in state.files.values_mut() {
            let synced = content.synced.len();
            let kept = content.now.len().min(synced + keep).max(synced.min(content.now.len()));
            content.now.truncate(kept);
            content.synced = content.now.clone();
        }
        state.writes_left = None;
        state.syncs_left = None;
    }
}

impl Fs for Memory {
    fn open(&self, path: &Path) -> Result<Box<dyn FsFile>> {
        self.state().files.entry(path.to_owned()).or_default();
        Ok(Box::new(MemoryFile { disk: self.clone(), path: path.to_owned() }))
    }
    fn open_existing(&self, path: &Path) -> Result<Option<Box<dyn FsFile>>> {
        if self.state().files.contains_key(path) { self.open(path).map(Some) } else { Ok(None) }
    }
    fn create_dir(&self, _: &Path) -> Result<bool> {
        Ok(true)
    }
    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let depth = path.components().count();
        let mut names: Vec<PathBuf> = self
            .state()
            .files
            .keys()
            .filter(|f| f.starts_with(path) && f.as_path() != path)
            .map(|f| f.components().take(depth + 1).collect())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.state().files.retain(|f, _| !f.starts_with(path));
        Ok(())
    }
    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        let mut state = self.state();
        let Some(content) = state.files.get(from).cloned() else { return Ok(false) };
        state.files.insert(to.to_owned(), content);
        Ok(true)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        let content = state.files.remove(from).unwrap_or_default();
        state.files.insert(to.to_owned(), content);
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn room(&self, _: &Path) -> Result<Room> {
        Ok(Room { free: u64::MAX, size: u64::MAX })
    }
}

impl FsFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        let mut state = self.disk.state();
        let full = match &mut state.writes_left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let content = state.files.get_mut(&self.path).unwrap();
        // A full disk takes some of the bytes all the same.
        let part = if full { bytes.len() / 2 } else { bytes.len() };
        let end = position as usize + part;
        content.now.resize(content.now.len().max(end), 0);
        content.now[position as usize..end].copy_from_slice(&bytes[..part]);
        if full { Err(failed("write", &self.path, io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<()> {
        let state = self.disk.state();
        let content = &state.files[&self.path].now;
        let bytes = content
            .get(position as usize..position as usize + buffer.len())
            .ok_or_else(|| failed("read", &self.path, io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&self) -> Result<()> {
        let mut state = self.disk.state();
        if let Some(left) = &mut state.syncs_left {
            if *left == 0 {
                return Err(failed("sync", &self.path, io::ErrorKind::Other));
            }
            *left -= 1;
        }
        let content = state.files.get_mut(&self.path).unwrap();
        content.synced = content.now.clone();
        Ok(())
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.disk.state().files.get_mut(&self.path).unwrap().now.truncate(len as usize);
        Ok(())
    }
    fn length(&self) -> Result<u64> {
        Ok(self.disk.state().files[&self.path].now.len() as u64)
    }
}
