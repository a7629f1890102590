//! The expressions of one query, without those of the queries inside of it: their names are their own.

use std::ops::ControlFlow;

use sql::sqlparser::ast::{Expr, Query, VisitMut, VisitorMut};

/// Calls `before` with each expression on the way down, and `after` with it on the way up.
pub(super) fn each(node: &mut impl VisitMut, before: impl FnMut(&mut Expr), after: impl FnMut(&mut Expr)) {
    // Nothing breaks it off.
    let _ = node.visit(&mut Own { before, after, depth: 0 });
}

struct Own<B, A> {
    before: B,
    after: A,
    /// How many queries it is inside of.
    depth: usize,
}

impl<B: FnMut(&mut Expr), A: FnMut(&mut Expr)> VisitorMut for Own<B, A> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.before)(expr);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.after)(expr);
        }
        ControlFlow::Continue(())
    }
}
