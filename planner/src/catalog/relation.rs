//! One relation: columns, key, where its rows come from.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use sql::{Headers, TextType};

use super::topic::{Encoding, Format, RecordFormat, TopicRef};
use crate::dataflow::Dataflow;

/// Identifies a relation for ever; never used twice.
pub type RelationId = u32;

pub use sql::RelationKind;

/// Name of the mark of a stream's row whose record has no value. Such a row is nowhere but where records are passed
/// on one by one: there its record has no value either.
///
/// Source: ksqlDB, where it passes a plain CREATE STREAM AS SELECT, and reaches neither filters, groups and joins
/// nor clients.
pub const VALUELESS: &str = "\u{1}valueless";

/// Columns every stream has beside its own: record time in ms since 1970, partition, offset.
pub const PSEUDO_COLUMNS: [(&str, DataType); 3] =
    [("rowtime", DataType::Int64), ("rowpartition", DataType::Int32), ("rowoffset", DataType::Int64)];

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// What a column of text is besides.
    pub text_type: Option<TextType>,
    /// NOT NULL or part of the primary key.
    pub not_null: bool,
    /// DEFAULT, as SQL text.
    pub default: Option<String>,
    /// It is no part of a record's key or value, but of its headers.
    pub headers: Option<Headers>,
}

impl Column {
    /// The column as a field of a plan.
    pub fn field(&self) -> Field {
        let field = Field::new(&self.name, self.data_type.clone(), !self.not_null);
        match self.text_type {
            Some(text) => text.on(field),
            None => field,
        }
    }
}

/// The query of a view.
#[derive(Debug, Clone)]
pub enum ViewQuery {
    /// Kept up to date.
    Continuous(Arc<Dataflow>),
    /// Expanded where it is named.
    Expanded {
        /// Its plan.
        plan: Arc<LogicalPlan>,
        /// What it reads.
        sources: Vec<RelationId>,
    },
}

/// A relation.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Identity.
    pub id: RelationId,
    /// Name, folded.
    pub name: String,
    /// Stream, table or view.
    pub kind: RelationKind,
    /// Its columns, without pseudo-columns.
    pub columns: Vec<Column>,
    /// Columns whose values name a row: the primary key of a table, what a view's query makes
    /// unique. Empty: rows are a bag.
    pub key: Vec<usize>,
    /// Columns that are the key of its records in its topic; the others are the value.
    pub record_key: Vec<usize>,
    /// Its topic, for one that has a topic.
    pub topic: TopicRef,
    /// Partitions of its topic.
    pub partitions: u32,
    /// WITH (timestamp = …): the column that gives ROWTIME.
    pub time_column: Option<usize>,
    /// WITH (timestamp_format = …): the pattern of the times in that column, which is text then.
    pub time_format: Option<String>,
    /// WITH (retention_ms, retention_bytes).
    pub retention: (Option<i64>, Option<u64>),
    /// WITH (idle_timeout_ms = …): how long no row may come before the stream time of its readers goes
    /// on with the clock.
    pub idle_timeout_ms: Option<i64>,
    /// WITH (memory_limit = …): most bytes of its query's state and rows.
    pub memory_limit: Option<u64>,
    /// CREATE SOURCE: no statement writes to it.
    pub read_only: bool,
    /// What makes its rows; None for one that is written to.
    pub query: Option<ViewQuery>,
    /// Plain views that its query names, and whose queries stand in it; a WITH of the same name counts too.
    pub views: Vec<RelationId>,
    /// The stream that its rows go to, for the query of INSERT INTO … SELECT … EMIT CHANGES, which is no
    /// relation that can be read.
    pub target: Option<RelationId>,
    /// The statement that made it.
    pub text: String,
    /// The name that it was made with, and that its files have.
    pub first_name: String,
}

impl Relation {
    /// Whether rows are written to it by statements.
    pub fn is_base(&self) -> bool {
        self.query.is_none()
    }

