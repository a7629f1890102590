//! CREATE and DROP: what the statement makes, checked against the catalog, before anything exists.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, lit};
use sql::sqlparser::ast::{Distinct, SetExpr};
use sql::{CreateAs, CreateRelation, Headers, Options, RelationKind, TextType, fold};

use crate::binder::{BindOptions, Binder, ROW_TIME, partition, visible_name};
use crate::catalog::{
    Catalog, Column, Comment, Encoding, PSEUDO_COLUMNS, Relation, RelationId, TopicRef, VALUELESS, ViewQuery,
    relation_name,
};
use crate::dataflow::{Dataflow, Joins};
use crate::error::{Error, Result};
use crate::functions::TimePattern;
use crate::session_assign::SessionAssign;
use crate::source::{RelationSource, sources};
use crate::topic_options::{self, Inherited};
use crate::window_assign::WindowAssign;

/// Most columns of a relation, as PostgreSQL has it.
const MAX_COLUMNS: usize = 1600;
/// Options of WITH (…) that are understood; the rest is refused by name.
const OPTIONS: [&str; 17] = [
    "kafka_topic",
    "partitions",
    "replicas",
    "timestamp",
    "timestamp_format",
    "value_format",
    "key_format",
    "format",
    "value_delimiter",
    "key_delimiter",
    "wrap_single_value",
    "retention_ms",
    "retention_bytes",
    "idle_timeout_ms",
    "memory_limit",
    "window_type",
    "window_size",
];

/// The relation that CREATE STREAM or CREATE TABLE makes.
///
/// # Errors
/// Anything wrong with names, types, keys or options.
pub fn plan_create(
    catalog: &Catalog,
    statement: &CreateRelation,
    id: RelationId,
    text: &str,
) -> Result<Relation> {
    let name = relation_name(&statement.name)?;
    let key_names: Vec<String> = statement.primary_key.iter().map(fold).collect();
    let mut columns = Vec::new();
    let mut key = Vec::new();
    for (index, column) in statement.columns.iter().enumerate() {
        let mut column = definition(column)?;
        let is_key = statement.columns[index].key || key_names.contains(&column.name);
        if is_key {
            key.push(index);
        }
        column.not_null |= is_key && statement.kind == RelationKind::Table;
        columns.push(column);
    }
    let window_ms = source_window(&statement.options)?;
    if window_ms.is_some() {
        if key.is_empty() && key_names.is_empty() {
            return Err(Error::invalid(
                "option \"window_type\"",
                "the windows of records are in their key, and there is none",
            ));
        }
        // Behind the key, as ksqlDB shows them.
        let is_key =
            |c: &Column| key_names.contains(&c.name) || key.iter().any(|k| columns[*k].name == c.name);
        let behind = columns.iter().rposition(is_key).map_or(columns.len(), |at| at + 1);
        key.iter_mut().filter(|k| **k >= behind).for_each(|k| *k += 2);
        columns.splice(behind..behind, ["windowstart", "windowend"].map(window_bound));
    }
    check_columns(&columns)?;
    if let Some(missing) = key_names.iter().find(|k| !columns.iter().any(|c| c.name == **k)) {
        return Err(Error::UnknownColumn { column: missing.clone(), relation: name });
    }
    if !key_names.is_empty() {
        key = key_names.iter().filter_map(|k| columns.iter().position(|c| c.name == *k)).collect();
    }
    if window_ms.is_some() {
        let bound = |name: &str| columns.iter().position(|c| c.name == name);
        key.extend(["windowstart", "windowend"].into_iter().filter_map(bound));
    }
    let retention = check_options(&statement.options)?;
    if statement.options.text("memory_limit").is_some() {
        return Err(Error::invalid("option \"memory_limit\"", "it belongs to CREATE … AS SELECT"));
    }
    let (first_name, topic) = own_place(catalog, id, &name);
    let mut relation = Relation {
        id,
        topic,
        first_name,
        name,
        kind: statement.kind,
        columns,
        // A stream's KEY says how it is partitioned; its rows are a bag all the same.
        key: if statement.kind == RelationKind::Stream { Vec::new() } else { key.clone() },
        record_key: key,
        partitions: 1,
        time_column: None,
        time_format: time_format(&statement.options)?,
        retention,
        idle_timeout_ms: idle_timeout(&statement.options)?,
        memory_limit: None,
        read_only: statement.read_only,
        query: None,
        views: Vec::new(),
        target: None,
        text: text.to_owned(),
    };
    relation.time_column = time_column(&relation, &statement.options)?;
    topic_options::place(
        &mut relation,
        &statement.options,
        catalog,
        Inherited { window_ms, ..Inherited::default() },
    )?;
    check_headers(&relation)?;
    if relation.columns.is_empty() {
        return Err(Error::Definition(format!(
            "\"{}\" needs a list of columns: there is no schema registry to take them from",
            relation.name
        )));
    }
    Ok(relation)
}

