//! INSERT: literals go straight into columns; everything else is a query whose rows are cast.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use datafusion::arrow::compute::{cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use executor::{PullContext, Write};
use planner::{Column, Privilege, Relation, RelationKind};
use sql::sqlparser::ast::{Expr, Ident, ObjectName, SetExpr, UnaryOperator, Value};
use sql::{Insert, TextType};

use super::{Outcome, Parameters, conflict, held, query, returning};
use crate::pg::{ColumnBuilder, RowBuilder, WireError, type_name};
use crate::session::Session;

/// Where the values of an INSERT or COPY go.
pub(super) struct Target {
    pub(super) relation: Arc<Relation>,
    /// For each value its column; None is ROWTIME.
    columns: Vec<Option<usize>>,
    /// The statement says which columns.
    named: bool,
    /// The session's time zone, where it is not UTC.
    zone: Option<String>,
}

/// The relation that a name means.
pub(super) fn relation(session: &Session, name: &ObjectName) -> Result<Arc<Relation>, WireError> {
    Ok(Arc::clone(session.engine().catalog().resolve(name)?))
}

/// The relation that a name means, for what a statement does with it.
pub(super) fn relation_for(
    session: &Session,
    name: &ObjectName,
    privileges: &[Privilege],
) -> Result<Arc<Relation>, WireError> {
    let relation = relation(session, name)?;
    privileges.iter().try_for_each(|privilege| check_privilege(session, *privilege, &relation))?;
    Ok(relation)
}

fn check_privilege(session: &Session, privilege: Privilege, relation: &Relation) -> Result<(), WireError> {
    Ok(planner::check_privilege(&session.engine().catalog(), session.role(), privilege, relation)?)
}

/// CREATE SOURCE makes what others write.
pub(super) fn refuse_read_only(relation: &Relation, action: &'static str) -> Result<(), WireError> {
    match relation.read_only {
        true => Err(planner::Error::ReadOnly { name: relation.name.clone(), action }.into()),
        false => Ok(()),
    }
}

impl Target {
    pub(super) fn new(session: &Session, name: &ObjectName, names: &[Ident]) -> Result<Self, WireError> {
        let relation = relation_for(session, name, &[Privilege::Insert])?;
        if !relation.is_base() || relation.kind == RelationKind::View {
            let message = format!("cannot insert into \"{}\": its rows come from its query", relation.name);
            return Err(WireError::new("42809", message));
        }
        refuse_read_only(&relation, "insert into")?;
        let mut columns = Vec::new();
        for name in names.iter().map(sql::fold) {
            let column = match relation.column(&name) {
                Some(index) => Some(index),
                None if name == "rowtime" => None,
                None => {
                    let message =
                        format!("column \"{name}\" of relation \"{}\" does not exist", relation.name);
                    return Err(WireError::new("42703", message));
                }
            };
            if columns.contains(&column) {
                return Err(WireError::new("42701", format!("column \"{name}\" specified more than once")));
            }
            columns.push(column);
        }
        if names.is_empty() {
            columns = (0..relation.columns.len()).map(Some).collect();
        }
        if let Some(column) = relation.read_only_headers()
            && columns.iter().flatten().any(|index| relation.columns[*index].name == column.name)
        {
            let message = format!("cannot insert into column \"{}\": it is one of headers", column.name);
            let hint = "A stream of raw bytes writes them: ARRAY<STRUCT<key STRING, value BYTES>> HEADERS.";
            return Err(WireError::new("42809", message).hint(hint));
        }
        let zone = session.settings.time_zone().map(str::to_owned);
        Ok(Self { relation, columns, named: !names.is_empty(), zone })
    }

    fn field(&self, column: Option<usize>) -> Field {
        match column {
            Some(column) => {
                let field = self.relation.columns[column].field().with_nullable(true);
                self.zone.as_ref().map(|zone| planner::field_in_zone(&field, zone)).unwrap_or(field)
            }
            None => Field::new("rowtime", DataType::Int64, true),
        }
    }

    /// The layout of the values.
    pub(super) fn schema(&self) -> Arc<Schema> {
        Arc::new(Schema::new(self.columns.iter().map(|c| self.field(*c)).collect::<Vec<_>>()))
    }

