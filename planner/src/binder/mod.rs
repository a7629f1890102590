//! From a syntax tree to a DataFusion logical plan: names, pseudo-columns, windows, column names.

mod arguments;
mod arrival;
mod asof;
mod calls;
mod ksql;
mod lateral;
mod naming;
mod own;
pub(crate) mod partition;
mod pseudo;
mod rewrite;
mod row_policies;
mod single_row;
mod spelling;
mod struct_fields;
mod subquery;
mod table_functions;
mod ties;
mod unions;
mod using;
mod whole_row;
mod windows;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use sql::sqlparser::ast::{self, VisitMut};

pub use naming::visible_name;
pub(crate) use windows::WindowFunctions;

use crate::catalog::{Catalog, Privilege, RelationId, check_privilege};
use crate::error::{Error, Result};
use crate::source::RelationSource;

/// Relations that are not in the catalog: the system's own.
pub trait Fallback: Send + Sync {
    /// The source of `name`, if there is one.
    fn source(&self, name: &TableReference) -> Option<Arc<dyn TableSource>>;
}

/// Gives names their meaning.
#[derive(Clone, Copy)]
pub struct Binder<'a> {
    /// What there is.
    catalog: &'a Catalog,
    /// Functions and options.
    pub(crate) state: &'a SessionState,
    fallback: Option<&'a dyn Fallback>,
    target: Option<(RelationId, &'a SchemaRef)>,
    /// Who reads; None may read everything.
    role: Option<&'a str>,
    /// A relation of which the role sees some rows only is an error.
    all_rows: bool,
    /// The time zone, where it is not UTC.
    zone: Option<&'a str>,
}

/// Name of the record time that CREATE STREAM … AS carries behind its columns.
pub(crate) const ROW_TIME: &str = "\u{1}rowtime";

/// How a query is used, where that changes what it means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BindOptions {
    /// CREATE TABLE … AS with WINDOW: the window's bounds are part of the result.
    pub(crate) window_bounds: bool,
    /// CREATE STREAM … AS: the record time of the first relation comes last in the result.
    pub(crate) row_time: bool,
    /// CREATE TABLE … AS into a topic of records: the time of a row comes last in the result, the
    /// largest of the records that it comes from.
    pub(crate) table_time: bool,
    /// Into records: rows without a value are passed on as they are, where each row comes of one.
    pub(crate) passes_valueless: bool,
    /// EMIT FINAL: a window without GRACE closes with its end.
    pub(crate) emit_final: bool,
    /// CREATE … AS into a topic of records: expressions without a name are numbered.
    pub(crate) numbered_columns: bool,
}

/// A query that is answered once.
#[derive(Debug, Clone)]
pub struct BatchQuery {
    /// Its plan, over relation sources, not yet optimised.
    pub plan: LogicalPlan,
    /// Names of its columns, as PostgreSQL gives them.
    pub names: Vec<String>,
}

impl<'a> Binder<'a> {
    /// A binder over these relations, with the functions and options of `state`.
    pub fn new(catalog: &'a Catalog, state: &'a SessionState) -> Self {
        Self { catalog, state, fallback: None, target: None, role: None, all_rows: false, zone: None }
    }

