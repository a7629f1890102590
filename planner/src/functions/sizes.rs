//! Functions whose results can be far larger than what they are given: refused before the memory is asked for.
//!
//! Invariant: no call makes more than [`MOST`] bytes of a batch, so that no statement and no record can take the
//! server's memory with one word. Source: PostgreSQL, "requested length too large".

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::length::length;
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// Bytes of the results of one call for a batch of rows.
const MOST: u64 = 1 << 28;
/// Bytes of an element of a list, at least.
const ELEMENT: u64 = 8;

/// Bytes that a row's result may have, at most, by the lengths and the numbers that the row gives.
type Size = fn(&[Vec<i64>], usize) -> u64;

/// How large results are, by the function's name.
const SIZES: [(&str, Size); 5] = [
    ("repeat", |args, row| at(args, 0, row).saturating_mul(at(args, 1, row))),
    ("array_repeat", |args, row| at(args, 0, row).max(ELEMENT).saturating_mul(at(args, 1, row))),
    ("lpad", |args, row| at(args, 1, row)),
    ("rpad", |args, row| at(args, 1, row)),
    ("replace", |args, row| {
        let [text, from, to] = [0, 1, 2].map(|n| at(args, n, row));
        text.saturating_add((text / from.max(1)).saturating_mul(to))
    }),
];

/// These functions, with those of them bounded whose results can be large.
pub(super) fn bounded(functions: impl IntoIterator<Item = Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let bound = |function: Arc<ScalarUDF>| match SIZES.iter().find(|(name, _)| *name == function.name()) {
        Some((_, size)) => Arc::new(ScalarUDF::new_from_impl(Bounded { function, size: *size })),
        None => function,
    };
    functions.into_iter().map(bound).collect()
}

struct Bounded {
    function: Arc<ScalarUDF>,
    size: Size,
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.name())
    }
}

// There is one function of a name.
impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.function.name() == other.function.name()
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name().hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let given = args.args.iter().map(measures).collect::<Result<Vec<_>>>()?;
        let mut bytes: u64 = 0;
        for row in 0..rows {
            bytes = bytes.saturating_add((self.size)(&given, row));
            if bytes > MOST {
                return exec_err!("requested length too large: {} of {MOST} bytes at most", self.name());
            }
        }
        self.function.invoke_with_args(args)
    }
}

/// What a row gives, as the size that it is; one for all rows where it is the same.
fn at(given: &[Vec<i64>], argument: usize, row: usize) -> u64 {
    let Some(values) = given.get(argument) else { return 0 };
    let value = if values.len() == 1 { values.first() } else { values.get(row) };
    value.map_or(0, |value| u64::try_from(*value).unwrap_or(0))
}

/// Of each row the length of a text, of bytes, or of what a value takes; the number that a number is.
fn measures(value: &ColumnarValue) -> Result<Vec<i64>> {
    let array = match value {
        ColumnarValue::Scalar(value) => value.to_array()?,
        ColumnarValue::Array(array) => Arc::clone(array),
    };
    let data_type = array.data_type();
    if data_type.is_integer() {
        return whole(&array);
    }
    if data_type.is_string() || matches!(data_type, DataType::Binary) {
        return whole(&length(array.as_ref())?);
    }
    let each = array.to_data().get_slice_memory_size()? / array.len().max(1);
    Ok(vec![i64::try_from(each).unwrap_or(i64::MAX); array.len()])
}

fn whole(numbers: &ArrayRef) -> Result<Vec<i64>> {
    let numbers = cast(numbers, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    Ok(numbers.iter().map(Option::unwrap_or_default).collect())
}
