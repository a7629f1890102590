//! Digests of text and bytes: md5 as hexadecimal text, sha224 and the longer ones as bytes.
//!
//! Source: PostgreSQL, "String Functions and Operators", "Binary String Functions and Operators".

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BinaryArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ScalarUDF, Signature, TypeSignature, Volatility};
use md5::Md5;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::scalar::scalar_function;

/// All of them.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let md5 = scalar_function("md5", signature(), DataType::Utf8, move |args, _| {
        let digests = digests::<Md5>(&args[0])?;
        let texts: StringArray = digests.iter().map(|digest| digest.map(hex)).collect();
        Ok(Arc::new(texts))
    });
    vec![
        md5,
        sha::<Sha224>("sha224"),
        sha::<Sha256>("sha256"),
        sha::<Sha384>("sha384"),
        sha::<Sha512>("sha512"),
    ]
}

fn signature() -> Signature {
    let one = |t| TypeSignature::Exact(vec![t]);
    Signature::one_of(vec![one(DataType::Binary), one(DataType::Utf8)], Volatility::Immutable)
}

fn sha<D: Digest + 'static>(name: &'static str) -> Arc<ScalarUDF> {
    scalar_function(name, signature(), DataType::Binary, |args, _| Ok(Arc::new(digests::<D>(&args[0])?)))
}

fn digests<D: Digest>(values: &ArrayRef) -> Result<BinaryArray> {
    let bytes = cast(values, &DataType::Binary)?;
    Ok(bytes.as_binary::<i32>().iter().map(|value| value.map(|v| D::digest(v).to_vec())).collect())
}
