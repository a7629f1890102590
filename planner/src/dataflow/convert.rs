//! From DataFusion's optimised logical plan to our nodes, or an error that says what is missing.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, JoinType, NullEquality};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Volatility, lit};

use super::fragment::RowsInput;
use super::{Dataflow, Joins, Node, NodeId, NodeKind, logical_key, properties, session, temporal};
use crate::error::{Error, Result};
use crate::session_assign::{SessionAssign, expand_sessions};
use crate::source::RelationSource;
use crate::window_assign::WindowAssign;

impl Dataflow {
    /// Makes the dataflow of a bound plan.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for anything that cannot be kept up to date, before anything exists.
    pub fn try_new(state: &SessionState, plan: &LogicalPlan, joins: Joins, emit: sql::Emit) -> Result<Self> {
        let (plan, timely) = temporal::mark(plan)?;
        refuse_volatile(&plan)?;
        // Scalar subqueries become joins, so that they are kept up to date too.
        let mut state = state.clone();
        state.config_mut().options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        // The names that the optimizer makes up are part of the plan: the same statement has the same, whatever
        // was planned before it.
        state.execution_props_mut().alias_generator = Arc::default();
        let state = if timely { without_shared_expressions(state) } else { state };
        let mut converter = Converter { nodes: Vec::new(), joins, emit, apart: false };
        let mut optimized = state.optimize(&plan)?;
        let mut root = converter.node(&optimized);
        if converter.apart {
            session::refuse_apart(&plan, emit)?;
            optimized = state.optimize(&expand_sessions(plan)?)?;
            converter = Converter { nodes: Vec::new(), joins, emit, apart: false };
            root = converter.node(&optimized);
        }
        let (nodes, root) = reached(converter.nodes, root?);
        let waits = nodes.iter().any(|n| {
            matches!(n.kind, NodeKind::EmitFinal { .. } | NodeKind::SessionAggregate { emit_final: true, .. })
        });
        if emit == sql::Emit::Final && !waits {
            return Err(Error::Definition("EMIT FINAL needs a window: WINDOW … GROUP BY".into()));
        }
        let append_only = properties::append_only(&nodes, root);
        let by_joins = logical_key::key(&optimized).filter(|_| !append_only);
        let key = by_joins.unwrap_or_else(|| properties::key(&nodes, root));
        Ok(Self { nodes, root, key, append_only, identities: OnceLock::new() })
    }
}

/// The nodes that a result is made of, and where its own is then: what a rewrite has left over goes.
fn reached(nodes: Vec<Node>, root: NodeId) -> (Vec<Node>, NodeId) {
    let mut needed = vec![false; nodes.len()];
    needed[root] = true;
    // Inputs come before the nodes that read them.
    for id in (0..nodes.len()).rev().filter(|id| *id <= root) {
        if needed[id] {
            nodes[id].inputs.iter().for_each(|input| needed[*input] = true);
        }
    }
    let mut places = vec![0; nodes.len()];
    let mut kept = Vec::new();
    for (id, mut node) in nodes.into_iter().enumerate().filter(|(id, _)| needed[*id]) {
        places[id] = kept.len();
        node.inputs.iter_mut().for_each(|input| *input = places[*input]);
        kept.push(node);
    }
    (kept, places[root])
}

/// now() must stay in the condition where it is compared.
fn without_shared_expressions(state: SessionState) -> SessionState {
    let rules = state.optimizers().iter().filter(|rule| rule.name() != "common_sub_expression_eliminate");
    let rules = rules.cloned().collect();
    SessionStateBuilder::new_from_existing(state).with_optimizer_rules(rules).build()
}

