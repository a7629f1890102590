//! Copies of a data directory that can be opened as one.
//!
//! [`capture`] gives the files of a directory a second name and notes how long they are, which takes no longer
//! than naming them does; [`Capture::write`] copies that much of them at its leisure. Who captures between two
//! commits has what a crash at that moment would have left, however the directory goes on: files that are removed
//! later stay under their second name, and what is appended later is left out. Invariant: a copy has its name only
//! when it is whole and synced. Next: `restore` makes a data directory of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::check::{CheckReport, check};
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::fs::Fs;

/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 1 << 20;
/// How often the checkpoints may change while they are looked at.
const TRIES: usize = 100;

/// Second names are in directories of this name and a number, in the data directory.
const STAGING: &str = "backing-up";

/// The files of a data directory as they were at one moment.
pub struct Capture {
    fs: Arc<dyn Fs>,
    /// Where the files are.
    root: PathBuf,
    /// The second names go with this.
    staged: bool,
    /// Below the root, each before those in it.
    directories: Vec<PathBuf>,
    /// Below the root, with their lengths.
    files: Vec<(PathBuf, u64)>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.staged
            && let Err(error) = self.fs.remove(&self.root)
        {
            tracing::warn!(%error, "what a backup was made from is left until the next start");
        }
    }
}

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Number of files.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Gives second names to what is in a data directory now. Nobody may commit, decide or drop meanwhile; a checkpoint
/// may be made.
///
/// # Errors
/// Any of the disk, also one that has no hard links.
pub fn capture(fs: &Arc<dyn Fs>, directory: &Path) -> Result<Capture> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let root = directory.join(format!("{STAGING}-{number}"));
    fs.remove(&root)?;
    let mut capture = Capture::of(fs, root, true);
    // Before the topics: a checkpoint has nothing of a topic that is not there when it is complete.
    capture.link_checkpoints(directory)?;
    for path in walk(fs.as_ref(), directory, &mut capture.directories)? {
        capture.link(directory, &path)?;
    }
    capture.measure()?;
    Ok(capture)
}

/// Removes what a backup left that was not finished when the process ended.
///
/// # Errors
/// Any of the disk.
pub fn clean(fs: &dyn Fs, directory: &Path) -> Result<()> {
    let left = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(STAGING))
    };
    fs.list(directory)?.iter().filter(|path| left(path)).try_for_each(|path| fs.remove(path))
}

/// The files that are no checkpoints, and the directories they are in.
fn walk(fs: &dyn Fs, directory: &Path, directories: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut files = vec![directory.join("meta").join("journal")];
    for topic in fs.list(&directory.join("topics"))? {
        directories.push(relative(&topic, directory));
        for partition in fs.list(&topic)? {
            directories.push(relative(&partition, directory));
            files.extend(fs.list(&partition)?);
        }
    }
    Ok(files)
}

fn relative(path: &Path, directory: &Path) -> PathBuf {
    path.strip_prefix(directory).unwrap_or(path).to_owned()
}

impl Capture {
    fn of(fs: &Arc<dyn Fs>, root: PathBuf, staged: bool) -> Self {
        let directories = ["", "meta", "checkpoints", "topics"].map(PathBuf::from).to_vec();
        Self { fs: Arc::clone(fs), root, staged, directories, files: Vec::new() }
    }

    /// What a copy of it will hold.
    pub fn size(&self) -> Copied {
        Copied { files: self.files.len() as u64, bytes: self.files.iter().map(|(_, bytes)| bytes).sum() }
    }

    /// A file that went since it was listed belonged to something that was dropped.
    fn link(&mut self, directory: &Path, path: &Path) -> Result<bool> {
        let path = relative(path, directory);
        let name = self.root.join(&path);
        if let Some(parent) = name.parent() {
            self.fs.create_dirs(parent)?;
        }
        let there = self.fs.link(&directory.join(&path), &name)?;
        if there {
            self.files.push((path, 0));
        }
        Ok(there)
    }

