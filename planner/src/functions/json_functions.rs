//! PostgreSQL's and ksqlDB's functions on JSON, and the operators that are them.
//!
//! Source: PostgreSQL, "JSON Functions and Operators"; ksqlDB, "Scalar functions". What ksqlDB's cannot read is
//! NULL; a path that leads nowhere is NULL in both.

use std::sync::Arc;

use datafusion::arrow::array::builder::{ListBuilder, StringBuilder};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::arrow::json::writer::{EncoderOptions, make_encoder};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    Expr, ExprSchemable, ReturnFieldArgs, ScalarUDF, Signature, TypeSignature, Volatility,
};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sql::TextType;
use sql::sqlparser::ast::BinaryOperator;

use super::json;
use super::json_bytes::JsonBytes;
use super::scalar::{scalar_function, text_at, text_function, text_function_of, text_map_builder};

/// Plans the operators.
#[derive(Debug)]
pub(super) struct JsonPlanner;

impl ExprPlanner for JsonPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let is_text = |e: &Expr| e.get_type(schema).is_ok_and(|t| t.is_string());
        if !is_text(&expr.left) {
            return Ok(PlannerResult::Original(expr));
        }
        let is_jsonb = |e: &Expr| {
            let field = e.to_field(schema).map(|(_, field)| TextType::of(&field));
            matches!(field, Ok(Some(TextType::Jsonb)))
        };
        let (name, swapped) = match expr.op {
            BinaryOperator::Arrow => ("json_get", false),
            BinaryOperator::LongArrow => ("json_get_text", false),
            BinaryOperator::HashArrow => ("json_path", false),
            BinaryOperator::HashLongArrow => ("json_path_text", false),
            BinaryOperator::Question => ("json_exists", false),
            BinaryOperator::AtArrow => ("json_contains", false),
            BinaryOperator::ArrowAt => ("json_contains", true),
            // Texts are joined by it, unless one of them is known to be no other text.
            BinaryOperator::StringConcat if is_jsonb(&expr.left) || is_jsonb(&expr.right) => {
                ("jsonb_concat", false)
            }
            BinaryOperator::Minus if is_jsonb(&expr.left) => ("jsonb_delete", false),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let Some(function) = functions().into_iter().find(|f| f.name() == name) else {
            return Ok(PlannerResult::Original(expr));
        };
        let arguments = if swapped { vec![expr.right, expr.left] } else { vec![expr.left, expr.right] };
        Ok(PlannerResult::Planned(function.call(arguments)))
    }
}

fn signature(types: Vec<TypeSignature>) -> Signature {
    Signature::one_of(types, Volatility::Immutable)
}

fn exact(types: Vec<DataType>) -> Signature {
    Signature::exact(types, Volatility::Immutable)
}

fn texts() -> DataType {
    DataType::new_list(DataType::Utf8, true)
}

/// The type of the first argument: a part of json is json, one of jsonb is jsonb.
fn like_first(args: &ReturnFieldArgs<'_>) -> Option<TextType> {
    args.arg_fields.first().and_then(|field| TextType::of(field)).or(Some(TextType::Json))
}

fn jsonb(_: &ReturnFieldArgs<'_>) -> Option<TextType> {
    Some(TextType::Jsonb)
}

fn as_json(_: &ReturnFieldArgs<'_>) -> Option<TextType> {
    Some(TextType::Json)
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    [operators(), of_postgres(), of_ksql()].concat()
}

fn operators() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Boolean, Utf8};
    let path = || exact(vec![Utf8, texts()]);
    vec![
        text_function("json_get", key_or_index(), like_first, |args, _| {
            Ok(get(args, |part| Some(part.to_owned())))
        }),
        scalar_function("json_get_text", key_or_index(), Utf8, |args, _| Ok(get(args, json::content))),
        text_function("json_path", path(), like_first, |args, _| {
            Ok(along(args, |part| Some(part.to_owned())))
        }),
        scalar_function("json_path_text", path(), Utf8, |args, _| Ok(along(args, json::content))),
        scalar_function("json_exists", exact(vec![Utf8; 2]), Boolean, |args, _| {
            Ok(pairs(args, |json, name| Some(exists(json, name))))
        }),
        scalar_function("json_contains", exact(vec![Utf8; 2]), Boolean, |args, _| {
            Ok(pairs(args, |outer, inner| {
                let value = |text: &str| serde_json::from_str::<Value>(text).ok();
                Some(json::contains(&value(outer)?, &value(inner)?))
            }))
        }),
    ]
}

