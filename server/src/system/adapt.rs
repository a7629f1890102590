//! Statements over the catalog, turned into what DataFusion can plan.
//!
//! Tools write `OPERATOR(pg_catalog.~)`, `COLLATE`, `::regclass`, schema-qualified functions and
//! scalar subqueries without an aggregate. Only a statement whose every relation is the system's
//! is changed beyond what `known.rs` puts in; over user data these rewrites could change an answer.

use std::ops::ControlFlow;

use planner::Catalog;
use sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DataType, Expr, Function, FunctionArguments, Ident, ObjectName, Query,
    Select, SelectItem, SetExpr, Subscript, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use super::expressions::{call, calls, list_of, null, number};
use super::known::{Functions, Who};
use super::pg_catalog::is_empty;
use super::select_list::shown;
use crate::pg::WireError;

/// The query as it can be planned.
///
/// # Errors
/// A setting or an object that is named and not there.
pub(crate) fn adapt(
    query: &sql::Query,
    catalog: &Catalog,
    session: Who<'_>,
) -> Result<sql::Query, WireError> {
    let mut adapted = query.clone();
    if let SetExpr::Select(select) = adapted.ast.body.as_mut() {
        select.projection.iter_mut().for_each(|item| shown(item, catalog));
    }
    // Names of system functions are nobody else's.
    let mut functions = Functions { catalog, session };
    if let ControlFlow::Break(error) = VisitMut::visit(adapted.ast.as_mut(), &mut functions) {
        return Err(error);
    }
    if touches_user_data(&adapted.ast, catalog) {
        return Ok(adapted);
    }
    // The visitor never breaks.
    let _ = VisitMut::visit(adapted.ast.as_mut(), &mut CatalogDialect);
    Ok(adapted)
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

struct CatalogDialect;

impl VisitorMut for CatalogDialect {
    type Break = ();

    /// A SELECT over a relation without rows gives none: what its subqueries say does not matter.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select_reads_empty(select) {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                    && sql::has_subquery(expr)
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
            Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right } => {
                no_function(left, right);
            }
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
            Expr::CompoundFieldAccess { root, access_chain } => {
                if let Some(letter) = letter_of_name(root, access_chain) {
                    *expr = letter;
                } else {
                    count_from_one(root, access_chain);
                }
            }
            Expr::Subquery(query) if reads_empty(query) => {
                *expr = if counts(query) { number(0) } else { null(DataType::Text) };
            }
            Expr::Subquery(query) if climbs_domains(query) => *expr = null(id_type()),
            Expr::Subquery(query) => {
                drop_known(query);
                aggregate_single(query);
            }
            Expr::AnyOp { left, right, .. } if asks_for_predefined_role(left, right) => {
                *expr = Expr::value(Value::Boolean(false));
            }
            Expr::Function(function) if is_array_of_nothing(function) => {
                *expr = null(list_of(DataType::Text));
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
        // An id shown as a name.
        "regclass" => Some(call("millpond_relation_name", inner.clone())),
        "regtype" => Some(call("format_type", inner.clone())),
        "regnamespace" => Some(call("millpond_namespace_name", inner.clone())),
        "regrole" => Some(call("pg_get_userbyid", inner.clone())),
        "regproc"
        | "regprocedure"
        | "name"
        | "text"
        | "\"char\""
        | "char"
        | "aclitem"
        | "pg_node_tree"
        | "information_schema.sql_identifier"
        | "sql_identifier"
        | "character_data" => Some(sql::cast_to(inner.clone(), DataType::Text)),
        "oid[]" => Some(sql::cast_to(inner.clone(), list_of(id_type()))),
        "regtype[]" | "name[]" | "aclitem[]" | "\"char\"[]" => {
            Some(sql::cast_to(inner.clone(), list_of(DataType::Text)))
        }
        "oid" => Some(call("millpond_oid", inner.clone())),
        "xid" | "int8" => Some(sql::cast_to(inner.clone(), DataType::BigInt(None))),
        "int4" => Some(sql::cast_to(inner.clone(), DataType::Int(None))),
        "int2" => Some(sql::cast_to(inner.clone(), DataType::SmallInt(None))),
        _ => None,
    }
}