/// An answer that depends on when it is computed cannot be kept: the optimizer would freeze it.
fn refuse_volatile(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(f) = e {
                    let timely = matches!(
                        f.name(),
                        "now" | "current_date" | "current_time" | "current_timestamp" | "today"
                    );
                    if timely || f.func.signature().volatility == Volatility::Volatile {
                        found = Some(f.name().to_owned());
                        return Ok(TreeNodeRecursion::Stop);
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match found {
        Some(name) => Err(Error::continuous(
            format!("the function {name}"),
            "now() may stand in WHERE, compared with a column",
        )),
        None => Ok(()),
    }
}

pub(super) struct Converter {
    pub(super) nodes: Vec<Node>,
    joins: Joins,
    pub(super) emit: sql::Emit,
    /// Sessions were found that have no operator.
    pub(super) apart: bool,
}

impl Converter {
    pub(super) fn push(&mut self, kind: NodeKind, inputs: Vec<NodeId>, schema: &DFSchemaRef) -> NodeId {
        // What is written twice is computed once.
        let same = |n: &Node| n.inputs == inputs && n.schema == *schema && n.kind.is_same(&kind);
        if let Some(at) = self.nodes.iter().position(same) {
            return at;
        }
        self.nodes.push(Node { kind, inputs, schema: Arc::clone(schema) });
        self.nodes.len() - 1
    }

    pub(super) fn node(&mut self, plan: &LogicalPlan) -> Result<NodeId> {
        match plan {
            LogicalPlan::TableScan(scan) if is_series(scan) => Ok(self.values(plan)),
            LogicalPlan::TableScan(scan) => self.source(scan, &scan.projected_schema),
            LogicalPlan::Filter(filter) => {
                refuse_subqueries(&filter.predicate)?;
                let input = match self.first_numbered(filter)? {
                    Some(rows) => rows,
                    None => self.node(&filter.input)?,
                };
                self.filter(&filter.predicate, input, plan.schema())
            }
            LogicalPlan::Projection(projection) => {
                if let Some(chain) = self.window_chain(plan)? {
                    return Ok(chain);
                }
                let input = self.node(&projection.input)?;
                projection.expr.iter().try_for_each(refuse_subqueries)?;
                Ok(self.push(NodeKind::Project(projection.expr.clone()), vec![input], plan.schema()))
            }
            LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
                // With another name, it is still the relation: a join may look rows up in it.
                LogicalPlan::TableScan(scan) if !is_series(scan) => self.source(scan, plan.schema()),
                input => {
                    let input = self.node(input)?;
                    // Same rows under other names.
                    self.relabel(input, plan.schema())
                }
            },
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| self.node(input)).collect::<Result<Vec<_>>>()?;
                let inputs =
                    inputs.into_iter().map(|i| self.coerce(i, plan.schema())).collect::<Result<Vec<_>>>()?;
                Ok(self.push(NodeKind::Union, inputs, plan.schema()))
            }
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowAssign>()
            {
                Some(window) => {
                    let input = self.node(&window.input)?;
                    let mut spec = window.spec;
                    if self.emit == sql::Emit::Final {
                        spec.grace_ms.get_or_insert(0);
                    } else if !properties::append_only(&self.nodes, input) {
                        // Rows that change are never late: one that was refused could not be taken back.
                        spec.grace_ms = None;
                    }
                    let kind = NodeKind::Window { time: window.time.clone(), spec, merged: None };
                    let inputs = self.told_time(vec![input], spec.grace_ms.is_some())?;
                    Ok(self.push(kind, inputs, plan.schema()))
                }
                None if extension.node.as_any().is::<SessionAssign>() => Err(self.sessions_apart()),
                None => Err(Error::continuous(extension.node.name(), "")),
            },
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => match self.window_chain(plan)? {
                Some(chain) => Ok(chain),
                None => self.window(window),
            },
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            // A condition that can never hold: no rows, ever.
            LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row => {
                Ok(self.push(NodeKind::Union, Vec::new(), plan.schema()))
            }
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Ok(self.values(plan)),
            LogicalPlan::RecursiveQuery(query) => self.recursion(query),
            other => Err(Error::continuous(format!("the operation {}", other.display()), "")),
        }
    }

    /// The inputs of an operator with a stream time, and the clock where it `closes` and its rows may
    /// stop coming.
    pub(super) fn told_time(&mut self, mut inputs: Vec<NodeId>, closes: bool) -> Result<Vec<NodeId>> {
        if closes && properties::idle_ms(&self.nodes, inputs[0]).is_some() {
            inputs.push(self.push(NodeKind::Now, Vec::new(), &temporal::now_schema()?));
        }
        Ok(inputs)
    }

    fn values(&mut self, plan: &LogicalPlan) -> NodeId {
        self.push(NodeKind::Values(Arc::new(plan.clone())), Vec::new(), plan.schema())
    }

    fn source(&mut self, scan: &logical::TableScan, schema: &DFSchemaRef) -> Result<NodeId> {
        let source: &dyn std::any::Any = scan.source.as_ref();
        let Some(source) = source.downcast_ref::<RelationSource>() else {
            return Err(Error::continuous(
                format!("the system relation \"{}\"", scan.table_name),
                "SELECT from it instead",
            ));
        };
        let columns =
            scan.projection.clone().unwrap_or_else(|| (0..scan.projected_schema.fields().len()).collect());
        let kind = NodeKind::Source { relation: Arc::clone(&source.relation), columns };
        Ok(self.push(kind, Vec::new(), schema))
    }

    fn relabel(&mut self, input: NodeId, schema: &DFSchemaRef) -> Result<NodeId> {
        let from = Arc::clone(&self.nodes[input].schema);
        let exprs = (0..from.fields().len()).map(|i| Expr::Column(from.columns()[i].clone())).collect();
        Ok(self.push(NodeKind::Project(exprs), vec![input], schema))
    }

    /// Rows for the elements of lists: linear, so each change is expanded alone, its weight beside it.
    fn unnest(&mut self, unnest: &logical::Unnest) -> Result<NodeId> {
        let input = self.node(&unnest.input)?;
        let mut fields: Vec<_> =
            self.nodes[input].schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        fields.push((None, Arc::new(Field::new("\u{1}weight", DataType::Int64, false))));
        let leaf = RowsInput::plan(&DFSchema::new_with_metadata(fields, HashMap::new())?)?;
        let fragment =
            logical::Unnest::try_new(Arc::new(leaf), unnest.exec_columns.clone(), unnest.options.clone())?;
        let kind = NodeKind::Unnest { fragment: Arc::new(LogicalPlan::Unnest(fragment)) };
        Ok(self.push(kind, vec![input], &unnest.schema))
    }

    /// Casts an input of UNION to the common types.
    fn coerce(&mut self, input: NodeId, schema: &DFSchemaRef) -> Result<NodeId> {
        let from = Arc::clone(&self.nodes[input].schema);
        let same = from.fields().iter().zip(schema.fields()).all(|(a, b)| a.data_type() == b.data_type());
        if same {
            return Ok(input);
        }
        let exprs = from
            .columns()
            .into_iter()
            .zip(schema.fields())
            .map(|(column, field)| Ok(Expr::Column(column).cast_to(field.data_type(), &from)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(self.push(NodeKind::Project(exprs), vec![input], schema))
    }

    fn join(&mut self, join: &logical::Join) -> Result<NodeId> {
        let left = self.node(&join.left)?;
        let right = self.node(&join.right)?;
        if let Some(filter) = &join.filter {
            refuse_subqueries(filter)?;
            temporal::refuse(filter)?;
        }
        let streams = [left, right].map(|id| properties::append_only(&self.nodes, id));
        let (on, filter) = (equalities(join), join.filter.clone());
        if streams == [true, true]
            && let Some(within) = self.within(join, self.joins)
        {
            return self.join_within(join, [left, right], &within);
        }
        if let Some(chosen) = self.greatest(join, [left, right])? {
            return Ok(chosen);
        }
        let kind = match (self.joins, streams, join.join_type) {
            (Joins::StreamTable, [true, false], JoinType::Inner | JoinType::Left) => {
                NodeKind::Lookup { on, filter, outer: join.join_type == JoinType::Left }
            }
            (Joins::StreamTable, [true, true], JoinType::Inner) => inner(join),
            (Joins::StreamTable, [true, true], _) => {
                return Err(Error::continuous(
                    "an outer join of two streams without WITHIN, with a stream as its result",
                    "add WITHIN and GRACE PERIOD, or use CREATE MATERIALIZED VIEW, which keeps all pairs",
                ));
            }
            (Joins::StreamTable, [false, true], _) => {
                return Err(Error::continuous(
                    "a stream on the right side of a join with a table",
                    "write the stream first",
                ));
            }
            (_, _, JoinType::Inner) => inner(join),
            _ => return self.outer_join(join, left, right),
        };
        Ok(self.push(kind, vec![left, right], &join.schema))
    }
}

/// The equalities of a join; all rows have one key where it has none.
pub(super) fn equalities(join: &logical::Join) -> Vec<(Expr, Expr)> {
    if join.on.is_empty() { vec![(lit(1), lit(1))] } else { join.on.clone() }
}

/// The inner join of a join's condition.
pub(super) fn inner(join: &logical::Join) -> NodeKind {
    NodeKind::Join {
        on: equalities(join),
        filter: join.filter.clone(),
        null_equal: join.null_equality == NullEquality::NullEqualsNull,
        within: None,
    }
}

/// Whether a scan is of a function that always gives the same rows.
fn is_series(scan: &logical::TableScan) -> bool {
    matches!(scan.table_name.table(), "generate_series()" | "range()")
}

fn refuse_subqueries(expr: &Expr) -> Result<()> {
    let found = expr.exists(|e| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..)
        ))
    })?;
    if found { Err(Error::continuous("this subquery", "write it as a join")) } else { Ok(()) }
}