fn of_postgres() -> Vec<Arc<ScalarUDF>> {
    use DataType::Utf8;
    let any = || Signature::any(1, Volatility::Immutable);
    let variadic = || Signature::variadic_any(Volatility::Immutable);
    let path = || Signature::variadic(vec![Utf8], Volatility::Immutable);
    let mut functions = vec![
        text_function_of("to_jsonb", any(), jsonb, |args, _, fields| {
            Ok(normal(&json_of(&args[0], &fields[0])?))
        }),
        text_function_of("json_build_object", variadic(), as_json, |args, rows, fields| {
            build(args, rows, fields, true)
        }),
        text_function_of("jsonb_build_object", variadic(), jsonb, |args, rows, fields| {
            Ok(normal(&build(args, rows, fields, true)?))
        }),
        text_function_of("json_build_array", variadic(), as_json, |args, rows, fields| {
            build(args, rows, fields, false)
        }),
        text_function_of("jsonb_build_array", variadic(), jsonb, |args, rows, fields| {
            Ok(normal(&build(args, rows, fields, false)?))
        }),
        text_function("jsonb_pretty", exact(vec![Utf8]), |_| None, |args, _| Ok(pretty(&args[0]))),
        text_function("jsonb_set", signature_of_set(), jsonb, set),
        text_function("jsonb_concat", exact(vec![Utf8; 2]), jsonb, |args, rows| {
            let both = |row| json::concat(&[text_at(&args[0], row)?, text_at(&args[1], row)?]);
            let texts: ArrayRef = Arc::new((0..rows).map(both).collect::<StringArray>());
            Ok(normal(&texts))
        }),
        text_function("jsonb_delete", key_or_index(), jsonb, |args, _| Ok(normal(&without(args)))),
        scalar_function("json_element_list", exact(vec![Utf8]), texts(), |args, _| {
            element_lists(&args[0], |e| Some(e.trim().to_owned()))
        }),
        scalar_function("json_element_texts", exact(vec![Utf8]), texts(), |args, _| {
            element_lists(&args[0], json::content)
        }),
        scalar_function("json_member_names", exact(vec![Utf8]), texts(), |args, _| {
            member_lists(&args[0], |(name, _)| Some(name))
        }),
        scalar_function("json_member_list", exact(vec![Utf8]), texts(), |args, _| {
            member_lists(&args[0], |(_, value)| Some(value.get().to_owned()))
        }),
        scalar_function("json_member_texts", exact(vec![Utf8]), texts(), |args, _| {
            member_lists(&args[0], |(_, value)| json::content(value.get()))
        }),
    ];
    for name in ["to_json", "row_to_json", "array_to_json"] {
        functions
            .push(text_function_of(name, any(), as_json, |args, _, fields| json_of(&args[0], &fields[0])));
    }
    for (name, members, normalized) in [
        ("json_of_elements", false, false),
        ("jsonb_of_elements", false, true),
        ("json_of_members", true, false),
        ("jsonb_of_members", true, true),
    ] {
        let text_type = if normalized { jsonb } else { as_json };
        functions.push(text_function(name, any(), text_type, move |args, _| {
            let texts = of_lists(&args[0], members)?;
            Ok(if normalized { normal(&texts) } else { texts })
        }));
    }
    for name in ["json_typeof", "jsonb_typeof"] {
        functions.push(scalar_function(name, exact(vec![Utf8]), Utf8, |args, _| {
            Ok(Arc::new(strings(&args[0]).map(|json| json.and_then(json::kind)).collect::<StringArray>()))
        }));
    }
    for name in ["json_array_length", "jsonb_array_length"] {
        functions.push(scalar_function(name, exact(vec![Utf8]), DataType::Int32, |args, _| {
            Ok(Arc::new(
                strings(&args[0]).map(|json| length(json::elements(json?)?.len())).collect::<Int32Array>(),
            ))
        }));
    }
    for name in ["json_extract_path", "jsonb_extract_path"] {
        functions.push(text_function(name, path(), like_first, |args, rows| {
            Ok(extract(args, rows, |part| Some(part.to_owned())))
        }));
    }
    for name in ["json_extract_path_text", "jsonb_extract_path_text"] {
        functions
            .push(scalar_function(name, path(), Utf8, |args, rows| Ok(extract(args, rows, json::content))));
    }
    functions
}

