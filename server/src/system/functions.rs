//! PostgreSQL's system information functions, as far as the catalog makes them meaningful.
//!
//! Source: PostgreSQL, "System Information Functions and Operators".

use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListArray, ListBuilder, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray, new_null_array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type, TimeUnit};
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use executor::Engine;
use planner::{Catalog, Privilege, Securable};

use super::acl;
use super::pg_catalog::{
    Definition, definition, index_column, oid_of, relation_bytes, relation_id, signature, source,
};
use crate::pg::{PgType, Registry};
use crate::settings::SERVER_VERSION;

/// The engine, once it runs: some functions look things up in its catalog.
pub(crate) type EngineCell = Arc<OnceLock<Arc<Engine>>>;

fn function(
    name: &'static str,
    result: DataType,
    body: impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    let signature = Signature::one_of(
        vec![
            datafusion::logical_expr::TypeSignature::VariadicAny,
            datafusion::logical_expr::TypeSignature::Nullary,
        ],
        Volatility::Stable,
    );
    planner::scalar_function(name, signature, result, body)
}

/// The argument that a function cannot be without.
fn first(args: &[ArrayRef]) -> Result<&ArrayRef> {
    args.first().ok_or_else(|| exec_datafusion_err!("the function needs an argument"))
}

#[allow(clippy::unnecessary_wraps, reason = "the type of all bodies")]
fn always(_: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    Ok(Arc::new(BooleanArray::from(vec![true; rows])))
}

#[allow(clippy::unnecessary_wraps, reason = "the type of all bodies")]
fn never(_: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    Ok(Arc::new(BooleanArray::from(vec![false; rows])))
}

#[allow(clippy::unnecessary_wraps, reason = "the type of all bodies")]
fn nothing(_: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    Ok(Arc::new(StringArray::from(vec![None::<&str>; rows])))
}

fn constant(text: &str, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from(vec![text; rows]))
}

fn format_type(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let oids = cast(first(args)?, &DataType::Int64)?;
    let modifiers = args.get(1).map(|m| cast(m, &DataType::Int64)).transpose()?;
    let oids = oids.as_primitive::<Int64Type>();
    let name = |row: usize| {
        let oid = u32::try_from(oids.value(row)).unwrap_or(0);
        let modifier = modifiers.as_ref().map_or(-1, |m| m.as_primitive::<Int64Type>().value(row));
        PgType { oid, size: -1, modifier: i32::try_from(modifier).unwrap_or(-1) }.name()
    };
    Ok(Arc::new((0..rows).map(|row| oids.is_valid(row).then(|| name(row))).collect::<StringArray>()))
}

/// A name as SQL has to write it.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
    if plain && !name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn quote_ident(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let names = cast(first(args)?, &DataType::Utf8)?;
    let names = names.as_string::<i32>();
    Ok(Arc::new(
        (0..rows).map(|row| names.is_valid(row).then(|| quoted(names.value(row)))).collect::<StringArray>(),
    ))
}

/// Texts of objects by their ids.
fn definitions(
    engine: &EngineCell,
    what: Definition,
) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let catalog = engine.get().map(|e| e.catalog());
        of_ids(args, rows, |id| definition(catalog.as_ref()?, what, id))
    }
}

/// Names of roles by their numbers.
fn role_names(
    engine: &EngineCell,
) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let catalog = engine.get().map(|e| e.catalog());
        of_ids(args, rows, |id| {
            let role = catalog.as_ref()?.access().role_by_id(id);
            Some(role.map_or_else(|| format!("unknown (OID={id})"), |role| role.name.clone()))
        })
    }
}

/// What is said of relations, by number.
fn comments(engine: &EngineCell) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let catalog = engine.get().map(|e| e.catalog());
        of_ids(args, rows, |oid| {
            let text = catalog.as_ref()?.comments().of(relation_id(oid)?, None)?;
            Some(text.to_owned())
        })
    }
}

