//! Semi, anti and outer joins, made of nodes there are already.
//!
//! ```text
//! L semi R = L join distinct(keys of R)       L left R = L join R + (L anti R, NULLs)
//! L anti R = L - (L semi R)                   L full R = L left R + (NULLs, R anti L)
//! ```
//! As Z-sets these are identities, so they hold under every change.

use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, ScalarValue};
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
        if join.filter.is_some() || join.null_aware {
            let name = join.join_type.to_string().to_uppercase();
            let what = format!("a {name} join with more than equalities");
            return Err(Error::continuous(what, "INNER JOIN takes any further condition"));
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

    /// Rows of `kept` whose key is among those of `other`.
    fn semi(&mut self, join: &logical::Join, kept: NodeId, other: NodeId, side: Side) -> Result<NodeId> {
        let on: Vec<(Expr, Expr)> = match side {
            Side::Left => join.on.clone(),
            Side::Right => join.on.iter().map(|(l, r)| (r.clone(), l.clone())).collect(),
        };
        let other_schema = Arc::clone(&self.nodes[other].schema);
        let names: Vec<String> = (0..on.len()).map(|i| format!("\u{1}key{i}")).collect();
        let fields = on
            .iter()
            .zip(&names)
            .map(|((_, key), name)| {
                Ok((None, Arc::new(Field::new(name, key.get_type(&other_schema)?, true))))
            })
            .collect::<Result<Vec<_>>>()?;
        let key_schema: DFSchemaRef = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let keys = on.iter().map(|(_, key)| key.clone()).collect();
        let keys = self.push(NodeKind::Project(keys), vec![other], &key_schema);
        let columns: Vec<Expr> = names.iter().map(|n| Expr::Column(Column::new_unqualified(n))).collect();
        let distinct = NodeKind::Aggregate { group: columns.clone(), aggregates: Vec::new() };
        let distinct = self.push(distinct, vec![keys], &key_schema);
        let kept_schema = Arc::clone(&self.nodes[kept].schema);
        let both: DFSchemaRef = Arc::new(kept_schema.join(&key_schema)?);
        let on = on.into_iter().map(|(key, _)| key).zip(columns).collect();
        let null_equal = join.null_equality == datafusion::common::NullEquality::NullEqualsNull;
        let joined = self.push(NodeKind::Join { on, filter: None, null_equal }, vec![kept, distinct], &both);
        let own = kept_schema.columns().into_iter().map(Expr::Column).collect();
        Ok(self.push(NodeKind::Project(own), vec![joined], &kept_schema))
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
