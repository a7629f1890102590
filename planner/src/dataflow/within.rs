//! Joins of two streams WITHIN a time: rows are kept for as long as they can be joined, and an outer
//! join's row without a partner comes when its time is over, or at once where no GRACE is given.
//!
//! ```text
//! L left R within = L join R + (those of L that met nothing in time, NULLs)
//! ```
//! What comes stays: the result is append-only.
//! Source: ksqlDB, "Join Event Streams with ksqlDB", and its WITHIN … GRACE PERIOD.

use datafusion::common::{JoinType, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::utils::split_conjunction;

use super::convert::{Converter, inner};
use super::outer::Side;
use super::{Joins, NodeId, NodeKind};
use crate::error::Result;
use crate::functions::WITHIN;
use crate::window_assign::default_grace_ms;

/// How long rows of a join wait for their partners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Within {
    /// The times of a left and of a right row, ms.
    pub times: [Expr; 2],
    /// How long after its time a row of each side can be joined, ms of stream time.
    pub wait_ms: [i64; 2],
    /// A row without a partner is given at once, and again when one comes.
    pub eager: bool,
    /// Rows of each side that meet nothing are in the result, with NULLs.
    pub padded: [bool; 2],
}

impl Converter {
    /// The WITHIN of a join of two streams, where its rows are to be let go one day.
    pub(super) fn within(&self, join: &logical::Join, joins: Joins) -> Option<Within> {
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full) {
            return None;
        }
        let conditions = join.filter.as_ref().map(split_conjunction).unwrap_or_default();
        let call = conditions.into_iter().find_map(|condition| match condition {
            Expr::ScalarFunction(f) if f.name() == WITHIN => Some(f.args.as_slice()),
            _ => None,
        })?;
        let [left, right, before, after, grace] = call else { return None };
        let number = |e: &Expr| match e {
            Expr::Literal(ScalarValue::Int64(value), _) => *value,
            _ => None,
        };
        let (before, after, grace) = (number(before)?, number(after)?, number(grace));
        // SQL's own joins find every pair, unless the statement says that it wants less.
        if joins == Joins::Relational && grace.is_none() {
            return None;
        }
        let kept = grace.unwrap_or_else(|| default_grace_ms(before.saturating_add(after)));
        let wait_ms = [after.saturating_add(kept), before.saturating_add(kept)];
        let padded = [
            matches!(join.join_type, JoinType::Left | JoinType::Full),
            matches!(join.join_type, JoinType::Right | JoinType::Full),
        ];
        Some(Within { times: [left.clone(), right.clone()], wait_ms, eager: grace.is_none(), padded })
    }

    /// A join WITHIN of any kind.
    pub(super) fn join_within(
        &mut self,
        join: &logical::Join,
        sides: [NodeId; 2],
        within: &Within,
    ) -> Result<NodeId> {
        let mut kind = inner(join);
        if let NodeKind::Join { within: wait, .. } = &mut kind {
            *wait = Some(within.clone());
        }
        let pairs = self.push(kind, sides.to_vec(), &join.schema);
        let mut parts = vec![pairs];
        for side in [Side::Left, Side::Right] {
            let (own, other) = if side == Side::Left { (0, 1) } else { (1, 0) };
            if !within.padded[own] {
                continue;
            }
            let kind = NodeKind::Unmatched {
                times: [within.times[own].clone(), within.times[other].clone()],
                wait_ms: within.wait_ms[own],
                eager: within.eager,
                left: side == Side::Left,
            };
            let schema = std::sync::Arc::clone(&self.nodes[sides[own]].schema);
            let alone = self.push(kind, vec![sides[own], sides[other], pairs], &schema);
            parts.push(self.padded(alone, &join.schema, side)?);
        }
        Ok(self.push(NodeKind::Union, parts, &join.schema))
    }
}