/// What is said of columns: the number of the relation, and that of the column.
fn column_comments(
    engine: &EngineCell,
) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let Some(catalog) = engine.get().map(|e| e.catalog()) else { return nothing(args, rows) };
        let numbers =
            args.iter().map(|a| cast(a, &DataType::Int64)).collect::<std::result::Result<Vec<_>, _>>()?;
        let number = |argument: usize, row: usize| {
            let numbers = numbers.get(argument)?.as_primitive::<Int64Type>();
            // A constant comes once for all rows.
            let row = row.min(numbers.len().checked_sub(1)?);
            numbers.is_valid(row).then(|| numbers.value(row))
        };
        let said = |row: usize| {
            let relation = catalog.by_id(relation_id(number(0, row)?)?)?;
            let column = relation.columns.get(usize::try_from(number(1, row)? - 1).ok()?)?;
            catalog.comments().of(relation.id, Some(&column.name)).map(str::to_owned)
        };
        Ok(Arc::new((0..rows).map(said).collect::<StringArray>()))
    }
}

/// Whether a role, by name or number, has one of some privileges on a relation, by number.
fn has_privilege(
    engine: &EngineCell,
) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let Some(catalog) = engine.get().map(|e| e.catalog()) else { return nothing(args, rows) };
        let texts =
            args.iter().map(|a| cast(a, &DataType::Utf8)).collect::<std::result::Result<Vec<_>, _>>()?;
        let text = |argument: usize, row: usize| {
            let column = texts.get(argument)?.as_string::<i32>();
            let row = row.min(column.len().checked_sub(1)?);
            column.is_valid(row).then(|| column.value(row))
        };
        let has = |row: usize| has_one(&catalog, text(0, row)?, text(1, row)?, text(2, row)?);
        Ok(Arc::new((0..rows).map(has).collect::<BooleanArray>()))
    }
}

/// None where there is no such role or relation.
fn has_one(catalog: &Catalog, role: &str, relation: &str, privileges: &str) -> Option<bool> {
    let access = catalog.access();
    let by_id = |id: i64| access.role_by_id(id).map(|role| role.name.as_str());
    let role = match access.role(role) {
        Some(role) => role.name.as_str(),
        None => by_id(role.parse().ok()?)?,
    };
    let oid = relation.parse().ok().or_else(|| oid_of(catalog, "regclass", relation))?;
    let Some(id) = relation_id(oid) else { return Some(true) };
    let named = privileges.split(',').filter_map(|name| Privilege::of_name(name.trim()));
    Some(named.into_iter().any(|privilege| access.may(role, privilege, Securable::Relation(id))))
}

/// Of an index its definition, or one of its columns where the second argument names one.
fn index_definitions(
    engine: &EngineCell,
) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let catalog = engine.get().map(|e| e.catalog());
        let numbers = args.get(1).map(|numbers| cast(numbers, &DataType::Int64)).transpose()?;
        let ids = cast(first(args)?, &DataType::Int64)?;
        let ids = ids.as_primitive::<Int64Type>();
        let text = |row: usize| {
            let number = numbers.as_ref().map_or(0, |n| n.as_primitive::<Int64Type>().value(row));
            let (catalog, id) = (catalog.as_ref()?, ids.is_valid(row).then(|| ids.value(row))?);
            if number > 0 {
                index_column(catalog, id, number)
            } else {
                definition(catalog, Definition::Index, id)
            }
        };
        Ok(Arc::new((0..rows).map(text).collect::<StringArray>()))
    }
}

/// A text for each id.
fn of_ids(args: &[ArrayRef], rows: usize, text: impl Fn(i64) -> Option<String>) -> Result<ArrayRef> {
    let ids = cast(first(args)?, &DataType::Int64)?;
    let ids = ids.as_primitive::<Int64Type>();
    let text = |row: usize| if ids.is_valid(row) { text(ids.value(row)) } else { None };
    Ok(Arc::new((0..rows).map(text).collect::<StringArray>()))
}

/// The id that a number is, or that a name has: of a function, which the catalogs show by name.
fn oids(args: &[ArrayRef], _: usize) -> Result<ArrayRef> {
    if !first(args)?.data_type().is_string() {
        return cast(first(args)?, &DataType::Int64).map_err(Into::into);
    }
    let texts = cast(first(args)?, &DataType::Utf8)?;
    let id = |text: &str| match text.parse::<i64>() {
        Ok(id) => id,
        Err(_) => super::pg_catalog::procedure_oid(text).unwrap_or(0),
    };
    Ok(Arc::new(texts.as_string::<i32>().iter().map(|text| text.map(id)).collect::<Int64Array>()))
}

