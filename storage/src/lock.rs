//! One server for each data directory.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fs::Fs;

/// Holds a data directory until dropped; the kernel lets go when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: fs::File,
}

impl DirLock {
    /// Takes the directory, making it if it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it.
    pub fn acquire(on: &dyn Fs, directory: &Path) -> Result<Self> {
        on.create_dirs(directory)?;
        let path = directory.join("LOCK");
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        Self::lock(file, directory)
    }

    /// Takes a directory that is only read, and changes nothing in it. None where no server ever had it.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it.
    pub fn acquire_to_read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join("LOCK");
        match fs::File::open(&path) {
            Ok(file) => Self::lock(file, directory).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }

    fn lock(file: fs::File, directory: &Path) -> Result<Self> {
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: directory.to_owned() }),
            Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", directory)(error)),
        }
    }
}
