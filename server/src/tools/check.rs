//! `millpond check DIR`: whether everything in a stopped server's directory is what was written.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use storage::{CheckReport, Disk, Fs};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The report on the directory that the arguments name.
///
/// # Errors
/// A directory that is not there or in use; damage, with the report as its text.
pub fn check(args: &[String]) -> Result<String> {
    let [directory] = args else { return Err("give one directory: millpond check DIR".into()) };
    let (fs, directory): (Arc<dyn Fs>, _) = (Arc::new(Disk), Path::new(directory));
    if fs.list(directory)?.is_empty() {
        return Err(format!("\"{}\" is no data directory", directory.display()).into());
    }
    let report = storage::check(&fs, directory)?;
    let text = text(&report);
    if report.is_damaged() { Err(text.into()) } else { Ok(text) }
}

pub(super) fn text(report: &CheckReport) -> String {
    let CheckReport { entries, segments, frames, records, bytes, last_epoch, checkpoints, findings } = report;
    let mut out = format!("journal: {entries} entries\n");
    // Writing to memory does not fail.
    let _ = writeln!(out, "topics: {records} records in {frames} frames, {segments} segments, {bytes} bytes");
    let _ = writeln!(out, "last epoch: {last_epoch}");
    let epochs: Vec<String> = checkpoints.iter().map(ToString::to_string).collect();
    let _ =
        writeln!(out, "checkpoints: {}", if epochs.is_empty() { "none".into() } else { epochs.join(", ") });
    for finding in findings {
        let kind = if finding.harmless { "note" } else { "damage" };
        let _ = writeln!(out, "{kind}: {}: {}", finding.path.display(), finding.what);
    }
    out.push_str(if report.is_damaged() { "damaged" } else { "whole" });
    out
}