    /// Rows of values become rows of the relation: what is not given is its default.
    pub(super) fn write(&self, session: &Session, values: &RecordBatch) -> Result<Write, WireError> {
        let (rows, row_time) = self.rows(session, values)?;
        Ok(Write::insert(&self.relation, &rows, row_time, session.engine().now_ms())?)
    }

    /// The rows, and their record times where the statement gives them.
    fn rows(
        &self,
        session: &Session,
        values: &RecordBatch,
    ) -> Result<(RecordBatch, Option<ArrayRef>), WireError> {
        let n = values.num_rows();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.relation.columns.len()];
        let mut row_time = None;
        for (target, array) in self.columns.iter().zip(values.columns()) {
            match target {
                Some(index) => {
                    columns[*index] = Some(cast(array, &self.relation.columns[*index].data_type)?);
                }
                None => row_time = Some(Arc::clone(array)),
            }
        }
        let columns = columns
            .into_iter()
            .enumerate()
            .map(|(index, column)| column.map_or_else(|| self.default(session, index, n), Ok))
            .collect::<Result<Vec<_>, WireError>>()?;
        let fields: Vec<_> =
            self.relation.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect();
        Ok((RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?, row_time))
    }

    fn default(&self, session: &Session, index: usize, rows: usize) -> Result<ArrayRef, WireError> {
        let column = &self.relation.columns[index];
        let Some(text) = &column.default else { return Ok(new_null_array(&column.data_type, rows)) };
        let state = session.state();
        let expr = state.create_logical_expr(text, &DFSchema::empty())?;
        let start = state.execution_props().query_execution_start_time;
        let context = SimplifyContext::builder().with_query_execution_start_time(start).build();
        let simplifier = ExprSimplifier::new(context);
        let expr = simplifier.simplify(simplifier.coerce(expr, &DFSchema::empty())?)?;
        let physical = state.create_physical_expr(expr, &DFSchema::empty())?;
        let one = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &datafusion::arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows)),
        )?;
        let value = physical.evaluate(&one)?.into_array(rows)?;
        strict_cast(&value, &column.field())
    }
}

/// Values that a statement gives a column, as those of the column: a text without a zone is meant in the session's.
pub(super) fn assigned(session: &Session, array: &ArrayRef, column: &Column) -> Result<ArrayRef, WireError> {
    let read = strict_cast(array, &session.settings.in_zone(column.field()))?;
    Ok(cast(&read, &column.data_type)?)
}

/// Values as those of a column.
///
/// # Errors
/// A value that the column's type does not hold.
pub(super) fn strict_cast(array: &ArrayRef, column: &Field) -> Result<ArrayRef, WireError> {
    let data_type = column.data_type();
    let text_type = TextType::of(column).filter(|text| *text != TextType::Varchar(None));
    // A text that becomes bytea, uuid, json or a time is read as one.
    let read_apart = matches!(data_type, DataType::Binary | DataType::Timestamp(TimeUnit::Microsecond, _));
    if array.data_type().is_string() && (text_type.is_some() || read_apart) {
        let text = cast_with_options(array, &DataType::Utf8, &DEFAULT_CAST_OPTIONS)?;
        return read(text.as_string::<i32>(), column);
    }
    if *data_type == sql::UUID {
        return Ok(planner::read_uuids(array)?);
    }
    if array.data_type() == data_type {
        return Ok(Arc::clone(array));
    }
    if planner::is_rounded(array.data_type(), data_type) {
        return Ok(cast_with_options(&planner::rounded_values(array)?, data_type, &DEFAULT_CAST_OPTIONS)?);
    }
    if let DataType::List(element) = data_type
        && array.data_type().is_string()
    {
        let text = cast_with_options(array, &DataType::Utf8, &DEFAULT_CAST_OPTIONS)?;
        return Ok(planner::read_lists(text.as_string(), element)?);
    }
    Ok(cast_with_options(array, data_type, &DEFAULT_CAST_OPTIONS)?)
}

fn read(text: &StringArray, column: &Field) -> Result<ArrayRef, WireError> {
    let mut out = ColumnBuilder::new(column);
    for value in text {
        match value {
            Some(text) => out.append_text(text)?,
            None => out.append_null(),
        }
    }
    out.finish()
}

