//! The log on a disk that fails, fills up and forgets what was not synced.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod memory;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memory::Memory;
use storage::log::{Append, EmbeddedLog, Log, LogConfig, Retention, Sync, TopicPartition};
use storage::{Error, Fs, Kind, Result};

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

/// The power fails as a segment begins: the epoch before, whose frame ended the last one, is whole.
#[test]
fn an_epoch_that_ended_a_segment_is_whole() {
    let disk = Memory::default();
    let (log, _) = open(&disk, 0).unwrap();
    log.create_topic("a", 1).unwrap();
    log.create_topic("b", 1).unwrap();
    let long = "x".repeat(5000);
    log.commit(1, 0, &[append("a", &long), append("b", "one")], Sync::Durable).unwrap();
    // The segment of "a" is sealed, and there is a new one without anything in it.
    disk.state().syncs_left = Some(1);
    assert!(log.commit(2, 0, &[append("a", "two")], Sync::Durable).is_err());
    drop(log);
    disk.crash(0);
    assert_eq!(disk.list(Path::new("/log/a/0")).unwrap().len(), 3, "two segments and an index");
    let (log, recovered) = open(&disk, 1).unwrap();
    assert_eq!((recovered.last_epoch, recovered.cut_epoch), (1, None));
    assert_eq!((bodies(&log, "a"), bodies(&log, "b")), (vec![long], vec!["one".to_owned()]));
}

/// Of what can be computed again and was not synced, any part may be missing: it ends where the first of it is.
#[test]
fn a_hole_in_what_can_be_computed_again_is_its_end() {
    let path = PathBuf::from("/log/a/0/00000000000000000000.seg");
    for sync in [Sync::Derived, Sync::Durable] {
        let disk = Memory::default();
        let (log, _) = open(&disk, 0).unwrap();
        log.create_topic("a", 1).unwrap();
        for epoch in 1..=3 {
            log.commit(epoch, 0, &[append("a", &format!("record {epoch}"))], sync).unwrap();
        }
        drop(log);
        let mut state = disk.state();
        let bytes = &mut state.files.get_mut(&path).unwrap().now;
        let frame = bytes.len() / 3;
        bytes[frame..2 * frame].fill(0);
        drop(state);
        let (log, _) = open(&disk, 0).unwrap();
        match sync {
            Sync::Derived => assert_eq!(bodies(&log, "a"), ["record 1"]),
            Sync::Durable => assert_eq!(log.bounds(&at("a")).unwrap_err().kind(), Kind::Corrupt),
        }
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
    let mut damaged = 0;
    for position in 0..sound.len() {
        disk.state().files.get_mut(&path).unwrap().now = sound.clone();
        disk.state().files.get_mut(&path).unwrap().now[position] ^= 0x55;
        let (log, recovered) = open(&disk, 12).unwrap();
        assert_eq!(recovered.cut_epoch, None, "byte {position}");
        match log.bounds(&at("a")) {
            Ok(_) => assert_eq!(bodies(&log, "a"), texts, "byte {position}"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Corrupt, "byte {position}: {error}");
                damaged += 1;
            }
        }
        // What is damaged stays as it is, for whoever can mend it.
        let now = disk.state().files[&path].now.clone();
        assert_eq!(now.iter().zip(&sound).filter(|(a, b)| a != b).count(), 1, "byte {position}");
    }
    assert!(damaged > sound.len() / 2, "{damaged} of {} bytes", sound.len());
}

/// A damaged topic takes no other with it: not the epochs they share, not what comes later.
#[test]
fn damage_stays_in_its_topic() {
    let path = PathBuf::from("/log/a/0/00000000000000000000.seg");
    for place in [1, 2] {
        let disk = Memory::default();
        let (log, _) = open(&disk, 0).unwrap();
        log.create_topic("a", 1).unwrap();
        log.create_topic("b", 1).unwrap();
        for epoch in 1..=3 {
            log.commit(epoch, 0, &[append("a", "x"), append("b", &format!("record {epoch}"))], Sync::Durable)
                .unwrap();
        }
        drop(log);
        let mut state = disk.state();
        let bytes = &mut state.files.get_mut(&path).unwrap().now;
        // In the middle, or of the last epoch of all.
        let at_byte = bytes.len() * place / 3 + 70;
        bytes[at_byte] ^= 1;
        drop(state);
        let (log, recovered) = open(&disk, 3).unwrap();
        assert_eq!((recovered.last_epoch, recovered.cut_epoch), (3, None));
        assert_eq!(log.bounds(&at("a")).unwrap_err().kind(), Kind::Corrupt);
        assert!(log.commit(4, 0, &[append("a", "y")], Sync::Durable).is_err());
        log.commit(4, 0, &[append("b", "record 4")], Sync::Durable).unwrap();
        assert_eq!(bodies(&log, "b"), ["record 1", "record 2", "record 3", "record 4"]);
        drop(log);
        let (log, recovered) = open(&disk, 4).unwrap();
        assert_eq!((recovered.last_epoch, bodies(&log, "b").len()), (4, 4));
        log.drop_topic("a").unwrap();
        log.create_topic("a", 1).unwrap();
        log.commit(5, 0, &[append("a", "anew")], Sync::Durable).unwrap();
        assert_eq!(bodies(&log, "a"), ["anew"]);
    }
}
