//! Runs a case: an engine of its own, every view compared with the batch answer after every epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::session_state::SessionState;
use executor::{
    CheckpointPolicy, Engine, EngineConfig, Halt, PullContext, RejectRetention, Snapshot, Subscription, Write,
};
use futures::{FutureExt, TryStreamExt};
use planner::{Binder, Dataflow, Joins, Relation};
use sql::Statement;
use storage::{Clock, Disk, ManualClock};

use crate::coverage::Coverage;
use crate::grammar::{NOW, in_batch};
use crate::script::{
    AWAY, Act, Change, Insert, RELATIONS, Row, Script, View, add_column, create_relation, is_stream,
};

/// Of a table that leaves the key of its records out.
const KEYLESS: &str = " WITH (value_format = 'native')";

/// How a query is refused that would write other things than records to a topic of records.
const RECORDS_ONLY: &str = "holds records, so their format must be given";

/// How a case fails.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The view that differs.
    pub view: Option<String>,
    /// Names of its columns.
    pub columns: Vec<String>,
    /// What was seen.
    pub what: String,
}

/// What a case that holds has shown.
#[derive(Debug, Default)]
pub struct Report {
    pub compared: usize,
    pub coverage: Coverage,
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self { view: None, columns: Vec::new(), what }
    }
}

/// Runs a case; a panic is a failure too.
pub async fn run(script: &Script, context: &str) -> Result<Report, Failure> {
    let case = std::panic::AssertUnwindSafe(case(script, context)).catch_unwind().await;
    case.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default().into())
    })
}

async fn case(script: &Script, context: &str) -> Result<Report, Failure> {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::start(directory.path(), Arc::default(), script.shards, script.checkpoints);
    for (name, kind) in RELATIONS {
        world.execute(&create_relation(name, kind, script.format)).await?;
    }
    let mut report = Report::default();
    let mut folded: Option<Folded> = None;
    for (n, epoch) in script.epochs.iter().enumerate() {
        for view in script.views.iter().filter(|v| v.after == n) {
            world.add(view).await?;
        }
        for insert in script.inserts.iter().filter(|i| i.after == n) {
            world.insert(insert).await?;
        }
        if folded.is_none()
            && let Some(first) = world.views.first()
        {
            folded = Some(Folded::new(&world, &first.name).await);
        }
        world.clock.set(world.clock.now_ms() + epoch.passes_ms);
        world.write(&epoch.changes).await;
        report.compared += world.check(context).await?;
        if let Some(act) = epoch.act {
            world.act(act).await?;
            report.compared += world.check(context).await?;
        }
        if let Some(folded) = &mut folded {
            folded.check(&world).await?;
        }
        if let Some(shards) = epoch.restart {
            world.take_coverage(&mut report.coverage);
            drop(folded.take());
            world = world.restarted(directory.path(), shards).await;
            report.compared += world.check(&format!("{context} after a restart")).await?;
        }
    }
    for view in script.views.iter().filter(|v| v.after >= script.epochs.len()) {
        world.add(view).await?;
    }
    report.compared += world.check(context).await?;
    world.take_coverage(&mut report.coverage);
    world.engine.stop().await;
    Ok(report)
}

/// What was written, by the simplest means: tables by key, the stream in order.
#[derive(Default)]
struct Written {
    tables: BTreeMap<&'static str, BTreeMap<i32, Line>>,
    streams: BTreeMap<&'static str, Vec<Line>>,
    /// Columns that relations have got.
    added: usize,
}

/// A row as it was written: the columns of the layout, and behind them its `id` in each that was added before.
struct Line {
    row: String,
    added: usize,
}

impl Line {
    /// It with NULL in what was added after.
    fn with_added(&self, added: usize) -> String {
        self.row.clone() + &"|NULL".repeat(added - self.added)
    }
}

