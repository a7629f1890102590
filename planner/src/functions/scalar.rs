//! A scalar function made of a signature and a closure over columns.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use sql::TextType;

/// What a text result is besides, as the arguments say.
type Texts = fn(&ReturnFieldArgs<'_>) -> Option<TextType>;
type Body = Arc<dyn Fn(&[ArrayRef], usize, &[FieldRef]) -> Result<ArrayRef> + Send + Sync>;
type ReturnType = Arc<dyn Fn(&[DataType]) -> Result<DataType> + Send + Sync>;

struct Function {
    name: &'static str,
    signature: Signature,
    result: ReturnType,
    texts: Texts,
    body: Body,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// There is one function of a name.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        (self.result)(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let field = Field::new(self.name, (self.result)(&types)?, true);
        Ok(Arc::new(match (self.texts)(&args) {
            Some(text) => text.on(field),
            None => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        // Constants are computed once, not once for each row.
        let n = if constant { 1 } else { rows };
        let arrays = args.args.into_iter().map(|a| a.into_array(n)).collect::<Result<Vec<_>>>()?;
        let result = (self.body)(&arrays, n, &args.arg_fields)?;
        if constant && self.signature.volatility != datafusion::logical_expr::Volatility::Volatile {
            let value = ScalarValue::try_from_array(&result, 0)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// The text of a row; None where it is NULL.
pub(super) fn text_at(texts: &ArrayRef, row: usize) -> Option<&str> {
    let texts = texts.as_string::<i32>();
    texts.is_valid(row).then(|| texts.value(row))
}

/// Builds maps from texts to texts, as `sql::text_map` has them.
pub(super) fn text_map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// A function with one result type. The body gets its arguments as columns, and their length.
pub fn scalar_function(
    name: &'static str,
    signature: Signature,
    result: DataType,
    body: impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    scalar_function_of(name, signature, move |_| Ok(result.clone()), body)
}

/// A function whose result type follows from those of its arguments.
pub(super) fn scalar_function_of(
    name: &'static str,
    signature: Signature,
    result: impl Fn(&[DataType]) -> Result<DataType> + Send + Sync + 'static,
    body: impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    let body: Body = Arc::new(move |args: &[ArrayRef], rows: usize, _: &[FieldRef]| body(args, rows));
    let result: ReturnType = Arc::new(result);
    Arc::new(ScalarUDF::new_from_impl(Function { name, signature, result, texts: |_| None, body }))
}

/// A function whose result is text of a type of its own.
pub(super) fn text_function(
    name: &'static str,
    signature: Signature,
    texts: Texts,
    body: impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    text_function_of(name, signature, texts, move |args, rows, _| body(args, rows))
}

/// A function whose result is text of a type of its own, and that is told what its arguments are besides.
pub(super) fn text_function_of(
    name: &'static str,
    signature: Signature,
    texts: Texts,
    body: impl Fn(&[ArrayRef], usize, &[FieldRef]) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    let (result, body): (ReturnType, Body) = (Arc::new(|_| Ok(DataType::Utf8)), Arc::new(body));
    Arc::new(ScalarUDF::new_from_impl(Function { name, signature, result, texts, body }))
}