/// The column that a list of columns defines, key or not.
pub(crate) fn definition(column: &sql::Column) -> Result<Column> {
    let name = fold(&column.name);
    if PSEUDO_COLUMNS.iter().any(|(pseudo, _)| *pseudo == name) {
        return Err(Error::invalid("column name", format!("\"{name}\" is a column every stream has")));
    }
    Ok(Column {
        name,
        data_type: sql::arrow_type(&column.data_type)?,
        text_type: TextType::of_sql(&column.data_type),
        not_null: column.not_null,
        default: column.default.as_ref().map(ToString::to_string),
        headers: column.headers.clone(),
    })
}

/// Columns of headers: their types, that each is there once, and that there are records.
fn check_headers(relation: &Relation) -> Result<()> {
    let mut seen: Vec<&Headers> = Vec::new();
    for (index, column) in relation.columns.iter().enumerate() {
        let Some(headers) = &column.headers else { continue };
        let (wanted, name) = match headers {
            Headers::All => (sql::headers_type(), "ARRAY<STRUCT<key STRING, value BYTES>>"),
            Headers::Of(_) => (DataType::Binary, "BYTES"),
        };
        let wrong = |reason: String| {
            Err(Error::invalid("column of headers", format!("\"{}\" {reason}", column.name)))
        };
        if column.data_type != wanted {
            return wrong(format!("must be {name}"));
        }
        if relation.record_key.contains(&index) {
            return wrong("is no part of the key".into());
        }
        if relation.record_format().is_none() {
            return wrong("needs records: name their format with value_format".into());
        }
        if seen.contains(&headers)
            || seen.contains(&&Headers::All)
            || (*headers == Headers::All && !seen.is_empty())
        {
            return wrong("says again what another column says".into());
        }
        seen.push(headers);
    }
    Ok(())
}

/// A bound of the window that a record's key is of.
fn window_bound(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        data_type: DataType::Int64,
        text_type: None,
        not_null: true,
        default: None,
        headers: None,
    }
}

/// The windows in the keys of a topic that others write to: their length, None in it for sessions.
///
/// Source: ksqlDB, CREATE STREAM, WINDOW_TYPE and WINDOW_SIZE.
fn source_window(options: &Options) -> Result<Option<Option<i64>>> {
    let size = options.duration_ms("window_size")?;
    let Some(window) = options.text("window_type") else {
        return match size {
            None => Ok(None),
            Some(_) => Err(Error::invalid("option \"window_size\"", "it belongs to \"window_type\"")),
        };
    };
    match (window.to_ascii_lowercase().as_str(), size) {
        ("session", None) => Ok(Some(None)),
        ("session", Some(_)) => {
            Err(Error::invalid("option \"window_size\"", "sessions have no fixed length"))
        }
        ("tumbling" | "hopping", Some(size)) => Ok(Some(Some(size))),
        ("tumbling" | "hopping", None) => {
            Err(Error::invalid("option \"window_type\"", format!("{window} windows need \"window_size\"")))
        }
        _ => Err(Error::invalid("option \"window_type\"", "SESSION, TUMBLING and HOPPING are window types")),
    }
}

