//! Prepared statements: types of parameters and results before anything runs.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ParamValues, ScalarValue};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Cast, Expr as PlanExpr, ExprSchemable, LogicalPlan};
use futures::StreamExt;
use planner::PointLookup;
use sql::sqlparser::ast::Expr;
use sql::{Parsed, Prepare, Statement, TextType};

use super::{Outcome, insert, no_statement, query};
use crate::pg::{ColumnBuilder, Format, WireError, with_origins};
use crate::session::Session;

/// Prepared statements of one session.
const MAX_NAMED: usize = 10_000;

/// A statement with its types.
pub(crate) struct Prepared {
    /// None for an empty text.
    pub(crate) parsed: Option<Parsed>,
    pub(crate) parameters: Vec<Field>,
    /// Names and types of the result; None for a statement without rows.
    pub(crate) result: Option<(Vec<String>, SchemaRef)>,
    /// What it asks, where that is the row of one key.
    pub(crate) lookup: Option<PointLookup>,
}

/// Values of parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(pub(crate) Vec<ScalarValue>);

impl Parameters {
    /// Puts the values into a plan.
    pub(crate) fn apply(&self, plan: LogicalPlan) -> Result<LogicalPlan, WireError> {
        if self.0.is_empty() {
            return Ok(plan);
        }
        Ok(plan.with_param_values(ParamValues::from(self.0.clone()))?)
    }

    /// Decodes the values of a Bind message.
    pub(crate) fn decode(
        types: &[Field],
        values: &[Option<bytes::Bytes>],
        formats: &[Format],
    ) -> Result<Self, WireError> {
        if values.len() != types.len() {
            let message = format!(
                "bind message supplies {} parameters, but prepared statement requires {}",
                values.len(),
                types.len()
            );
            return Err(WireError::new("08P01", message));
        }
        let decode = |(index, (field, value)): (usize, (&Field, &Option<bytes::Bytes>))| {
            let mut column = ColumnBuilder::new(field);
            let format = match formats {
                [] => Format::Text,
                [all] => *all,
                each => each.get(index).copied().unwrap_or(Format::Text),
            };
            match (value, format) {
                (None, _) => column.append_null(),
                (Some(bytes), Format::Binary) => column.append_binary(bytes)?,
                (Some(bytes), Format::Text) => {
                    let text = std::str::from_utf8(bytes).map_err(|_| {
                        WireError::new("22021", "invalid byte sequence for encoding \"UTF8\"")
                    })?;
                    column.append_text(text)?;
                }
            }
            Ok(ScalarValue::try_from_array(&column.finish()?, 0)?)
        };
        types.iter().zip(values).enumerate().map(decode).collect::<Result<_, WireError>>().map(Self)
    }
}

/// Finds the types of a statement. `declared` are those the client gives.
pub(crate) async fn prepare(
    session: &mut Session,
    parsed: Option<Parsed>,
    declared: &[Option<Field>],
) -> Result<Prepared, WireError> {
    let Some(parsed) = parsed else {
        return Ok(Prepared { parsed: None, parameters: Vec::new(), result: None, lookup: None });
    };
    let in_zone = |field: &Option<Field>| field.clone().map(|field| session.settings.in_zone(field));
    let declared: Vec<Option<Field>> = declared.iter().map(in_zone).collect();
    let Types { mut parameters, result, lookup } = types(session, &parsed.statement, &declared).await?;
    for (index, declared) in declared.iter().enumerate() {
        match (parameters.get_mut(index), declared) {
            (Some(slot), Some(declared)) => *slot = declared.clone(),
            (None, declared) => parameters.push(declared.clone().unwrap_or_else(text)),
            _ => {}
        }
    }
    Ok(Prepared { parsed: Some(parsed), parameters, result, lookup })
}

/// PREPARE.
pub(super) async fn prepare_named(session: &mut Session, named: &Prepare) -> Result<Outcome, WireError> {
    check_new_statement(session, &named.name)?;
    let declared: Vec<_> = named.types.iter().cloned().map(Some).collect();
    let prepared = Box::pin(prepare(session, Some(named.prepared.as_ref().clone()), &declared)).await?;
    session.statements.insert(named.name.clone(), Arc::new(prepared));
    Ok(Outcome::done("PREPARE"))
}

/// Makes sure that a prepared statement can have a name.
pub(crate) fn check_new_statement(session: &Session, name: &str) -> Result<(), WireError> {
    if !name.is_empty() && session.statements.contains_key(name) {
        return Err(WireError::new("42P05", format!("prepared statement \"{name}\" already exists")));
    }
    if session.statements.len() >= MAX_NAMED {
        let message = format!("a session has at most {MAX_NAMED} prepared statements");
        return Err(WireError::new("54000", message));
    }
    Ok(())
}