/// Functions are told by their names here; none is `-`, and 0 in a comparison.
fn no_function(left: &Expr, right: &mut Expr) {
    const FUNCTIONS: [&str; 8] = [
        "typinput",
        "typoutput",
        "typreceive",
        "typsend",
        "typmodin",
        "typmodout",
        "typanalyze",
        "typsubscript",
    ];
    let zero = matches!(right, Expr::Value(value) if value.value == Value::Number("0".into(), false));
    if zero && column_name(left).is_some_and(|name| FUNCTIONS.contains(&name.as_str())) {
        *right = Expr::value(Value::SingleQuotedString("-".into()));
    }
}

/// `indoption[0]`: a vector's elements are counted from 0, an array's from 1.
fn count_from_one(root: &Expr, chain: &mut [AccessExpr]) {
    const VECTORS: [&str; 5] = ["indkey", "indoption", "indclass", "indcollation", "proargtypes"];
    let [before @ .., AccessExpr::Subscript(Subscript::Index { index })] = chain else { return };
    let name = match before {
        [] => column_name(root),
        [.., AccessExpr::Dot(name)] => column_name(name),
        _ => None,
    };
    if name.is_some_and(|name| VECTORS.contains(&name.as_str())) {
        let place = Box::new(Expr::Nested(Box::new(index.clone())));
        *index = Expr::BinaryOp { left: place, op: BinaryOperator::Plus, right: Box::new(number(1)) };
    }
}

fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(name.value.to_lowercase()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|name| name.value.to_lowercase()),
        _ => None,
    }
}

/// `typname[0]`: names are arrays of letters in PostgreSQL, from 0.
fn letter_of_name(root: &Expr, chain: &[AccessExpr]) -> Option<Expr> {
    let [AccessExpr::Subscript(Subscript::Index { index: Expr::Value(index) })] = chain else { return None };
    let Value::Number(index, _) = &index.value else { return None };
    let at: i64 = index.parse().ok()?;
    column_name(root)?.ends_with("name").then(|| calls("substr", [root.clone(), number(at + 1), number(1)]))
}

/// Whether a subquery reads, without a join that could keep rows, a relation that never has any:
/// its value is NULL.
fn reads_empty(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if select_reads_empty(select))
}

/// Whether a subquery counts: of nothing, that is 0.
fn counts(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    matches!(select.projection.as_slice(), [SelectItem::UnnamedExpr(Expr::Function(function))
        | SelectItem::ExprWithAlias { expr: Expr::Function(function), .. }]
        if function.name.to_string().to_lowercase().ends_with("count"))
}

/// The type of ids.
fn id_type() -> DataType {
    DataType::Custom(ObjectName::from(vec![Ident::new("oid")]), Vec::new())
}

/// Whether a subquery goes from a domain to the type that it is made of: there are no domains.
fn climbs_domains(query: &Query) -> bool {
    query.with.as_ref().is_some_and(|with| with.recursive) && query.to_string().contains("typbasetype")
}

fn select_reads_empty(select: &Select) -> bool {
    select.from.iter().any(|table| match &table.relation {
        TableFactor::Table { name, .. } => {
            name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| is_empty(&i.value.to_lowercase()))
        }
        _ => false,
    })
}

/// `array(SELECT …)` of what never has rows.
fn is_array_of_nothing(function: &Function) -> bool {
    function.name.to_string().eq_ignore_ascii_case("array")
        && matches!(&function.args, FunctionArguments::Subquery(query) if reads_empty(query))
}

/// `'pg_signal_backend' = ANY (ARRAY(… pg_auth_members …))`: there are no predefined roles for anybody to be in.
fn asks_for_predefined_role(role: &Expr, roles: &Expr) -> bool {
    let predefined = matches!(role, Expr::Value(value)
        if matches!(&value.value, Value::SingleQuotedString(name) if name.starts_with("pg_")));
    predefined && roles.to_string().contains("pg_auth_members")
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
    if has_aggregate(expr) {
        return;
    }
    *expr = call("max", expr.clone());
    query.limit_clause = None;
    query.order_by = None;
}

fn has_aggregate(expr: &Expr) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            match function.name.to_string().to_lowercase().as_str() {
                "count" | "max" | "min" | "sum" | "avg" | "string_agg" | "array_agg" | "bool_or"
                | "bool_and" => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Find).is_break()
}
