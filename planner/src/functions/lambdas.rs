//! ksqlDB's functions that take functions: TRANSFORM and FILTER of maps, REDUCE. Those of arrays are
//! DataFusion's.
//!
//! Source: ksqlDB, "Lambda functions". A lambda is evaluated over a column of arguments: over all entries at
//! once, and in REDUCE over the first elements of all rows, then over the second ones, and so on.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, StructArray, UInt32Array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{cast, filter, interleave, take, take_arrays};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::type_coercion::binary::type_union_coercion;
use datafusion::logical_expr::{
    ColumnarValue, HigherOrderFunctionArgs, HigherOrderReturnFieldArgs, HigherOrderSignature, HigherOrderUDF,
    HigherOrderUDFImpl, LambdaArgument, LambdaParametersProgress, ValueOrLambda, Volatility,
};

/// All of them.
pub(super) fn functions() -> Vec<Arc<HigherOrderUDF>> {
    [Kind::TransformMap, Kind::FilterMap, Kind::Reduce]
        .into_iter()
        .map(|kind| {
            let signature = HigherOrderSignature::variadic_any(Volatility::Immutable);
            Arc::new(HigherOrderUDF::new_from_impl(Function { kind, signature }))
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    TransformMap,
    FilterMap,
    Reduce,
}

struct Function {
    kind: Kind,
    signature: HigherOrderSignature,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// The kind says everything.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

/// Keys and values of a map, or elements of an array, as parameters of a lambda.
fn parts(collection: &DataType) -> Result<Vec<DataType>> {
    match collection {
        DataType::List(field) => Ok(vec![field.data_type().clone()]),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => Ok(fields.iter().map(|f| f.data_type().clone()).collect()),
            other => plan_err!("a map whose entries are {other}"),
        },
        other => plan_err!("a function of {other}: it takes an array or a map"),
    }
}

fn parameter(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("", data_type, true))
}

/// The type that a state has which begins as one and goes on as the other.
fn state_type(first: &DataType, next: &DataType) -> Result<DataType> {
    match type_union_coercion(first, next) {
        Some(both) => Ok(both),
        None => plan_err!("a state of type {first} becomes {next}"),
    }
}

impl HigherOrderUDFImpl for Function {
    fn name(&self) -> &str {
        match self.kind {
            Kind::TransformMap => "map_transform",
            Kind::FilterMap => "map_filter",
            Kind::Reduce => "reduce",
        }
    }

    fn signature(&self) -> &HigherOrderSignature {
        &self.signature
    }

    fn lambda_parameters(
        &self,
        _step: usize,
        fields: &[ValueOrLambda<FieldRef, Option<FieldRef>>],
    ) -> Result<LambdaParametersProgress> {
        use ValueOrLambda::{Lambda, Value};
        match (self.kind, fields) {
            (Kind::TransformMap, [Value(map), Lambda(_), Lambda(_)]) => {
                let entry: Vec<_> = parts(map.data_type())?.into_iter().map(parameter).collect();
                Ok(LambdaParametersProgress::Complete(vec![entry.clone(), entry]))
            }
            (Kind::FilterMap, [Value(map), Lambda(_)]) => {
                let entry = parts(map.data_type())?.into_iter().map(parameter).collect();
                Ok(LambdaParametersProgress::Complete(vec![entry]))
            }
            (Kind::Reduce, [Value(collection), Value(first), Lambda(next)]) => {
                let with = |state: DataType| -> Result<Vec<FieldRef>> {
                    let parts = parts(collection.data_type())?;
                    Ok([vec![state], parts].concat().into_iter().map(parameter).collect())
                };
                match next {
                    None => {
                        Ok(LambdaParametersProgress::Partial(vec![Some(with(first.data_type().clone())?)]))
                    }
                    Some(next) => {
                        let state = state_type(first.data_type(), next.data_type())?;
                        Ok(LambdaParametersProgress::Complete(vec![with(state)?]))
                    }
                }
            }
            _ => plan_err!("{} does not take these arguments", self.name()),
        }
    }

    fn return_field_from_args(&self, args: HigherOrderReturnFieldArgs<'_>) -> Result<FieldRef> {
        use ValueOrLambda::{Lambda, Value};
        match (self.kind, args.arg_fields) {
            (Kind::TransformMap, [Value(_), Lambda(key), Lambda(value)]) => {
                if *key.data_type() != DataType::Utf8 {
                    return plan_err!("the keys of a map are of type VARCHAR, not {}", key.data_type());
                }
                Ok(parameter(sql::text_map(value.data_type().clone())))
            }
            (Kind::FilterMap, [Value(map), Lambda(_)]) => Ok(parameter(map.data_type().clone())),
            (Kind::Reduce, [Value(_), Value(first), Lambda(next)]) => {
                Ok(parameter(state_type(first.data_type(), next.data_type())?))
            }
            _ => plan_err!("{} does not take these arguments", self.name()),
        }
    }

    fn invoke_with_args(&self, args: HigherOrderFunctionArgs) -> Result<ColumnarValue> {
        use ValueOrLambda::{Lambda, Value};
        let rows = args.number_rows;
        let result = match (self.kind, args.args.as_slice()) {
            (Kind::TransformMap, [Value(map), Lambda(key), Lambda(value)]) => {
                transform(&map.to_array(rows)?, key, value, args.return_type())?
            }
            (Kind::FilterMap, [Value(map), Lambda(keeps)]) => filtered(&map.to_array(rows)?, keeps)?,
            (Kind::Reduce, [Value(collection), Value(first), Lambda(next)]) => {
                let first = cast(&first.to_array(rows)?, args.return_type())?;
                reduced(&Collection::of(&collection.to_array(rows)?)?, first, next)?
            }
            _ => return exec_err!("{} does not take these arguments", self.name()),
        };
        Ok(ColumnarValue::Array(result))
    }
}

/// The entries of the maps of a column, those of NULLs left out.
struct Entries {
    /// Keys, then values.
    columns: Vec<ArrayRef>,
    lengths: Vec<usize>,
    /// Of each entry its row.
    rows: UInt32Array,
}

impl Entries {
    fn of(maps: &MapArray) -> Result<Self> {
        let (mut indices, mut rows, mut lengths) = (Vec::new(), Vec::new(), Vec::with_capacity(maps.len()));
        for (row, number) in (0..maps.len()).zip(0u32..) {
            let length = if maps.is_null(row) { 0 } else { maps.value_length(row) };
            let start = maps.value_offsets()[row];
            indices.extend((start..start + length).map(|at| u32::try_from(at).unwrap_or(0)));
            rows.extend((0..length).map(|_| number));
            lengths.push(usize::try_from(length).unwrap_or(0));
        }
        let columns = take_arrays(maps.entries().columns(), &UInt32Array::from(indices), None)?;
        Ok(Self { columns, lengths, rows: UInt32Array::from(rows) })
    }

    /// A lambda's value for each entry.
    fn evaluate(&self, lambda: &LambdaArgument) -> Result<ArrayRef> {
        let (key, value) = (|| Ok(Arc::clone(&self.columns[0])), || Ok(Arc::clone(&self.columns[1])));
        let value =
            lambda.evaluate(&[&key, &value], |captured| Ok(take_arrays(captured, &self.rows, None)?))?;
        value.into_array(self.rows.len())
    }
}

fn maps_of(array: &ArrayRef) -> Result<&MapArray> {
    match array.as_map_opt() {
        Some(maps) => Ok(maps),
        None => exec_err!("the argument is no map"),
    }
}

fn map_type(data_type: &DataType) -> Result<(FieldRef, bool)> {
    match data_type {
        DataType::Map(entries, sorted) => Ok((Arc::clone(entries), *sorted)),
        _ => exec_err!("the result is no map"),
    }
}

/// Maps of these keys and values; of equal keys the last, where the first stood.
fn maps(columns: &[ArrayRef], lengths: &[usize], like: &MapArray, data_type: &DataType) -> Result<ArrayRef> {
    let (entries, sorted) = map_type(data_type)?;
    let DataType::Struct(fields) = entries.data_type() else { return exec_err!("the result is no map") };
    let keys = columns[0].as_string::<i32>();
    if keys.null_count() > 0 {
        return exec_err!("the key of a map is NULL");
    }
    let (mut indices, mut new_lengths, mut start) = (Vec::<u32>::new(), Vec::with_capacity(lengths.len()), 0);
    for length in lengths {
        let begin = indices.len();
        for at in start..start + length {
            let place = indices[begin..].iter().position(|i| keys.value(*i as usize) == keys.value(at));
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            match place {
                Some(place) => indices[begin + place] = at,
                None => indices.push(at),
            }
        }
        new_lengths.push(indices.len() - begin);
        start += length;
    }
    let columns = take_arrays(columns, &UInt32Array::from(indices), None)?;
    let columns = columns
        .iter()
        .zip(fields)
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let structs = StructArray::try_new(fields.clone(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths(new_lengths);
    Ok(Arc::new(MapArray::try_new(Arc::clone(&entries), offsets, structs, like.nulls().cloned(), sorted)?))
}

fn transform(
    array: &ArrayRef,
    key: &LambdaArgument,
    value: &LambdaArgument,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let like = maps_of(array)?;
    let entries = Entries::of(like)?;
    let columns = [entries.evaluate(key)?, entries.evaluate(value)?];
    maps(&columns, &entries.lengths, like, data_type)
}

fn filtered(array: &ArrayRef, keeps: &LambdaArgument) -> Result<ArrayRef> {
    let like = maps_of(array)?;
    let entries = Entries::of(like)?;
    let kept = cast(&entries.evaluate(keeps)?, &DataType::Boolean)?;
    let kept: BooleanArray = kept.as_boolean().iter().map(|keep| Some(keep == Some(true))).collect();
    let columns =
        entries.columns.iter().map(|c| filter(c, &kept)).collect::<std::result::Result<Vec<_>, _>>()?;
    let (mut lengths, mut start) = (Vec::with_capacity(entries.lengths.len()), 0);
    for length in &entries.lengths {
        lengths.push(kept.slice(start, *length).true_count());
        start += length;
    }
    maps(&columns, &lengths, like, array.data_type())
}

/// What REDUCE goes through: of each row where its parts begin, and how many there are.
struct Collection {
    parts: Vec<ArrayRef>,
    rows: Vec<Option<(u32, u32)>>,
}

impl Collection {
    fn of(array: &ArrayRef) -> Result<Self> {
        if let Some(maps) = array.as_map_opt() {
            return Ok(Self::new(maps.entries().columns().to_vec(), maps.value_offsets(), maps));
        }
        match array.as_list_opt::<i32>() {
            Some(lists) => {
                let lists: &ListArray = lists;
                Ok(Self::new(vec![Arc::clone(lists.values())], lists.value_offsets(), lists))
            }
            None => exec_err!("the argument is no array and no map"),
        }
    }

    fn new(parts: Vec<ArrayRef>, offsets: &[i32], array: &dyn Array) -> Self {
        let number = |n: i32| u32::try_from(n).unwrap_or(0);
        let place = |row: usize| (number(offsets[row]), number(offsets[row + 1] - offsets[row]));
        let rows = (0..array.len()).map(|row| array.is_valid(row).then(|| place(row))).collect();
        Self { parts, rows }
    }
}

/// The state after the last part of each row. A collection of NULL leaves the first one, as ksqlDB has it.
fn reduced(collection: &Collection, first: ArrayRef, next: &LambdaArgument) -> Result<ArrayRef> {
    let mut state = first;
    let longest = collection.rows.iter().flatten().map(|(_, length)| *length).max().unwrap_or(0);
    for step in 0..longest {
        let reach = |row: &Option<(u32, u32)>| {
            row.filter(|(_, length)| *length > step).map(|(start, _)| start + step)
        };
        let (rows, places): (Vec<u32>, Vec<u32>) =
            (0u32..).zip(&collection.rows).filter_map(|(n, row)| Some((n, reach(row)?))).unzip();
        let (rows, places) = (UInt32Array::from(rows), UInt32Array::from(places));
        let states = take(&state, &rows, None)?;
        let parts = take_arrays(&collection.parts, &places, None)?;
        let state_of = || Ok(Arc::clone(&states));
        let part = |i: usize| Ok(Arc::clone(&parts[i.min(parts.len() - 1)]));
        let (one, two) = (|| part(0), || part(1));
        let arguments: [&dyn Fn() -> Result<ArrayRef>; 3] = [&state_of, &one, &two];
        let arguments = &arguments[..=collection.parts.len()];
        let new = next.evaluate(arguments, |captured| Ok(take_arrays(captured, &rows, None)?))?;
        let new = cast(&new.into_array(rows.len())?, state.data_type())?;
        let mut from: Vec<(usize, usize)> = (0..state.len()).map(|row| (0, row)).collect();
        for (at, row) in rows.values().iter().enumerate() {
            from[*row as usize] = (1, at);
        }
        state = interleave(&[state.as_ref(), new.as_ref()], &from)?;
    }
    Ok(state)
}
