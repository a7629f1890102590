//! A continuous query as data: a list of nodes, each after its inputs.
//!
//! Made once from an optimised logical plan; printed by EXPLAIN; built into operators by the
//! executor. Invariant: every node is one that the executor has an operator for.

mod aggregate;
mod chain;
mod convert;
mod explain;
mod fragment;
mod greatest;
mod growth;
mod identity;
mod logical_key;
mod outer;
mod properties;
mod ranking;
mod recursion;
mod session;
mod shared;
mod temporal;
mod within;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, LogicalPlan};

pub use explain::{explain, explain_with};
pub use fragment::RowsInput;
pub use identity::PlanIdentity;
pub use session::SessionColumn;
pub use shared::SharedSide;
pub use within::Within;

use crate::catalog::{Relation, RelationId};
use crate::session_assign::SessionSpec;
use crate::window_assign::WindowSpec;

/// Position of a node in its dataflow.
pub type NodeId = usize;

/// A continuous query.
#[derive(Debug, Clone)]
pub struct Dataflow {
    /// Nodes, inputs first.
    pub nodes: Vec<Node>,
    /// The node whose rows are the result.
    pub root: NodeId,
    /// Columns of the result whose values name a row; empty if none do.
    pub key: Vec<usize>,
    /// Result rows are never taken back.
    pub append_only: bool,
    /// Found when they are asked for.
    identities: OnceLock<Vec<Option<PlanIdentity>>>,
}

/// One step of a dataflow.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it does.
    pub kind: NodeKind,
    /// Where its rows come from.
    pub inputs: Vec<NodeId>,
    /// The layout of its rows.
    pub schema: DFSchemaRef,
}

/// What a node does.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// The changes of a relation, some of its columns.
    Source {
        /// Which.
        relation: Arc<Relation>,
        /// Columns of [`Relation::full_schema`].
        columns: Vec<usize>,
    },
    /// Keeps rows for which the predicate is true.
    Filter(Expr),
    /// The time of the epoch, one row.
    Now,
    /// Keeps rows while all of these are true, over the first input's rows with the second's, the
    /// time, behind them. Each is true up to a moment, or from one on.
    TemporalFilter(Vec<Expr>),
    /// Computes columns.
    Project(Vec<Expr>),
    /// Places rows in windows.
    Window {
        /// Their time.
        time: Expr,
        /// The windows.
        spec: WindowSpec,
        /// Columns of the input that matter above. Rows that are equal in them and fall into the same
        /// windows become one with their weight; None: all columns do.
        merged: Option<Vec<usize>>,
    },
    /// Rows of windows, each once, when stream time has passed the window's end and its grace. The
    /// second input is what stream time is the time of.
    EmitFinal {
        /// The window's end, of a row of the first input.
        end: Expr,
        /// The time of a row of the second.
        time: Expr,
        /// How long after its end a window takes rows, ms.
        grace_ms: i64,
    },
    /// Groups rows.
    Aggregate {
        /// By what.
        group: Vec<Expr>,
        /// What is computed for each group.
        aggregates: Vec<Expr>,
    },
    /// Groups rows that only come by session.
    SessionAggregate {
        /// The sessions.
        spec: SessionSpec,
        /// What each grouped column is.
        columns: Vec<SessionColumn>,
        /// What is computed for each session.
        aggregates: Vec<Expr>,
        /// A session comes once, when it is closed.
        emit_final: bool,
    },
    /// The first rows of each partition.
    TopN {
        /// What names a partition.
        partition: Vec<Expr>,
        /// The order; rows that are equal in it come in the order of their values.
        order: Vec<Sort>,
        /// Rows left out first.
        skip: usize,
        /// Rows kept then.
        fetch: usize,
        /// Each row's number in its partition is the last column.
        numbered: bool,
    },
    /// The rows of each partition that have its greatest value. Values of rows only rise.
    Greatest {
        /// What names a partition; a row with a NULL in it is in none.
        partition: Vec<Expr>,
        /// A whole number; NULL is no value.
        value: Expr,
        /// It is the least value, and values only fall.
        least: bool,
    },
    /// Keeps the rows of each partition and runs a fragment over those that change.
    Recompute {
        /// What names a partition.
        partition: Vec<Expr>,
        /// Columns of the result that name the partition.
        key_columns: Vec<usize>,
        /// Where each column of the input is in the result, if the result has a row for each of its rows.
        kept: Vec<Option<usize>>,
        /// Over [`RowsInput`]; any number of whole partitions at a time.
        fragment: Arc<LogicalPlan>,
    },
    /// Expands the elements of lists.
    Unnest {
        /// Over [`RowsInput`] with the weight behind the input's columns.
        fragment: Arc<LogicalPlan>,
    },
    /// Rows that are there from the beginning: those of a plan that reads no relation.
    Values(Arc<LogicalPlan>),
    /// All pairs of rows with equal keys, kept up to date on both sides.
    Join {
        /// Equal expressions, left and right.
        on: Vec<(Expr, Expr)>,
        /// A condition more.
        filter: Option<Expr>,
        /// NULL equals NULL.
        null_equal: bool,
        /// Rows are let go when their time to be joined is over; None: never.
        within: Option<Within>,
    },
    /// Rows of the first input that are in no pair of the third, a join of the first with the second,
    /// when their time to be joined is over.
    Unmatched {
        /// The times of a row of the first and of the second input, ms.
        times: [Expr; 2],
        /// How long after its time a row can be joined, ms of stream time.
        wait_ms: i64,
        /// They are given at once.
        eager: bool,
        /// The first input is the left side of the pairs.
        left: bool,
    },
    /// Each row of the left side, when it comes, with the rows the right side then has.
    Lookup {
        /// Equal expressions, left and right.
        on: Vec<(Expr, Expr)>,
        /// A condition more.
        filter: Option<Expr>,
        /// A left row without a match comes out with NULLs.
        outer: bool,
    },
    /// Rows of all inputs.
    Union,
    /// Takes back what its input brings: with Union, a difference.
    Negate,
}