fn of_ksql() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Boolean, Utf8};
    vec![
        scalar_function("extractjsonfield", exact(vec![Utf8; 2]), Utf8, |args, _| Ok(fields(args))),
        scalar_function("is_json_string", exact(vec![Utf8]), Boolean, |args, _| {
            let is_json = |text: Option<&str>| Some(text.is_some_and(json::is_json));
            Ok(Arc::new(strings(&args[0]).map(is_json).collect::<BooleanArray>()))
        }),
        scalar_function(
            "json_array_contains",
            Signature::any(2, Volatility::Immutable),
            Boolean,
            |args, _| {
                let wanted = json_texts(&args[1])?;
                let arrays = cast(&args[0], &Utf8)?;
                let found = strings(&arrays).zip(strings(&wanted)).map(|(array, wanted)| {
                    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
                    let wanted = value(wanted.unwrap_or("null"))?;
                    Some(json::elements(array?)?.iter().any(|e| value(e.get()).is_some_and(|e| e == wanted)))
                });
                Ok(Arc::new(found.map(|found| Some(found.unwrap_or(false))).collect::<BooleanArray>()))
            },
        ),
        scalar_function(
            "json_concat",
            Signature::variadic(vec![Utf8], Volatility::Immutable),
            Utf8,
            |args, rows| {
                let parts = |row| args.iter().map(|a| text_at(a, row)).collect::<Option<Vec<_>>>();
                Ok(Arc::new((0..rows).map(|row| json::concat(&parts(row)?)).collect::<StringArray>()))
            },
        ),
        scalar_function("json_keys", exact(vec![Utf8]), texts(), |args, _| {
            let keys = |json| Some(json::members(json)?.into_iter().map(|(name, _)| Some(name)).collect());
            Ok(lists(strings(&args[0]).map(|json| json.and_then(keys))))
        }),
        scalar_function("json_items", exact(vec![Utf8]), texts(), |args, _| {
            let items =
                |json| Some(json::elements(json)?.iter().map(|e| Some(json::compact(e.get()))).collect());
            Ok(lists(strings(&args[0]).map(|json| json.and_then(items))))
        }),
        scalar_function("json_records", exact(vec![Utf8]), records_type(), |args, _| records(&args[0])),
        scalar_function("to_json_string", Signature::any(1, Volatility::Immutable), Utf8, |args, _| {
            let texts = json_texts_with(&args[0], JsonBytes::Base64)?;
            let texts = strings(&texts).map(|text| Some(text.unwrap_or("null")));
            Ok(Arc::new(texts.collect::<StringArray>()))
        }),
    ]
}

fn key_or_index() -> Signature {
    use DataType::{Int64, Utf8};
    signature(vec![TypeSignature::Exact(vec![Utf8, Int64]), TypeSignature::Exact(vec![Utf8, Utf8])])
}

fn signature_of_set() -> Signature {
    use DataType::{Boolean, Utf8};
    let (path, value) = (texts(), Utf8);
    signature(vec![
        TypeSignature::Exact(vec![Utf8, path.clone(), value.clone()]),
        TypeSignature::Exact(vec![Utf8, path, value, Boolean]),
    ])
}

/// The elements of arrays; anything else has none, which is an error.
fn element_lists(values: &ArrayRef, take: impl Fn(&str) -> Option<String>) -> Result<ArrayRef> {
    let list = |json: Option<&str>| {
        let Some(json) = json else { return Ok(None) };
        match (json::elements(json), json::kind(json)) {
            (Some(elements), _) => Ok(Some(elements.into_iter().map(|e| take(e.get())).collect())),
            (None, Some("object")) => exec_err!("cannot extract elements from an object"),
            _ => exec_err!("cannot extract elements from a scalar"),
        }
    };
    Ok(lists(strings(values).map(list).collect::<Result<Vec<_>>>()?.into_iter()))
}

/// Something of the members of objects; anything else has none, which is an error.
fn member_lists<'a>(
    values: &'a ArrayRef,
    take: impl Fn((String, &'a RawValue)) -> Option<String>,
) -> Result<ArrayRef> {
    let list = |json: Option<&'a str>| {
        let Some(json) = json else { return Ok(None) };
        match (json::members(json), json::kind(json)) {
            (Some(members), _) => Ok(Some(members.into_iter().map(&take).collect())),
            (None, Some("array")) => exec_err!("cannot deconstruct an array as an object"),
            _ => exec_err!("cannot deconstruct a scalar"),
        }
    };
    Ok(lists(strings(values).map(list).collect::<Result<Vec<_>>>()?.into_iter()))
}

/// jsonb on several lines.
fn pretty(values: &ArrayRef) -> ArrayRef {
    let pretty = |json: &str| {
        let mut out = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
        serde_json::from_str::<Value>(json).ok()?.serialize(&mut writer).ok()?;
        String::from_utf8(out).ok()
    };
    Arc::new(strings(values).map(|json| pretty(json?)).collect::<StringArray>())
}