impl Written {
    fn take(&mut self, change: &Change) {
        for row in &change.rows {
            let line = || {
                let row_text = text(&batch(std::slice::from_ref(row))).remove(0);
                Line { row: row_text + &format!("|{}", row.id).repeat(self.added), added: self.added }
            };
            if is_stream(change.relation) {
                self.streams.entry(change.relation).or_default().push(line());
                continue;
            }
            let table = self.tables.entry(change.relation).or_default();
            if change.deletes {
                table.remove(&row.id)
            } else {
                table.insert(row.id, line())
            };
        }
    }

    fn rows(&self, relation: &str) -> Vec<String> {
        let table = self.tables.get(relation).into_iter().flat_map(BTreeMap::values);
        let stream = self.streams.get(relation).into_iter().flatten();
        let mut rows: Vec<String> = table.chain(stream).map(|line| line.with_added(self.added)).collect();
        rows.sort();
        rows
    }
}

/// An engine with views, and what is known of them.
pub struct World {
    engine: Engine,
    written: Written,
    /// Stands until it is moved; rows have times around its own.
    clock: Arc<ManualClock>,
    state: SessionState,
    views: Vec<View>,
    /// Queries that write to `w`.
    inserts: Vec<Insert>,
    /// Views that stand still: what they should be is not known.
    paused: BTreeSet<String>,
    epoch: u64,
    checkpoints: CheckpointPolicy,
}

impl World {
    pub fn start(
        directory: &Path,
        clock: Arc<ManualClock>,
        shards: usize,
        checkpoints: CheckpointPolicy,
    ) -> Self {
        let config = EngineConfig {
            data_dir: directory.to_owned(),
            fs: Arc::new(Disk),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            shards,
            segment_bytes: 64 << 10,
            memory_limit: None,
            kept_limit: None,
            rejects: RejectRetention::default(),
            checkpoints,
            code_of: None,
        };
        let engine = Engine::start(&config).unwrap();
        Self {
            engine,
            written: Written::default(),
            clock,
            state: planner::session_state(1),
            views: Vec::new(),
            inserts: Vec::new(),
            paused: BTreeSet::new(),
            epoch: 0,
            checkpoints,
        }
    }

    async fn restarted(self, directory: &Path, shards: usize) -> Self {
        let Self { engine, written, clock, views, inserts, paused, epoch, checkpoints, .. } = self;
        engine.stop().await;
        drop(engine);
        Self { written, views, inserts, paused, epoch, ..Self::start(directory, clock, shards, checkpoints) }
    }

    pub async fn execute(&self, text: &str) -> Result<(), String> {
        let turn = self.engine.ddl().await;
        let catalog = turn.catalog();
        let binder = Binder::new(&catalog, &self.state);
        let relation = match sql::parse(text).map_err(|e| e.to_string())?.remove(0).statement {
            Statement::CreateRelation(create) => {
                planner::plan_create(&catalog, &create, turn.next_id(), text)
            }
            Statement::CreateAs(create) => planner::plan_create_as(&binder, &create, turn.next_id(), text),
            Statement::Insert(insert) => planner::plan_insert(&binder, &insert, turn.next_id(), text),
            other => panic!("{other:?}"),
        };
        turn.create(relation.map_err(|e| e.to_string())?).await.map_err(|e| e.to_string())
    }

    pub async fn add(&mut self, view: &View) -> Result<(), String> {
        let mut view = view.clone();
        let mut made = self.execute(&view.create()).await;
        // A table of records that leaves its key out: the error says what is left to do.
        if made.as_ref().is_err_and(|e| e.contains(KEYLESS.trim_start())) {
            view.made.options = KEYLESS;
            made = self.execute(&view.create()).await;
        }
        made.map_err(|e| format!("{}: {e}", view.create()))?;
        self.views.push(view);
        Ok(())
    }

    async fn insert(&mut self, insert: &Insert) -> Result<(), String> {
        self.execute(&insert.sql()).await?;
        self.epoch = self.engine.flush().await.map_err(|e| e.to_string())?;
        self.inserts.push(insert.clone());
        Ok(())
    }