/// Types of the parameters among literal values: those of their columns.
pub(super) async fn parameter_types(session: &mut Session, insert: &Insert) -> Result<Vec<Field>, WireError> {
    let target = Target::new(session, &insert.name, &insert.columns)?;
    let Some(source) = &insert.source else { return Ok(Vec::new()) };
    let SetExpr::Values(values) = source.ast.body.as_ref() else {
        let snapshot = session.snapshot().await?;
        let bound = query::bind(session, &snapshot, source)?;
        return super::prepare::parameter_types(&bound.plan);
    };
    let text = || Field::new("", DataType::Utf8, true);
    let mut types: Vec<Field> = Vec::new();
    for row in &values.rows {
        for (column, expr) in row.content.iter().enumerate() {
            if let Some(index) = placeholder(expr) {
                types.resize_with(types.len().max(index), text);
                types[index - 1] = target.columns.get(column).map_or_else(text, |c| target.field(*c));
            }
        }
    }
    Ok(types)
}

fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => {
                name.strip_prefix('$')?.parse().ok().filter(|n| (1..=65_535).contains(n))
            }
            _ => None,
        },
        Expr::Cast { expr, .. } | Expr::Nested(expr) => placeholder(expr),
        _ => None,
    }
}

pub(crate) async fn insert(
    session: &mut Session,
    insert: &Insert,
    parameters: &Parameters,
) -> Result<Outcome, WireError> {
    let target = Target::new(session, &insert.name, &insert.columns)?;
    let Some(source) = &insert.source else {
        return Err(WireError::unsupported("INSERT … DEFAULT VALUES"));
    };
    let values = match literal_rows(&target, source, parameters)? {
        Some(values) => values,
        None => query_rows(session, &target, source, parameters).await?,
    };
    let (mut rows, mut row_time) = target.rows(session, &values)?;
    let mut guard = None;
    if !insert.returning.is_empty() {
        check_privilege(session, Privilege::Select, &target.relation)?;
    }
    if let Some(on_conflict) = &insert.on_conflict {
        check_privilege(session, Privilege::Update, &target.relation)?;
        let relation = &target.relation;
        conflict::check(relation, on_conflict)?;
        guard = session.lock(relation.id).await?;
        super::dml::refuse_after_own_write(session, relation)?;
        rows = conflict::resolve(session, relation, on_conflict, rows, parameters).await?;
        row_time = None;
    }
    let count = rows.num_rows();
    // What RETURNING says of them is found out before they are written: it may be an error.
    let returned = match insert.returning.as_slice() {
        [] => None,
        items => Some(returning::bind(session, &target.relation, None, items, &rows)?),
    };
    let write = Write::insert(&target.relation, &rows, row_time, session.engine().now_ms())?;
    match guard {
        None if count == 0 => {}
        None => session.write(vec![write]).await?,
        Some(guard) => super::dml::finish(session, Some(guard), vec![write], count).await?,
    }
    match returned {
        Some(returned) => returning::answer(session, returned, parameters, "INSERT").await,
        None => Ok(Outcome::done(format!("INSERT 0 {count}"))),
    }
}

/// The rows of VALUES whose every value is a literal or a parameter; None for anything else.
fn literal_rows(
    target: &Target,
    source: &sql::Query,
    parameters: &Parameters,
) -> Result<Option<RecordBatch>, WireError> {
    let SetExpr::Values(values) = source.ast.body.as_ref() else { return Ok(None) };
    if source.ast.order_by.is_some() || source.ast.limit_clause.is_some() || source.ast.with.is_some() {
        return Ok(None);
    }
    let width = target.columns.len();
    let schema = target.schema();
    let mut rows = RowBuilder::new(Arc::clone(&schema));
    for row in &values.rows {
        let row = &row.content;
        if row.len() > width {
            return Err(WireError::new("42601", "INSERT has more expressions than target columns"));
        }
        if row.len() < width && target.named {
            return Err(WireError::new("42601", "INSERT has more target columns than expressions"));
        }
        for index in 0..width {
            let literal = match row.get(index) {
                None => Some(Literal::Null),
                Some(expr) => literal(expr, parameters)?,
            };
            let column = &mut rows.columns()[index];
            match literal {
                None => return Ok(None),
                Some(Literal::Null) => column.append_null(),
                // It is rounded where it becomes a whole number.
                Some(Literal::Fraction(_)) if schema.field(index).data_type().is_integer() => {
                    return Ok(None);
                }
                Some(Literal::Text(text) | Literal::Fraction(text)) => column.append_text(&text)?,
            }
        }
        rows.end_row();
    }
    rows.finish().map(Some)
}

