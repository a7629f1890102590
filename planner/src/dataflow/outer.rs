//! Semi, anti and outer joins, made of nodes there are already.
//!
//! ```text
//! L semi R = L join distinct(keys of R)       L left R = L join R + (L anti R, NULLs)
//! L anti R = L - (L semi R)                   L full R = L left R + (NULLs, R anti L)
//! ```
//! As Z-sets these are identities, so they hold under every change.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::common::{DFSchema, DFSchemaRef, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::{Expr, ExprSchemable, lit};

use super::convert::{Converter, equalities, inner};
use super::{NodeId, NodeKind};
use crate::error::{Error, Result};

/// Which side of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Converter {
    pub(super) fn outer_join(&mut self, join: &logical::Join, left: NodeId, right: NodeId) -> Result<NodeId> {
        if join.null_aware {
            return self.null_aware(join, left, right);
        }
        match join.join_type {
            JoinType::LeftMark => {
                let met = self.semi(join, left, right, Side::Left)?;
                let alone = self.minus(left, met);
                self.marked(&[(met, Some(true)), (alone, Some(false))], &join.schema)
            }
            JoinType::LeftSemi => self.semi(join, left, right, Side::Left),
            JoinType::RightSemi => self.semi(join, right, left, Side::Right),
            JoinType::LeftAnti => self.anti(join, left, right, Side::Left),
            JoinType::RightAnti => self.anti(join, right, left, Side::Right),
            JoinType::Left | JoinType::Right | JoinType::Full => {
                let mut parts = vec![self.push(inner(join), vec![left, right], &join.schema)];
                if join.join_type != JoinType::Right {
                    let alone = self.anti(join, left, right, Side::Left)?;
                    parts.push(self.padded(alone, &join.schema, Side::Left)?);
                }
                if join.join_type != JoinType::Left {
                    let alone = self.anti(join, right, left, Side::Right)?;
                    parts.push(self.padded(alone, &join.schema, Side::Right)?);
                }
                Ok(self.push(NodeKind::Union, parts, &join.schema))
            }
            other => Err(Error::continuous(format!("a {} join", other.to_string().to_uppercase()), "")),
        }
    }

    /// Rows of `kept` that meet a row of `other`.
    fn semi(&mut self, join: &logical::Join, kept: NodeId, other: NodeId, side: Side) -> Result<NodeId> {
        let own = self.columns(kept);
        // What names a row that is met: its key, or with a further condition the whole row.
        let (from, found, wanted, null_equal) = if join.filter.is_some() {
            (self.met(join, kept, other, side)?, own.clone(), own, true)
        } else {
            let (left, right): (Vec<Expr>, Vec<Expr>) = equalities(join).into_iter().unzip();
            let (wanted, found) = if side == Side::Left { (left, right) } else { (right, left) };
            (other, found, wanted, join.null_equality == NullEquality::NullEqualsNull)
        };
        self.semi_on(kept, wanted, from, found, null_equal)
    }

    fn columns(&self, node: NodeId) -> Vec<Expr> {
        self.nodes[node].schema.columns().into_iter().map(Expr::Column).collect()
    }

    /// Rows of `kept` whose `wanted` is among the values `found` of `from`.
    fn semi_on(
        &mut self,
        kept: NodeId,
        wanted: Vec<Expr>,
        from: NodeId,
        found: Vec<Expr>,
        null_equal: bool,
    ) -> Result<NodeId> {
        let kept_schema = Arc::clone(&self.nodes[kept].schema);
        let own = self.columns(kept);
        let distinct = self.distinct(from, found)?;
        let keys = Arc::clone(&self.nodes[distinct].schema);
        let on = wanted.into_iter().zip(keys.columns().into_iter().map(Expr::Column)).collect();
        let both: DFSchemaRef = Arc::new(kept_schema.join(&keys)?);
        let joined = self.push(
            NodeKind::Join { on, filter: None, null_equal, within: None },
            vec![kept, distinct],
            &both,
        );
        Ok(self.push(NodeKind::Project(own), vec![joined], &kept_schema))
    }

    /// All rows of `kept`, if `other` has any.
    fn if_any(&mut self, kept: NodeId, other: NodeId) -> Result<NodeId> {
        self.semi_on(kept, vec![lit(1)], other, vec![lit(1)], false)
    }

    /// NOT IN and IN as SQL has them: a NULL on either side makes an answer unknown that is not true.
    fn null_aware(&mut self, join: &logical::Join, left: NodeId, right: NodeId) -> Result<NodeId> {
        let ([(wanted, found)], None) = (join.on.as_slice(), &join.filter) else {
            return Err(Error::continuous(
                "NOT IN with a correlated subquery",
                "NOT EXISTS is, and treats NULL as you would expect",
            ));
        };
        let met = self.semi_on(left, vec![wanted.clone()], right, vec![found.clone()], false)?;
        let rest = self.minus(left, met);
        let null_found = self.filtered(right, found.clone().is_null());
        let unknown_there = self.if_any(rest, null_found)?;
        let rest = self.minus(rest, unknown_there);
        let null_wanted = self.filtered(rest, wanted.clone().is_null());
        let unknown_here = self.if_any(null_wanted, right)?;
        let alone = self.minus(rest, unknown_here);
        match join.join_type {
            JoinType::LeftAnti => Ok(alone),
            JoinType::LeftMark => {
                let parts =
                    [(met, Some(true)), (unknown_there, None), (unknown_here, None), (alone, Some(false))];
                self.marked(&parts, &join.schema)
            }
            other => Err(Error::continuous(format!("NOT IN as a {other} join"), "")),
        }
    }

    fn filtered(&mut self, rows: NodeId, predicate: Expr) -> NodeId {
        let schema = Arc::clone(&self.nodes[rows].schema);
        self.push(NodeKind::Filter(predicate), vec![rows], &schema)
    }

    /// Rows with a truth value behind them.
    fn marked(&mut self, parts: &[(NodeId, Option<bool>)], schema: &DFSchemaRef) -> Result<NodeId> {
        let mut inputs = Vec::new();
        for (part, mark) in parts {
            let mut exprs = self.columns(*part);
            exprs.push(Expr::Literal(ScalarValue::Boolean(*mark), None));
            inputs.push(self.push(NodeKind::Project(exprs), vec![*part], schema));
        }
        Ok(self.push(NodeKind::Union, inputs, schema))
    }

    /// All pairs that meet the whole condition, left columns first.
    fn met(&mut self, join: &logical::Join, kept: NodeId, other: NodeId, side: Side) -> Result<NodeId> {
        let (left, right) = if side == Side::Left { (kept, other) } else { (other, kept) };
        let both: DFSchemaRef = Arc::new(self.nodes[left].schema.join(&self.nodes[right].schema)?);
        Ok(self.push(inner(join), vec![left, right], &both))
    }

    /// The distinct values of expressions, under names of their own.
    fn distinct(&mut self, from: NodeId, exprs: Vec<Expr>) -> Result<NodeId> {
        let input = Arc::clone(&self.nodes[from].schema);
        let fields = exprs
            .iter()
            .enumerate()
            .map(|(i, expr)| {
                Ok((None, Arc::new(Field::new(format!("\u{1}key{i}"), expr.get_type(&input)?, true))))
            })
            .collect::<Result<Vec<_>>>()?;
        let schema: DFSchemaRef = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        let group = schema.columns().into_iter().map(Expr::Column).collect();
        let values = self.push(NodeKind::Project(exprs), vec![from], &schema);
        Ok(self.push(NodeKind::Aggregate { group, aggregates: Vec::new() }, vec![values], &schema))
    }

    /// Rows of `kept` whose key is not among those of `other`.
    fn anti(&mut self, join: &logical::Join, kept: NodeId, other: NodeId, side: Side) -> Result<NodeId> {
        let semi = self.semi(join, kept, other, side)?;
        Ok(self.minus(kept, semi))
    }

    /// Rows of `all` that are not in `part`, which is a part of it.
    fn minus(&mut self, all: NodeId, part: NodeId) -> NodeId {
        let schema = Arc::clone(&self.nodes[all].schema);
        let negated = self.push(NodeKind::Negate, vec![part], &schema);
        self.push(NodeKind::Union, vec![all, negated], &schema)
    }

    /// Rows of one side with NULLs for the other.
    pub(super) fn padded(&mut self, rows: NodeId, schema: &DFSchemaRef, side: Side) -> Result<NodeId> {
        let own = self.columns(rows);
        let width = schema.fields().len() - own.len();
        let (from, to) = if side == Side::Left { (own.len(), own.len() + width) } else { (0, width) };
        let nulls = (from..to)
            .map(|i| Ok(Expr::Literal(ScalarValue::try_from(schema.field(i).data_type())?, None)))
            .collect::<Result<Vec<_>>>()?;
        let exprs = if side == Side::Left { [own, nulls].concat() } else { [nulls, own].concat() };
        Ok(self.push(NodeKind::Project(exprs), vec![rows], schema))
    }
}
