//! The checkpoints of a data directory.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::manifest::Manifest;
use super::pages::{self, PageFile, PageId, PagePlace};
use crate::Epoch;
use crate::error::{Error, Result};
use crate::fs::{Fs, FsFile};

/// Complete checkpoints that are kept: should the newest be damaged, there is one before it.
const KEPT: usize = 2;
/// A page file of which less than this part is needed is written anew, page by page.
const SPARSE: f64 = 0.5;

/// Complete checkpoints, and where their pages are.
pub struct CheckpointStore {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    /// Newest first.
    manifests: Vec<Manifest>,
    damaged: usize,
    next_file: u32,
    /// Bytes of each page file.
    lengths: HashMap<u32, u64>,
}

/// A checkpoint on its way.
pub struct CheckpointWriter<'a> {
    store: &'a mut CheckpointStore,
    manifest: Manifest,
    /// Pages that need not be written.
    known: HashMap<PageId, PagePlace>,
    number: u32,
    file: Option<PageFile>,
}

/// What a checkpoint took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Bytes of all its sections.
    pub bytes: u64,
    /// Bytes of those that no checkpoint before had.
    pub new_bytes: u64,
}

impl CheckpointStore {
    /// Opens what is there. A manifest that is damaged is named and left out; what no manifest needs goes
    /// with the next checkpoint.
    ///
    /// # Errors
    /// Any of the disk but damage.
    pub fn open(fs: Arc<dyn Fs>, directory: &Path) -> Result<Self> {
        fs.create_dirs(directory)?;
        let (mut store, damaged) = Self::look(&fs, directory)?;
        for error in &damaged {
            tracing::error!(%error, "a checkpoint cannot be used");
        }
        let paths = store.fs.list(directory)?;
        store.next_file = paths.iter().filter_map(|path| file_number(path)).max().map_or(0, |n| n + 1);
        for path in &paths {
            if has_extension(path, "new") {
                store.fs.remove(path)?;
            } else if let Some(number) = file_number(path) {
                store.lengths.insert(number, store.fs.open(path)?.length()?);
            }
        }
        Ok(store)
    }

