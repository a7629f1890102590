//! Statements over the catalog, turned into what DataFusion can plan.
//!
//! Tools write `OPERATOR(pg_catalog.~)`, `COLLATE`, `::regclass`, schema-qualified functions and
//! scalar subqueries without an aggregate. Only a statement whose every relation is the system's
//! is changed; over user data these rewrites could change an answer.

use std::ops::ControlFlow;

use super::pg_catalog::is_empty;
use planner::Catalog;
use sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SetExpr, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};

/// The query as it can be planned.
pub(crate) fn adapt(query: &sql::Query, catalog: &Catalog) -> sql::Query {
    let mut adapted = query.clone();
    let mut functions = Functions;
    // Names of system functions are nobody else's.
    let _ = VisitMut::visit(adapted.ast.as_mut(), &mut functions);
    if touches_user_data(&adapted.ast, catalog) {
        return adapted;
    }
    // The visitor never breaks.
    let _ = VisitMut::visit(adapted.ast.as_mut(), &mut CatalogDialect);
    adapted
}

fn touches_user_data(query: &Query, catalog: &Catalog) -> bool {
    struct Find<'a>(&'a Catalog);
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
            let parts: Vec<&str> =
                name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.as_str()).collect();
            let user = match parts.as_slice() {
                [name] => self.0.get(&name.to_lowercase()).is_some(),
                [schema, _] => !matches!(
                    schema.to_lowercase().as_str(),
                    "pg_catalog" | "information_schema" | "millpond"
                ),
                _ => true,
            };
            if user { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    Visit::visit(query, &mut Find(catalog)).is_break()
}

/// Takes the schema off `pg_catalog.f(…)`.
struct Functions;

impl VisitorMut for Functions {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(_)] =
                function.name.0.as_slice()
            && schema.value.eq_ignore_ascii_case("pg_catalog")
        {
            function.name.0.remove(0);
        }
        ControlFlow::Continue(())
    }
}

struct CatalogDialect;

impl VisitorMut for CatalogDialect {
    type Break = ();

    /// A SELECT over a relation without rows gives none: what its subqueries say does not matter.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select_reads_empty(select) {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                    && has_subquery(expr)
                {
                    *expr = null(DataType::Text);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate { expr: inner, .. } => *expr = inner.as_ref().clone(),
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = parts.last().and_then(|p| plain_operator(p))
                {
                    *op = plain;
                }
            }
            Expr::Cast { expr: inner, data_type, .. } => {
                if let Some(replacement) = system_cast(inner, data_type) {
                    *expr = replacement;
                }
            }
            Expr::Subquery(query) if reads_empty(query) => *expr = null(DataType::Text),
            Expr::Subquery(query) => {
                drop_known(query);
                aggregate_single(query);
            }
            Expr::Function(function) if is_array_of_query(function) => {
                *expr =
                    null(DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None)));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn plain_operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "=" => BinaryOperator::Eq,
        _ => return None,
    })
}

/// Casts to PostgreSQL's object identifier types: names and ids are what they are.
fn system_cast(inner: &Expr, data_type: &DataType) -> Option<Expr> {
    let name = data_type.to_string().to_lowercase();
    let bare = name.rsplit('.').next().unwrap_or(&name);
    match bare {
        // An id shown as a name; a name given as a literal stays text.
        "regclass" if !matches!(inner, Expr::Value(_)) => Some(call("millpond_relation_name", inner.clone())),
        "regclass" | "regtype" | "regproc" | "regnamespace" | "name" | "text" | "\"char\"" | "char" => {
            Some(cast_to(inner, DataType::Text))
        }
        "oid" | "xid" => Some(cast_to(inner, DataType::BigInt(None))),
        _ => None,
    }
}

fn cast_to(inner: &Expr, data_type: DataType) -> Expr {
    Expr::Cast {
        kind: sql::sqlparser::ast::CastKind::Cast,
        expr: Box::new(inner.clone()),
        data_type,
        array: false,
        format: None,
    }
}

fn null(data_type: DataType) -> Expr {
    cast_to(&Expr::value(Value::Null), data_type)
}

/// Whether a subquery reads, without a join that could keep rows, a relation that never has any:
/// its value is NULL.
fn reads_empty(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if select_reads_empty(select))
}

fn has_subquery(expr: &Expr) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    Visit::visit(expr, &mut Find).is_break()
}

fn select_reads_empty(select: &Select) -> bool {
    select.from.iter().any(|table| match &table.relation {
        TableFactor::Table { name, .. } => {
            name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| is_empty(&i.value.to_lowercase()))
        }
        _ => false,
    })
}

/// `array(SELECT …)`.
fn is_array_of_query(function: &Function) -> bool {
    function.name.to_string().eq_ignore_ascii_case("array")
        && matches!(function.args, FunctionArguments::Subquery(_))
}

/// Takes `a.atthasdef` out of a subquery's condition: it is true exactly where pg_attrdef has a
/// row, and DataFusion cannot decorrelate a condition on the outer row alone.
fn drop_known(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let known = |e: &Expr| matches!(e, Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|p| p.value == "atthasdef"));
    if let Some(Expr::BinaryOp { left, op: BinaryOperator::And, right }) = &select.selection
        && known(right)
    {
        select.selection = Some(left.as_ref().clone());
    }
}

/// A scalar subquery that the catalog's keys make single: DataFusion wants an aggregate to see it.
fn aggregate_single(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
        select.projection.as_mut_slice()
    else {
        return;
    };
    if matches!(expr, Expr::Function(f) if matches!(f.name.to_string().to_lowercase().as_str(), "count" | "max" | "min" | "string_agg" | "array_agg"))
    {
        return;
    }
    *expr = call("max", expr.clone());
    query.limit_clause = None;
    query.order_by = None;
}

/// A call of a function with one argument.
fn call(name: &str, argument: Expr) -> Expr {
    let argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(argument));
    let list = FunctionArgumentList { duplicate_treatment: None, args: vec![argument], clauses: Vec::new() };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
