//! From a dataflow's nodes to operators: the one `match` over node kinds.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};
use planner::{Dataflow, Node, NodeKind};

use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::operator::Operator;
use crate::operators::{
    Aggregate, AggregateCall, AssignWindows, Filter, Join, JoinSpec, Lookup, Negate, Project, Union,
};

/// The operator of a node; None for a source.
///
/// # Errors
/// Expressions that do not compile.
pub(crate) fn operator(dataflow: &Dataflow, node: &Node, shards: usize) -> Result<Option<Box<dyn Operator>>> {
    let schema: SchemaRef = Arc::clone(node.schema.inner());
    let input = |n: usize| -> &DFSchema { &dataflow.nodes[node.inputs[n]].schema };
    let operator: Box<dyn Operator> = match &node.kind {
        NodeKind::Source { .. } => return Ok(None),
        NodeKind::Filter(predicate) => Box::new(Filter(Expression::compile(predicate, input(0))?)),
        NodeKind::Project(exprs) => Box::new(Project {
            exprs: Expression::compile_all(exprs, input(0))?,
            schema: schema_of(exprs, input(0), &schema)?,
        }),
        NodeKind::Window { time, spec } => {
            Box::new(AssignWindows::new(Expression::compile(time, input(0))?, *spec, schema))
        }
        NodeKind::Aggregate { group, aggregates } => {
            let retracting = !dataflow.append_only_at(node.inputs[0]);
            let calls = aggregates
                .iter()
                .enumerate()
                .map(|(i, e)| call(e, input(0), schema.field(group.len() + i).data_type().clone()))
                .collect::<Result<Vec<_>>>()?;
            let group = Expression::compile_all(group, input(0))?;
            Box::new(Aggregate::try_new(group, calls, schema, retracting, shards)?)
        }
        NodeKind::Join { on, filter, null_equal } => {
            Box::new(Join::try_new(&join_spec(dataflow, node, on, filter.as_ref(), *null_equal)?, shards)?)
        }
        NodeKind::Lookup { on, filter, outer } => {
            Box::new(Lookup::try_new(&join_spec(dataflow, node, on, filter.as_ref(), false)?, *outer)?)
        }
        NodeKind::Union => Box::new(Union { schema }),
        NodeKind::Negate => Box::new(Negate),
    };
    Ok(Some(operator))
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

fn call(
    expr: &Expr,
    input: &DFSchema,
    result: datafusion::arrow::datatypes::DataType,
) -> Result<AggregateCall> {
    let Expr::AggregateFunction(function) = expr.clone().unalias() else {
        return Err(Error::bug("build", "an aggregate is no function"));
    };
    let argument = function
        .params
        .args
        .first()
        .filter(|arg| !Expression::is_constant(arg) || function.func.name() != "count");
    let argument_type = function.params.args.first().map_or(Ok(result.clone()), |arg| arg.get_type(input))?;
    Ok(AggregateCall {
        function: function.func.name().to_owned(),
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
    let key_types = on.iter().map(|(left, _)| Ok(left.get_type(schemas[0])?)).collect::<Result<Vec<_>>>()?;
    let left = on.iter().map(|(l, _)| Expression::compile(l, schemas[0])).collect::<Result<Vec<_>>>()?;
    let right = on.iter().map(|(_, r)| Expression::compile(r, schemas[1])).collect::<Result<Vec<_>>>()?;
    Ok(JoinSpec {
        on: [left, right],
        key_types,
        inputs: schemas.map(|s| Arc::clone(s.inner())),
        filter: filter.map(|f| Expression::compile(f, &node.schema)).transpose()?,
        null_equal,
        schema: Arc::clone(node.schema.inner()),
    })
}
