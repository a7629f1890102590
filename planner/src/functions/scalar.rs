//! A scalar function made of a signature and a closure over columns.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

type Body = Arc<dyn Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync>;
type ReturnType = Arc<dyn Fn(&[DataType]) -> Result<DataType> + Send + Sync>;

struct Function {
    name: &'static str,
    signature: Signature,
    result: ReturnType,
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

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let constant = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        // Constants are computed once, not once for each row.
        let n = if constant { 1 } else { rows };
        let arrays = args.args.into_iter().map(|a| a.into_array(n)).collect::<Result<Vec<_>>>()?;
        let result = (self.body)(&arrays, n)?;
        if constant && self.signature.volatility != datafusion::logical_expr::Volatility::Volatile {
            let value = datafusion::common::ScalarValue::try_from_array(&result, 0)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(result))
    }
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
    let (result, body): (ReturnType, Body) = (Arc::new(result), Arc::new(body));
    Arc::new(ScalarUDF::new_from_impl(Function { name, signature, result, body }))
}
