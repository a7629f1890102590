//! The disk behind a trait, so that tests can make it fail, tear and forget.
//!
//! Invariant: nothing above this file touches `std::fs`.

#![allow(clippy::disallowed_methods, reason = "the disk's one home")]

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file system.
pub trait Fs: Send + Sync {
    /// Opens a file for reading and writing, making it if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn open(&self, path: &Path) -> Result<Box<dyn FsFile>>;
    /// Opens a file for reading; None if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn open_existing(&self, path: &Path) -> Result<Option<Box<dyn FsFile>>>;
    /// Makes a directory in one that is there; false if it is there already.
    ///
    /// # Errors
    /// [`Error::Io`], `NotFound` when the one above is missing.
    fn create_dir(&self, path: &Path) -> Result<bool>;
    /// Names in a directory, sorted; empty if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list(&self, path: &Path) -> Result<Vec<PathBuf>>;
    /// Removes a file or a directory with everything in it, if it is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn remove(&self, path: &Path) -> Result<()>;
    /// Gives a file a second name; false if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn link(&self, from: &Path, to: &Path) -> Result<bool>;
    /// Renames.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Makes new names in a directory durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// How much room the disk with a directory has.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn room(&self, path: &Path) -> Result<Room>;
}

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes of the whole disk.
    pub size: u64,
}

impl dyn Fs + '_ {
    /// Opens a file that is there, and is only read.
    ///
    /// # Errors
    /// [`Error::Io`], also when it is not there.
    pub fn open_to_read(&self, path: &Path) -> Result<Box<dyn FsFile>> {
        self.open_existing(path)?.ok_or_else(|| Error::io("open", path)(io::ErrorKind::NotFound.into()))
    }

    /// Makes a directory and those above it, each durable before the next.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_dirs(&self, path: &Path) -> Result<()> {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let made = match (self.create_dir(path), above) {
            (Err(Error::Io { source, .. }), Some(above)) if source.kind() == io::ErrorKind::NotFound => {
                self.create_dirs(above)?;
                self.create_dir(path)?
            }
            (made, _) => made?,
        };
        match above {
            Some(above) if made => self.sync_dir(above),
            _ => Ok(()),
        }
    }
}

/// An open file.
pub trait FsFile: Send + Sync {
    /// Writes all of `bytes` at `position`.
    ///
    /// # Errors
    /// [`Error::Io`]; part of the bytes may be there.
    fn write_at(&self, bytes: &[u8], position: u64) -> Result<()>;
    /// Fills `buffer` from `position`.
    ///
    /// # Errors
    /// [`Error::Io`], also when the file ends before.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<()>;
    /// Makes the file's bytes durable.
    ///
    /// # Errors
    /// [`Error::Io`]; the caller must not try again.
    fn sync(&self) -> Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn truncate(&self, len: u64) -> Result<()>;
    /// Its length in bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn length(&self) -> Result<u64>;
}

/// The real disk.
#[derive(Debug, Default, Clone, Copy)]
pub struct Disk;

struct DiskFile {
    path: PathBuf,
    file: fs::File,
}

impl Fs for Disk {
    fn open(&self, path: &Path) -> Result<Box<dyn FsFile>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        Ok(Box::new(DiskFile { path: path.to_owned(), file }))
    }

    fn open_existing(&self, path: &Path) -> Result<Option<Box<dyn FsFile>>> {
        match fs::File::open(path) {
            Ok(file) => Ok(Some(Box::new(DiskFile { path: path.to_owned(), file }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    fn create_dir(&self, path: &Path) -> Result<bool> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
            Err(error) => Err(Error::io("create directory", path)(error)),
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", path)(error)),
        };
        let mut names = entries
            .map(|entry| entry.map(|e| e.path()).map_err(Error::io("list", path)))
            .collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        match fs::hard_link(from, to) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("link", from)(error)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(Error::io("rename", from))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        fs::File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", path))
    }

    fn room(&self, path: &Path) -> Result<Room> {
        stat_room(path).map_err(Error::io("stat the disk of", path))
    }
}

fn stat_room(path: &Path) -> io::Result<Room> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Room { free: bytes(stat.f_bavail), size: bytes(stat.f_blocks) })
}

impl FsFile for DiskFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        self.file.write_all_at(bytes, position).map_err(Error::io("write", &self.path))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<()> {
        self.file.read_exact_at(buffer, position).map_err(Error::io("read", &self.path))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("sync", &self.path))
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(Error::io("truncate", &self.path))
    }

    fn length(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(Error::io("stat", &self.path))
    }
}