    /// What a relation should hold: what was written to it, and what queries did.
    async fn expected(&self, snapshot: &Arc<Snapshot>, relation: &str) -> Result<Vec<String>, String> {
        let mut rows = self.written.rows(relation);
        for insert in self.inserts.iter().filter(|_| relation == "w") {
            let inserted = self.answer(snapshot, insert.query).await?.into_iter();
            rows.extend(inserted.map(|row| Line { row, added: 0 }.with_added(self.written.added)));
        }
        rows.sort();
        Ok(rows)
    }

    async fn act(&mut self, act: Act) -> Result<(), String> {
        let number = match act {
            Act::Pause(number) | Act::Replace(number) => number,
            Act::ResumeAll | Act::RenameAll | Act::AddColumn => 0,
        };
        if matches!(act, Act::AddColumn) {
            return self.add_column().await;
        }
        let Some(view) = self.views.get(number).cloned() else { return Ok(()) };
        let relation = self.relation(&view.name);
        match act {
            Act::Pause(_) => {
                self.engine.ddl().await.halt(relation, Halt::Paused).await.map_err(|e| e.to_string())?;
                self.paused.insert(view.name);
            }
            Act::ResumeAll => {
                for name in std::mem::take(&mut self.paused) {
                    let relation = self.relation(&name);
                    self.engine.ddl().await.resume(relation).await.map_err(|e| e.to_string())?;
                    self.epoch = self.engine.flush().await.unwrap();
                }
            }
            Act::RenameAll => {
                for View { name, .. } in &self.views {
                    let id = self.relation(name).id;
                    for name in [format!("{name}{AWAY}"), name.clone()] {
                        self.engine.ddl().await.rename(id, name).await.map_err(|e| e.to_string())?;
                    }
                }
            }
            Act::AddColumn => {}
            // What a stream has it keeps: the answers of two queries.
            Act::Replace(_) if view.made.kind != "STREAM" => self.replace(number, &relation).await?,
            Act::Replace(_) => {}
        }
        Ok(())
    }

    /// One more column for whatever rows are written to, which is NULL in the rows that are there.
    async fn add_column(&mut self) -> Result<(), String> {
        for (name, kind) in RELATIONS {
            let text = add_column(name, kind, self.written.added);
            let turn = self.engine.ddl().await;
            let catalog = turn.catalog();
            let Statement::AddColumns(add) =
                sql::parse(&text).map_err(|e| e.to_string())?.remove(0).statement
            else {
                panic!("{text}")
            };
            let altered =
                planner::plan_add_columns(&catalog, &add, &text).map_err(|e| e.to_string())?.unwrap();
            turn.replace(Arc::new(altered)).await.map_err(|e| e.to_string())?;
        }
        self.written.added += 1;
        self.epoch = self.engine.flush().await.map_err(|e| e.to_string())?;
        Ok(())
    }

    /// The same query less some rows, of every other view with one more column.
    async fn replace(&mut self, number: usize, old: &Relation) -> Result<(), String> {
        let mut view = self.views[number].clone();
        let column = &old.columns[0].name;
        let widens = !number.is_multiple_of(2) && old.column("more").is_none();
        let more = if widens { "*, 7 AS more" } else { "*" };
        let query = format!("SELECT {more} FROM ({}) w WHERE w.\"{column}\" IS NOT NULL", view.made.query);
        view.made.query = query;
        let (text, turn) = (view.create(), self.engine.ddl().await);
        let catalog = turn.catalog();
        let Statement::CreateAs(create) = sql::parse(&text).map_err(|e| e.to_string())?.remove(0).statement
        else {
            panic!("{text}")
        };
        let planned = planner::plan_create_as(&Binder::new(&catalog, &self.state), &create, old.id, &text);
        let new = match planned.map_err(|e| e.to_string()) {
            Ok(new) => new,
            // Of the other query no key is known, so that its rows are no records as the topic has them.
            Err(error) if error.contains(RECORDS_ONLY) => return Ok(()),
            Err(error) => return Err(error),
        };
        // Where others read it, its key may not change.
        if planner::check_replace(&catalog, old, &new).is_ok() {
            turn.replace(Arc::new(new)).await.map_err(|e| e.to_string())?;
            drop(turn);
            self.epoch = self.engine.flush().await.unwrap();
            self.paused.remove(&view.name);
            self.views[number] = view;
        }
        Ok(())
    }

