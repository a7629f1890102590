//! A case as data: views, and epochs of changes; made from a seed, run, shrunk, and written as a
//! `.slt` file that stays.

use std::fmt::Write;
use std::time::Duration;

use executor::CheckpointPolicy;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::grammar::{Grammar, LAYOUT, Made, NOW};

/// Epochs of a case.
const EPOCHS: usize = 12;
/// One case in so many has an epoch that is stepped in parallel.
const LARGE: u64 = 16;
/// Rows of that epoch.
const LARGE_ROWS: usize = 20_000;

/// Behind the name of a view that has another one.
pub const AWAY: &str = "_away";
/// Before the number of a column that was added.
pub const ADDED: &str = "added";

/// Views of a case over queries that other views have.
const TWINS: usize = 3;
const TWIN_FORMS: [&str; 4] = [
    "{query}",
    "SELECT DISTINCT * FROM ({query}) twin",
    "SELECT count(*) AS n FROM ({query}) twin",
    "SELECT * FROM ({query}) twin UNION ALL SELECT * FROM ({query}) twin",
];

/// The relations that rows are written to.
pub const RELATIONS: [(&str, &str); 4] = [("t", "TABLE"), ("u", "TABLE"), ("s", "STREAM"), ("w", "STREAM")];
/// What the topics of those relations hold; results of queries over them hold the same.
const FORMATS: [&str; 4] = [
    "",
    "",
    " WITH (value_format = 'json')",
    " WITH (value_format = 'json', key_format = 'json', partitions = 2)",
];
/// Queries whose rows go to `w` as well, in the layout.
const INSERTS: [&str; 3] = [
    "SELECT id, g, v, f, ts FROM s",
    "SELECT v, g, id + 1, f / 2, ts FROM s WHERE v > 2",
    "SELECT id, 'x', v, f, ts FROM s WHERE g = 'a' UNION ALL SELECT id, g, 1, f, ts FROM s WHERE id < 3",
];

/// A row of the layout; `ts` in seconds.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: i32,
    pub g: Option<&'static str>,
    pub v: Option<i32>,
    pub f: Option<f64>,
    pub ts: Option<i64>,
}

/// Rows that are written, or whose keys are deleted.
#[derive(Debug, Clone)]
pub struct Change {
    pub relation: &'static str,
    pub deletes: bool,
    pub rows: Vec<Row>,
}

/// What is committed at once, and what happens then.
#[derive(Debug, Clone)]
pub struct Epoch {
    pub changes: Vec<Change>,
    /// Time that passes before.
    pub passes_ms: i64,
    /// What happens to views then.
    pub act: Option<Act>,
    /// The engine ends and starts again with so many shards.
    pub restart: Option<usize>,
}

/// What happens to a query, by the number of its view.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// It stands still.
    Pause(usize),
    /// Whatever stands still goes on.
    ResumeAll,
    /// It gets another query with the same columns.
    Replace(usize),
    /// Every view gets another name, and its own again.
    RenameAll,
    /// What rows are written to gets a column more.
    AddColumn,
}

/// A view and the number of epochs before it.
#[derive(Debug, Clone)]
pub struct View {
    pub after: usize,
    pub name: String,
    pub made: Made,
}

/// A query that writes to `w`, and the number of epochs before it.
#[derive(Debug, Clone)]
pub struct Insert {
    pub after: usize,
    pub query: &'static str,
}

impl Insert {
    /// The statement.
    pub fn sql(&self) -> String {
        format!("INSERT INTO w {} EMIT CHANGES", self.query)
    }
}

/// None; as often as can be, with one at the end and without: the next start steps the last epochs again.
const CHECKPOINTS: [CheckpointPolicy; 3] = [NO_CHECKPOINTS, often(true), often(false)];
/// Every start steps all epochs again.
pub const NO_CHECKPOINTS: CheckpointPolicy = CheckpointPolicy { every: None, at_stop: false };

const fn often(at_stop: bool) -> CheckpointPolicy {
    CheckpointPolicy { every: Some(Duration::from_millis(1)), at_stop }
}

/// A case.
#[derive(Debug, Clone)]
pub struct Script {
    pub shards: usize,
    /// Options of the relations that rows are written to.
    pub format: &'static str,
    pub checkpoints: CheckpointPolicy,
    pub inserts: Vec<Insert>,
    pub views: Vec<View>,
    pub epochs: Vec<Epoch>,
}

