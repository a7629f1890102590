//! The functions, types and options every session plans with: DataFusion's, and over them
//! PostgreSQL's where theirs are missing or mean something else.

mod arrays;
mod byte_strings;
mod checked;
mod checked_sum;
mod comparable;
mod digest;
mod interval;
mod java_pattern;
mod json;
mod json_bytes;
mod json_functions;
mod ksql_bytes;
mod ksql_nested;
mod ksql_text;
mod ksql_times;
mod lambdas;
mod mode;
mod null_counts;
mod number_template;
mod numeric;
mod numeric_text;
mod regexp;
mod scalar;
mod single_row;
mod sizes;
mod template;
mod text;
mod text_arrays;
mod text_times;
mod text_types;
mod time;
mod value_text;
mod within;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::functions::string;
use datafusion::functions_nested::repeat::array_repeat_udf;
use datafusion::logical_expr::planner::{ExprPlanner, TypePlanner};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use arrays::ArrayPlanner;
use checked::CheckedPlanner;
pub(crate) use comparable::check_comparisons;
use interval::IntervalPlanner;
pub use interval::interval_units;
use json_functions::JsonPlanner;
pub use ksql_times::TimePattern;
pub(crate) use ksql_times::UNITS as TIME_UNITS;
use numeric::NumericPlanner;
pub(crate) use numeric::rounded;
pub use numeric::{is_rounded, rounded_values};
pub use numeric_text::{is_number, parse_numeric};
pub use scalar::scalar_function;
pub(crate) use single_row::{SINGLE_ROW, single_row};
pub use text_arrays::read_lists;
use text_times::TextTimePlanner;
pub use text_times::parse_boolean;
pub(crate) use text_types::read_texts;
pub use text_types::{json_value, parse_uuid, read_uuids, reads_as, write_uuid};
pub(crate) use time::at_time_zone;
pub use time::{zone_instant, zone_name, zone_offset};
pub use value_text::{canonical, write_value};
pub(crate) use within::WITHIN;

use crate::binder::WindowFunctions;
use crate::error::Error;

/// Plans with `partitions` parallel parts for a batch query.
pub fn session_state(partitions: usize) -> SessionState {
    let mut config = SessionConfig::new().with_target_partitions(partitions).with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = false;
    options.sql_parser.collect_spans = true;
    options.execution.time_zone = Some("UTC".into());
    // Rows come in columns that may all hold NULL, so that plans say NOT NULL where their inputs do not: what a
    // union of tables does not learn before a DISTINCT. Types are checked as the operators are made.
    options.execution.skip_physical_aggregate_schema_check = true;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_relation_planners(vec![Arc::new(WindowFunctions)])
        .with_type_planner(Arc::new(Types))
        .with_physical_optimizer_rules(physical_rules())
        .build();
    let own = [
        sizes::bounded(byte_strings::functions()),
        sizes::bounded([string::repeat(), string::replace(), array_repeat_udf()]),
        checked::functions(),
        digest::functions(),
        interval::functions(),
        json_functions::functions(),
        ksql_bytes::functions(),
        ksql_nested::functions(),
        ksql_text::functions(),
        ksql_times::functions(),
        arrays::functions(),
        numeric::functions(),
        null_counts::functions(),
        regexp::functions(),
        text::functions(),
        text_types::functions(),
        text_arrays::functions(),
        time::functions(),
        vec![numeric_text::numeric_in(), value_text::text_out(), within::function()],
    ]
    .concat();
    for function in own {
        // Neither is ever refused. What it replaces goes with its aliases: left under one of them, it
        // would take its name back when a state is made from this one.
        let _ = state.deregister_udf(function.name());
        let _ = state.register_udf(function);
    }
    for function in lambdas::functions() {
        let _ = state.register_higher_order_function(function);
    }
    let _ = state.register_udaf(Arc::new(checked_sum::function()));
    let _ = state.register_udaf(Arc::new(mode::function()));
    let planners: [Arc<dyn ExprPlanner>; 6] = [
        Arc::new(ArrayPlanner),
        Arc::new(CheckedPlanner),
        Arc::new(JsonPlanner),
        Arc::new(TextTimePlanner),
        Arc::new(NumericPlanner),
        Arc::new(IntervalPlanner),
    ];
    for planner in planners {
        let _ = state.register_expr_planner(planner);
    }
    state
}

/// DataFusion's rules over physical plans without those that move filters: they find a column by its name
/// alone, and above a join with two columns of one name a filter was lost (DataFusion 55). Filters have
/// found their places in the logical plan, and no source of ours takes any that come later.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let moves = [FilterPushdown::new(), FilterPushdown::new_post_optimization()];
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| moves.iter().all(|moving| moving.name() != rule.name()));
    rules
}

/// The same for a statement whose now() is `now_ms`, ms since 1970, in a time zone where it is not UTC.
pub fn state_at(state: &SessionState, now_ms: i64, zone: Option<&str>) -> SessionState {
    let mut state = state.clone();
    if let Some(zone) = zone {
        state.config_mut().options_mut().execution.time_zone = Some(zone.to_owned());
    }
    state.execution_props_mut().query_execution_start_time = chrono::DateTime::from_timestamp_millis(now_ms);
    state
}

/// SQL types as tables have them, also in casts.
pub(crate) struct Types;

impl fmt::Debug for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &sql::SqlType) -> Result<Option<FieldRef>> {
        // PostgreSQL's numbers of objects: values of the catalogs, of which no column can be declared.
        match sql_type.to_string().to_ascii_lowercase().as_str() {
            "oid" => return Ok(Some(Arc::new(Field::new("", DataType::UInt32, true)))),
            "oid[]" => {
                let ids = DataType::new_list(DataType::UInt32, true);
                return Ok(Some(Arc::new(Field::new("", ids, true))));
            }
            _ => {}
        }
        match sql::arrow_type(sql_type) {
            Ok(data_type) => Ok(Some(Arc::new(Field::new("", data_type, true)))),
            Err(error) => Err(Error::Sql(error).into()),
        }
    }
}