    fn relation(&self, name: &str) -> Arc<Relation> {
        Arc::clone(self.engine.catalog().find(name).unwrap())
    }

    pub async fn write(&mut self, changes: &[Change]) {
        changes.iter().for_each(|change| self.written.take(change));
        let writes: Vec<Write> = changes.iter().map(|change| self.write_of(change)).collect();
        if !writes.is_empty() {
            self.epoch = self.engine.append(writes).await.unwrap().epoch;
        }
    }

    fn write_of(&self, change: &Change) -> Write {
        let relation = self.relation(change.relation);
        let rows = batch(&change.rows);
        let mut columns = rows.columns().to_vec();
        columns.extend((0..self.written.added).map(|_| Arc::clone(rows.column(0))));
        if !change.deletes {
            let rows = RecordBatch::try_new(relation.schema(), columns).unwrap();
            return Write::insert(&relation, &rows, None, 0).unwrap();
        }
        // Only the key of a row that goes has a meaning; the layout is the table's own.
        columns.push(Arc::new(Int64Array::from_value(0, rows.num_rows())));
        let memory = RecordBatch::try_new(Write::memory_schema(&relation), columns).unwrap();
        Write::delete(&relation, &memory, 0).unwrap()
    }

    async fn snapshot(&self) -> Arc<Snapshot> {
        self.engine.snapshot_at(self.epoch, Duration::from_secs(30)).await.unwrap()
    }

    /// A query's answer in batch; what it calls now is the time of the snapshot.
    async fn answer(&self, snapshot: &Arc<Snapshot>, query: &str) -> Result<Vec<String>, String> {
        let now = format!("(TIMESTAMP '1970-01-01' + INTERVAL '{} milliseconds')", snapshot.now_ms);
        let query = sql::parse_query(&query.replace(NOW, &now)).unwrap();
        let plan = Binder::new(&snapshot.catalog, &self.state).batch(&query).map_err(|e| e.to_string())?.plan;
        let context = PullContext { snapshot: Arc::clone(snapshot), state: self.state.clone() };
        let answer = context.answer(plan).await.map_err(|e| e.to_string())?;
        let batches: Vec<RecordBatch> = answer.rows.try_collect().await.map_err(|e| e.to_string())?;
        let mut out: Vec<String> = batches.iter().flat_map(text).collect();
        out.sort();
        Ok(out)
    }

    fn columns(&self, name: &str) -> Vec<String> {
        self.relation(name).columns.iter().map(|c| format!("x.\"{}\"", c.name)).collect()
    }

    async fn live(&self, snapshot: &Arc<Snapshot>, name: &str) -> Result<Vec<String>, String> {
        self.answer(snapshot, &format!("SELECT {} FROM {name} x", self.columns(name).join(", "))).await
    }

    /// Every view against the batch answer; the number of comparisons.
    pub async fn check(&self, context: &str) -> Result<usize, Failure> {
        let snapshot = &self.snapshot().await;
        for (name, _) in RELATIONS {
            let live = self.live(snapshot, name).await?;
            let written = self.expected(snapshot, name).await?;
            if live != written {
                let what = format!(
                    "{context}, epoch {}: {name}\n  live: {live:?}\n written: {written:?}",
                    snapshot.epoch
                );
                return Err(what.into());
            }
        }
        for View { name, made, .. } in self.views.iter().filter(|v| !self.paused.contains(&v.name)) {
            let live = self.live(snapshot, name).await;
            let batch = self.answer(snapshot, &in_batch(&made.query)).await?;
            if live.as_ref() != Ok(&batch) {
                let what = format!(
                    "{context}, epoch {}: {name} AS {}\n  live: {live:?}\n batch: {batch:?}",
                    snapshot.epoch, made.query
                );
                return Err(Failure { view: Some(name.clone()), columns: self.columns(name), what });
            }
        }
        Ok(self.views.len())
    }

