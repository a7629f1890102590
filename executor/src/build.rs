//! From a dataflow's nodes to operators: the one `match` over node kinds.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use planner::{Dataflow, Node, NodeKind, Within};

use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::fragment::Fragment;
use crate::layout::nullable;
use crate::operator::Operator;
use crate::operators::{
    Aggregate, AggregateCall, AssignWindows, EmitFinal, Expiry, Filter, Greatest, Join, JoinSpec, KeyedRows,
    Lookup, Negate, Project, Recompute, RecomputeShard, SessionAggregate, Sessions, TemporalFilter, TopN,
    TopNSpec, Union, Unmatched, Unnest, Values, WindowMerger,
};

/// The operator of a node; None for a source.
///
/// # Errors
/// Expressions that do not compile.
pub(crate) fn operator(dataflow: &Dataflow, node: &Node, shards: usize) -> Result<Option<Box<dyn Operator>>> {
    let schema: SchemaRef = Arc::clone(node.schema.inner());
    let input = |n: usize| -> &DFSchema { &dataflow.nodes[node.inputs[n]].schema };
    let operator: Box<dyn Operator> = match &node.kind {
        NodeKind::Source { .. } | NodeKind::Now => return Ok(None),
        NodeKind::Filter(predicate) => Box::new(Filter(Expression::compile(predicate, input(0))?)),
        NodeKind::TemporalFilter(predicates) => {
            let with_now = input(0).join(input(1))?;
            let predicates = Expression::compile_all(predicates, &with_now)?;
            Box::new(TemporalFilter::try_new(predicates, nullable(&schema), nullable(with_now.as_arrow()))?)
        }
        NodeKind::Project(exprs) => Box::new(Project {
            exprs: Expression::compile_all(exprs, input(0))?,
            schema: schema_of(exprs, input(0), &schema)?,
        }),
        NodeKind::Window { time, spec, merged } => {
            let time = Expression::compile(time, input(0))?;
            let merger =
                merged.as_ref().map(|m| WindowMerger::try_new(m, input(0).as_arrow())).transpose()?;
            Box::new(AssignWindows::new(time, *spec, merger, dataflow.idle_ms(node), schema))
        }
        NodeKind::EmitFinal { end, time, grace_ms } => Box::new(EmitFinal::try_new(
            Expression::compile(end, input(0))?,
            Expression::compile(time, input(1))?,
            *grace_ms,
            dataflow.idle_ms(node),
            nullable(&schema),
        )?),
        NodeKind::Aggregate { group, aggregates } => {
            let retracting = !dataflow.append_only_at(node.inputs[0]);
            let calls = calls(aggregates, input(0), &schema, group.len())?;
            let group = Expression::compile_all(group, input(0))?;
            Box::new(Aggregate::try_new(group, calls, schema, retracting, shards)?)
        }
        NodeKind::SessionAggregate { spec, columns, aggregates, emit_final } => {
            let calls = calls(aggregates, input(0), &schema, columns.len())?;
            let sessions = Sessions {
                time: Expression::compile(&spec.time, input(0))?,
                time_type: spec.time.get_type(input(0))?,
                keys: Expression::compile_all(&spec.keys, input(0))?,
                key_types: types(&spec.keys, input(0))?,
                gap_ms: spec.gap_ms,
                grace_ms: spec.grace_ms,
                end_after_gap: spec.end_after_gap,
                columns: columns.clone(),
                calls,
                emit_final: *emit_final,
                idle_ms: dataflow.idle_ms(node),
                schema: nullable(&schema),
            };
            Box::new(SessionAggregate::try_new(sessions, shards)?)
        }
        NodeKind::TopN { partition, order, skip, fetch, numbered } => {
            let spec = TopNSpec {
                partition: Expression::compile_all(partition, input(0))?,
                partition_types: types(partition, input(0))?,
                order: order.iter().map(|sort| ordering(sort, input(0))).collect::<Result<Vec<_>>>()?,
                skip: *skip,
                fetch: *fetch,
                numbered: *numbered,
                retracting: !dataflow.append_only_at(node.inputs[0]),
                input: nullable(input(0).as_arrow()),
                schema: nullable(&schema),
            };
            Box::new(TopN::try_new(spec, shards)?)
        }
        NodeKind::Greatest { partition, value, least } => Box::new(Greatest::new(
            Expression::compile(value, input(0))?,
            *least,
            KeyedRows::try_new(
                Expression::compile_all(partition, input(0))?,
                types(partition, input(0))?,
                &nullable(&schema),
                false,
            )?,
        )),
        NodeKind::Recompute { partition, key_columns, fragment, .. } => {
            let whole = partition.is_empty();
            let shards = if whole { 1 } else { shards.max(1) };
            let shard = |_| recompute_shard(partition, key_columns, fragment, input(0), &node.schema, whole);
            Box::new(Recompute::new((0..shards).map(shard).collect::<Result<Vec<_>>>()?))
        }
        NodeKind::Unnest { fragment } => {
            Box::new(Unnest::new(Fragment::compile(fragment)?, nullable(&schema)))
        }
        NodeKind::Values(plan) => {
            Box::new(Values { fragment: Some(Fragment::compile(plan)?), schema: nullable(&schema) })
        }
        NodeKind::Join { on, filter, null_equal, within } => {
            let mut spec = join_spec(dataflow, node, on, filter.as_ref(), *null_equal)?;
            if let Some(Within { times, wait_ms, padded, .. }) = within {
                let expiry = |n: usize| -> Result<Expiry> {
                    Ok(Expiry {
                        time: Expression::compile(&times[n], input(n))?,
                        wait_ms: wait_ms[n],
                        padded: padded[n],
                    })
                };
                spec.within = Some([expiry(0)?, expiry(1)?]);
            }
            Box::new(Join::try_new(&spec, shards)?)
        }
        NodeKind::Unmatched { times, wait_ms, eager, left } => {
            let times =
                [Expression::compile(&times[0], input(0))?, Expression::compile(&times[1], input(1))?];
            Box::new(Unmatched::try_new(times, *wait_ms, *eager, *left, nullable(&schema))?)
        }
        NodeKind::Lookup { on, filter, outer } => {
            Box::new(Lookup::try_new(&join_spec(dataflow, node, on, filter.as_ref(), false)?, *outer)?)
        }
        NodeKind::Union => Box::new(Union { schema, difference: dataflow.is_difference(node) }),
        NodeKind::Negate => Box::new(Negate),
    };
    Ok(Some(operator))
}