/// What a join of a stream with a table means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joins {
    /// SQL's: the result follows changes on both sides.
    Relational,
    /// ksqlDB's: a stream's row meets the table as it is then, and stays.
    StreamTable,
}

impl NodeKind {
    /// Every kind's name.
    pub const NAMES: [&'static str; 19] = [
        "Source",
        "Now",
        "Filter",
        "TemporalFilter",
        "Project",
        "Window",
        "EmitFinal",
        "Aggregate",
        "SessionAggregate",
        "TopN",
        "Greatest",
        "Recompute",
        "Unnest",
        "Values",
        "Join",
        "Unmatched",
        "Lookup",
        "Union",
        "Negate",
    ];

    /// Its name, one of [`Self::NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Source { .. } => "Source",
            Self::Now => "Now",
            Self::Filter(_) => "Filter",
            Self::TemporalFilter(_) => "TemporalFilter",
            Self::Project(_) => "Project",
            Self::Window { .. } => "Window",
            Self::EmitFinal { .. } => "EmitFinal",
            Self::Aggregate { .. } => "Aggregate",
            Self::SessionAggregate { .. } => "SessionAggregate",
            Self::TopN { .. } => "TopN",
            Self::Greatest { .. } => "Greatest",
            Self::Recompute { .. } => "Recompute",
            Self::Unnest { .. } => "Unnest",
            Self::Values(_) => "Values",
            Self::Join { .. } => "Join",
            Self::Unmatched { .. } => "Unmatched",
            Self::Lookup { .. } => "Lookup",
            Self::Union => "Union",
            Self::Negate => "Negate",
        }
    }

    /// Whether two nodes over the same inputs give the same rows.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Source { relation: a, columns: x }, Self::Source { relation: b, columns: y }) => {
                a.id == b.id && a.columns.len() == b.columns.len() && x == y
            }
            (Self::Filter(a), Self::Filter(b)) => a == b,
            (Self::Project(a), Self::Project(b)) => a == b,
            (Self::Window { time: a, spec: x, merged: m }, Self::Window { time: b, spec: y, merged: n }) => {
                a == b && x == y && m == n
            }
            (Self::Aggregate { group: a, aggregates: x }, Self::Aggregate { group: b, aggregates: y }) => {
                a == b && x == y
            }
            (Self::TemporalFilter(a), Self::TemporalFilter(b)) => a == b,
            (Self::Union, Self::Union) | (Self::Negate, Self::Negate) | (Self::Now, Self::Now) => true,
            _ => false,
        }
    }
}

impl Dataflow {
    /// Relations it reads, each once.
    pub fn source_relations(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.relations_below(self.root)
    }

    /// Relations that a node reads, directly or not, each once.
    pub fn relations_below(&self, id: NodeId) -> impl Iterator<Item = &Arc<Relation>> {
        let sources = self.below(id).into_iter().filter_map(|id| match &self.nodes[id].kind {
            NodeKind::Source { relation, .. } => Some((relation.id, relation)),
            _ => None,
        });
        sources.collect::<BTreeMap<_, _>>().into_values()
    }

    /// The ids of the relations it reads.
    pub fn sources(&self) -> Vec<RelationId> {
        self.source_relations().map(|relation| relation.id).collect()
    }

    /// Whether rows of a node only ever come.
    pub fn append_only_at(&self, id: NodeId) -> bool {
        properties::append_only(&self.nodes, id)
    }

    /// How long nothing may come to an operator that is told the time before stream time goes on by
    /// itself, ms; None: for ever.
    pub fn idle_ms(&self, node: &Node) -> Option<i64> {
        let told = node.inputs.iter().any(|input| matches!(self.nodes[*input].kind, NodeKind::Now));
        if told { properties::idle_ms(&self.nodes, *node.inputs.first()?) } else { None }
    }

    /// Columns of the result that are the key of its records, as far as the query passes them on.
    pub(crate) fn record_key(&self) -> Vec<usize> {
        properties::record_key(&self.nodes, self.root)
    }

    /// The columns of the key of its records that it leaves out, so that they have none.
    pub(crate) fn lost_record_key(&self) -> Vec<String> {
        let key = if self.append_only { properties::record_key } else { properties::key };
        properties::lost_key(&self.nodes, self.root, key)
    }

    /// Whether the changes of an epoch are net as the operators give them.
    pub fn is_net(&self) -> bool {
        properties::is_net(&self.nodes, self.root)
    }

    /// Whether some inputs of a union take away what others bring.
    pub fn is_difference(&self, node: &Node) -> bool {
        properties::is_difference(&self.nodes, node)
    }

    /// Whether rows leave or come as time passes, without a change of anything it reads.
    pub fn is_timed(&self) -> bool {
        self.is_timed_below(self.root)
    }

    /// The same for the rows of a node.
    pub fn is_timed_below(&self, id: NodeId) -> bool {
        self.below(id).into_iter().any(|id| matches!(self.nodes[id].kind, NodeKind::Now))
    }

    /// The layout of its result.
    pub fn schema(&self) -> &DFSchemaRef {
        &self.nodes[self.root].schema
    }
}