/// EXECUTE.
pub(super) async fn execute_named(
    session: &mut Session,
    name: &str,
    arguments: &[Expr],
) -> Result<Outcome, WireError> {
    let prepared = Arc::clone(session.statements.get(name).ok_or_else(|| no_statement(name))?);
    if arguments.len() != prepared.parameters.len() {
        let (wanted, given) = (prepared.parameters.len(), arguments.len());
        let message = format!("wrong number of parameters for prepared statement \"{name}\"");
        let mut error = WireError::new("42601", message);
        error.detail = Some(format!("Expected {wanted} parameters but got {given}."));
        return Err(error);
    }
    let parameters = argument_values(session, arguments, &prepared.parameters).await?;
    let Some(parsed) = &prepared.parsed else { return Err(no_statement(name)) };
    Box::pin(super::execute(session, parsed, &parameters)).await
}

/// The values of arguments: those of a query that selects them.
async fn argument_values(
    session: &mut Session,
    arguments: &[Expr],
    types: &[Field],
) -> Result<Parameters, WireError> {
    if arguments.is_empty() {
        return Ok(Parameters::default());
    }
    let list: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let values = sql::parse_query(&format!("SELECT {}", list.join(", ")))?;
    let mut rows = Box::pin(query::pull(session, &values, &Parameters::default())).await?;
    let row = rows.batches.next().await.transpose()?;
    let row = row.ok_or_else(|| WireError::new("42601", "the arguments have no values"))?;
    let value = |(column, field): (&ArrayRef, &Field)| -> Result<ScalarValue, WireError> {
        Ok(ScalarValue::try_from_array(&insert::strict_cast(column, field)?, 0)?)
    };
    row.columns().iter().zip(types).map(value).collect::<Result<_, _>>().map(Parameters)
}

/// What is known of a statement before it runs.
#[derive(Default)]
struct Types {
    parameters: Vec<Field>,
    result: Option<(Vec<String>, SchemaRef)>,
    lookup: Option<PointLookup>,
}

impl Types {
    fn of_result(result: (Vec<String>, SchemaRef)) -> Self {
        Self { result: Some(result), ..Self::default() }
    }
}

async fn types(
    session: &mut Session,
    statement: &Statement,
    declared: &[Option<Field>],
) -> Result<Types, WireError> {
    match statement {
        Statement::Query(q) if q.emit.is_some() => {
            let snapshot = session.snapshot().await?;
            let (dataflow, names, _) = query::plan_push(session, &snapshot, q)?;
            Ok(Types::of_result((names, Arc::clone(dataflow.schema().inner()))))
        }
        Statement::Query(q) => {
            let snapshot = session.snapshot().await?;
            let bound = query::bind(session, &snapshot, q)?;
            let plan = with_types(bound.plan, declared)?;
            let parameters = parameter_types(&plan)?;
            let origins = planner::origins(&plan);
            // What is asked of some rows only is not what another role would be asked.
            let sees_all = |id| snapshot.catalog.access().sees_all(session.role(), id);
            let lookup = PointLookup::of(&plan).filter(|lookup| sees_all(lookup.relation.id));
            let schema = with_origins(&analyzed(session, plan)?, &origins);
            Ok(Types { parameters, result: Some((bound.names, schema)), lookup })
        }
        Statement::Fetch(fetch) if !fetch.moves => {
            Ok(Types::of_result(session.cursors.columns(&fetch.name)?))
        }
        Statement::Execute { name, .. } => {
            let prepared = session.statements.get(name).ok_or_else(|| no_statement(name))?;
            Ok(Types { result: prepared.result.clone(), ..Types::default() })
        }
        Statement::Declare(declare) => {
            let declared = Box::pin(types(session, &declare.statement, declared)).await?;
            Ok(Types { parameters: declared.parameters, ..Types::default() })
        }
        Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => {
            let mut parameters = match statement {
                Statement::Insert(insert) => insert::parameter_types(session, insert).await?,
                _ => super::dml::parameter_types(session, statement).await?,
            };
            let Some(returned) = super::dml::returned_columns(session, statement)? else {
                return Ok(Types { parameters, ..Types::default() });
            };
            let plan = with_types(returned.plan, declared)?;
            let more = parameter_types(&plan)?;
            parameters.extend(more.into_iter().skip(parameters.len()));
            let result = Some((returned.names, analyzed(session, plan)?));
            Ok(Types { parameters, result, lookup: None })
        }
        Statement::ShowObjects(_)
        | Statement::ShowSetting(_)
        | Statement::Describe(_)
        | Statement::Explain(_) => {
            let parsed = Parsed { statement: statement.clone(), text: String::new() };
            match Box::pin(super::execute(session, &parsed, &Parameters::default())).await? {
                super::Outcome::Rows(rows) => Ok(Types::of_result((rows.names, rows.schema))),
                _ => Ok(Types::default()),
            }
        }
        Statement::Subscribe(subscribe) => {
            let rows = query::push(session, &subscribe.query, Some(subscribe)).await?;
            Ok(Types::of_result((rows.names, rows.schema)))
        }
        _ => Ok(Types::default()),
    }
}

