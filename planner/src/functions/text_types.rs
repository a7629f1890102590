//! Values read as uuid, json, jsonb and varchar(n), and a uuid as text.
//!
//! Source: PostgreSQL, "UUID Type", "JSON Types", "Character Types". Next: `read_texts` puts the reading
//! of a uuid where a text stands beside one.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, StringArray, StringBuilder,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarUDF, Signature, Volatility,
};
use sql::{TextType, UUID};

use super::json::jsonb_text;
use super::numeric::{is_rounded, rounded};
use super::numeric_text::as_numeric;
use super::scalar::{scalar_function, text_function};
use super::text::bytes_of_text;
use super::text_arrays;
use super::text_times::as_ms;
use super::value_text::{is_written_apart, text_out};

/// Bytes of a uuid.
const UUID_BYTES: i32 = 16;

/// Functions that make a text of whatever they are given.
const TEXTS: [&str; 3] = ["concat", "concat_ws", "format"];
/// The shape of a time without seconds.
const MINUTES: &str = "0000-00-00 00:00";

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let any = |n| Signature::any(n, Volatility::Immutable);
    vec![
        uuid_in(),
        uuid_text(),
        text_function(
            "json_in",
            any(1),
            |_| Some(TextType::Json),
            |args, _| read(&args[0], |text| json_value(text, TextType::Json).map_err(invalid_json)),
        ),
        text_function(
            "jsonb_in",
            any(1),
            |_| Some(TextType::Jsonb),
            |args, _| read(&args[0], |text| json_value(text, TextType::Jsonb).map_err(invalid_json)),
        ),
        text_function("varchar_in", any(2), varchar, |args, _| {
            let most = cast(&args[1], &DataType::Int64)?;
            let most = most.as_primitive::<datafusion::arrow::datatypes::Int64Type>();
            let most = most.iter().flatten().next().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            read(&args[0], |text| Ok(text.chars().take(most).collect()))
        }),
    ]
}

fn varchar(args: &ReturnFieldArgs<'_>) -> Option<TextType> {
    let most = match args.scalar_arguments.get(1) {
        Some(Some(ScalarValue::Int64(Some(most)))) => u32::try_from(*most).ok(),
        _ => None,
    };
    Some(TextType::Varchar(most))
}

/// What a function of these reads its first argument as, by its name.
pub fn reads_as(name: &str) -> Option<Field> {
    let text = |text: TextType| text.on(Field::new("", DataType::Utf8, true));
    match name {
        "uuid_in" => Some(Field::new("", UUID, true)),
        "json_in" => Some(text(TextType::Json)),
        "jsonb_in" => Some(text(TextType::Jsonb)),
        "varchar_in" => Some(text(TextType::Varchar(None))),
        _ => None,
    }
}

