//! The log on a disk that fails, fills up and forgets what was not synced.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use storage::log::{Append, EmbeddedLog, Log, LogConfig, Retention, Sync, TopicPartition};
use storage::{Error, Fs, FsFile, Kind, Result};

/// A disk in memory. What is synced survives [`Memory::crash`]; of the rest a part, perhaps.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: HashMap<PathBuf, Content>,
    /// Writes until the disk is full; None is never.
    writes_left: Option<usize>,
    /// Syncs until one fails; None is never.
    syncs_left: Option<usize>,
}

#[derive(Default, Clone)]
struct Content {
    now: Vec<u8>,
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
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Power fails: of bytes that were not synced the first `keep` stay.
    fn crash(&self, keep: usize) {
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
    fn create_dir(&self, _: &Path) -> Result<()> {
        Ok(())
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
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        let content = state.files.remove(from).unwrap_or_default();
        state.files.insert(to.to_owned(), content);
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> Result<()> {
        Ok(())
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

const CONFIG: LogConfig = LogConfig { segment_bytes: 4096, recent_bytes: 1000 };

fn open(disk: &Memory, acknowledged: u64) -> Result<(EmbeddedLog, storage::log::Recovered)> {
    EmbeddedLog::open(Arc::new(disk.clone()), Path::new("/log"), CONFIG, acknowledged, |_| true)
}

fn at(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: 0 }
}

fn append(topic: &str, text: &str) -> Append {
    Append { to: at(topic), count: 1, format: 7, times_ms: (5, 5), body: text.to_owned().into_bytes().into() }
}

fn bodies(log: &EmbeddedLog, topic: &str) -> Vec<String> {
    let bounds = log.bounds(&at(topic)).unwrap();
    let mut out = Vec::new();
    let mut next = bounds.start;
    while next < bounds.end {
        let frames = log.read(&at(topic), next, bounds.end, 300).unwrap();
        next = frames.last().unwrap().header.end_offset();
        out.extend(frames.iter().map(|f| String::from_utf8(f.body.to_vec()).unwrap()));
    }
    out
}

#[test]
fn what_is_written_is_read_back_over_segments_and_starts() {
    let disk = Memory::default();
    let (log, _) = open(&disk, 0).unwrap();
    log.create_topic("a", 1).unwrap();
    let texts: Vec<String> = (0..200).map(|n| format!("record {n} {}", "x".repeat(n))).collect();
    for (epoch, text) in (1u64..).zip(&texts) {
        assert_eq!(log.commit(epoch, 0, &[append("a", text)], Sync::Durable).unwrap(), [epoch - 1]);
    }
    assert_eq!(bodies(&log, "a"), texts);
    drop(log);
    disk.crash(0);
    let (log, recovered) = open(&disk, 200).unwrap();
    assert_eq!((recovered.last_epoch, recovered.cut_epoch), (200, None));
    assert_eq!(bodies(&log, "a"), texts);
    let removed =
        log.retain(&at("a"), Retention { max_bytes: Some(9000), max_age_ms: None }, 0, u64::MAX).unwrap();
    assert!(removed > 3);
    let left = bodies(&log, "a");
    assert_eq!(left, texts[texts.len() - left.len()..]);
    assert_eq!(
        log.retain(&at("a"), Retention { max_bytes: Some(1), max_age_ms: None }, 0, 0).unwrap(),
        0,
        "held"
    );
}

/// Power fails at every byte of an epoch over three topics: it is there whole or not at all.
#[test]
fn an_epoch_is_whole_or_not_there_at_every_torn_byte() {
    for keep in 0..700 {
        let disk = Memory::default();
        let (log, _) = open(&disk, 0).unwrap();
        for topic in ["a", "b", "c"] {
            log.create_topic(topic, 1).unwrap();
        }
        let all = |text: &str| ["a", "b", "c"].map(|topic| append(topic, &format!("{text} {topic}")));
        log.commit(1, 0, &all("first"), Sync::Durable).unwrap();
        // The second sync of the next epoch fails: its bytes are written, one file is synced.
        disk.state().syncs_left = Some(1);
        assert!(log.commit(2, 0, &all("second"), Sync::Durable).is_err());
        assert_eq!(log.bounds(&at("a")).unwrap().end, 1, "not shown");
        // A file that failed to sync takes no more.
        assert!(matches!(log.commit(3, 0, &[append("b", "x")], Sync::Durable), Err(Error::Poisoned { .. })));
        drop(log);
        disk.crash(keep);
        let (log, recovered) = open(&disk, 1).unwrap();
        assert_eq!(recovered.last_epoch, 1, "keep {keep}");
        for topic in ["a", "b", "c"] {
            assert_eq!(bodies(&log, topic), [format!("first {topic}")], "keep {keep}");
        }
        log.commit(2, 0, &all("again"), Sync::Durable).unwrap();
        assert_eq!(bodies(&log, "b"), ["first b", "again b"]);
    }
}

#[test]
fn a_full_disk_takes_nothing_back_and_goes_on_later() {
    let disk = Memory::default();
    let (log, _) = open(&disk, 0).unwrap();
    log.create_topic("a", 1).unwrap();
    log.create_topic("b", 1).unwrap();
    log.commit(1, 0, &[append("a", "one")], Sync::Durable).unwrap();
    disk.state().writes_left = Some(1);
    let error = log.commit(2, 0, &[append("a", "two"), append("b", "two")], Sync::Durable).unwrap_err();
    assert_eq!(error.kind(), Kind::DiskFull);
    assert_eq!((bodies(&log, "a"), bodies(&log, "b")), (vec!["one".to_owned()], vec![]));
    disk.state().writes_left = None;
    log.commit(2, 0, &[append("a", "three"), append("b", "three")], Sync::Durable).unwrap();
    assert_eq!(bodies(&log, "a"), ["one", "three"]);
    drop(log);
    disk.crash(0);
    assert_eq!(bodies(&open(&disk, 2).unwrap().0, "b"), ["three"]);
}

/// Every changed byte of a sealed or growing segment is noticed before a record is served.
#[test]
fn damage_is_named_or_harmless_at_every_byte() {
    let disk = Memory::default();
    let (log, _) = open(&disk, 0).unwrap();
    log.create_topic("a", 1).unwrap();
    let texts: Vec<String> = (0..12).map(|n| format!("record {n}")).collect();
    for (epoch, text) in (1u64..).zip(&texts) {
        log.commit(epoch, 0, &[append("a", text)], Sync::Durable).unwrap();
    }
    drop(log);
    let path = PathBuf::from("/log/a/0/00000000000000000000.seg");
    let sound = disk.state().files[&path].now.clone();
    for position in 0..sound.len() {
        disk.state().files.get_mut(&path).unwrap().now = sound.clone();
        disk.state().files.get_mut(&path).unwrap().now[position] ^= 0x55;
        match open(&disk, 12) {
            Ok((log, _)) => assert_eq!(bodies(&log, "a"), texts, "byte {position}"),
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "byte {position}: {error}"),
        }
    }
}
