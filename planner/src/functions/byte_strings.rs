//! `substr`, `lpad`, `rpad`, `strpos` and `reverse` where they are given bytes; given texts, they are DataFusion's.
//!
//! Invariant: of bytes they count bytes, of texts characters. Source: PostgreSQL, "Binary String Functions";
//! ksqlDB, LPAD, RPAD and SUBSTRING, which are NULL where there is nothing to fill with or a length is negative.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::functions::unicode;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What of the bytes a function takes beside them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Where the part begins, and perhaps its length.
    Substr,
    /// A length, and the bytes to fill up with: before, or behind.
    Pad { before: bool },
    /// The bytes that are looked for.
    Position,
    /// Nothing.
    Reverse,
}

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let all = [
        (unicode::substr(), Form::Substr),
        (unicode::lpad(), Form::Pad { before: true }),
        (unicode::rpad(), Form::Pad { before: false }),
        (unicode::strpos(), Form::Position),
        (unicode::reverse(), Form::Reverse),
    ];
    let of = |(texts, form)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(TextOrBytes { texts, form, signature }))
    };
    all.map(of).into()
}

/// A function of texts that is one of bytes too.
struct TextOrBytes {
    texts: Arc<ScalarUDF>,
    form: Form,
    signature: Signature,
}

impl fmt::Debug for TextOrBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.texts.name())
    }
}

// There is one function of a name.
impl PartialEq for TextOrBytes {
    fn eq(&self, other: &Self) -> bool {
        self.texts.name() == other.texts.name()
    }
}

impl Eq for TextOrBytes {}

impl Hash for TextOrBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.texts.name().hash(state);
    }
}

impl ScalarUDFImpl for TextOrBytes {
    fn name(&self) -> &str {
        self.texts.name()
    }

    fn aliases(&self) -> &[String] {
        self.texts.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Binary, Int64};
        if types.first() != Some(&Binary) {
            let field = |data_type: &DataType| Arc::new(Field::new("", data_type.clone(), true));
            let fields = fields_with_udf(&types.iter().map(field).collect::<Vec<_>>(), self.texts.as_ref())?;
            return Ok(fields.iter().map(|field| field.data_type().clone()).collect());
        }
        match (self.form, types.len()) {
            (Form::Substr, 2) => Ok(vec![Binary, Int64]),
            (Form::Substr, 3) => Ok(vec![Binary, Int64, Int64]),
            (Form::Pad { .. }, 3) => Ok(vec![Binary, Int64, Binary]),
            (Form::Position, 2) => Ok(vec![Binary, Binary]),
            (Form::Reverse, 1) => Ok(vec![Binary]),
            _ => plan_err!("function {}(bytea) does not take {} arguments", self.name(), types.len()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (types.first(), self.form) {
            (Some(DataType::Binary), Form::Position) => Ok(DataType::Int32),
            (Some(DataType::Binary), _) => Ok(DataType::Binary),
            _ => self.texts.return_type(types),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        match types.first() {
            Some(DataType::Binary) => Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true))),
            _ => self.texts.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.arg_fields.first().is_none_or(|field| *field.data_type() != DataType::Binary) {
            return self.texts.invoke_with_args(args);
        }
        let rows = args.number_rows;
        let columns = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(of_bytes(self.form, &columns)?))
    }
}

fn of_bytes(form: Form, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let bytes = columns[0].as_binary::<i32>();
    let known = |row: usize| columns.iter().all(|column| column.is_valid(row));
    let number = |column: &ArrayRef| cast(column, &DataType::Int64);
    let rows = 0..bytes.len();
    Ok(match form {
        Form::Substr => {
            let from = number(&columns[1])?;
            let length = columns.get(2).map(number).transpose()?;
            let part = |row| {
                let length = length.as_ref().map(|length| length.as_primitive::<Int64Type>().value(row));
                substr(bytes.value(row), from.as_primitive::<Int64Type>().value(row), length)
            };
            Arc::new(rows.map(|row| known(row).then(|| part(row)).flatten()).collect::<BinaryArray>())
        }
        Form::Pad { before } => {
            let (length, fill) = (number(&columns[1])?, columns[2].as_binary::<i32>());
            let padded = |row| {
                pad(bytes.value(row), length.as_primitive::<Int64Type>().value(row), fill.value(row), before)
            };
            Arc::new(rows.map(|row| known(row).then(|| padded(row)).flatten()).collect::<BinaryArray>())
        }
        Form::Position => {
            let sought = columns[1].as_binary::<i32>();
            let found = |row| position(bytes.value(row), sought.value(row));
            Arc::new(rows.map(|row| known(row).then(|| found(row)).flatten()).collect::<Int32Array>())
        }
        Form::Reverse => {
            let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
            Arc::new(bytes.iter().map(|bytes| bytes.map(reversed)).collect::<BinaryArray>())
        }
    })
}

/// The bytes from the first on that is counted from 1, as many as there are.
fn substr(bytes: &[u8], from: i64, length: Option<i64>) -> Option<&[u8]> {
    let end = match length {
        Some(length) if length < 0 => return None,
        Some(length) => from.saturating_add(length).saturating_sub(1),
        None => i64::MAX,
    };
    let place = |at: i64| usize::try_from(at.max(0)).unwrap_or(usize::MAX).min(bytes.len());
    let (start, end) = (place(from.saturating_sub(1)), place(end));
    Some(&bytes[start.min(end)..end])
}

/// Longest result of a padding, bytes.
const LONGEST: usize = 1 << 28;

fn pad(bytes: &[u8], length: i64, fill: &[u8], before: bool) -> Option<Vec<u8>> {
    let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST && !fill.is_empty())?;
    let kept = &bytes[..bytes.len().min(length)];
    let filled = fill.iter().copied().cycle().take(length - kept.len());
    Some(match before {
        true => filled.chain(kept.iter().copied()).collect(),
        false => kept.iter().copied().chain(filled).collect(),
    })
}

/// Where the bytes first are, counted from 1; 0 for nowhere.
fn position(bytes: &[u8], sought: &[u8]) -> Option<i32> {
    let at = match sought.is_empty() {
        true => Some(0),
        false => bytes.windows(sought.len()).position(|window| window == sought),
    };
    at.map_or(Some(0), |at| i32::try_from(at + 1).ok())
}