fn namespace_names(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    of_ids(args, rows, |id| {
        let names = super::pg_catalog::NAMESPACES;
        Some(
            names.iter().find(|(oid, _)| *oid == id).map_or_else(|| id.to_string(), |(_, n)| (*n).to_owned()),
        )
    })
}

/// A size in the unit that suits it.
fn pretty_size(bytes: i64) -> Option<String> {
    let (mut size, mut unit) = (bytes, 0);
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    while size.abs() >= 10 * 1024 && unit + 1 < units.len() {
        size = (size + 512) / 1024;
        unit += 1;
    }
    Some(format!("{size} {}", units[unit]))
}

/// Bytes of a relation's rows in memory; of everything where no relation is meant.
fn sizes(engine: &EngineCell) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let ids = cast(first(args)?, &DataType::Int64).ok();
        let snapshot = engine.get().map(|e| e.snapshot());
        let size = |row: usize| {
            let id = ids.as_ref().map(|ids| ids.as_primitive::<Int64Type>().value(row));
            let snapshot = snapshot.as_ref()?;
            relation_bytes(snapshot, id)
        };
        Ok(Arc::new((0..rows).map(size).collect::<Int64Array>()))
    }
}

/// format(): %s, %I and %L, in the order of the arguments.
fn format_text(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let columns = args.iter().map(|a| Ok(cast(a, &DataType::Utf8)?)).collect::<Result<Vec<_>>>()?;
    let value = |column: usize, row: usize| -> Option<&str> {
        let texts = columns.get(column)?.as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row))
    };
    let formatted = |row: usize| -> Option<String> {
        let (mut out, mut next) = (String::new(), 1);
        let mut template = value(0, row)?.chars();
        while let Some(c) = template.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let kind = template.next()?;
            if kind == '%' {
                out.push('%');
                continue;
            }
            let argument = value(next, row);
            next += 1;
            match (kind, argument) {
                ('I', Some(name)) => out.push_str(&quoted(name)),
                ('L', None) => out.push_str("NULL"),
                ('L', Some(text)) => out.push_str(&format!("'{}'", text.replace('\'', "''"))),
                (_, text) => out.push_str(text.unwrap_or_default()),
            }
        }
        Some(out)
    };
    Ok(Arc::new((0..rows).map(formatted).collect::<StringArray>()))
}

/// Ids of what names name; NULL where there is nothing.
fn oids_of(
    engine: &EngineCell,
    registry: &'static str,
) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let names = cast(first(args)?, &DataType::Utf8)?;
        let names = names.as_string::<i32>();
        let catalog = engine.get().map(|e| e.catalog());
        let oid = |row: usize| {
            let catalog = catalog.as_ref().filter(|_| names.is_valid(row))?;
            oid_of(catalog, registry, names.value(row))
        };
        Ok(Arc::new((0..rows).map(oid).collect::<Int64Array>()))
    }
}

fn expanded_fields() -> Fields {
    vec![Field::new("x", DataType::Int64, true), Field::new("n", DataType::Int64, true)].into()
}

fn expanded_type() -> DataType {
    DataType::new_list(DataType::Struct(expanded_fields()), true)
}

/// Each value of a list with its place, from 1: what information_schema._pg_expandarray() gives.
fn expand_array(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let Some(list) = first(args)?.as_list_opt::<i32>() else {
        return Ok(new_null_array(&expanded_type(), rows));
    };
    let (mut values, mut places, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(rows));
    for row in 0..rows {
        let items = cast(&list.value(row), &DataType::Int64)?;
        lengths.push(items.len());
        values.extend(items.as_primitive::<Int64Type>().iter());
        places.extend((1i64..).take(items.len()));
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(values)), Arc::new(Int64Array::from(places))];
    let pairs = StructArray::try_new(expanded_fields(), columns, None)?;
    let field = Arc::new(Field::new_list_field(DataType::Struct(expanded_fields()), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), Arc::new(pairs), None)?))
}

/// The largest index of an array's first dimension.
fn array_upper(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let Some(list) = first(args)?.as_list_opt::<i32>() else {
        return Ok(Arc::new(Int32Array::from(vec![None; rows])));
    };
    let length =
        |row: usize| (list.is_valid(row) && list.value_length(row) > 0).then(|| list.value_length(row));
    Ok(Arc::new((0..rows).map(length).collect::<Int32Array>()))
}

