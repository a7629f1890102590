//! What only the session and the catalog know, put into a statement before it is planned: settings, the
//! ids of names, the session's own number.

use std::ops::ControlFlow;

use planner::Catalog;
use sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use sql::sqlparser::ast::{
    Array, CaseWhen, DataType, Expr, Function, Ident, ObjectName, ObjectNamePart, TableFactor, Visit,
    Visitor, VisitorMut,
};

use super::expressions::{arguments, call, calls, literal, number, text};
use super::pg_catalog::oid_of;
use super::select_list::is_small_integer;
use crate::pg::WireError;
use crate::settings::{Settings, display_name};

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

/// Calls that the session or the catalog decides.
const KNOWN: [&str; 15] = [
    "current_user",
    "current_role",
    "session_user",
    "user",
    "has_table_privilege",
    "has_any_column_privilege",
    "has_column_privilege",
    "current_schema",
    "current_setting",
    "set_config",
    "pg_backend_pid",
    "to_regclass",
    "to_regtype",
    "to_regnamespace",
    "to_regrole",
];

/// Functions in FROM whose rows are those of a relation.
const ROWS_OF: [(&str, &str); 3] = [
    ("pg_show_all_settings", "pg_settings"),
    ("pg_get_keywords", "pg_get_keywords"),
    ("pg_available_extensions", "pg_available_extensions"),
];

/// Whether a call of that name is one of them.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Which catalog a type of PostgreSQL's looks names up in.
pub(super) fn registry(data_type: &DataType) -> Option<String> {
    let name = data_type.to_string().to_lowercase();
    let bare = name.rsplit('.').next().unwrap_or(&name).to_owned();
    let known = ["regclass", "regtype", "regnamespace", "regrole", "regprocedure"];
    known.contains(&bare.as_str()).then_some(bare)
}

/// Takes the schema off `pg_catalog.f(…)`, and puts in what only the session and the catalog know.
pub(super) struct Functions<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) session: Who<'a>,
}

/// What the session tells of itself.
#[derive(Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) settings: &'a Settings,
    /// Its process number.
    pub(crate) pid: i32,
    /// Who has connected.
    pub(crate) user: &'a str,
    /// Whose privileges count.
    pub(crate) role: &'a str,
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
            && let Some((_, relation)) =
                ROWS_OF.iter().find(|(function, _)| name.to_string().eq_ignore_ascii_case(function))
        {
            (*name, *args) = (ObjectName::from(vec![Ident::new(*relation)]), None);
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
        match (name.as_str(), arguments.as_slice()) {
            ("current_setting", [setting, rest @ ..]) => match literal(setting) {
                Some(setting) => match self.session.settings.get(&setting.to_lowercase()) {
                    Ok(value) => Some(Ok(text(Some(value)))),
                    Err(_) if !rest.is_empty() => Some(Ok(text(None))),
                    Err(error) => Some(Err(error)),
                },
                None => Some(Ok(self.setting_of(setting))),
            },
            ("set_config", [_, value, ..]) => literal(value).map(|value| Ok(text(Some(value.to_owned())))),
            ("pg_backend_pid", []) => Some(Ok(number(i64::from(self.session.pid)))),
            ("current_user" | "current_role" | "user", []) => {
                Some(Ok(text(Some(self.session.role.to_owned()))))
            }
            ("session_user", []) => Some(Ok(text(Some(self.session.user.to_owned())))),
            ("pg_cancel_backend" | "pg_terminate_backend", _) => self.check_superuser(),
            ("has_table_privilege" | "has_any_column_privilege", [table, privilege])
            | ("has_column_privilege", [table, _, privilege]) => {
                Some(Ok(self.has_privilege(text(Some(self.session.role.to_owned())), table, privilege)))
            }
            ("has_table_privilege" | "has_any_column_privilege", [role, table, privilege])
            | ("has_column_privilege", [role, table, _, privilege]) => {
                Some(Ok(self.has_privilege((*role).clone(), table, privilege)))
            }
            ("current_schema", []) => {
                let path = self.session.settings.get("search_path").unwrap_or_default();
                let named = path.split(',').map(|s| s.trim().trim_matches('"').to_owned());
                let there = |schema: &String| oid_of(self.catalog, "regnamespace", schema).is_some();
                Some(Ok(text(named.into_iter().find(there))))
            }
            ("pg_typeof", [value]) if is_small_integer(value) => Some(Ok(text(Some("integer".to_owned())))),
            _ => None,
        }
    }

    /// Whoever stops what others do is a superuser.
    fn check_superuser(&self) -> Option<Result<Expr, WireError>> {
        if self.catalog.access().is_superuser(self.session.role) {
            return None;
        }
        let error = WireError::new("42501", "permission denied to signal another session");
        Some(Err(error.hint("Superusers may.")))
    }

    fn has_privilege(&self, role: Expr, table: &Expr, privilege: &Expr) -> Expr {
        let table = match literal(table) {
            // Names are those of the catalog as it is now.
            Some(name) => oid_of(self.catalog, "regclass", name).map_or_else(|| table.clone(), number),
            None => table.clone(),
        };
        calls("millpond_has_privilege", [role, table, privilege.clone()])
    }

    /// The value of the setting that an expression names.
    fn setting_of(&self, name: &Expr) -> Expr {
        let condition = |(setting, value): (&crate::settings::Setting, String)| CaseWhen {
            condition: text(Some(display_name(setting.name).to_owned())),
            result: text(Some(value)),
        };
        Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: Some(Box::new(name.clone())),
            conditions: self.session.settings.all().map(condition).collect(),
            else_result: None,
        }
    }
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
