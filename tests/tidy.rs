//! The house's own rules: who may depend on whom, one home for each outside piece, files that say
//! what they are.

use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CRATES: [(&str, &[&str]); 6] = [
    ("sql", &[]),
    ("spill", &[]),
    ("storage", &[]),
    ("planner", &["sql"]),
    ("executor", &["sql", "planner", "storage", "spill"]),
    ("server", &["sql", "planner", "executor", "storage", "spill"]),
];

/// The directory of a crate.
fn home(name: &str) -> PathBuf {
    let root = Path::new(ROOT);
    if name == "spill" { root.join("storage/spill") } else { root.join(name) }
}

fn sources(directory: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for folder in ["sql", "planner", "storage", "executor", "server", "tests"] {
        sources(&Path::new(ROOT).join(folder), &mut out);
    }
    assert!(out.len() > 50);
    out
}

#[test]
fn crates_depend_downwards_only() {
    for (name, allowed) in CRATES {
        let manifest = std::fs::read_to_string(home(name).join("Cargo.toml")).unwrap();
        for (other, _) in CRATES {
            let depends = manifest.lines().any(|line| line.starts_with(&format!("{other}.workspace")));
            assert!(!depends || allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
    let architecture = std::fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    for (name, allowed) in CRATES {
        let row = format!(
            "| `{name}` | {} |",
            if allowed.is_empty() { "—".to_owned() } else { allowed.join(", ") }
        );
        assert!(architecture.contains(&row), "ARCHITECTURE.md does not say: {row}");
    }
}

#[test]
fn outside_pieces_have_one_home() {
    let homes = [
        ("sled::", "storage/src/meta/sled_store.rs"),
        ("pgwire::", "server/src/pg/"),
        ("rdkafka::", "storage/src/log/kafka/"),
    ];
    for path in all_sources() {
        let shown = path.display().to_string().replace("/tests/../", "/");
        if shown.ends_with("tests/tidy.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (piece, home) in homes {
            assert!(
                !text.contains(piece) || shown.contains(home),
                "{shown} names {piece}, whose home is {home}"
            );
        }
    }
    let storage = std::fs::read_to_string(Path::new(ROOT).join("storage/Cargo.toml")).unwrap();
    assert!(!storage.contains("arrow") && !storage.contains("sqlparser"), "storage knows bytes, not rows");
}

#[test]
fn every_file_says_what_it_is() {
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
        assert!(text.lines().count() <= 1000, "{} is too long", path.display());
    }
}

#[test]
fn the_readme_is_short() {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    assert!(readme.lines().count() <= 150);
}

/// A planted bug that no longer applies proves nothing.
#[test]
fn planted_bugs_still_apply() {
    let mut bugs = 0;
    for entry in std::fs::read_dir(Path::new(ROOT).join("tests/planted")).unwrap() {
        let path = entry.unwrap().path();
        let patch = std::fs::read_to_string(&path).unwrap();
        let (_, after) = patch.split_once("\n--- ").unwrap();
        let (file, rest) = after.split_once('\n').unwrap();
        let source = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        for hunk in rest.split("\n@@ ").skip(1) {
            let lines = hunk.lines().skip(1).filter(|line| !line.starts_with('+'));
            let before: String =
                lines.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect();
            assert!(source.contains(&before), "{} does not apply any more", path.display());
        }
        bugs += 1;
    }
    assert!(bugs >= 20);
}
