//! SQL type names and the Arrow types that carry them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType as SqlDataType, ExactNumberInfo, StructField, TimezoneInfo,
};

use crate::error::{Error, Result};

/// A type as sqlparser reads it.
pub type SqlType = SqlDataType;

/// Precision and scale of NUMERIC without either. PostgreSQL's has no bound; ours holds 28 digits
/// before the point and 10 after.
const UNBOUNDED_NUMERIC: (u8, i8) = (38, 10);

/// UUID is the only type of sixteen bytes.
pub const UUID: DataType = DataType::FixedSizeBinary(16);

/// What a column of text is besides: types that Arrow has no type for, kept as text.
///
/// A field says it in its metadata, which goes through a plan with the column and is lost where an
/// expression makes a new value, as PostgreSQL makes text of varchar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextType {
    /// VARCHAR, with the most characters it has.
    Varchar(Option<u32>),
    /// JSON: the text as it was written.
    Json,
    /// JSONB: the text in one form for each value.
    Jsonb,
}

/// Key of a field's metadata.
const TEXT_TYPE: &str = "millpond.type";

impl TextType {
    /// What a SQL type says.
    pub fn of_sql(sql: &SqlType) -> Option<Self> {
        match sql {
            SqlDataType::Varchar(length)
            | SqlDataType::CharVarying(length)
            | SqlDataType::CharacterVarying(length) => Some(Self::Varchar(most_characters(*length))),
            SqlDataType::JSON => Some(Self::Json),
            SqlDataType::JSONB => Some(Self::Jsonb),
            _ => None,
        }
    }

    /// What a field's metadata says.
    pub fn of(field: &Field) -> Option<Self> {
        let text = field.metadata().get(TEXT_TYPE)?;
        match (text.as_str(), text.strip_prefix("varchar ")) {
            ("json", _) => Some(Self::Json),
            ("jsonb", _) => Some(Self::Jsonb),
            (_, Some(most)) => Some(Self::Varchar(most.parse().ok())),
            _ => Some(Self::Varchar(None)),
        }
    }

    /// Says it in a field's metadata.
    #[must_use]
    pub fn on(self, field: Field) -> Field {
        let text = match self {
            Self::Varchar(None) => "varchar".to_owned(),
            Self::Varchar(Some(most)) => format!("varchar {most}"),
            Self::Json => "json".to_owned(),
            Self::Jsonb => "jsonb".to_owned(),
        };
        field.with_metadata([(TEXT_TYPE.to_owned(), text)].into())
    }
}

fn most_characters(length: Option<CharacterLength>) -> Option<u32> {
    match length? {
        CharacterLength::IntegerLength { length, .. } => u32::try_from(length).ok(),
        CharacterLength::Max => None,
    }
}

/// A column of a SQL type that may be NULL.
///
/// # Errors
/// As [`arrow_type`].
pub fn arrow_field(name: &str, sql: &SqlType) -> Result<Field> {
    let field = Field::new(name, arrow_type(sql)?, true);
    Ok(match TextType::of_sql(sql) {
        Some(text) => text.on(field),
        None => field,
    })
}