    /// The checkpoints that are there, to be read, and what is wrong with others. Nothing is changed.
    ///
    /// # Errors
    /// Any of the disk but damage.
    pub(crate) fn look(fs: &Arc<dyn Fs>, directory: &Path) -> Result<(Self, Vec<Error>)> {
        let (mut manifests, mut damaged) = (Vec::new(), Vec::new());
        let mut paths = fs.list(directory)?;
        paths.sort();
        for path in paths.iter().rev().filter(|path| has_extension(path, "manifest")) {
            match Manifest::read(fs.as_ref(), path) {
                Ok(manifest) => manifests.push(manifest),
                Err(error @ Error::Corrupt { .. }) => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        let store = Self {
            fs: Arc::clone(fs),
            directory: directory.to_owned(),
            manifests,
            damaged: damaged.len(),
            next_file: 0,
            lengths: HashMap::new(),
        };
        Ok((store, damaged))
    }

    /// The checkpoints, newest first.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// How many were there and are damaged.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Leaves a checkpoint out that turned out not to be usable.
    pub fn discard(&mut self, epoch: Epoch) {
        self.damaged += 1;
        self.manifests.retain(|manifest| manifest.epoch != epoch);
    }

    /// The pages of a section, in order.
    ///
    /// # Errors
    /// Each page says whether it is what was written.
    pub fn section(&self, manifest: &Manifest, name: &str) -> impl Iterator<Item = Result<Vec<u8>>> + use<> {
        let (fs, directory) = (Arc::clone(&self.fs), self.directory.clone());
        let mut open: Option<(u32, Box<dyn FsFile>)> = None;
        let places = manifest.sections.get(name).cloned().unwrap_or_default();
        places.into_iter().map(move |place| {
            let path = pages::path(&directory, place.file);
            let file = match open.take() {
                Some((number, file)) if number == place.file => file,
                _ => existing(fs.as_ref(), &path)?,
            };
            let page = pages::read(file.as_ref(), &path, &place);
            open = Some((place.file, file));
            page
        })
    }

    /// Begins a checkpoint of an epoch.
    pub fn begin(&mut self, epoch: Epoch) -> CheckpointWriter<'_> {
        let sparse = self.sparse_files();
        // Of two places of a page the newer one counts.
        let places = self.manifests.iter().rev().flat_map(Manifest::places);
        let known = places.filter(|place| !sparse.contains(&place.file)).map(|place| (place.id, *place));
        let (known, number) = (known.collect(), self.next_file);
        let manifest = Manifest { epoch, ..Manifest::default() };
        CheckpointWriter { store: self, manifest, known, number, file: None }
    }

    /// Files of which the newest checkpoint needs little: what it needs is written again, so that they can
    /// go.
    fn sparse_files(&self) -> HashSet<u32> {
        let mut needed: HashMap<u32, u64> = HashMap::new();
        let mut counted = HashSet::new();
        for place in self.manifests.first().into_iter().flat_map(Manifest::places) {
            if counted.insert(place.id) {
                *needed.entry(place.file).or_default() += u64::from(place.len);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        let is_sparse = |(file, length): &(&u32, &u64)| {
            (needed.get(*file).copied().unwrap_or(0) as f64) < **length as f64 * SPARSE
        };
        self.lengths.iter().filter(is_sparse).map(|(file, _)| *file).collect()
    }

    /// Removes what no kept manifest needs.
    fn collect(&mut self) -> Result<()> {
        self.manifests.truncate(KEPT);
        let kept: HashSet<Epoch> = self.manifests.iter().map(|m| m.epoch).collect();
        let needed: HashSet<u32> = self.manifests.iter().flat_map(Manifest::places).map(|p| p.file).collect();
        for path in self.fs.list(&self.directory)? {
            let of_manifest = epoch_of(&path).is_some_and(|epoch| !kept.contains(&epoch));
            let of_pages = file_number(&path).is_some_and(|file| !needed.contains(&file));
            if of_manifest || of_pages {
                self.fs.remove(&path)?;
            }
        }
        self.lengths.retain(|file, _| needed.contains(file));
        Ok(())
    }
}

impl CheckpointWriter<'_> {
    /// Adds a page to a section.
    ///
    /// # Errors
    /// Any of the disk; the checkpoint is then to be given up.
    pub fn page(&mut self, section: &str, bytes: &[u8]) -> Result<()> {
        let id = PageId::of(bytes);
        let place = match self.known.get(&id) {
            Some(place) => *place,
            None => {
                let file = match &mut self.file {
                    Some(file) => file,
                    none => none.insert(PageFile::create(
                        self.store.fs.as_ref(),
                        &self.store.directory,
                        self.number,
                    )?),
                };
                let place = file.push(id, bytes)?;
                self.known.insert(id, place);
                place
            }
        };
        match self.manifest.sections.get_mut(section) {
            Some(places) => places.push(place),
            None => {
                self.manifest.sections.insert(section.to_owned(), vec![place]);
            }
        }
        Ok(())
    }

    /// Makes the checkpoint complete. Those that are too many, and what they alone need, are removed.
    ///
    /// # Errors
    /// Any of the disk; the checkpoints before are then still there.
    pub fn commit(self) -> Result<Written> {
        let Self { store, manifest, number, file, .. } = self;
        let mut written = Written { bytes: manifest.bytes(), new_bytes: 0 };
        if let Some(file) = file {
            written.new_bytes = file.finish()?;
            store.lengths.insert(number, written.new_bytes);
            store.next_file = number + 1;
        }
        let path = Manifest::path(&store.directory, manifest.epoch);
        let temporary = path.with_extension("new");
        let file = store.fs.open(&temporary)?;
        file.truncate(0)?;
        file.write_at(&manifest.encode()?, 0)?;
        file.sync()?;
        store.fs.sync_dir(&store.directory)?;
        store.fs.rename(&temporary, &path)?;
        store.fs.sync_dir(&store.directory)?;
        store.manifests.retain(|m| m.epoch != manifest.epoch);
        store.manifests.insert(0, manifest);
        if let Err(error) = store.collect() {
            tracing::warn!(%error, "what old checkpoints need could not be removed");
        }
        Ok(written)
    }
}

/// Opens a page file that must be there.
fn existing(fs: &dyn Fs, path: &Path) -> Result<Box<dyn FsFile>> {
    match fs.open_existing(path)? {
        Some(file) if file.length()? > 0 => Ok(file),
        _ => Err(Error::corrupt(path, 0, "the pages of a checkpoint are gone")),
    }
}

/// The files of the newest checkpoints, as they are there now: those that are kept, and all pages.
///
/// # Errors
/// Any of the disk.
pub(crate) fn newest_files(fs: &dyn Fs, directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs.list(directory)?;
    let oldest_kept = files.iter().filter_map(|path| epoch_of(path)).rev().nth(KEPT - 1);
    files.retain(|path| match epoch_of(path) {
        Some(epoch) => Some(epoch) >= oldest_kept,
        None => file_number(path).is_some(),
    });
    Ok(files)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

fn stem<T: std::str::FromStr>(path: &Path, extension: &str) -> Option<T> {
    if !has_extension(path, extension) {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

fn epoch_of(path: &Path) -> Option<Epoch> {
    stem(path, "manifest")
}

fn file_number(path: &Path) -> Option<u32> {
    stem(path, "pages")
}
