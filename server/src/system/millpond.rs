//! `millpond.*`: what the engine does.

use datafusion::arrow::array::RecordBatch;
use executor::Reason;

use super::SystemRelations;
use super::table::{Cell, Kind, Row};
use crate::pg::reject_code;
use crate::settings::display_name;

pub(super) fn relation(system: &SystemRelations, name: &str) -> Option<RecordBatch> {
    match name {
        "relations" => relations(system),
        "queries" => queries(system),
        "operators" => operators(system),
        "topics" => topics(system),
        "partitions" => partitions(system),
        "rejects" => rejects(system),
        "checkpoints" => checkpoints(system),
        "status" => status(system),
        "settings" => settings(system),
        _ => None,
    }
}

fn text() -> Kind {
    Kind::Text
}

fn big() -> Kind {
    Kind::Big
}

fn number(n: u64) -> Cell {
    n.into()
}

/// A table of rows whose values stand in the order of its columns.
fn table(model: &[(&'static str, Kind)], rows: Vec<Vec<Cell>>) -> Option<RecordBatch> {
    let named = |row: Vec<Cell>| -> Row { model.iter().map(|(name, _)| *name).zip(row).collect() };
    let columns: Vec<(&str, Kind, bool)> = model.iter().map(|(name, kind)| (*name, *kind, false)).collect();
    super::table::table(&columns, rows.into_iter().map(named).collect())
}

fn relations(system: &SystemRelations) -> Option<RecordBatch> {
    let snapshot = &system.snapshot;
    let rows = snapshot.catalog.visible().map(|r| {
        let key: Vec<&str> = r.key.iter().map(|k| r.columns[*k].name.as_str()).collect();
        let count = match snapshot.table(r.id) {
            Ok(Some(version)) => number(version.num_rows() as u64),
            _ if r.is_stream() => {
                number(snapshot.offsets(&r.topic.name).iter().map(|(start, end)| end - start).sum())
            }
            _ => Cell::None,
        };
        vec![
            i64::from(r.id).into(),
            r.name.clone().into(),
            r.kind.sql().to_lowercase().into(),
            key.join(", ").into(),
            count,
            r.text.clone().into(),
        ]
    });
    table(
        &[
            ("id", big()),
            ("name", text()),
            ("kind", text()),
            ("key", text()),
            ("rows", big()),
            ("definition", text()),
        ],
        rows.collect(),
    )
}

fn queries(system: &SystemRelations) -> Option<RecordBatch> {
    let snapshot = &system.snapshot;
    let building = snapshot.building.iter().map(|(name, progress)| {
        let done = progress.done.load(std::sync::atomic::Ordering::Relaxed);
        let status = executor::QueryStatus { rows_in: done, ..Default::default() };
        query(name, "backfilling", &status, number(progress.total))
    });
    let running = snapshot.catalog.iter().filter_map(|r| {
        let status = snapshot.query(r.id)?;
        Some(query(&r.name, status.state(), status, Cell::None))
    });
    let model = [
        ("relation", text()),
        ("state", text()),
        ("rows_in", big()),
        ("rows_total", big()),
        ("rows_out", big()),
        ("busy_us", big()),
        ("state_bytes", big()),
        ("rejected", big()),
        ("error", text()),
        ("spills", Kind::Bool),
    ];
    table(&model, running.chain(building).collect())
}

/// `total` is how many rows there are to read first, for a query that is not there yet.
fn query(name: &str, state: &str, status: &executor::QueryStatus, total: Cell) -> Vec<Cell> {
    vec![
        name.to_owned().into(),
        state.into(),
        number(status.rows_in),
        total,
        number(status.rows_out),
        number(status.busy_us),
        number(status.state_bytes as u64),
        number(status.rejected),
        status.error.clone().into(),
        status.spills.into(),
    ]
}

/// The operators of each query, inputs first, as EXPLAIN shows them.
fn operators(system: &SystemRelations) -> Option<RecordBatch> {
    let snapshot = &system.snapshot;
    let mut rows = Vec::new();
    for relation in snapshot.catalog.iter() {
        let (Some(dataflow), Some(status)) = (relation.dataflow(), snapshot.query(relation.id)) else {
            continue;
        };
        for (id, (node, status)) in (0i64..).zip(dataflow.nodes.iter().zip(status.operators.iter())) {
            let inputs: Vec<String> = node.inputs.iter().map(ToString::to_string).collect();
            rows.push(vec![
                relation.name.clone().into(),
                id.into(),
                node.kind.name().into(),
                inputs.join(", ").into(),
                number(status.rows_out),
                number(status.rows_retracted),
                number(status.busy_us),
                number(status.state_bytes as u64),
                status.shared.into(),
            ]);
        }
    }
    let model = [
        ("relation", text()),
        ("operator", big()),
        ("kind", text()),
        ("inputs", text()),
        ("rows_out", big()),
        ("rows_retracted", big()),
        ("busy_us", big()),
        ("state_bytes", big()),
        ("shared", Kind::Bool),
    ];
    table(&model, rows)
}

fn topics(system: &SystemRelations) -> Option<RecordBatch> {
    let catalog = &system.snapshot.catalog;
    let mut rows = Vec::new();
    for topic in catalog.topics() {
        let partitions = Cell::from(i64::from(topic.partitions));
        if catalog.on_topic(topic).next().is_none() {
            let none = || Cell::None;
            let unknown = || Cell::None;
            rows.push(vec![
                topic.name.clone().into(),
                none(),
                partitions,
                none(),
                none(),
                unknown(),
                unknown(),
            ]);
            continue;
        }
        for relation in catalog.on_topic(topic) {
            let format = relation.record_format();
            rows.push(vec![
                topic.name.clone().into(),
                relation.name.clone().into(),
                i64::from(topic.partitions).into(),
                format.map(|f| f.key.name().to_owned()).into(),
                format.map_or_else(|| "arrow".to_owned(), |f| f.value.name().to_owned()).into(),
                Cell::from(relation.retention.0),
                Cell::from(relation.retention.1.and_then(|b| i64::try_from(b).ok())),
            ]);
        }
    }
    let model = [
        ("name", text()),
        ("relation", text()),
        ("partitions", big()),
        ("key_format", text()),
        ("value_format", text()),
        ("retention_ms", big()),
        ("retention_bytes", big()),
    ];
    table(&model, rows)
}

fn partitions(system: &SystemRelations) -> Option<RecordBatch> {
    let mut rows = Vec::new();
    for relation in system.snapshot.catalog.visible().filter(|r| r.is_stream()) {
        for (partition, (start, end)) in (0i64..).zip(system.snapshot.offsets(&relation.topic.name)) {
            rows.push(vec![relation.name.clone().into(), partition.into(), number(start), number(end)]);
        }
    }
    table(&[("relation", text()), ("partition", big()), ("start_offset", big()), ("end_offset", big())], rows)
}

fn rejects(system: &SystemRelations) -> Option<RecordBatch> {
    let rejects = system.engine().rejects().list().into_iter().filter(|r| system.may_read(&r.relation));
    let rows = rejects.map(|r| {
        vec![
            r.relation.into(),
            r.place.map(|(partition, _)| i64::from(partition)).into(),
            r.place.map(|(_, offset)| offset).into(),
            number(r.epoch),
            r.now_ms.into(),
            r.reason.to_string().into(),
            code_of(&r.reason).into(),
            r.row.into(),
            r.raw.map_or(Cell::None, |raw| Cell::Bytes(raw.to_vec())),
        ]
    });
    let model = [
        ("relation", text()),
        ("partition", big()),
        ("offset", big()),
        ("epoch", big()),
        ("time_ms", big()),
        ("reason", text()),
        ("sqlstate", text()),
        ("row", text()),
        ("raw", Kind::Bytes),
    ];
    table(&model, rows.collect())
}

fn code_of(reason: &Reason) -> String {
    match reason {
        Reason::Error(error) => reject_code(error).to_owned(),
        Reason::Recorded { code, .. } => code.clone(),
    }
}

/// The epoch that readers see, and its time.
fn status(system: &SystemRelations) -> Option<RecordBatch> {
    let row = vec![number(system.snapshot.epoch), system.snapshot.now_ms.into()];
    table(&[("epoch", big()), ("time_ms", big())], vec![row])
}

/// The last checkpoints, newest last.
fn checkpoints(system: &SystemRelations) -> Option<RecordBatch> {
    let us = |time: std::time::Duration| Cell::from(i64::try_from(time.as_micros()).ok());
    let rows = system.engine().checkpoints().list().into_iter().map(|c| {
        let (bytes, new) = (number(c.written.bytes), number(c.written.new_bytes));
        vec![number(c.epoch), bytes, new, number(c.copied as u64), us(c.pause), us(c.took)]
    });
    let names = ["epoch", "bytes", "new_bytes", "copied_bytes", "pause_us", "took_us"];
    table(&names.map(|name| (name, big())), rows.collect())
}

fn settings(system: &SystemRelations) -> Option<RecordBatch> {
    let rows = system
        .settings
        .all()
        .map(|(s, value)| vec![display_name(s.name).into(), value.into(), s.default.into(), s.doc.into()]);
    table(
        &[("name", text()), ("setting", text()), ("default", text()), ("description", text())],
        rows.collect(),
    )
}