    /// Those of the newest checkpoints, while others may be made: what no checkpoint needs is removed when one is
    /// complete, so it is tried again until nothing was.
    fn link_checkpoints(&mut self, directory: &Path) -> Result<()> {
        let checkpoints = directory.join("checkpoints");
        for _ in 0..TRIES {
            let wanted = checkpoint::newest_files(self.fs.as_ref(), &checkpoints)?;
            let mut all_there = true;
            for path in &wanted {
                all_there &= self.link(directory, path)?;
            }
            if all_there && checkpoint::newest_files(self.fs.as_ref(), &checkpoints)? == wanted {
                return Ok(());
            }
            self.fs.remove(&self.root)?;
            self.files.clear();
        }
        Err(Error::Busy { path: checkpoints })
    }

    fn measure(&mut self) -> Result<()> {
        for (path, bytes) in &mut self.files {
            let path = self.root.join(path);
            *bytes = self.fs.open_to_read(&path)?.length()?;
        }
        Ok(())
    }

    /// Copies everything to a directory that is not there or empty. It has its name when all of it is on disk;
    /// until then, and when `stop` is set or the disk fails, there is `NAME.partial` at most.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Stopped`], any of the disk.
    pub fn write(&self, target: &Path, stop: &AtomicBool) -> Result<Copied> {
        if !self.fs.list(target)?.is_empty() {
            return Err(Error::NotEmpty { path: target.to_owned() });
        }
        let mut partial = target.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        self.fs.remove(&partial)?;
        let copied = self.copy_all(&partial, stop).and_then(|()| {
            self.fs.rename(&partial, target)?;
            target.parent().map_or(Ok(()), |above| self.fs.sync_dir(above))
        });
        if let Err(error) = copied {
            // The first error says why.
            let _ = self.fs.remove(&partial);
            return Err(error);
        }
        Ok(self.size())
    }

    fn copy_all(&self, to: &Path, stop: &AtomicBool) -> Result<()> {
        for directory in &self.directories {
            self.fs.create_dirs(&to.join(directory))?;
        }
        for (path, bytes) in &self.files {
            copy(self.fs.as_ref(), (&self.root.join(path), *bytes), &to.join(path), stop)?;
        }
        self.directories.iter().try_for_each(|directory| self.fs.sync_dir(&to.join(directory)))
    }
}

fn copy(fs: &dyn Fs, (from, bytes): (&Path, u64), to: &Path, stop: &AtomicBool) -> Result<()> {
    let (source, target) = (fs.open_to_read(from)?, fs.open(to)?);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = 0;
    while position < bytes {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let left = usize::try_from(bytes - position).unwrap_or(CHUNK_BYTES);
        let chunk = buffer.get_mut(..left.min(CHUNK_BYTES)).unwrap_or_default();
        source.read_at(chunk, position)?;
        target.write_at(chunk, position)?;
        position += chunk.len() as u64;
    }
    target.sync()
}

/// Makes a data directory of a copy in which nothing is damaged.
///
/// # Errors
/// [`Error::Corrupt`] for the first damage that was found; [`Error::NotEmpty`]; any of the disk.
pub fn restore(fs: &Arc<dyn Fs>, copy: &Path, directory: &Path) -> Result<(CheckReport, Copied)> {
    let report = check(fs, copy)?;
    if let Some(finding) = report.findings.iter().find(|finding| !finding.harmless) {
        return Err(Error::corrupt(&finding.path, 0, finding.what.clone()));
    }
    let mut source = Capture::of(fs, copy.to_owned(), false);
    let files = walk(fs.as_ref(), copy, &mut source.directories)?;
    let files = files.into_iter().chain(fs.list(&copy.join("checkpoints"))?);
    source.files = files.map(|path| (relative(&path, copy), 0)).collect();
    source.measure()?;
    let copied = source.write(directory, &AtomicBool::new(false))?;
    Ok((report, copied))
}
