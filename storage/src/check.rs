//! What a stopped data directory holds, and whether all of it is what was written.
//!
//! Reads every frame, every entry of the journal and every page of a checkpoint against its checksum, and
//! changes nothing. Damage is told by file and position; what a start mends by itself is told apart from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::CheckpointStore;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::log::{SegmentCheck, check_segment};
use crate::meta::{Journal, JournalCheck};
use crate::{DirLock, Epoch};

/// Something in a data directory that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and where.
    pub what: String,
    /// The next start mends it and loses nothing that was acknowledged.
    pub harmless: bool,
}

/// What is in a data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Entries of the journal.
    pub entries: u64,
    /// Segments of topics.
    pub segments: u64,
    /// Frames in them.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
    /// The last epoch that a frame is of.
    pub last_epoch: Epoch,
    /// Checkpoints that are whole, newest first.
    pub checkpoints: Vec<Epoch>,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether something is lost.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| !finding.harmless)
    }

    fn find(&mut self, path: &Path, what: impl Into<String>, harmless: bool) {
        self.findings.push(Finding { path: path.to_owned(), what: what.into(), harmless });
    }

    /// Notes damage and goes on; anything else ends the check.
    fn damage(&mut self, error: Error) -> Result<()> {
        match &error {
            Error::Corrupt { path, .. } => {
                let path = path.clone();
                self.find(&path, error.to_string(), false);
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// Reads everything in a data directory that no server has open.
///
/// # Errors
/// [`Error::Locked`] while a server runs; what the disk says but damage.
pub fn check(fs: &Arc<dyn Fs>, directory: &Path) -> Result<CheckReport> {
    let _lock = DirLock::acquire_to_read(directory)?;
    let mut report = CheckReport::default();
    let decided = check_journal(fs, &directory.join("meta").join("journal"), &mut report)?;
    check_checkpoints(fs, &directory.join("checkpoints"), &mut report)?;
    // The epochs up to this one were acknowledged: a decision or a checkpoint came after them.
    let acknowledged = decided.max(report.checkpoints.first().copied().unwrap_or(0));
    for topic in fs.list(&directory.join("topics"))? {
        for partition in fs.list(&topic)? {
            check_partition(fs.as_ref(), &partition, acknowledged, &mut report)?;
        }
    }
    Ok(report)
}

/// Returns the epoch after which the last decision was taken.
fn check_journal(fs: &Arc<dyn Fs>, path: &Path, report: &mut CheckReport) -> Result<Epoch> {
    // To open it would make it.
    let beside = path.parent().map(|directory| fs.list(directory)).transpose()?.unwrap_or_default();
    if !beside.iter().any(|there| there == path) {
        return Ok(0);
    }
    match Journal::check(fs.as_ref(), path) {
        Ok(JournalCheck { entries, after_epoch, torn_bytes }) => {
            report.entries = entries;
            if torn_bytes > 0 {
                report.find(path, format!("{torn_bytes} bytes behind its last whole entry"), true);
            }
            Ok(after_epoch)
        }
        Err(error) => report.damage(error).map(|()| 0),
    }
}

fn check_partition(
    fs: &dyn Fs,
    directory: &Path,
    acknowledged: Epoch,
    report: &mut CheckReport,
) -> Result<()> {
    let files = fs.list(directory)?;
    let mut segments: Vec<&PathBuf> =
        files.iter().filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    let last = segments.last().copied();
    let mut end = None;
    for path in segments.iter().copied() {
        let checked = match check_segment(fs, path) {
            Ok(checked) => checked,
            Err(error) => {
                report.damage(error)?;
                end = None;
                continue;
            }
        };
        let SegmentCheck { base, end: ends, frames, bytes, torn_bytes, torn_epoch, last_epoch } = checked;
        if end.is_some_and(|end| end != base) {
            report.find(path, format!("it begins at offset {base}, the one before ends elsewhere"), false);
        }
        if torn_bytes > 0 {
            // Only the last epoch may be incomplete, and only while nobody was told of it.
            let harmless = Some(path) == last && torn_epoch.is_none_or(|epoch| epoch > acknowledged);
            report.find(
                path,
                format!("{torn_bytes} bytes behind its last whole frame, at {bytes}"),
                harmless,
            );
        }
        end = Some(ends);
        report.segments += 1;
        report.frames += frames;
        report.records += ends - base;
        report.bytes += bytes;
        report.last_epoch = report.last_epoch.max(last_epoch);
    }
    Ok(())
}

fn check_checkpoints(fs: &Arc<dyn Fs>, directory: &Path, report: &mut CheckReport) -> Result<()> {
    let (store, damaged) = CheckpointStore::look(fs, directory)?;
    for error in damaged {
        report.damage(error)?;
    }
    for manifest in store.manifests() {
        let mut whole = true;
        for section in manifest.sections() {
            // One page that is damaged is enough to know of a section.
            if let Some(error) = store.section(manifest, section).find_map(Result::err) {
                report.damage(error)?;
                whole = false;
            }
        }
        if whole {
            report.checkpoints.push(manifest.epoch);
        }
    }
    Ok(())
}