    /// Bytes of the state of each operator of each view.
    pub async fn state_bytes(&self) -> Vec<(String, usize)> {
        let snapshot = self.snapshot().await;
        let mut bytes = Vec::new();
        for view in &self.views {
            let relation = self.relation(&view.name);
            let (Some(dataflow), Some(status)) = (relation.dataflow(), snapshot.query(relation.id)) else {
                continue;
            };
            for (node, status) in dataflow.nodes.iter().zip(status.operators.iter()) {
                bytes.push((format!("{} in {}", node.kind.name(), view.made.query), status.state_bytes));
            }
        }
        bytes
    }

    fn take_coverage(&self, coverage: &mut Coverage) {
        let snapshot = self.engine.snapshot();
        self.views.iter().for_each(|view| coverage.take(&snapshot, &self.relation(&view.name)));
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let id: Int32Array = rows.iter().map(|r| Some(r.id)).collect();
    let g: StringArray = rows.iter().map(|r| r.g).collect();
    let v: Int32Array = rows.iter().map(|r| r.v).collect();
    let f: Float64Array = rows.iter().map(|r| r.f).collect();
    let ts: TimestampMicrosecondArray = rows.iter().map(|r| r.ts.map(|s| s * 1_000_000)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(id)),
        ("g", Arc::new(g)),
        ("v", Arc::new(v)),
        ("f", Arc::new(f)),
        ("ts", Arc::new(ts)),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, c)| c).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Each row as a line.
fn text(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    let value = |c: &ArrayFormatter<'_>, row| c.value(row).to_string().replace("-0.0", "0.0");
    let line = |row| columns.iter().map(|c| value(c, row)).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(line).collect()
}

/// The changes that a reader of a push query has seen, added up.
struct Folded {
    name: String,
    subscription: Subscription,
    epoch: u64,
    rows: BTreeMap<String, i64>,
}

impl Folded {
    async fn new(world: &World, name: &str) -> Self {
        let catalog = world.engine.catalog();
        let binder = Binder::new(&catalog, &world.state);
        let query = format!("SELECT {} FROM {name} x", world.columns(name).join(", "));
        let plan = binder.batch(&sql::parse_query(&query).unwrap()).unwrap().plan;
        let dataflow =
            Dataflow::try_new(&world.state, &plan, Joins::StreamTable, sql::Emit::Changes).unwrap();
        let subscription = world.engine.subscribe(Arc::new(dataflow), true, true).await.unwrap();
        Self { name: name.to_owned(), subscription, epoch: 0, rows: BTreeMap::new() }
    }

    async fn check(&mut self, world: &World) -> Result<(), Failure> {
        let snapshot = world.snapshot().await;
        // An epoch of time alone may come at any moment: the next check sees it.
        loop {
            let item = match self.subscription.next().await {
                Some(Ok(item)) => item,
                other => return Err(self.failure(world, format!("the push query ended: {other:?}"))),
            };
            self.epoch = item.epoch;
            for change in &item.changes {
                for (row, line) in text(&change.rows).into_iter().enumerate() {
                    *self.rows.entry(line).or_default() += change.weight(row);
                }
            }
            self.rows.retain(|_, weight| *weight != 0);
            if self.rows.values().any(|weight| *weight < 0) {
                return Err(self.failure(world, "a row went that never came".into()));
            }
            if item.epoch >= snapshot.epoch {
                break;
            }
        }
        let copies = |(row, weight): (&String, &i64)| (0..*weight).map(|_| row.clone()).collect::<Vec<_>>();
        let folded: Vec<String> = self.rows.iter().flat_map(copies).collect();
        let live = world.live(&snapshot, &self.name).await?;
        if folded != live && self.epoch == snapshot.epoch {
            return Err(self.failure(world, format!("pushed: {folded:?}\n table: {live:?}")));
        }
        Ok(())
    }

    fn failure(&self, world: &World, what: String) -> Failure {
        let what = format!("push query of {}: {what}", self.name);
        Failure { view: Some(self.name.clone()), columns: world.columns(&self.name), what }
    }
}
