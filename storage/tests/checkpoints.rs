//! Checkpoints on a disk that fails, fills up, forgets and rots.

#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod memory;

use std::path::Path;
use std::sync::Arc;

use memory::Memory;
use storage::checkpoint::{CheckpointStore, Written};
use storage::{Error, Result};

const DIRECTORY: &str = "/checkpoints";

fn open(disk: &Memory) -> CheckpointStore {
    CheckpointStore::open(Arc::new(disk.clone()), Path::new(DIRECTORY)).unwrap()
}

/// A page of a number.
fn page(n: u8) -> Vec<u8> {
    vec![n; 1000]
}

fn make(store: &mut CheckpointStore, epoch: u64, pages: &[u8]) -> Result<Written> {
    let mut writer = store.begin(epoch);
    for n in pages {
        writer.page(if n % 2 == 0 { "even" } else { "odd" }, &page(*n))?;
    }
    writer.commit()
}

/// The pages of the newest checkpoint that is whole, and its epoch.
fn newest(store: &CheckpointStore) -> Option<(u64, Vec<u8>)> {
    store.manifests().iter().find_map(|manifest| {
        let pages = ["even", "odd"].iter().flat_map(|name| store.section(manifest, name));
        let pages = pages.collect::<Result<Vec<_>>>().ok()?;
        Some((manifest.epoch, pages.iter().map(|page| page[0]).collect()))
    })
}

fn page_files(disk: &Memory) -> usize {
    disk.state().files.keys().filter(|path| path.extension().is_some_and(|e| e == "pages")).count()
}

#[test]
fn only_new_pages_are_written_and_old_files_go() {
    let disk = Memory::default();
    let mut store = open(&disk);
    let written = make(&mut store, 1, &[0, 1, 2, 3]).unwrap();
    assert_eq!((written.bytes, written.new_bytes), (4000, 4000));
    assert_eq!(make(&mut store, 2, &[0, 1, 2, 4]).unwrap().new_bytes, 1000);
    assert_eq!(newest(&open(&disk)), Some((2, vec![0, 2, 4, 1])));
    // The same page twice is one.
    assert_eq!(make(&mut store, 3, &[8, 8, 0, 2]).unwrap().new_bytes, 1000);
    assert_eq!(store.manifests().len(), 2, "two are kept");
    // Half of the first file is needed, then less: what is left of it is written again.
    assert_eq!(make(&mut store, 4, &[8, 0]).unwrap().new_bytes, 0);
    assert_eq!(make(&mut store, 5, &[8, 0]).unwrap().new_bytes, 1000);
    make(&mut store, 6, &[8, 0]).unwrap();
    assert_eq!(page_files(&disk), 2);
    let mut store = open(&disk);
    assert_eq!(newest(&store), Some((6, vec![8, 0])));
    assert_eq!(make(&mut store, 7, &[8, 0]).unwrap().new_bytes, 0, "pages are known after a start");
}

/// Wherever the disk fails or power goes, the checkpoint before is whole, or the new one.
#[test]
fn a_checkpoint_is_there_as_a_whole_or_not_at_all() {
    for full in [false, true] {
        for fails_at in 0.. {
            let disk = Memory::default();
            make(&mut open(&disk), 1, &[0, 1, 2]).unwrap();
            {
                let mut state = disk.state();
                let left = if full { &mut state.writes_left } else { &mut state.syncs_left };
                *left = Some(fails_at);
            }
            let made = make(&mut open(&disk), 2, &[0, 3, 5]);
            disk.crash(700);
            let store = open(&disk);
            let expected = if made.is_ok() { (2, vec![0, 3, 5]) } else { (1, vec![0, 2, 1]) };
            assert_eq!(newest(&store), Some(expected), "full: {full}, at {fails_at}");
            let mut store = store;
            make(&mut store, 3, &[7]).unwrap();
            assert_eq!(newest(&open(&disk)), Some((3, vec![7])));
            if made.is_ok() {
                assert!(fails_at > 0);
                break;
            }
        }
    }
}

/// Any changed byte is noticed; the checkpoint before is used.
#[test]
fn rot_is_noticed() {
    let disk = Memory::default();
    let mut store = open(&disk);
    make(&mut store, 1, &[0, 1]).unwrap();
    make(&mut store, 2, &[2, 3]).unwrap();
    let files: Vec<_> = disk.state().files.keys().cloned().collect();
    for path in files {
        let sound = disk.state().files[&path].now.clone();
        let of_newest = path.to_string_lossy().contains("2.manifest") || path.ends_with("0000000001.pages");
        for position in (0..sound.len()).step_by(37) {
            disk.state().files.get_mut(&path).unwrap().now[position] ^= 0x11;
            let store = open(&disk);
            let found = newest(&store).unwrap();
            disk.state().files.get_mut(&path).unwrap().now = sound.clone();
            let before = (1, vec![0, 1]);
            // What pads the frame to its length says nothing.
            let is_padding = found.0 == 2 && of_newest && sound[position] == 0;
            let expected = if of_newest && !is_padding { before } else { (2, vec![2, 3]) };
            assert_eq!(found, expected, "{} at {position}", path.display());
        }
    }
}

#[test]
fn a_page_file_that_is_gone_is_damage() {
    let disk = Memory::default();
    let mut store = open(&disk);
    make(&mut store, 1, &[0]).unwrap();
    disk.state().files.retain(|path, _| path.extension().is_none_or(|e| e != "pages"));
    let store = open(&disk);
    let manifest = store.manifests()[0].clone();
    let error = store.section(&manifest, "even").next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(newest(&store), None);
}