enum Literal {
    Null,
    Text(String),
    /// A number with a point or an exponent.
    Fraction(String),
}

fn literal(expr: &Expr, parameters: &Parameters) -> Result<Option<Literal>, WireError> {
    Ok(match expr {
        Expr::Value(value) => match &value.value {
            Value::Null => Some(Literal::Null),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(Literal::Text(text.clone()))
            }
            Value::Number(number, _) if number.contains(['.', 'e', 'E']) => {
                Some(Literal::Fraction(number.clone()))
            }
            Value::Number(number, _) => Some(Literal::Text(number.clone())),
            Value::Boolean(value) => Some(Literal::Text(value.to_string())),
            Value::Placeholder(_) => match placeholder(expr).and_then(|n| parameters.0.get(n - 1)) {
                None => return Err(WireError::new("42P02", format!("there is no parameter {expr}"))),
                Some(value) if value.is_null() => Some(Literal::Null),
                Some(value) => scalar_text(value).map(Literal::Text),
            },
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal(expr, parameters)? {
            Some(Literal::Text(text)) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                Some(Literal::Text(format!("-{text}")))
            }
            Some(Literal::Fraction(text)) if !text.starts_with('-') => {
                Some(Literal::Fraction(format!("-{text}")))
            }
            _ => None,
        },
        Expr::Nested(expr) => literal(expr, parameters)?,
        _ => None,
    })
}

/// A parameter's value as PostgreSQL writes it, to be read into the column's type.
fn scalar_text(value: &datafusion::common::ScalarValue) -> Option<String> {
    let array = value.to_array().ok()?;
    let mut out = bytes::BytesMut::new();
    crate::pg::write_text(&array, 0, &mut out);
    String::from_utf8(out.to_vec()).ok()
}

/// VALUES in which texts are values of their columns, as untyped literals of PostgreSQL are: expressions may stand
/// above and below them.
fn typed_texts<'q>(target: &Target, source: &'q sql::Query) -> Cow<'q, sql::Query> {
    if !matches!(source.ast.body.as_ref(), SetExpr::Values(_)) {
        return Cow::Borrowed(source);
    }
    let mut source = source.clone();
    if let SetExpr::Values(values) = source.ast.body.as_mut() {
        for row in &mut values.rows {
            for (cell, column) in row.content.iter_mut().zip(&target.columns) {
                let is_text =
                    matches!(cell, Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)));
                let field = target.field(*column);
                if !is_text || TextType::of(&field).is_some() || field.data_type().is_nested() {
                    continue;
                }
                let cast = format!("CAST({cell} AS {})", type_name(field.data_type()));
                if let Some(typed) = sql::parse_expressions(&cast).ok().and_then(|mut one| one.pop()) {
                    *cell = typed;
                }
            }
        }
    }
    Cow::Owned(source)
}

/// The rows of any query, cast to the columns they go to.
async fn query_rows(
    session: &mut Session,
    target: &Target,
    source: &sql::Query,
    parameters: &Parameters,
) -> Result<RecordBatch, WireError> {
    let source = typed_texts(target, source);
    let (snapshot, bound) = query::bind_current(session, &source).await?;
    let plan = parameters.apply(bound.plan)?;
    let answer = PullContext { snapshot, state: session.state() }.answer(plan).await?;
    let all = held::all_rows(session, "one INSERT", answer).await?;
    if all.num_columns() > target.columns.len() {
        return Err(WireError::new("42601", "INSERT has more expressions than target columns"));
    }
    if all.num_columns() < target.columns.len() && target.named {
        return Err(WireError::new("42601", "INSERT has more target columns than expressions"));
    }
    let schema = target.schema();
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| match all.columns().get(i) {
            Some(column) => strict_cast(column, field),
            None => Ok(new_null_array(field.data_type(), all.num_rows())),
        })
        .collect::<Result<Vec<_>, WireError>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}