    /// The same with another name.
    pub(super) fn renamed(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// Whether statements write rows to it.
    pub fn is_writable(&self) -> bool {
        self.is_base() && !self.read_only
    }

    /// Whether rows only ever come, never go.
    pub fn is_stream(&self) -> bool {
        self.kind == RelationKind::Stream
    }

    /// A table that is written to but names no key: each row gets a number.
    pub fn has_row_id(&self) -> bool {
        self.is_base() && self.kind == RelationKind::Table && self.key.is_empty()
    }

    /// Whether its rows are in a topic: what is written to, and what CREATE STREAM/TABLE … AS makes.
    pub fn has_topic(&self) -> bool {
        matches!(self.kind, RelationKind::Stream | RelationKind::Table)
    }

    /// How its rows are records, if they are.
    pub fn record_format(&self) -> Option<&RecordFormat> {
        match &self.topic.encoding {
            Encoding::Records(format) if self.has_topic() => Some(format),
            _ => None,
        }
    }

    /// Whether its rows are marked whose records have no value.
    pub fn marks_valueless(&self) -> bool {
        self.is_stream() && self.record_format().is_some()
    }

    /// Columns that are in the values of its records.
    pub fn value_columns(&self) -> impl Iterator<Item = usize> + '_ {
        let is_value = |at: &usize| !self.record_key.contains(at) && self.columns[*at].headers.is_none();
        (0..self.columns.len()).filter(is_value)
    }

    /// The first column of headers that no statement writes to. A stream of raw bytes passes all headers on as it
    /// does bytes.
    pub fn read_only_headers(&self) -> Option<&Column> {
        let passes = |format: Format| matches!(format, Format::Kafka | Format::None);
        let raw = self.record_format().is_some_and(|format| passes(format.key) && passes(format.value));
        self.columns.iter().find(|column| match &column.headers {
            None => false,
            Some(Headers::All) => !raw,
            Some(Headers::Of(_)) => true,
        })
    }

    /// Name of what it writes to its topic, unique for ever.
    pub fn log_name(&self) -> String {
        let safe: String = self
            .first_name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .take(64)
            .collect();
        format!("{:06}-{safe}", self.id)
    }

    /// The dataflow that keeps it up to date.
    pub fn dataflow(&self) -> Option<&Arc<Dataflow>> {
        match &self.query {
            Some(ViewQuery::Continuous(dataflow)) => Some(dataflow),
            _ => None,
        }
    }

    /// A plain view: its query stands where it is named.
    pub fn is_expanded(&self) -> bool {
        matches!(self.query, Some(ViewQuery::Expanded { .. }))
    }

    /// What its query reads.
    pub fn sources(&self) -> Vec<RelationId> {
        match &self.query {
            None => Vec::new(),
            Some(ViewQuery::Continuous(dataflow)) => dataflow.sources(),
            Some(ViewQuery::Expanded { sources, .. }) => sources.clone(),
        }
    }

    /// Its own columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields()))
    }

    /// Its own columns, then the pseudo-columns it has, then the mark of rows without a value: the layout of its
    /// rows inside the engine.
    pub fn full_schema(&self) -> SchemaRef {
        let mut fields = self.fields();
        for (name, data_type) in self.pseudo_columns() {
            if self.column(name).is_none() {
                fields.push(Field::new(*name, data_type.clone(), true));
            }
        }
        if self.marks_valueless() {
            fields.push(Field::new(VALUELESS, DataType::Boolean, true));
        }
        Arc::new(Schema::new(fields))
    }

    fn pseudo_columns(&self) -> &'static [(&'static str, DataType)] {
        match self.kind {
            RelationKind::Stream => &PSEUDO_COLUMNS,
            RelationKind::Table if self.is_base() || self.record_format().is_some() => &PSEUDO_COLUMNS[..1],
            _ => &[],
        }
    }

    /// How many columns its rows have behind its own, as the engine keeps them: those of the full layout, and the
    /// number of a row in a table without a key.
    fn columns_behind(&self) -> usize {
        let pseudo = self.pseudo_columns().iter().filter(|(name, _)| self.column(name).is_none()).count();
        pseudo + usize::from(self.marks_valueless()) + usize::from(self.has_row_id())
    }

    /// Where a column of the full layout is in rows that the engine keeps now, in `width` columns. The relation may
    /// have got more columns since a plan was made that knows it like this: those come behind its own.
    pub fn place(&self, column: usize, width: usize) -> usize {
        let own = self.columns.len();
        let added = width.saturating_sub(own + self.columns_behind());
        if column < own { column } else { column + added }
    }

    fn fields(&self) -> Vec<Field> {
        self.columns.iter().map(Column::field).collect()
    }

    /// Index of a column by name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}