fn read(values: &ArrayRef, read: impl Fn(&str) -> Result<String>) -> Result<ArrayRef> {
    let texts = cast(values, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>().iter().map(|text| text.map(&read).transpose());
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where an error is mapped")]
fn invalid_json(reason: String) -> DataFusionError {
    DataFusionError::Execution(format!("invalid input syntax for type json: {reason}"))
}

/// A text as a value of json, which keeps it, or of jsonb.
///
/// # Errors
/// Why it is no JSON.
pub fn json_value(text: &str, json: TextType) -> std::result::Result<String, String> {
    if json == TextType::Jsonb {
        return jsonb_text(text);
    }
    let read = serde_json::from_str::<serde::de::IgnoredAny>(text);
    read.map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn uuid_in() -> Arc<ScalarUDF> {
    scalar_function("uuid_in", Signature::any(1, Volatility::Immutable), UUID, |args, _| read_uuids(&args[0]))
}

/// The uuids that texts are.
///
/// # Errors
/// A text that is none.
pub fn read_uuids(values: &ArrayRef) -> Result<ArrayRef> {
    if *values.data_type() == UUID {
        return Ok(Arc::clone(values));
    }
    let texts = cast(values, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let mut out = FixedSizeBinaryBuilder::with_capacity(texts.len(), UUID_BYTES);
    for text in texts {
        let Some(text) = text else {
            out.append_null();
            continue;
        };
        let uuid = parse_uuid(text).ok_or_else(|| {
            DataFusionError::Execution(format!("invalid input syntax for type uuid: \"{text}\""))
        })?;
        out.append_value(uuid)?;
    }
    Ok(Arc::new(out.finish()))
}

/// A uuid out of 32 hexadecimal digits, with a hyphen behind any four of them, in braces or not.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}')?,
        None => text,
    };
    let mut uuid = [0; 16];
    let mut digits = 0;
    for c in text.chars() {
        match c.to_digit(16).and_then(|d| u8::try_from(d).ok()) {
            Some(digit) if digits < 32 => {
                uuid[digits / 2] = uuid[digits / 2] << 4 | digit;
                digits += 1;
            }
            None if c == '-' && digits > 0 && digits < 32 && digits % 4 == 0 => {}
            _ => return None,
        }
    }
    (digits == 32).then_some(uuid)
}

/// Writes a uuid as PostgreSQL does.
pub fn write_uuid(uuid: &[u8], out: &mut impl Write) -> std::fmt::Result {
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.write_char('-')?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

fn uuid_text() -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![UUID], Volatility::Immutable);
    scalar_function("uuid_text", signature, DataType::Utf8, |args, _| {
        Ok(uuid_texts(args[0].as_fixed_size_binary()))
    })
}

/// The texts of uuids.
fn uuid_texts(uuids: &FixedSizeBinaryArray) -> ArrayRef {
    let mut out = StringBuilder::with_capacity(uuids.len(), uuids.len() * 36);
    for uuid in uuids {
        if let Some(uuid) = uuid {
            // Writing to memory does not fail.
            let _ = write_uuid(uuid, &mut out);
            out.append_value("");
        } else {
            out.append_null();
        }
    }
    Arc::new(out.finish())
}

/// A text beside a uuid, as one.
pub(super) fn as_uuid(expr: Expr) -> Expr {
    uuid_in().call(vec![expr])
}

/// A plan in which texts beside uuids and lists are such, and uuids and lists that become text have PostgreSQL's form.
///
/// # Errors
/// Only a bug's.
pub(crate) fn read_texts(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            schema = scan.projected_schema.as_ref().clone();
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let read = expr.transform_up(|expr| read_text(expr, &schema))?;
            Ok(if read.transformed { read.update_data(|expr| name.restore(expr)) } else { read })
        })
    })?;
    Ok(plan.data)
}

/// A literal of a time with minutes and no seconds, which PostgreSQL takes, with seconds.
fn with_seconds(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) = expr else { return None };
    let (time, zone) = text.split_at_checked(MINUTES.len())?;
    let shaped = |(c, of): (char, char)| if of == '0' { c.is_ascii_digit() } else { c == of };
    let is_time = time.replace('T', " ").chars().zip(MINUTES.chars()).all(shaped);
    (is_time && !zone.starts_with(':'))
        .then(|| Expr::Literal(ScalarValue::Utf8(Some(format!("{time}:00{zone}"))), metadata.clone()))
}