    /// What there is.
    pub fn catalog(&self) -> &'a Catalog {
        self.catalog
    }

    /// Where names are looked up that the catalog does not know.
    #[must_use]
    pub fn with_fallback(self, fallback: &'a dyn Fallback) -> Self {
        Self { fallback: Some(fallback), ..self }
    }

    /// A table whose rows are read to be changed, with the layout to read them in.
    #[must_use]
    pub fn with_target(self, target: Option<(RelationId, &'a SchemaRef)>) -> Self {
        Self { target, ..self }
    }

    /// Refuses what a role may not read.
    #[must_use]
    pub fn as_role(self, role: &'a str) -> Self {
        Self { role: Some(role), ..self }
    }

    /// Refuses a relation of which the role sees some rows only, if asked to.
    ///
    /// Source: PostgreSQL, the setting `row_security`.
    #[must_use]
    pub fn all_rows_or_none(self, all_rows: bool) -> Self {
        Self { all_rows, ..self }
    }

    /// What is asked is meant in this time zone, which is not UTC.
    #[must_use]
    pub fn in_zone(self, zone: Option<&'a str>) -> Self {
        Self { zone, ..self }
    }

    /// Binds a query that is answered once.
    ///
    /// # Errors
    /// Unknown names, types that do not fit, and what DataFusion cannot do.
    pub fn batch(&self, query: &sql::Query) -> Result<BatchQuery> {
        let emit_final = query.emit == Some(sql::Emit::Final);
        let mut plan = self.plan(query, BindOptions { emit_final, ..BindOptions::default() })?;
        if let Some(zone) = self.zone {
            plan = crate::zone::in_zone(plan, zone)?;
        }
        let names = plan.schema().fields().iter().map(|f| visible_name(f.name()).to_owned()).collect();
        Ok(BatchQuery { plan, names })
    }

    /// The same with everybody's rights.
    fn everybody(&self) -> Self {
        Self { role: None, target: None, zone: None, ..*self }
    }

    /// Checks the condition of a policy: that it is one of a relation's rows, over what the role may read.
    ///
    /// # Errors
    /// Unknown names, types that do not fit.
    pub fn check_condition(&self, relation: &Arc<crate::catalog::Relation>, condition: &str) -> Result<()> {
        row_policies::shown(self, relation, false, condition, self.role.unwrap_or_default()).map(drop)
    }

    /// The relation that stands first in FROM, if it is one of the catalog.
    pub(crate) fn first_relation(&self, query: &sql::Query) -> Option<&'a crate::catalog::Relation> {
        let ast::SetExpr::Select(select) = query.ast.body.as_ref() else { return None };
        pseudo::source(&select.from.first()?.relation, self.catalog).map(|(_, relation)| relation)
    }

    pub(crate) fn plan(&self, query: &sql::Query, options: BindOptions) -> Result<LogicalPlan> {
        self.planned(query, options).map(|planned| planned.plan)
    }

    /// The plan of a relation's query, and the plain views that are named in it: the plan has their queries in
    /// their place. Everybody sees of it what its maker sees, so whoever sees some rows only cannot make one.
    pub(crate) fn plan_with_views(
        &self,
        query: &sql::Query,
        options: BindOptions,
    ) -> Result<(LogicalPlan, Vec<RelationId>)> {
        let planned = self.planned(query, options)?;
        match planned.restricted {
            Some(name) => {
                Err(Error::RowSecurity { name, why: "others would see its rows through this query" })
            }
            None => Ok((planned.plan, planned.views)),
        }
    }

    fn planned(&self, query: &sql::Query, options: BindOptions) -> Result<Planned> {
        let mut tree = query.ast.as_ref().clone();
        // Nothing breaks it off.
        let _ = tree.visit(&mut arrival::InOrderOfArrival::new(self.catalog));
        let pseudo = options.row_time || options.table_time || pseudo::mentions(&tree);
        let mut rewrite = rewrite::Rewrite::new(
            self.catalog,
            self.fallback,
            self.state.aggregate_functions(),
            pseudo,
            options,
        );
        if let ControlFlow::Break(error) = tree.visit(&mut rewrite) {
            return Err(error);
        }
        let names = Names {
            binder: *self,
            pseudo: rewrite.pseudo,
            views: RefCell::default(),
            restricted: RefCell::default(),
        };
        let options = self.parser_options();
        let statement = ast::Statement::Query(Box::new(tree));
        let plan = SqlToRel::new_with_options(&names, options).sql_statement_to_plan(statement)?;
        let plan = lateral::resolve(single_row::ensure(unions::agree(plan)?)?)?;
        crate::functions::check_comparisons(&plan)?;
        Ok(Planned {
            plan: crate::functions::read_texts(plan)?,
            views: names.views.into_inner(),
            restricted: names.restricted.into_inner(),
        })
    }

    fn parser_options(&self) -> ParserOptions {
        let options = &self.state.config_options().sql_parser;
        ParserOptions::new()
            .with_collect_spans(options.collect_spans)
            .with_map_string_types_to_utf8view(options.map_string_types_to_utf8view)
            .with_parse_float_as_decimal(options.parse_float_as_decimal)
    }
}

/// A plan, and what was met on the way to it.
struct Planned {
    plan: LogicalPlan,
    /// Plain views that were named.
    views: Vec<RelationId>,
    /// A relation of which the role sees some rows only.
    restricted: Option<String>,
}

/// What DataFusion's planner asks for names.
struct Names<'a> {
    binder: Binder<'a>,
    pseudo: bool,
    /// Plain views that were asked for.
    views: RefCell<Vec<RelationId>>,
    /// A relation of which the role sees some rows only.
    restricted: RefCell<Option<String>>,
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> datafusion::common::Result<Arc<dyn TableSource>> {
        let user = matches!(name.schema(), None | Some("public"));
        let named = self.binder.catalog.get(name.table()).filter(|r| r.target.is_none());
        if let Some(relation) = named.filter(|_| user) {
            if let Some(role) = self.binder.role {
                check_privilege(self.binder.catalog, role, Privilege::Select, relation)?;
                if let Some(condition) = self.binder.catalog.access().row_condition(role, relation.id) {
                    if self.binder.all_rows {
                        let name = relation.name.clone();
                        return Err(Error::RowSecurity { name, why: "row_security is off" }.into());
                    }
                    self.restricted.borrow_mut().get_or_insert_with(|| relation.name.clone());
                    let rows = row_policies::shown(
                        &self.binder.everybody(),
                        relation,
                        self.pseudo,
                        &condition,
                        role,
                    )?;
                    return Ok(Arc::new(RelationSource::showing(Arc::clone(relation), self.pseudo, rows)));
                }
            }
            if relation.is_expanded() {
                self.views.borrow_mut().push(relation.id);
            }
            if let Some((id, schema)) = self.binder.target
                && id == relation.id
            {
                return Ok(Arc::new(RelationSource::with_schema(Arc::clone(relation), Arc::clone(schema))));
            }
            return Ok(Arc::new(RelationSource::new(Arc::clone(relation), self.pseudo)));
        }
        if let Some(source) = self.binder.fallback.and_then(|f| f.source(&name)) {
            return Ok(source);
        }
        let error = match self.binder.catalog.find(name.table()) {
            Err(error) if user => error,
            _ => Error::UnknownRelation { name: name.to_string(), similar: None },
        };
        Err(error.into())
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.binder.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.binder.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(crate::functions::Types))
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<datafusion::logical_expr::Expr>,
    ) -> datafusion::common::Result<Arc<dyn TableSource>> {
        let function = self.binder.state.table_functions().get(name).ok_or_else(|| {
            DataFusionError::Plan(format!("function {name} does not exist as a source of rows"))
        })?;
        let arguments = datafusion::catalog::TableFunctionArgs::new(&args, self.binder.state);
        let provider = function.create_table_provider_with_args(arguments)?;
        Ok(provider_as_source(provider))
    }

    fn create_cte_work_table(
        &self,
        name: &str,
        schema: SchemaRef,
    ) -> datafusion::common::Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.binder.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.binder.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.binder.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.binder.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.binder.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.binder.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.binder.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.binder.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.binder.state.window_functions().keys().cloned().collect()
    }
}