/// Whether rows of a relation only come.
pub fn is_stream(relation: &str) -> bool {
    RELATIONS.contains(&(relation, "STREAM"))
}

/// CREATE for a relation that rows are written to.
pub fn create_relation(name: &str, kind: &str, options: &str) -> String {
    let layout =
        if kind == "TABLE" { LAYOUT.replacen("INT", "INT PRIMARY KEY", 1) } else { LAYOUT.to_owned() };
    format!("CREATE {kind} {name} ({layout}){options}")
}

/// ALTER that gives a relation one more column.
pub fn add_column(name: &str, kind: &str, number: usize) -> String {
    format!("ALTER {kind} {name} ADD COLUMN {ADDED}{number} INT")
}

impl View {
    /// A view over a query that another one has, from the same epoch or a later one: they share what they have in
    /// common.
    fn twin(n: usize, of: &Self, random: &mut StdRng) -> Self {
        let form = TWIN_FORMS[random.random_range(0..TWIN_FORMS.len())];
        let query = form.replace("{query}", &of.made.query);
        let made = Made { kind: "MATERIALIZED VIEW", options: "", query };
        View { after: random.random_range(of.after..EPOCHS), name: format!("twin{n}"), made }
    }

    /// CREATE for it.
    pub fn create(&self) -> String {
        let Made { kind, options, query } = &self.made;
        format!("CREATE {kind} {}{options} AS {}", self.name, query.replace(NOW, "now()"))
    }
}

impl Script {
    /// The case of a seed.
    pub fn of(seed: u64) -> Self {
        let random = &mut StdRng::seed_from_u64(seed);
        let large = seed.is_multiple_of(LARGE);
        let mut grammar = Grammar::new(random.random(), large);
        let view = |(n, after): (usize, usize)| {
            let name = format!("view{n}");
            View { after, made: grammar.view(&name), name }
        };
        let mut views: Vec<View> =
            [0, 0, 0, 0, EPOCHS / 2, EPOCHS / 2].into_iter().enumerate().map(view).collect();
        let mut epochs: Vec<Epoch> = (0..EPOCHS).map(|_| Epoch::random(random)).collect();
        if large {
            // In two batches, so that equal rows come in both.
            for _ in 0..2 {
                let rows = rows(random, LARGE_ROWS / 2);
                epochs[EPOCHS / 3].changes.push(Change { relation: "s", deletes: false, rows });
            }
        }
        let insert = |_| Insert {
            after: random.random_range(0..EPOCHS),
            query: INSERTS[random.random_range(0..INSERTS.len())],
        };
        let inserts = (0..2).map(insert).collect();
        let format = FORMATS[random.random_range(0..FORMATS.len())];
        let checkpoints = CHECKPOINTS[random.random_range(0..CHECKPOINTS.len())];
        let shards = random.random_range(1..4);
        for n in 0..TWINS {
            let twin = View::twin(n, &views[random.random_range(0..views.len())], random);
            views.push(twin);
        }
        Self { shards, format, checkpoints, inserts, views, epochs }
    }

    fn named(&self, view: usize, then: impl FnOnce(&View)) {
        if let Some(view) = self.views.get(view) {
            then(view);
        }
    }