/// The Arrow type of a SQL type: PostgreSQL's names and ksqlDB's (STRING, BYTES, ARRAY<…>, STRUCT<…>, MAP<…>).
///
/// # Errors
/// [`Error::UnknownType`] for a name without meaning.
pub fn arrow_type(sql: &SqlType) -> Result<DataType> {
    Ok(match sql {
        SqlDataType::Boolean | SqlDataType::Bool => DataType::Boolean,
        SqlDataType::SmallInt(_) | SqlDataType::Int2(_) | SqlDataType::TinyInt(_) => DataType::Int16,
        SqlDataType::Int(_) | SqlDataType::Integer(_) | SqlDataType::Int4(_) => DataType::Int32,
        SqlDataType::BigInt(_) | SqlDataType::Int8(_) => DataType::Int64,
        SqlDataType::Real | SqlDataType::Float4 => DataType::Float32,
        SqlDataType::Double(_)
        | SqlDataType::DoublePrecision
        | SqlDataType::Float8
        | SqlDataType::Float(_) => DataType::Float64,
        SqlDataType::Numeric(info) | SqlDataType::Decimal(info) | SqlDataType::Dec(info) => decimal(info)?,
        SqlDataType::Char(_)
        | SqlDataType::Character(_)
        | SqlDataType::Varchar(_)
        | SqlDataType::CharVarying(_)
        | SqlDataType::CharacterVarying(_)
        | SqlDataType::Text
        | SqlDataType::Nvarchar(_)
        | SqlDataType::JSON
        | SqlDataType::JSONB
        | SqlDataType::String(_) => DataType::Utf8,
        SqlDataType::Bytea | SqlDataType::Bytes(_) | SqlDataType::Binary(_) | SqlDataType::Varbinary(_) => {
            DataType::Binary
        }
        SqlDataType::Date => DataType::Date32,
        SqlDataType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        SqlDataType::Timestamp(_, zone) => match zone {
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => utc_timestamp(),
        },
        SqlDataType::TimestampNtz(_) | SqlDataType::Datetime(_) => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        SqlDataType::Interval { .. } => DataType::Interval(IntervalUnit::MonthDayNano),
        SqlDataType::Uuid => UUID,
        SqlDataType::Array(element) => list(element)?,
        SqlDataType::Map(key, value) => map(&arrow_type(key)?, arrow_type(value)?)?,
        SqlDataType::Struct(fields, _) => {
            DataType::Struct(fields.iter().map(struct_field).collect::<Result<Vec<_>>>()?.into())
        }
        SqlDataType::Custom(name, arguments) => custom(&name.to_string(), arguments)?,
        other => return Err(Error::UnknownType { name: other.to_string().to_lowercase() }),
    })
}

fn utc_timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type of all headers of a record, ARRAY<STRUCT<key STRING, value BYTES>>.
pub fn headers_type() -> DataType {
    let fields = vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)];
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(fields.into()), true)))
}

fn custom(name: &str, arguments: &[String]) -> Result<DataType> {
    match name.to_ascii_lowercase().as_str() {
        "string" | "name" | "bpchar" => Ok(DataType::Utf8),
        "timestamptz" => Ok(utc_timestamp()),
        "serial" => Ok(DataType::Int32),
        "bigserial" => Ok(DataType::Int64),
        "numeric" | "decimal" if arguments.is_empty() => decimal(&ExactNumberInfo::None),
        _ => Err(Error::UnknownType { name: name.to_owned() }),
    }
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => (u64::from(UNBOUNDED_NUMERIC.0), i64::from(UNBOUNDED_NUMERIC.1)),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let invalid = |reason: String| Error::InvalidOption { option: "numeric".into(), reason };
    let precision = u8::try_from(precision)
        .ok()
        .filter(|p| (1..=38).contains(p))
        .ok_or_else(|| invalid(format!("precision {precision} must be between 1 and 38")))?;
    let scale = i8::try_from(scale)
        .ok()
        .filter(|s| *s >= 0 && s.unsigned_abs() <= precision)
        .ok_or_else(|| invalid(format!("scale {scale} must be between 0 and precision {precision}")))?;
    Ok(DataType::Decimal128(precision, scale))
}

fn list(element: &ArrayElemTypeDef) -> Result<DataType> {
    let inner = match element {
        ArrayElemTypeDef::AngleBracket(inner)
        | ArrayElemTypeDef::Parenthesis(inner)
        | ArrayElemTypeDef::SquareBracket(inner, _) => arrow_type(inner)?,
        ArrayElemTypeDef::None => return Err(Error::UnknownType { name: "array".into() }),
    };
    Ok(DataType::List(Arc::new(Field::new_list_field(inner, true))))
}

/// A map; its keys are texts, as ksqlDB has them in every format but one.
fn map(key: &DataType, value: DataType) -> Result<DataType> {
    if *key != DataType::Utf8 {
        let reason = "the keys of a map are of type VARCHAR".to_owned();
        return Err(Error::InvalidOption { option: "map".into(), reason });
    }
    Ok(text_map(value))
}

/// A map from texts to values, its parts named as DataFusion names them.
pub fn text_map(value: DataType) -> DataType {
    let entries = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
}

fn struct_field(field: &StructField) -> Result<Field> {
    let name = field
        .field_name
        .as_ref()
        .ok_or_else(|| Error::UnknownType { name: "struct with unnamed fields".into() })?;
    Ok(Field::new(crate::parser::fold(name), arrow_type(&field.field_type)?, true))
}