/// jsonb with another value at the end of a path; one that is not there is added, unless the fourth argument says
/// otherwise.
fn set(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let paths: &ListArray = args[1].as_list();
    let set = |row: usize| -> Option<String> {
        let mut json: Value = serde_json::from_str(text_at(&args[0], row)?).ok()?;
        let path = paths.is_valid(row).then(|| paths.value(row))?;
        let path: Vec<&str> = path.as_string::<i32>().iter().collect::<Option<_>>()?;
        let value: Value = serde_json::from_str(text_at(&args[2], row)?).ok()?;
        let adds = args.get(3).is_none_or(|adds| adds.as_boolean().value(row));
        json::set(&mut json, &path, value, adds);
        Some(json.to_string())
    };
    let texts: ArrayRef = Arc::new((0..rows).map(set).collect::<StringArray>());
    Ok(normal(&texts))
}

/// jsonb without a member, without the elements that are a string, or without the element of a number.
fn without(args: &[ArrayRef]) -> ArrayRef {
    let without = |row: usize| -> Option<String> {
        let mut json: Value = serde_json::from_str(text_at(&args[0], row)?).ok()?;
        match (&mut json, args[1].as_primitive_opt::<Int64Type>()) {
            (Value::Array(elements), Some(indices)) => {
                let (index, length) = (indices.value(row), i64::try_from(elements.len()).ok()?);
                let at = usize::try_from(if index < 0 { index + length } else { index }).ok();
                if let Some(at) = at.filter(|at| *at < elements.len()) {
                    elements.remove(at);
                }
            }
            (Value::Array(elements), None) => {
                let gone = text_at(&args[1], row)?;
                elements.retain(|element| element.as_str() != Some(gone));
            }
            (Value::Object(members), None) => {
                members.remove(text_at(&args[1], row)?);
            }
            _ => {}
        }
        Some(json.to_string())
    };
    Arc::new((0..args[0].len()).map(without).collect::<StringArray>())
}

fn strings(array: &ArrayRef) -> impl Iterator<Item = Option<&str>> {
    array.as_string::<i32>().iter()
}

fn length(length: usize) -> Option<i32> {
    i32::try_from(length).ok()
}

/// Part of a value by name or index.
fn get(args: &[ArrayRef], take: impl Fn(&str) -> Option<String>) -> ArrayRef {
    let part = |row: usize| -> Option<String> {
        let json = text_at(&args[0], row)?;
        let found = match args[1].data_type() {
            DataType::Int64 => {
                let index = args[1].as_primitive::<Int64Type>();
                json::element(json, index.is_valid(row).then(|| index.value(row))?)
            }
            _ => json::member(json, text_at(&args[1], row)?),
        };
        take(found?)
    };
    Arc::new((0..args[0].len()).map(part).collect::<StringArray>())
}

/// Part of a value along a list of names.
fn along(args: &[ArrayRef], take: impl Fn(&str) -> Option<String>) -> ArrayRef {
    let paths: &ListArray = args[1].as_list();
    let part = |row: usize| -> Option<String> {
        let json = text_at(&args[0], row)?;
        let path = paths.is_valid(row).then(|| paths.value(row))?;
        let path: Vec<&str> = path.as_string::<i32>().iter().collect::<Option<_>>()?;
        take(json::at_path(json, &path)?)
    };
    Arc::new((0..args[0].len()).map(part).collect::<StringArray>())
}

/// Part of a value along the names that follow it.
fn extract(args: &[ArrayRef], rows: usize, take: impl Fn(&str) -> Option<String>) -> ArrayRef {
    let part = |row: usize| -> Option<String> {
        let (json, path) = args.split_first()?;
        let path = path.iter().map(|name| text_at(name, row)).collect::<Option<Vec<_>>>()?;
        take(json::at_path(text_at(json, row)?, &path)?)
    };
    Arc::new((0..rows).map(part).collect::<StringArray>())
}

fn pairs(args: &[ArrayRef], of: impl Fn(&str, &str) -> Option<bool>) -> ArrayRef {
    let both = strings(&args[0]).zip(strings(&args[1]));
    Arc::new(both.map(|(a, b)| of(a?, b?)).collect::<BooleanArray>())
}

/// Whether an object has a member, an array a string, of that name.
fn exists(json: &str, name: &str) -> bool {
    match json::elements(json) {
        Some(elements) => elements.iter().any(|e| json::content(e.get()).as_deref() == Some(name)),
        None => json::member(json, name).is_some(),
    }
}

/// Values as JSON, where they are not that already; NULL stays NULL.
fn json_of(values: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    match TextType::of(field) {
        Some(TextType::Json | TextType::Jsonb) => Ok(Arc::clone(values)),
        _ => json_texts(values),
    }
}

