//! ksqlDB's functions on arrays and maps.
//!
//! Source: ksqlDB, "Scalar functions: Collections", "Table functions".

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, StringArray, StructArray, UInt32Array, new_null_array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{cast, concat, sort_to_indices, take};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::{ScalarUDF, Signature, Volatility};

use super::scalar::{scalar_function, scalar_function_of};

/// Most columns of a cube: it has twice as many rows for each.
const CUBE_COLUMNS: usize = 16;

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let any = |n| Signature::any(n, Volatility::Immutable);
    vec![
        scalar_function(
            "array_join_text",
            Signature::variadic_any(Volatility::Immutable),
            DataType::Utf8,
            join,
        ),
        scalar_function_of("map_union", any(2), |types| Ok(types[0].clone()), |args, _| union(args)),
        scalar_function_of(
            "entries",
            any(2),
            |types| match &types[0] {
                DataType::Map(entries, _) => Ok(DataType::List(Arc::new(Field::new_list_field(
                    entry_type(entries.data_type())?,
                    true,
                )))),
                other => plan_err!("entries of {other}: it takes a map"),
            },
            |args, _| entries(args),
        ),
        scalar_function_of(
            "cube_list",
            any(1),
            |types| match &types[0] {
                list @ DataType::List(_) => Ok(DataType::new_list(list.clone(), true)),
                other => plan_err!("cube_explode of {other}: it takes an array"),
            },
            |args, _| cube(&args[0]),
        ),
    ]
}

/// Elements as one text; NULL is the word null.
fn join(args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let Some(lists) = args.first().and_then(|list| list.as_list_opt::<i32>()) else {
        return exec_err!("array_join takes an array");
    };
    let delimiters = args.get(1).map(|d| cast(d, &DataType::Utf8)).transpose()?;
    let texts = (0..rows).map(|row| {
        if lists.is_null(row) {
            return Ok(None);
        }
        let elements = cast(&lists.value(row), &DataType::Utf8)?;
        let delimiter = match &delimiters {
            Some(given) if given.is_valid(row) => given.as_string::<i32>().value(row),
            Some(_) => "",
            None => ",",
        };
        let elements: Vec<&str> = elements.as_string::<i32>().iter().map(|e| e.unwrap_or("null")).collect();
        Ok::<_, DataFusionError>(Some(elements.join(delimiter)))
    });
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

fn map_of(array: &ArrayRef) -> Result<&MapArray> {
    array.as_map_opt().ok_or_else(|| DataFusionError::Execution("the argument is no map".into()))
}

/// Both maps in one; of equal keys the second's value.
fn union(args: &[ArrayRef]) -> Result<ArrayRef> {
    let right = cast(&args[1], args[0].data_type())?;
    let (left, right) = (map_of(&args[0])?, map_of(&right)?);
    let all = concat(&[left.entries(), right.entries()])?;
    let all = all.as_struct();
    let keys = cast(all.column(0), &DataType::Utf8)?;
    let keys = keys.as_string::<i32>();
    let mut indices: Vec<u32> = Vec::new();
    let mut lengths = Vec::with_capacity(left.len());
    let mut valid = Vec::with_capacity(left.len());
    let place =
        |offset: i32, add: usize| u32::try_from(usize::try_from(offset).unwrap_or(0) + add).unwrap_or(0);
    for row in 0..left.len() {
        let start = indices.len();
        // A map of NULL adds nothing; two of them are NULL.
        valid.push(left.is_valid(row) || right.is_valid(row));
        for (map, add) in [(left, 0), (right, left.entries().len())] {
            let offsets = map.value_offsets();
            for at in (offsets[row]..offsets[row + 1]).filter(|_| map.is_valid(row)) {
                let at = place(at, add);
                let same = |i: &u32| keys.value(*i as usize) == keys.value(at as usize);
                match indices[start..].iter().position(same) {
                    Some(found) => indices[start + found] = at,
                    None => indices.push(at),
                }
            }
        }
        lengths.push(indices.len() - start);
    }
    let entries = take(all, &UInt32Array::from(indices), None)?;
    let DataType::Map(field, sorted) = args[0].data_type() else {
        return exec_err!("the argument is no map");
    };
    let entries = entries.as_struct().clone();
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(MapArray::try_new(Arc::clone(field), offsets, entries, Some(valid.into()), *sorted)?))
}