fn read_text(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is = |e: &Expr, of: fn(&DataType) -> bool| e.get_type(schema).is_ok_and(|t| of(&t));
    let is_list = |t: &DataType| matches!(t, DataType::List(_));
    let is_uuid = |e: &Expr| is(e, |t| *t == UUID);
    let uuid = |e: Expr| if is_uuid(&e) { e } else { as_uuid(e) };
    let is_bytes = |e: &Expr| is(e, |t| *t == DataType::Binary);
    let bytes = |e: Expr| match &e {
        Expr::Literal(value, _) if value.data_type().is_string() => bytes_of_text().call(vec![e]),
        _ => e,
    };
    Ok(match expr {
        Expr::Cast(to_text) if to_text.field.data_type().is_string() && is_uuid(&to_text.expr) => {
            Transformed::yes(uuid_text().call(vec![*to_text.expr]))
        }
        Expr::Cast(cast) if is_list(cast.field.data_type()) && is(&cast.expr, DataType::is_string) => {
            Transformed::yes(text_arrays::as_list(*cast.expr, cast.field.data_type())?)
        }
        Expr::Cast(cast)
            if matches!(cast.field.data_type(), DataType::Decimal128(..))
                && is(&cast.expr, DataType::is_string) =>
        {
            Transformed::yes(as_numeric(*cast.expr, cast.field.data_type())?)
        }
        Expr::Cast(cast) if cast.field.data_type().is_string() && is(&cast.expr, is_written_apart) => {
            Transformed::yes(text_out().call(vec![*cast.expr]))
        }
        Expr::Cast(mut cast)
            if cast.expr.get_type(schema).is_ok_and(|from| is_rounded(&from, cast.field.data_type())) =>
        {
            let number = std::mem::take(&mut *cast.expr);
            *cast.expr = rounded(number, schema)?;
            Transformed::yes(Expr::Cast(cast))
        }
        Expr::Cast(mut cast) if matches!(cast.field.data_type(), DataType::Timestamp(..)) => {
            match with_seconds(&cast.expr) {
                Some(text) => {
                    *cast.expr = text;
                    Transformed::yes(Expr::Cast(cast))
                }
                None => Transformed::no(Expr::Cast(cast)),
            }
        }
        Expr::BinaryExpr(BinaryExpr { mut left, op: Operator::StringConcat, mut right })
            if is(&left, DataType::is_string) != is(&right, DataType::is_string) =>
        {
            let other = if is(&left, DataType::is_string) { &mut right } else { &mut left };
            let apart =
                |t: &DataType| is_written_apart(t) && !matches!(t, DataType::Binary | DataType::List(_));
            let changed = other.get_type(schema).is_ok_and(|t| apart(&t));
            if changed {
                **other = text_out().call(vec![std::mem::take(&mut **other)]);
            }
            let expr = Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right });
            if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
        }
        Expr::ScalarFunction(mut function) if TEXTS.contains(&function.name()) => {
            let mut changed = false;
            for argument in &mut function.args {
                if argument.get_type(schema).is_ok_and(|t| is_written_apart(&t) || t == DataType::Boolean) {
                    *argument = text_out().call(vec![std::mem::take(argument)]);
                    changed = true;
                }
            }
            let expr = Expr::ScalarFunction(function);
            if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if op.supports_propagation() && (is_bytes(&left) != is_bytes(&right)) =>
        {
            let (left, right) = (Box::new(bytes(*left)), Box::new(bytes(*right)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(InList { expr, list, negated }) if is_bytes(&expr) => {
            let list = list.into_iter().map(bytes).collect();
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let [left_list, right_list] = [&left, &right].map(|e| e.get_type(schema).ok().filter(is_list));
            let is_text = |e: &Expr| matches!(e, Expr::Literal(value, _) if value.data_type().is_string());
            let (left, right) = match (left_list, right_list) {
                (Some(list), None) if is_text(&right) => {
                    (left, Box::new(text_arrays::as_list(*right, &list)?))
                }
                (None, Some(list)) if is_text(&left) => {
                    (Box::new(text_arrays::as_list(*left, &list)?), right)
                }
                _ => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(InList { expr, list, negated }) if is_uuid(&expr) => {
            let list = list.into_iter().map(uuid).collect();
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_uuid(&expr) => {
            let (low, high) = (Box::new(uuid(*low)), Box::new(uuid(*high)));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::Between(between) => {
            let ms = (as_ms(&between.expr, &between.low), as_ms(&between.expr, &between.high));
            let (Some(low), Some(high)) = ms else { return Ok(Transformed::no(Expr::Between(between))) };
            let Between { expr, negated, .. } = between;
            Transformed::yes(Expr::Between(Between::new(expr, negated, Box::new(low), Box::new(high))))
        }
        other => Transformed::no(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_as_postgres_reads_them() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let uuid = parse_uuid(text);
        assert!(uuid.is_some());
        for same in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            assert_eq!(parse_uuid(same), uuid, "{same}");
        }
        for wrong in [
            "",
            "a0eebc99",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "-a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
            "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a1g",
        ] {
            assert_eq!(parse_uuid(wrong), None, "{wrong}");
        }
        let mut out = String::new();
        let written = uuid.map(|u| write_uuid(&u, &mut out));
        assert_eq!((written, out.as_str()), (Some(Ok(())), text));
    }
}