fn types(exprs: &[Expr], input: &DFSchema) -> Result<Vec<DataType>> {
    exprs.iter().map(|e| Ok(e.get_type(input)?)).collect()
}

fn ordering(sort: &Sort, input: &DFSchema) -> Result<(Expression, DataType, SortOptions)> {
    let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
    Ok((Expression::compile(&sort.expr, input)?, sort.expr.get_type(input)?, options))
}

fn recompute_shard(
    partition: &[Expr],
    key_columns: &[usize],
    fragment: &LogicalPlan,
    input: &DFSchema,
    output: &DFSchema,
    whole: bool,
) -> Result<RecomputeShard> {
    let fragment = Fragment::compile(fragment)?;
    let schema = nullable(output.as_arrow());
    let key: Vec<Expr> = key_columns.iter().map(|k| Expr::Column(output.columns()[*k].clone())).collect();
    let key_types = types(partition, input)?;
    let rows = Expression::compile_all(partition, input)?;
    let results = Expression::compile_all(&key, output)?;
    Ok(RecomputeShard {
        rows: KeyedRows::try_new(rows, key_types.clone(), fragment.input(), true)?,
        results: KeyedRows::try_new(results, key_types, &schema, true)?,
        fragment,
        schema,
        whole,
        tells: false,
    })
}

/// The result layout with the types the expressions really have.
fn schema_of(exprs: &[Expr], input: &DFSchema, planned: &SchemaRef) -> Result<SchemaRef> {
    let fields = exprs
        .iter()
        .zip(planned.fields())
        .map(|(expr, field)| {
            Ok(field.as_ref().clone().with_data_type(expr.get_type(input)?).with_nullable(true))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(datafusion::arrow::datatypes::Schema::new(fields)))
}

/// The calls of a select list, whose results stand behind `group` columns in `schema`.
fn calls(
    aggregates: &[Expr],
    input: &DFSchema,
    schema: &SchemaRef,
    group: usize,
) -> Result<Vec<AggregateCall>> {
    let results = schema.fields().iter().skip(group).map(|f| f.data_type().clone());
    aggregates.iter().zip(results).map(|(expr, result)| call(expr, input, result)).collect()
}

fn call(expr: &Expr, input: &DFSchema, result: DataType) -> Result<AggregateCall> {
    let Expr::AggregateFunction(function) = expr.clone().unalias() else {
        return Err(Error::bug("build", "an aggregate is no function"));
    };
    let name = function.func.name();
    let distinct = function.params.distinct && !matches!(name, "min" | "max");
    let counts_rows = |arg: &Expr| Expression::is_constant(arg) && name == "count" && !distinct;
    let argument = function.params.args.first().filter(|arg| !counts_rows(arg));
    let argument_type = function.params.args.first().map_or(Ok(result.clone()), |arg| arg.get_type(input))?;
    Ok(AggregateCall {
        function: name.to_owned(),
        distinct,
        argument: argument.map(|arg| Expression::compile(arg, input)).transpose()?,
        argument_type,
        filter: function.params.filter.as_ref().map(|f| Expression::compile(f, input)).transpose()?,
        result,
    })
}

fn join_spec(
    dataflow: &Dataflow,
    node: &Node,
    on: &[(Expr, Expr)],
    filter: Option<&Expr>,
    null_equal: bool,
) -> Result<JoinSpec> {
    let schemas = [0, 1].map(|n| &dataflow.nodes[node.inputs[n]].schema);
    let shared = dataflow.shared_side(node);
    let in_key_order = shared.as_ref().map(|s| s.order.iter().map(|at| on[*at].clone()).collect::<Vec<_>>());
    let on = in_key_order.as_deref().unwrap_or(on);
    let key_types = on.iter().map(|(left, _)| Ok(left.get_type(schemas[0])?)).collect::<Result<Vec<_>>>()?;
    let left = on.iter().map(|(l, _)| Expression::compile(l, schemas[0])).collect::<Result<Vec<_>>>()?;
    let right = on.iter().map(|(_, r)| Expression::compile(r, schemas[1])).collect::<Result<Vec<_>>>()?;
    Ok(JoinSpec {
        on: [left, right],
        key_types,
        inputs: schemas.map(|s| Arc::clone(s.inner())),
        filter: filter.map(|f| Expression::compile(f, &node.schema)).transpose()?,
        null_equal,
        within: None,
        shared: shared.map(|s| s.side),
        append_only: [0, 1].map(|n| dataflow.append_only_at(node.inputs[n])),
        schema: Arc::clone(node.schema.inner()),
    })
}