fn entry_type(entries: &DataType) -> Result<DataType> {
    let DataType::Struct(fields) = entries else { return plan_err!("a map without entries") };
    let named = |name: &str, i: usize| Field::new(name, fields[i].data_type().clone(), true);
    Ok(DataType::Struct(vec![named("k", 0), named("v", 1)].into()))
}

/// Keys and values of a map, in the order of keys where the second argument says so.
fn entries(args: &[ArrayRef]) -> Result<ArrayRef> {
    let map = map_of(&args[0])?;
    let sorted = cast(&args[1], &DataType::Boolean)?;
    let sorted = sorted.as_boolean();
    let mut indices: Vec<u32> = Vec::new();
    let mut lengths = Vec::with_capacity(map.len());
    for row in 0..map.len() {
        let (from, length) = (map.value_offsets()[row], map.value_length(row));
        let start = u32::try_from(from).unwrap_or(0);
        let order = match sorted.is_valid(row) && sorted.value(row) {
            true => {
                let keys = map.keys().slice(start as usize, usize::try_from(length).unwrap_or(0));
                sort_to_indices(&keys, None, None)?.values().to_vec()
            }
            false => (0..u32::try_from(length).unwrap_or(0)).collect(),
        };
        lengths.push(order.len());
        indices.extend(order.into_iter().map(|i| i + start));
    }
    let taken = take(map.entries(), &UInt32Array::from(indices), None)?;
    let DataType::Struct(fields) = entry_type(map.entries().data_type())? else {
        return exec_err!("a map without entries");
    };
    let items = StructArray::try_new(fields, taken.as_struct().columns().to_vec(), None)?;
    let field = Arc::new(Field::new_list_field(items.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(items), map.nulls().cloned())?))
}

/// All combinations of an array's elements and NULL in their places; the last place changes fastest.
fn cube(lists: &ArrayRef) -> Result<ArrayRef> {
    let lists: &ListArray = lists.as_list();
    let with_null = concat(&[lists.values().as_ref(), new_null_array(&lists.value_type(), 1).as_ref()])?;
    let null = u32::try_from(lists.values().len()).unwrap_or(u32::MAX);
    let mut indices: Vec<u32> = Vec::new();
    let (mut inner, mut outer) = (Vec::new(), Vec::new());
    for row in 0..lists.len() {
        let start = u32::try_from(lists.value_offsets()[row]).unwrap_or(0);
        let width = usize::try_from(lists.value_length(row)).unwrap_or(0);
        if width > CUBE_COLUMNS {
            return exec_err!("cube_explode of {width} elements: it takes at most {CUBE_COLUMNS}");
        }
        // An element that is NULL has one place in a combination, not two alike.
        let places: Vec<u32> = (start..).take(width).collect();
        let fixed = |place: u32| lists.values().is_null(place as usize);
        let count = if lists.is_null(row) || width == 0 { 0 } else { 1usize << width };
        let mut made = 0;
        for bits in 0..count {
            let chosen = |i: usize| bits >> (width - 1 - i) & 1 == 1;
            if (0..width).any(|i| chosen(i) && fixed(places[i])) {
                continue;
            }
            indices.extend((0..width).map(|i| if chosen(i) { places[i] } else { null }));
            inner.push(width);
            made += 1;
        }
        outer.push(made);
    }
    let values = take(&with_null, &UInt32Array::from(indices), None)?;
    let field = Arc::new(Field::new_list_field(lists.value_type(), true));
    let combinations = ListArray::try_new(field, OffsetBuffer::from_lengths(inner), values, None)?;
    let field = Arc::new(Field::new_list_field(combinations.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(outer);
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(combinations), lists.nulls().cloned())?))
}