/// The layout of a plan's result: its types are those after coercion.
fn analyzed(session: &Session, plan: LogicalPlan) -> Result<SchemaRef, WireError> {
    let state = &session.shared.state;
    let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
    Ok(Arc::new(plan.schema().as_arrow().clone()))
}

/// A plan whose parameters have the types that the client declares, or else that casts give them.
fn with_types(plan: LogicalPlan, declared: &[Option<Field>]) -> Result<LogicalPlan, WireError> {
    let typed = |placeholder: &Placeholder, cast: Option<&Field>| -> Option<PlanExpr> {
        let number = placeholder.id.trim_start_matches('$').parse::<usize>().ok()?.checked_sub(1)?;
        let field = declared.get(number).cloned().flatten().or_else(|| cast.cloned())?;
        let field = Some(Arc::new(field));
        Some(PlanExpr::Placeholder(Placeholder::new_with_field(placeholder.id.clone(), field)))
    };
    let parameter = |data_type: DataType| Field::new("", data_type, true);
    let with_type = |expr: PlanExpr, schema: &DFSchema| {
        expr.transform_down(|expr| {
            let found = match &expr {
                PlanExpr::Cast(cast) => match cast.expr.as_ref() {
                    PlanExpr::Placeholder(p) if p.field.is_none() => {
                        typed(p, Some(&parameter(cast.field.data_type().clone()))).map(|inner| {
                            PlanExpr::Cast(Cast { expr: Box::new(inner), field: Arc::clone(&cast.field) })
                        })
                    }
                    _ => None,
                },
                // A cast to a type that a function reads.
                PlanExpr::ScalarFunction(f) if planner::reads_as(f.func.name()).is_some() => {
                    match (planner::reads_as(f.func.name()), f.args.first()) {
                        (Some(field), Some(PlanExpr::Placeholder(p))) if p.field.is_none() => {
                            typed(p, Some(&field)).map(|read| {
                                let args = [&[read], &f.args[1..]].concat();
                                PlanExpr::ScalarFunction(ScalarFunction { args, ..f.clone() })
                            })
                        }
                        _ => None,
                    }
                }
                // `x = ANY($1)`: the parameter holds values like x.
                PlanExpr::ScalarFunction(f) if f.func.name() == "array_has" => match f.args.as_slice() {
                    [PlanExpr::Placeholder(p), value] if p.field.is_none() => {
                        let list =
                            value.get_type(schema).map(|t| parameter(DataType::new_list(t, true))).ok();
                        typed(p, list.as_ref()).map(|list| {
                            let args = vec![list, value.clone()];
                            PlanExpr::ScalarFunction(ScalarFunction { args, ..f.clone() })
                        })
                    }
                    _ => None,
                },
                PlanExpr::Placeholder(p) if p.field.is_none() => typed(p, None),
                _ => None,
            };
            Ok(found.map_or_else(|| Transformed::no(expr), Transformed::yes))
        })
    };
    let plan = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let counts = matches!(node, LogicalPlan::Limit(_)).then(|| parameter(DataType::Int64));
        let node = node.map_expressions(|expr| match (&expr, &counts) {
            (PlanExpr::Placeholder(p), Some(count)) if p.field.is_none() => {
                Ok(typed(p, Some(count)).map_or_else(|| Transformed::no(expr), Transformed::yes))
            }
            _ => with_type(expr, &schema),
        })?;
        if node.transformed { Ok(Transformed::yes(node.data.recompute_schema()?)) } else { Ok(node) }
    })?;
    Ok(plan.data.recompute_schema()?)
}

/// Types of `$1`, `$2`, … as the plan needs them; text where it does not say, as PostgreSQL.
pub(super) fn parameter_types(plan: &LogicalPlan) -> Result<Vec<Field>, WireError> {
    let mut found: HashMap<usize, Option<FieldRef>> = HashMap::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let PlanExpr::Placeholder(placeholder) = expr
                    && let Ok(number) = placeholder.id.trim_start_matches('$').parse()
                {
                    let known = found.entry(number).or_default();
                    *known = known.take().or_else(|| placeholder.field.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let count = found.keys().copied().max().unwrap_or(0);
    let field = |number: usize| match found.get(&number).and_then(Option::as_ref) {
        // What is compared with varchar is text.
        Some(field) => match TextType::of(field) {
            Some(TextType::Varchar(_)) | None => Field::new("", field.data_type().clone(), true),
            Some(json) => json.on(Field::new("", DataType::Utf8, true)),
        },
        None => text(),
    };
    Ok((1..=count).map(field).collect())
}

/// A parameter of which nothing is said.
fn text() -> Field {
    Field::new("", DataType::Utf8, true)
}
