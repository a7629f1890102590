//! Statements over the catalog, turned into what DataFusion can plan.
//!
//! Tools write `OPERATOR(pg_catalog.~)`, `COLLATE`, `::regclass`, schema-qualified functions and
//! scalar subqueries without an aggregate. Only a statement whose every relation is the system's
//! is changed; over user data these rewrites could change an answer.

use std::ops::ControlFlow;

use super::pg_catalog::{is_empty, oid_of};
use crate::pg::WireError;
use crate::settings::{Settings, display_name};
use planner::Catalog;
use sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CaseWhen, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query,
    Select, SelectItem, SetExpr, TableFactor, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
};

/// The query as it can be planned.
///
/// # Errors
/// A setting or an object that is named and not there.
pub(crate) fn adapt(
    query: &sql::Query,
    catalog: &Catalog,
    (settings, pid): (&Settings, i32),
) -> Result<sql::Query, WireError> {
    let mut adapted = query.clone();
    if let SetExpr::Select(select) = adapted.ast.body.as_mut() {
        select.projection.iter_mut().for_each(|item| shown(item, catalog));
    }
    // Names of system functions are nobody else's.
    let mut functions = Functions { catalog, settings, pid };
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

/// The settings that a query makes, by calls of set_config().
pub(crate) fn settings_made(query: &sql::Query) -> Vec<(String, String)> {
    struct Find(Vec<(String, String)>);
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr
                && matches!(
                    function.name.to_string().to_lowercase().as_str(),
                    "set_config" | "pg_catalog.set_config"
                )
                && let [name, value, ..] = arguments(function).as_slice()
                && let (Some(name), Some(value)) = (literal(name), literal(value))
            {
                self.0.push((name.to_lowercase(), value.to_owned()));
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Find(Vec::new());
    // The visitor never breaks.
    let _ = Visit::visit(query.ast.as_ref(), &mut found);
    found.0
}

/// `'name'::regclass` as a column of its own is shown as the name it is; a call that is put in keeps the
/// name of its column.
///
/// A number is an integer where it fits into one, as in PostgreSQL: clients read the types of results.
fn shown(item: &mut SelectItem, catalog: &Catalog) {
    let name = match item {
        SelectItem::UnnamedExpr(Expr::Function(function)) => {
            let name = function.name.0.last().map(ToString::to_string).unwrap_or_default().to_lowercase();
            KNOWN.contains(&name.as_str()).then_some(name)
        }
        SelectItem::UnnamedExpr(Expr::Cast { expr, data_type, .. }) if literal(expr).is_some() => {
            registry(data_type)
        }
        _ => None,
    };
    if let (Some(name), SelectItem::UnnamedExpr(expr)) = (name, &*item) {
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
    }
    if let SelectItem::UnnamedExpr(expr) = item
        && is_small_integer(expr)
    {
        let expr = expr.clone();
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', "?column?") };
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return };
    let replaced = match &*expr {
        number if is_small_integer(number) => Some(cast_to(number, DataType::Int(None))),
        Expr::Cast { expr: inner, data_type, .. }
            if registry(data_type).is_some() && literal(inner).is_some() =>
        {
            Some(cast_to(inner, DataType::Text))
        }
        Expr::Function(function) => {
            let name = function.name.0.last().map(ToString::to_string).unwrap_or_default().to_lowercase();
            let registry = name.strip_prefix("to_").filter(|registry| registry.starts_with("reg"));
            let argument = arguments(function).first().and_then(|argument| literal(argument));
            registry.zip(argument).map(|(registry, name)| {
                let there = oid_of(catalog, registry, name).map(|_| name.to_owned());
                there
                    .map_or_else(|| null(DataType::Text), |name| Expr::value(Value::SingleQuotedString(name)))
            })
        }
        _ => None,
    };
    if let Some(replaced) = replaced {
        *expr = replaced;
    }
}

/// Whether an expression is made of integers alone, and its value is one of four bytes.
fn is_small_integer(expr: &Expr) -> bool {
    integer(expr).is_some_and(|n| i32::try_from(n).is_ok())
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse().ok(),
            _ => None,
        },
        Expr::Nested(inner) => integer(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => integer(expr)?.checked_neg(),
        Expr::BinaryOp { left, op, right } => {
            let (left, right) = (integer(left)?, integer(right)?);
            match op {
                BinaryOperator::Plus => left.checked_add(right),
                BinaryOperator::Minus => left.checked_sub(right),
                BinaryOperator::Multiply => left.checked_mul(right),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Calls that the session or the catalog decides.
const KNOWN: [&str; 7] = [
    "current_setting",
    "set_config",
    "pg_backend_pid",
    "to_regclass",
    "to_regtype",
    "to_regnamespace",
    "to_regrole",
];

/// Which catalog a type of PostgreSQL's looks names up in.
fn registry(data_type: &DataType) -> Option<String> {
    let name = data_type.to_string().to_lowercase();
    let bare = name.rsplit('.').next().unwrap_or(&name).to_owned();
    let known = ["regclass", "regtype", "regnamespace", "regrole", "regprocedure"];
    known.contains(&bare.as_str()).then_some(bare)
}

fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn number(n: i64) -> Expr {
    cast_to(&Expr::value(Value::Number(n.to_string(), false)), DataType::BigInt(None))
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

/// Takes the schema off `pg_catalog.f(…)`, and puts in what only the session and the catalog know.
struct Functions<'a> {
    catalog: &'a Catalog,
    settings: &'a Settings,
    /// The session's process number.
    pid: i32,
}

impl VisitorMut for Functions<'_> {
    type Break = WireError;

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<WireError> {
        if let TableFactor::Table { name, args, .. } = table
            && args.is_some()
            && name.0.len() == 2
            && name.0.first().is_some_and(|schema| schema.to_string().eq_ignore_ascii_case("pg_catalog"))
        {
            name.0.remove(0);
        }
        if let TableFactor::Table { name, args, .. } = table
            && name.to_string().eq_ignore_ascii_case("pg_show_all_settings")
        {
            (*name, *args) = (ObjectName::from(vec![Ident::new("pg_settings")]), None);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<WireError> {
        if let Expr::Function(function) = expr {
            if let [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(_)] =
                function.name.0.as_slice()
                && matches!(schema.value.to_lowercase().as_str(), "pg_catalog" | "information_schema")
            {
                function.name.0.remove(0);
            }
            // Gives pairs of a value and its place.
            if function.name.to_string().eq_ignore_ascii_case("_pg_expandarray")
                && let [array] = arguments(function).as_slice()
            {
                *expr = call("unnest", call("millpond_expand_array", (*array).clone()));
                return ControlFlow::Continue(());
            }
            if let Some(known) = self.known(function) {
                match known {
                    Ok(value) => *expr = value,
                    Err(error) => return ControlFlow::Break(error),
                }
            }
        }
        if let Expr::BinaryOp { left, right, .. } = expr {
            // Two of one kind are compared as what they are: numbers.
            let kind =
                |e: &Expr| if let Expr::Cast { data_type, .. } = e { registry(data_type) } else { None };
            let is_literal = |e: &Expr| matches!(e, Expr::Cast { expr, .. } if literal(expr).is_some());
            if kind(left).is_some() && kind(left) == kind(right) && is_literal(left) != is_literal(right) {
                let side = if is_literal(left) { right } else { left };
                if let Expr::Cast { expr: inner, .. } = side.as_mut() {
                    **side = inner.as_ref().clone();
                }
            }
        }
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Some(ids) = self.type_list(inner, data_type)
        {
            *expr = ids;
        }
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Some(registry) = registry(data_type)
            && let Some(name) = literal(inner)
        {
            // Numbers are what they are.
            if let Ok(oid) = name.parse() {
                *expr = number(oid);
            } else {
                match oid_of(self.catalog, &registry, name) {
                    Some(oid) => *expr = number(oid),
                    None => return ControlFlow::Break(no_object(&registry, name)),
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl Functions<'_> {
    /// `'{int,text}'::regtype[]` as numbers.
    fn type_list(&self, inner: &Expr, data_type: &DataType) -> Option<Expr> {
        let name = data_type.to_string().to_lowercase();
        if name.rsplit('.').next() != Some("regtype[]") {
            return None;
        }
        let names = literal(inner)?.trim().strip_prefix('{')?.strip_suffix('}')?.split(',');
        let ids = names.map(|name| oid_of(self.catalog, "regtype", name.trim()).map(number));
        Some(Expr::Array(Array { elem: ids.collect::<Option<_>>()?, named: true }))
    }

    /// The value of a call that the session or the catalog decides.
    fn known(&self, function: &Function) -> Option<Result<Expr, WireError>> {
        let name = function.name.to_string().to_lowercase();
        let arguments = arguments(function);
        let text = |value: Option<String>| match value {
            Some(value) => Expr::value(Value::SingleQuotedString(value)),
            None => null(DataType::Text),
        };
        match (name.as_str(), arguments.as_slice()) {
            ("current_setting", [setting, rest @ ..]) => match literal(setting) {
                Some(setting) => match self.settings.get(&setting.to_lowercase()) {
                    Ok(value) => Some(Ok(text(Some(value)))),
                    Err(_) if !rest.is_empty() => Some(Ok(text(None))),
                    Err(error) => Some(Err(error)),
                },
                None => Some(Ok(self.setting_of(setting))),
            },
            ("set_config", [_, value, ..]) => literal(value).map(|value| Ok(text(Some(value.to_owned())))),
            ("pg_backend_pid", []) => Some(Ok(number(i64::from(self.pid)))),
            ("current_schema", []) => {
                let path = self.settings.get("search_path").unwrap_or_default();
                let named = path.split(',').map(|s| s.trim().trim_matches('"').to_owned());
                let there = |schema: &String| oid_of(self.catalog, "regnamespace", schema).is_some();
                Some(Ok(text(named.into_iter().find(there))))
            }
            ("pg_typeof", [value]) if is_small_integer(value) => Some(Ok(text(Some("integer".to_owned())))),
            _ => None,
        }
    }

    /// The value of the setting that an expression names.
    fn setting_of(&self, name: &Expr) -> Expr {
        let text = |text: String| Expr::value(Value::SingleQuotedString(text));
        let condition = |(setting, value): (&crate::settings::Setting, String)| CaseWhen {
            condition: text(display_name(setting.name).to_owned()),
            result: text(value),
        };
        Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: Some(Box::new(name.clone())),
            conditions: self.settings.all().map(condition).collect(),
            else_result: None,
        }
    }
}

fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let mut arguments = Vec::with_capacity(list.args.len());
    for argument in &list.args {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument {
            arguments.push(expr);
        }
    }
    arguments
}

fn no_object(registry: &str, name: &str) -> WireError {
    match registry {
        "regclass" => WireError::new("42P01", format!("relation \"{name}\" does not exist")),
        "regtype" => WireError::new("42704", format!("type \"{name}\" does not exist")),
        "regnamespace" => WireError::new("3F000", format!("schema \"{name}\" does not exist")),
        "regrole" => WireError::new("42704", format!("role \"{name}\" does not exist")),
        _ => WireError::new("42883", format!("function \"{name}\" does not exist")),
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
                *expr = null(text_list());
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
        | "character_data" => Some(cast_to(inner, DataType::Text)),
        "regtype[]" | "name[]" | "aclitem[]" | "\"char\"[]" | "oid[]" => Some(cast_to(inner, text_list())),
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

fn text_list() -> DataType {
    DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None))
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