/// Values as JSON; NULL stays NULL.
fn json_texts(values: &ArrayRef) -> Result<ArrayRef> {
    json_texts_with(values, JsonBytes::Hex)
}

fn json_texts_with(values: &ArrayRef, bytes: JsonBytes) -> Result<ArrayRef> {
    let field = Arc::new(Field::new("value", values.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(bytes));
    if values.data_type().is_null() {
        return Ok(Arc::new(StringArray::new_null(values.len())));
    }
    let mut encoder = make_encoder(&field, values.as_ref(), &options)?;
    let mut bytes = Vec::new();
    let mut out = StringBuilder::with_capacity(values.len(), values.len() * 16);
    for row in 0..values.len() {
        if values.is_null(row) {
            out.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        out.append_value(String::from_utf8_lossy(&bytes));
    }
    Ok(Arc::new(out.finish()))
}

fn normal(texts: &ArrayRef) -> ArrayRef {
    Arc::new(strings(texts).map(|json| json::jsonb_text(json?).ok()).collect::<StringArray>())
}

/// An object of names and values in turn, or an array.
fn build(args: &[ArrayRef], rows: usize, fields: &[FieldRef], object: bool) -> Result<ArrayRef> {
    let values = args.iter().zip(fields).map(|(a, field)| json_of(a, field)).collect::<Result<Vec<_>>>()?;
    let names = args
        .iter()
        .step_by(2)
        .map(|a| cast(a, &DataType::Utf8))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let value = |array: &ArrayRef, row| text_at(array, row).unwrap_or("null").to_owned();
    let text = |row: usize| {
        if !object {
            let all: Vec<String> = values.iter().map(|v| value(v, row)).collect();
            return format!("[{}]", all.join(", "));
        }
        let pairs = names.iter().zip(values.iter().skip(1).step_by(2));
        let pairs = pairs.map(|(name, v)| {
            format!("{} : {}", json::quoted(text_at(name, row).unwrap_or_default()), value(v, row))
        });
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
    };
    Ok(Arc::new((0..rows).map(|row| Some(text(row))).collect::<StringArray>()))
}

/// An array of each list's elements, which are JSON, or an object of its pairs of name and value.
fn of_lists(lists: &ArrayRef, members: bool) -> Result<ArrayRef> {
    let Some(lists) = lists.as_list_opt::<i32>() else { return exec_err!("expected an array") };
    let elements = lists.values();
    let (names, values) = match elements.as_struct_opt().filter(|_| members) {
        Some(pairs) => {
            if pairs.column(0).null_count() > 0 {
                return exec_err!("field name must not be null");
            }
            (Some(cast(pairs.column(0), &DataType::Utf8)?), cast(pairs.column(1), &DataType::Utf8)?)
        }
        None => (None, cast(elements, &DataType::Utf8)?),
    };
    let element = |at: usize| {
        let value = text_at(&values, at).unwrap_or("null");
        match &names {
            Some(names) => format!("{} : {value}", json::quoted(text_at(names, at).unwrap_or_default())),
            None => value.to_owned(),
        }
    };
    let text = |row: usize| {
        let all: Vec<String> = (lists.value_offsets()[row]..lists.value_offsets()[row + 1])
            .map(|at| element(at as usize))
            .collect();
        let all = all.join(", ");
        lists.is_valid(row).then(|| if names.is_some() { format!("{{ {all} }}") } else { format!("[{all}]") })
    };
    Ok(Arc::new((0..lists.len()).map(text).collect::<StringArray>()))
}

fn fields(args: &[ArrayRef]) -> ArrayRef {
    let field = |(json, path): (Option<&str>, Option<&str>)| {
        json::content(json::at_path(json?, &json::path(path?)?)?)
    };
    Arc::new(strings(&args[0]).zip(strings(&args[1])).map(field).collect::<StringArray>())
}

fn lists(lists: impl Iterator<Item = Option<Vec<Option<String>>>>) -> ArrayRef {
    let mut out = ListBuilder::new(StringBuilder::new());
    lists.for_each(|list| out.append_option(list));
    Arc::new(out.finish())
}

fn records_type() -> DataType {
    sql::text_map(DataType::Utf8)
}

fn records(values: &ArrayRef) -> Result<ArrayRef> {
    let mut out = text_map_builder();
    for json in strings(values) {
        let members = json.and_then(json::members);
        for (name, value) in members.iter().flatten() {
            out.keys().append_value(name);
            out.values().append_value(value.get());
        }
        out.append(members.is_some())?;
    }
    Ok(Arc::new(out.finish()))
}
