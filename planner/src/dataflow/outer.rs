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
use datafusion::logical_expr::{Expr, ExprSchemable};

use super::convert::{Converter, inner};
use super::{NodeId, NodeKind};
use crate::error::{Error, Result};

/// Which side of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Converter {
    pub(super) fn outer_join(&mut self, join: &logical::Join, left: NodeId, right: NodeId) -> Result<NodeId> {
        if join.null_aware {
            return Err(Error::continuous("NOT IN", "NOT EXISTS is, and treats NULL as you would expect"));
        }
        match join.join_type {
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
        let kept_schema = Arc::clone(&self.nodes[kept].schema);
        let own: Vec<Expr> = kept_schema.columns().into_iter().map(Expr::Column).collect();
        // What names a row that is met: its key, or with a further condition the whole row.
        let (from, found, wanted, null_equal) = if join.filter.is_some() {
            (self.met(join, kept, other, side)?, own.clone(), own.clone(), true)
        } else {
            let (left, right): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
            let (wanted, found) = if side == Side::Left { (left, right) } else { (right, left) };
            (other, found, wanted, join.null_equality == NullEquality::NullEqualsNull)
        };
        let distinct = self.distinct(from, found)?;
        let keys = Arc::clone(&self.nodes[distinct].schema);
        let on = wanted.into_iter().zip(keys.columns().into_iter().map(Expr::Column)).collect();
        let both: DFSchemaRef = Arc::new(kept_schema.join(&keys)?);
        let joined = self.push(NodeKind::Join { on, filter: None, null_equal }, vec![kept, distinct], &both);
        Ok(self.push(NodeKind::Project(own), vec![joined], &kept_schema))
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
        let schema = Arc::clone(&self.nodes[kept].schema);
        let semi = self.semi(join, kept, other, side)?;
        let negated = self.push(NodeKind::Negate, vec![semi], &schema);
        Ok(self.push(NodeKind::Union, vec![kept, negated], &schema))
    }

    /// Rows of one side with NULLs for the other.
    fn padded(&mut self, rows: NodeId, schema: &DFSchemaRef, side: Side) -> Result<NodeId> {
        let own: Vec<Expr> = self.nodes[rows].schema.columns().into_iter().map(Expr::Column).collect();
        let width = schema.fields().len() - own.len();
        let (from, to) = if side == Side::Left { (own.len(), own.len() + width) } else { (0, width) };
        let nulls = (from..to)
            .map(|i| Ok(Expr::Literal(ScalarValue::try_from(schema.field(i).data_type())?, None)))
            .collect::<Result<Vec<_>>>()?;
        let exprs = if side == Side::Left { [own, nulls].concat() } else { [nulls, own].concat() };
        Ok(self.push(NodeKind::Project(exprs), vec![rows], schema))
    }
}