fn text_list() -> DataType {
    DataType::new_list(DataType::Utf8, true)
}

fn started_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// When the server started: when it first had an engine to ask.
fn started(engine: &EngineCell) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |_, rows| {
        let started = engine.get().map(|e| e.started_ms().saturating_mul(1000));
        Ok(Arc::new(TimestampMicrosecondArray::from(vec![started; rows]).with_timezone("UTC")))
    }
}

/// Stops what other sessions run, or the sessions.
fn signal(name: &'static str, ends: bool, registry: &Arc<Registry>) -> Arc<ScalarUDF> {
    let registry = Arc::clone(registry);
    let signature = Signature::variadic_any(Volatility::Volatile);
    planner::scalar_function(name, signature, DataType::Boolean, move |args, rows| {
        let pids = cast(first(args)?, &DataType::Int64)?;
        let pids = pids.as_primitive::<Int64Type>();
        let signal = |row: usize| {
            pids.is_valid(row)
                .then(|| i32::try_from(pids.value(row)).is_ok_and(|pid| registry.signal(pid, ends)))
        };
        // A constant comes once for all rows.
        Ok(Arc::new((0..rows).map(|row| signal(row.min(pids.len() - 1))).collect::<BooleanArray>()))
    })
}

/// All system functions.
pub(super) fn all(engine: &EngineCell, registry: &Arc<Registry>) -> Vec<Arc<ScalarUDF>> {
    let mut functions = Vec::new();
    for (name, ends) in [("pg_cancel_backend", false), ("pg_terminate_backend", true)] {
        functions.push(signal(name, ends, registry));
    }
    for name in [
        "pg_table_is_visible",
        "pg_type_is_visible",
        "pg_function_is_visible",
        "pg_operator_is_visible",
        "pg_collation_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
        "pg_conversion_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_ts_dict_is_visible",
        "pg_ts_parser_is_visible",
        "pg_ts_template_is_visible",
        "has_function_privilege",
        "has_sequence_privilege",
        "has_tablespace_privilege",
        "has_type_privilege",
        "has_language_privilege",
        "has_parameter_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "pg_has_role",
    ] {
        functions.push(function(name, DataType::Boolean, always));
    }
    for name in [
        "pg_is_in_recovery",
        "pg_is_wal_replay_paused",
        "pg_is_other_temp_schema",
        "pg_relation_is_publishable",
    ] {
        functions.push(function(name, DataType::Boolean, never));
    }
    for name in [
        "shobj_description",
        "pg_get_partkeydef",
        "pg_get_ruledef",
        "pg_get_triggerdef",
        "pg_get_statisticsobjdef_columns",
        "pg_get_serial_sequence",
        "pg_tablespace_location",
        "inet_server_addr",
        "inet_client_addr",
        "inet_client_port",
        "pg_get_partition_constraintdef",
        "pg_get_statisticsobjdef",
        "pg_get_function_sqlbody",
        "acldefault",
        "pg_size_bytes",
        "pg_last_wal_replay_lsn",
        "pg_last_wal_receive_lsn",
        "txid_current_if_assigned",
    ] {
        functions.push(function(name, DataType::Utf8, nothing));
    }
    functions.push(function("obj_description", DataType::Utf8, comments(engine)));
    functions.push(function("col_description", DataType::Utf8, column_comments(engine)));
    functions.push(function("pg_get_userbyid", DataType::Utf8, role_names(engine)));
    functions.push(function("acl_items", acl::items_type(), acl::items(engine)));
    functions.push(function("millpond_has_privilege", DataType::Boolean, has_privilege(engine)));
    functions.push(function("pg_typeof", DataType::Utf8, |args, rows| {
        let name = args.first().map(|a| crate::pg::type_name(a.data_type()));
        let name = name.as_deref().unwrap_or("unknown");
        // The type without its digits.
        let (begins, rest) = name.split_once('(').unwrap_or((name, ""));
        let ends = rest.split_once(')').map_or("", |(_, ends)| ends);
        Ok(constant(&format!("{begins}{ends}"), rows))
    }));
    functions.push(function("pg_encoding_to_char", DataType::Utf8, |_, rows| Ok(constant("UTF8", rows))));
    functions.push(function("current_schema", DataType::Utf8, |_, rows| Ok(constant("public", rows))));
    functions.push(function("current_database", DataType::Utf8, |_, rows| Ok(constant("millpond", rows))));
    functions.push(function("pg_get_indexdef", DataType::Utf8, index_definitions(engine)));
    functions.push(function(
        "pg_get_constraintdef",
        DataType::Utf8,
        definitions(engine, Definition::Constraint),
    ));
    functions.push(function("pg_get_viewdef", DataType::Utf8, definitions(engine, Definition::View)));
    functions.push(function("millpond_relation_name", DataType::Utf8, definitions(engine, Definition::Name)));
    functions.push(function("millpond_oid", DataType::Int64, oids));
    functions.push(function("millpond_namespace_name", DataType::Utf8, namespace_names));
    functions.push(function("pg_get_function_result", DataType::Utf8, |args, rows| {
        of_ids(args, rows, |oid| signature(oid).map(|(result, _)| result))
    }));
    for name in ["pg_get_function_arguments", "pg_get_function_identity_arguments"] {
        functions.push(function(name, DataType::Utf8, |args, rows| {
            of_ids(args, rows, |oid| signature(oid).map(|(_, arguments)| arguments))
        }));
    }
    functions.push(function("pg_get_functiondef", DataType::Utf8, |args, rows| of_ids(args, rows, source)));
    functions.push(function("pg_size_pretty", DataType::Utf8, |args, rows| of_ids(args, rows, pretty_size)));
    for name in
        ["pg_table_size", "pg_total_relation_size", "pg_relation_size", "pg_indexes_size", "pg_database_size"]
    {
        functions.push(function(name, DataType::Int64, sizes(engine)));
    }
    functions.push(function("pg_tablespace_size", DataType::Int64, |_, rows| {
        Ok(Arc::new(Int64Array::from(vec![None; rows])))
    }));
    functions.push(function("pg_char_to_encoding", DataType::Int32, |_, rows| {
        Ok(Arc::new(Int32Array::from_value(6, rows)))
    }));
    functions.push(function("pg_stat_get_numscans", DataType::Int64, |_, rows| {
        Ok(Arc::new(Int64Array::from_value(0, rows)))
    }));
    functions.push(function("format", DataType::Utf8, format_text));
    // A statement that is nothing but its call is answered before it comes to this.
    functions.push(function("pg_notify", DataType::Utf8, |_, _| {
        exec_err!("pg_notify() must be all that is selected")
    }));
    functions.push(function("pg_advisory_unlock_all", DataType::Utf8, nothing));
    functions.push(function("millpond_expand_array", expanded_type(), expand_array));
    for name in ["to_regclass", "to_regtype", "to_regnamespace", "to_regrole", "to_regproc"] {
        functions.push(function(name, DataType::Int64, oids_of(engine, name.trim_start_matches("to_"))));
    }
    functions.push(function("getdatabaseencoding", DataType::Utf8, |_, rows| Ok(constant("UTF8", rows))));
    functions.push(function("pg_client_encoding", DataType::Utf8, |_, rows| Ok(constant("UTF8", rows))));
    functions
        .push(function("pg_blocking_pids", text_list(), |_, rows| Ok(new_null_array(&text_list(), rows))));
    functions.push(function("array_upper", DataType::Int32, array_upper));
    functions.push(function("pg_postmaster_start_time", started_type(), started(engine)));
    functions.push(function("pg_conf_load_time", started_type(), started(engine)));
    functions.push(function("current_schemas", text_list(), |_, rows| {
        let mut list = ListBuilder::new(StringBuilder::new());
        for _ in 0..rows {
            ["pg_catalog", "public"].iter().for_each(|schema| list.values().append_value(schema));
            list.append(true);
        }
        Ok(Arc::new(list.finish()))
    }));
    functions
        .push(function("pg_get_expr", DataType::Utf8, |args, _| Ok(cast(first(args)?, &DataType::Utf8)?)));
    functions.push(function("version", DataType::Utf8, |_, rows| {
        let text = format!(
            "PostgreSQL {SERVER_VERSION} (Millpond {}) on {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        );
        Ok(constant(&text, rows))
    }));
    functions.push(function("format_type", DataType::Utf8, format_type));
    functions.push(function("quote_ident", DataType::Utf8, quote_ident));
    functions
}