/// Whether the result is a stream or table of records, as what it reads is or as the statement says.
fn is_of_records(binder: &Binder<'_>, statement: &CreateAs) -> bool {
    let own = ["value_format", "format"].iter().find_map(|option| statement.options.text(option));
    let of_records = match own {
        Some(format) => !topic_options::is_native(&format),
        None => binder.first_relation(&statement.query).is_some_and(|r| r.record_format().is_some()),
    };
    of_records && matches!(statement.kind, RelationKind::Stream | RelationKind::Table)
}

/// The length of the windows that a plan places rows in; None in it for sessions.
fn window_ms(plan: &LogicalPlan) -> Option<Option<i64>> {
    let mut found = None;
    // The closure never fails.
    let _ = plan.apply(|node| {
        if let LogicalPlan::Extension(extension) = node {
            let node = extension.node.as_any();
            if let Some(windows) = node.downcast_ref::<WindowAssign>() {
                found = Some(Some(windows.spec.size_ms));
            } else if node.is::<SessionAssign>() {
                found = Some(None);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// What the first relation of a query leaves to its result, as ksqlDB has it.
fn inherited(plan: &LogicalPlan) -> Inherited {
    let mut node = plan;
    let window_ms = window_ms(plan);
    loop {
        if let LogicalPlan::TableScan(scan) = node {
            let source: &dyn std::any::Any = scan.source.as_ref();
            let relation = source.downcast_ref::<RelationSource>().map(|s| &s.relation);
            let format = relation.and_then(|r| r.record_format().copied());
            // The windows of what it reads are its own, unless it makes some.
            let window_ms = window_ms.or(format.and_then(|f| f.window).map(|w| w.size_ms));
            let partitions = relation.filter(|_| format.is_some()).map(|r| r.partitions);
            return Inherited { format, partitions, window_ms };
        }
        let Some(first) = node.inputs().first().copied() else {
            return Inherited { window_ms, ..Inherited::default() };
        };
        node = first;
    }
}

/// The first name of a relation, and its topic where the statement names none: those of the one whose place it
/// takes, or its own name. A topic keeps its name when its relation gets another one, so that may be taken.
fn own_place(catalog: &Catalog, id: RelationId, name: &str) -> (String, TopicRef) {
    let topic = |name: &str| TopicRef { name: name.to_owned(), named: false, encoding: Encoding::Columns };
    let old = catalog.by_id(id);
    let first_name = old.map_or(name, |old| &old.first_name).to_owned();
    if let Some(old) = old.filter(|old| !old.topic.named) {
        return (first_name, topic(&old.topic.name));
    }
    let taken = catalog.topic(name).is_some_and(|topic| !topic.named);
    let free = if taken { format!("{name}_{id}") } else { name.to_owned() };
    (first_name, topic(&free))
}

/// The plan with the record time that WITH (timestamp = …) names: a column of the result, or where a row has
/// none there, the time it would have had.
///
/// Source: ksqlDB, CREATE STREAM AS SELECT, TIMESTAMP and TIMESTAMP_FORMAT.
fn timed_by(
    binder: &Binder<'_>,
    plan: LogicalPlan,
    options: &Options,
    bind: BindOptions,
) -> Result<LogicalPlan> {
    let Some(name) = options.text("timestamp").map(|name| name.to_lowercase()) else { return Ok(plan) };
    if !bind.row_time && !bind.table_time {
        let reason = "it belongs to a stream, or to a table of records";
        return Err(Error::invalid("option \"timestamp\"", reason));
    }
    let columns = plan.schema().columns();
    let (carried, own): (Vec<_>, Vec<_>) = columns.into_iter().partition(|c| is_carried(&c.name));
    let found = own.iter().find(|c| visible_name(&c.name) == name);
    let unknown = || Error::UnknownColumn { column: name.clone(), relation: "the result".into() };
    let column = Expr::Column(found.ok_or_else(unknown)?.clone());
    let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
    let time = match (column.get_type(plan.schema())?, options.text("timestamp_format")) {
        (DataType::Int64, None) => column,
        (DataType::Timestamp(..) | DataType::Date32, None) => {
            cast(cast(column, milliseconds), DataType::Int64)
        }
        (DataType::Utf8, Some(format)) => {
            let read = binder.state.scalar_functions().get("stringtotimestamp");
            let read = read.ok_or_else(|| Error::Definition("no function reads times".into()))?;
            read.call(vec![column, lit(format)])
        }
        (data_type, format) => return Err(not_a_time(&name, &data_type, format.is_some())),
    };
    let mut carried = carried.into_iter().map(Expr::Column);
    let time = match carried.next() {
        Some(carried) => coalesce(vec![time, carried]),
        None => time,
    };
    let own = own.into_iter().map(Expr::Column);
    let exprs: Vec<Expr> = own.chain(std::iter::once(time.alias(ROW_TIME))).chain(carried).collect();
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// Whether a result's column is not the user's: its record time, and behind it the mark of rows without a value.
pub(crate) fn is_carried(name: &str) -> bool {
    name == ROW_TIME || name == VALUELESS
}

fn not_a_time(column: &str, data_type: &DataType, format: bool) -> Error {
    let reason = match (data_type, format) {
        (DataType::Utf8, _) => format!("column \"{column}\" is text: give its \"timestamp_format\""),
        (_, true) => format!("column \"{column}\" is no text that \"timestamp_format\" could read"),
        _ => format!("column \"{column}\" must be BIGINT (ms), TIMESTAMP, DATE, or text with a format"),
    };
    Error::invalid("option \"timestamp\"", reason)
}

/// The relation that CREATE … AS makes.
///
/// # Errors
/// Anything wrong with the query, or that cannot be kept up to date.
pub fn plan_create_as(
    binder: &Binder<'_>,
    statement: &CreateAs,
    id: RelationId,
    text: &str,
) -> Result<Relation> {
    let name = relation_name(&statement.name)?;
    let of_records = is_of_records(binder, statement);
    let bind = BindOptions {
        window_bounds: statement.kind == RelationKind::Table,
        row_time: statement.kind == RelationKind::Stream,
        emit_final: statement.query.emit == Some(sql::Emit::Final),
        table_time: of_records && statement.kind == RelationKind::Table,
        numbered_columns: of_records,
        passes_valueless: of_records && statement.kind == RelationKind::Stream,
    };
    let (plan, views) = binder.plan_with_views(&statement.query, bind)?;
    let plan = timed_by(binder, plan, &statement.options, bind)?;
    let columns = result_columns(&plan, &statement.columns, &name)?;
    let retention = check_options(&statement.options)?;
    let inherited = inherited(&plan);
    let (query, key, record_key) = if statement.kind == RelationKind::View {
        let sources = sources(&plan);
        (ViewQuery::Expanded { plan: Arc::new(plan), sources }, Vec::new(), Vec::new())
    } else {
        let joins = if bind.row_time { Joins::StreamTable } else { Joins::Relational };
        let emit = statement.query.emit.unwrap_or(sql::Emit::Changes);
        let dataflow = Dataflow::try_new(binder.state, &plan, joins, emit)?;
        if bind.row_time && !dataflow.append_only {
            return Err(Error::Definition(
                "the query's rows change, so its result is a table: use CREATE TABLE or CREATE MATERIALIZED VIEW".into(),
            ));
        }
        let key = dataflow.key.clone();
        let record_key = match partition::width(&statement.query)? {
            Some(width) => (0..width).collect(),
            None if bind.row_time => dataflow.record_key(),
            None => key.clone(),
        };
        if of_records && record_key.is_empty() && partition::width(&statement.query)?.is_none() {
            check_record_key(&name, &statement.query, &dataflow)?;
        }
        (ViewQuery::Continuous(Arc::new(dataflow)), key, record_key)
    };
    check_columns(&columns)?;
    if matches!(statement.kind, RelationKind::Stream | RelationKind::Table)
        && let Some(column) =
            columns.iter().find(|c| PSEUDO_COLUMNS.iter().any(|(pseudo, _)| *pseudo == c.name))
    {
        return Err(Error::Definition(format!(
            "\"{}\" is a column that every stream has: give it another name with AS",
            column.name
        )));
    }
    let own = |key: Vec<usize>| key.into_iter().filter(|k| *k < columns.len()).collect();
    let (key, record_key) = (own(key), own(record_key));
    let (first_name, topic) = own_place(binder.catalog(), id, &name);
    let mut relation = Relation {
        id,
        topic,
        first_name,
        name,
        kind: statement.kind,
        key,
        record_key,
        columns,
        partitions: 1,
        time_column: None,
        time_format: None,
        retention,
        idle_timeout_ms: idle_timeout(&statement.options)?,
        memory_limit: memory_limit(&statement.options)?,
        read_only: false,
        query: Some(query),
        views,
        target: None,
        text: text.to_owned(),
    };
    topic_options::place(&mut relation, &statement.options, binder.catalog(), inherited)?;
    check_cycle(binder.catalog(), &relation)?;
    Ok(relation)
}

/// Refuses records that would have lost their key by an oversight.
///
/// Source: ksqlDB, "key missing from projection".
fn check_record_key(name: &str, query: &sql::Query, dataflow: &Dataflow) -> Result<()> {
    let mut lost = dataflow.lost_record_key();
    // The bounds of windows may go, and what the optimizer has made has no name that could be given.
    let bounds = ["windowstart", "windowend", "window_start", "window_end"];
    lost.retain(|column| !bounds.contains(&column.as_str()) && !column.starts_with("__"));
    if lost.is_empty() || is_distinct_on(query) {
        return Ok(());
    }
    let columns = lost.iter().map(|column| visible_name(column)).collect::<Vec<_>>().join("\", \"");
    let otherwise = match dataflow.append_only {
        true => "PARTITION BY NULL makes records without one",
        false => "WITH (value_format = 'native') makes a table without records",
    };
    Err(Error::Definition(format!(
        "\"{name}\" needs \"{columns}\" in its SELECT: it is the key of its records; {otherwise}"
    )))
}

/// DISTINCT ON: its rows are known by what may not be a column at all.
fn is_distinct_on(query: &sql::Query) -> bool {
    let SetExpr::Select(select) = query.ast.body.as_ref() else { return false };
    matches!(select.distinct, Some(Distinct::On(_)))
}

/// Refuses a query that would read what it writes.
pub(crate) fn check_cycle(catalog: &Catalog, relation: &Relation) -> Result<()> {
    let topic = &relation.topic.name;
    let upstream = catalog.upstream(&relation.sources());
    if upstream.contains(&relation.id) {
        // It takes the place of one that it would read: that is said where it is replaced.
        return Ok(());
    }
    let mut read = upstream.iter().filter_map(|id| catalog.by_id(*id)).filter(|r| r.has_topic());
    if relation.has_topic() && read.any(|r| r.topic.name == *topic) {
        return Err(Error::Definition(format!("the query would read topic \"{topic}\", which it writes")));
    }
    Ok(())
}

/// What DROP removes: the named relations, and with CASCADE whoever reads them.
///
/// # Errors
/// [`Error::UnknownRelation`], [`Error::WrongKind`], [`Error::HasDependents`].
pub fn plan_drop(catalog: &Catalog, statement: &sql::Drop) -> Result<Vec<Arc<Relation>>> {
    let mut dropped: Vec<Arc<Relation>> = Vec::new();
    for name in &statement.names {
        let name = relation_name(name)?;
        let found = catalog.find(&name).cloned();
        let Some(relation) = if_there(found, statement.if_exists)? else { continue };
        if relation.kind != statement.kind && !same_family(&relation, statement.kind) {
            return Err(wrong_kind(&relation, statement.kind));
        }
        if !dropped.iter().any(|d| d.id == relation.id) {
            dropped.push(relation);
        }
    }
    let mut readers: Vec<Arc<Relation>> = Vec::new();
    for relation in &dropped {
        let others = catalog.dependents(relation.id);
        let remaining: Vec<_> =
            others.into_iter().filter(|o| !dropped.iter().any(|d| d.id == o.id)).collect();
        if !remaining.is_empty() && !statement.cascade {
            return Err(Error::HasDependents {
                name: relation.name.clone(),
                dependents: remaining.iter().map(|r| r.name.clone()).collect(),
            });
        }
        readers.extend(remaining);
    }
    readers.retain(|r| !dropped.iter().any(|d| d.id == r.id));
    dropped.extend(readers);
    dropped.sort_by_key(|r| r.id);
    dropped.dedup_by_key(|r| r.id);
    if statement.delete_topic {
        dropped.iter().try_for_each(|relation| check_delete_topic(catalog, relation, &dropped))?;
    }
    Ok(dropped)
}

/// What COMMENT ON says.
///
/// # Errors
/// [`Error::UnknownRelation`], [`Error::UnknownColumn`].
pub fn plan_comment(catalog: &Catalog, statement: &sql::Comment) -> Result<Comment> {
    let relation = catalog.resolve(&statement.relation)?;
    let column = statement.column.as_ref().map(fold);
    if let Some(column) = column.as_ref().filter(|column| relation.column(column).is_none()) {
        return Err(Error::UnknownColumn { column: column.clone(), relation: relation.name.clone() });
    }
    // An empty one is none.
    let text = statement.text.clone().filter(|text| !text.is_empty());
    Ok(Comment { relation: relation.id, column, text })
}

/// A topic can only go when nobody else is on it.
fn check_delete_topic(catalog: &Catalog, relation: &Relation, dropped: &[Arc<Relation>]) -> Result<()> {
    if relation.read_only {
        return Err(Error::ReadOnly { name: relation.name.clone(), action: "delete the topic of" });
    }
    let Some(topic) = catalog.topic(&relation.topic.name).filter(|_| relation.has_topic()) else {
        return Ok(());
    };
    let others = catalog.on_topic(topic).filter(|other| !dropped.iter().any(|d| d.id == other.id));
    let dependents: Vec<String> = others.map(|other| other.name.clone()).collect();
    if dependents.is_empty() {
        Ok(())
    } else {
        Err(Error::HasDependents { name: topic.name.clone(), dependents })
    }
}

/// The relation, or None where IF EXISTS finds nothing.
pub(crate) fn if_there(found: Result<Arc<Relation>>, if_exists: bool) -> Result<Option<Arc<Relation>>> {
    match found {
        Err(Error::UnknownRelation { .. }) if if_exists => Ok(None),
        found => found.map(Some),
    }
}

/// DROP TABLE also takes what CREATE TABLE … AS made, and DROP VIEW a materialized one is refused.
pub(crate) fn same_family(relation: &Relation, kind: RelationKind) -> bool {
    kind == RelationKind::Table && relation.kind == RelationKind::MaterializedView && !relation.is_base()
}

/// A statement names another kind of relation than there is.
pub(crate) fn wrong_kind(relation: &Relation, named: RelationKind) -> Error {
    let expected = match named {
        RelationKind::Stream => "stream",
        RelationKind::Table => "table",
        RelationKind::MaterializedView => "materialized view",
        RelationKind::View => "view",
    };
    Error::WrongKind { name: relation.name.clone(), expected }
}

pub(crate) fn check_columns(columns: &[Column]) -> Result<()> {
    if columns.len() > MAX_COLUMNS {
        return Err(Error::invalid("list of columns", format!("a relation has at most {MAX_COLUMNS}")));
    }
    let mut seen = HashSet::new();
    match columns.iter().find(|c| !seen.insert(c.name.as_str())) {
        Some(column) => Err(Error::DuplicateColumn { name: column.name.clone() }),
        None => Ok(()),
    }
}

fn result_columns(
    plan: &LogicalPlan,
    names: &[sql::sqlparser::ast::Ident],
    relation: &str,
) -> Result<Vec<Column>> {
    let fields: Vec<_> = plan.schema().fields().iter().filter(|f| !is_carried(f.name())).collect();
    if !names.is_empty() && names.len() != fields.len() {
        return Err(Error::Definition(format!(
            "\"{relation}\" names {} columns, but its query has {}",
            names.len(),
            fields.len()
        )));
    }
    Ok(fields
        .iter()
        .enumerate()
        .map(|(i, field)| Column {
            name: names.get(i).map_or_else(|| visible_name(field.name()).to_owned(), fold),
            data_type: field.data_type().clone(),
            text_type: TextType::of(field),
            not_null: false,
            default: None,
            headers: None,
        })
        .collect())
}

/// A number of bytes, or of PostgreSQL's units: `64MB`. None for anything else, and for 0.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1u64,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

fn memory_limit(options: &Options) -> Result<Option<u64>> {
    let Some(text) = options.text("memory_limit") else { return Ok(None) };
    match parse_bytes(&text) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(Error::invalid("option \"memory_limit\"", "expected bytes, or a size such as '64MB'")),
    }
}

fn idle_timeout(options: &Options) -> Result<Option<i64>> {
    match options.integer("idle_timeout_ms")? {
        Some(ms) if ms <= 0 => Err(Error::invalid("option \"idle_timeout_ms\"", "it must be positive")),
        timeout => Ok(timeout),
    }
}

type Retention = (Option<i64>, Option<u64>);

fn check_options(options: &Options) -> Result<Retention> {
    for (name, _) in options.iter() {
        if !OPTIONS.contains(&name) {
            return Err(Error::invalid(format!("option \"{name}\""), "there is no such option"));
        }
    }
    let age = options.integer("retention_ms")?.filter(|age| *age >= 0);
    let bytes = options.integer("retention_bytes")?.and_then(|bytes| u64::try_from(bytes).ok());
    Ok((age, bytes))
}

/// A pattern that reads times; one that does not is refused here.
fn time_format(options: &Options) -> Result<Option<String>> {
    let Some(format) = options.text("timestamp_format") else { return Ok(None) };
    if options.text("timestamp").is_none() {
        return Err(Error::invalid("option \"timestamp_format\"", "it belongs to \"timestamp\""));
    }
    match TimePattern::parse(&format) {
        Err(reason) => Err(Error::invalid("option \"timestamp_format\"", reason)),
        Ok(_) => Ok(Some(format)),
    }
}

fn time_column(relation: &Relation, options: &Options) -> Result<Option<usize>> {
    let Some(name) = options.text("timestamp") else { return Ok(None) };
    let name = name.to_lowercase();
    let index = relation
        .column(&name)
        .ok_or_else(|| Error::UnknownColumn { column: name.clone(), relation: relation.name.clone() })?;
    let data_type = &relation.columns[index].data_type;
    match (data_type, relation.time_format.is_some()) {
        (DataType::Int64 | DataType::Timestamp(..) | DataType::Date32, false) | (DataType::Utf8, true) => {
            Ok(Some(index))
        }
        (other, format) => Err(not_a_time(&name, other, format)),
    }
}