    /// The case as a file of statements, with one question at the end: in what `view` and its query
    /// differ.
    pub fn slt(&self, view: &str, columns: &[String]) -> String {
        let mut out = String::new();
        for (name, kind) in RELATIONS {
            statement(&mut out, &create_relation(name, kind, self.format));
        }
        for (n, epoch) in self.epochs.iter().enumerate() {
            self.views.iter().filter(|v| v.after == n).for_each(|v| statement(&mut out, &v.create()));
            self.inserts.iter().filter(|i| i.after == n).for_each(|i| statement(&mut out, &i.sql()));
            statement(&mut out, "BEGIN");
            epoch.changes.iter().for_each(|change| statement(&mut out, &change.sql()));
            statement(&mut out, "COMMIT");
            match epoch.act {
                Some(Act::Pause(view)) => {
                    self.named(view, |v| statement(&mut out, &format!("PAUSE {}", v.name)))
                }
                Some(Act::ResumeAll) => statement(&mut out, "RESUME ALL"),
                Some(Act::RenameAll) => {
                    for View { name, .. } in self.views.iter().filter(|v| v.after <= n) {
                        statement(&mut out, &format!("ALTER TABLE {name} RENAME TO {name}{AWAY}"));
                        statement(&mut out, &format!("ALTER TABLE {name}{AWAY} RENAME TO {name}"));
                    }
                }
                Some(Act::AddColumn) => {
                    for (name, kind) in RELATIONS {
                        statement(&mut out, &add_column(name, kind, n));
                    }
                }
                // What it becomes is known only when it runs.
                Some(Act::Replace(view)) => {
                    self.named(view, |v| remark(&mut out, &format!("replaced: {}", v.name)))
                }
                None => {}
            }
            if let Some(shards) = epoch.restart {
                remark(&mut out, &format!("a restart on {shards} shards"));
            }
        }
        self.views
            .iter()
            .filter(|v| v.after >= self.epochs.len())
            .for_each(|v| statement(&mut out, &v.create()));
        let query = self
            .views
            .iter()
            .find(|v| v.name == view)
            .map_or_else(String::new, |v| v.made.query.replace(NOW, "now()"));
        let columns = columns.join(", ");
        let counted =
            |from: &str| format!("SELECT {columns}, count(*) AS copies FROM {from} x GROUP BY {columns}");
        let (live, batch) = (counted(view), counted(&format!("({query})")));
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "query I\nSELECT count(*) FROM (({live} EXCEPT {batch}) UNION ALL ({batch} EXCEPT {live})) d\n----\n0"
        );
        out
    }
}

/// What happens and is no statement.
fn remark(out: &mut String, text: &str) {
    let _ = writeln!(out, "# {text}\n");
}

fn statement(out: &mut String, text: &str) {
    let _ = writeln!(out, "statement ok\n{text}\n");
}

impl Epoch {
    fn random(random: &mut StdRng) -> Self {
        let changes = (0..random.random_range(1..4)).map(|_| Change::random(random)).collect();
        let restart = random.random_bool(0.1).then(|| random.random_range(1..4));
        let act = match random.random_range(0..10) {
            0 | 1 => Some(Act::Pause(random.random_range(0..4))),
            2 => Some(Act::Replace(random.random_range(0..4))),
            3 | 4 => Some(Act::ResumeAll),
            5 => Some(Act::RenameAll),
            6 => Some(Act::AddColumn),
            _ => None,
        };
        Self { changes, act, passes_ms: random.random_range(0..8000), restart }
    }
}

impl Change {
    fn random(random: &mut StdRng) -> Self {
        let relation = ["t", "u", "s", "t", "w"][random.random_range(0..5)];
        let deletes = !is_stream(relation) && random.random_bool(0.35);
        let n = random.random_range(1..9);
        Self { relation, deletes, rows: rows(random, n) }
    }

    fn sql(&self) -> String {
        if self.deletes {
            let ids: Vec<String> = self.rows.iter().map(|r| r.id.to_string()).collect();
            return format!("DELETE FROM {} WHERE id IN ({})", self.relation, ids.join(", "));
        }
        let rows: Vec<String> = self.rows.iter().map(Row::sql).collect();
        format!("INSERT INTO {} VALUES {}", self.relation, rows.join(", "))
    }
}

impl Row {
    fn sql(&self) -> String {
        let null = || "NULL".to_owned();
        let g = self.g.map_or_else(null, |g| format!("'{g}'"));
        let v = self.v.map_or_else(null, |v| v.to_string());
        let f = self.f.map_or_else(null, |f| f.to_string());
        let ts = self.ts.map_or_else(null, |s| format!("'1970-01-01 00:00:{s:02}'"));
        format!("({}, {g}, {v}, {f}, {ts})", self.id)
    }
}

/// Few keys, few groups, many NULLs; floats whose sums are exact.
fn rows(random: &mut StdRng, n: usize) -> Vec<Row> {
    let null = |random: &mut StdRng| random.random_bool(0.2);
    let row = |random: &mut StdRng| Row {
        id: random.random_range(0..12),
        g: (!null(random)).then(|| ["a", "b", "c"][random.random_range(0..3)]),
        v: (!null(random)).then(|| random.random_range(-3..8)),
        f: (!null(random)).then(|| f64::from(random.random_range(-64..64)) / 8.0),
        ts: (!null(random)).then(|| random.random_range(0..40)),
    };
    (0..n).map(|_| row(random)).collect()
}
