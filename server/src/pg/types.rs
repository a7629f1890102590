//! Arrow types and the PostgreSQL types a client sees.

use datafusion::arrow::datatypes::{DataType, Field};
use sql::TextType;

/// A PostgreSQL type: object id, size in bytes (-1 varies), type modifier (-1 none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PgType {
    /// Object id, as in pg_type.
    pub oid: u32,
    /// Size of a value.
    pub size: i16,
    /// Precision and scale of numeric.
    pub modifier: i32,
}

/// PostgreSQL counts days and microseconds from 2000-01-01; this is that day in days since 1970.
pub(super) const POSTGRES_EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
pub(super) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The type of ids in the catalogs.
const OID: u32 = 26;

/// Types of vectors.
const INT2_VECTOR: u32 = 22;
const OID_VECTOR: u32 = 30;

/// The only text whose binary form has a version in front.
pub(super) const JSONB: u32 = 3802;

const fn plain(oid: u32, size: i16) -> PgType {
    PgType { oid, size, modifier: -1 }
}

/// Key in the metadata of a list that PostgreSQL calls a vector: the catalogs have such columns.
const VECTOR: &str = "millpond.vector";

/// A list as a vector: its text is its elements and nothing else.
pub(crate) fn as_vector(list: Field) -> Field {
    list.with_metadata([(VECTOR.to_owned(), String::new())].into())
}

/// Whether a column is a vector.
pub(super) fn is_vector(column: &Field) -> bool {
    column.metadata().contains_key(VECTOR)
}

/// The type of a column on the wire.
pub fn column_type(column: &Field) -> PgType {
    if is_vector(column) {
        let small = pg_type(column.data_type()).oid == array_oid(21);
        return plain(if small { INT2_VECTOR } else { OID_VECTOR }, -1);
    }
    match TextType::of(column) {
        Some(TextType::Json) => plain(114, -1),
        Some(TextType::Jsonb) => plain(JSONB, -1),
        Some(TextType::Varchar(most)) => {
            let modifier = most.and_then(|most| i32::try_from(most).ok()?.checked_add(4));
            PgType { oid: 1043, size: -1, modifier: modifier.unwrap_or(-1) }
        }
        None => pg_type(column.data_type()),
    }
}

/// The type under which values of an Arrow type go over the wire.
pub fn pg_type(data_type: &DataType) -> PgType {
    match data_type {
        DataType::Boolean => plain(16, 1),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => plain(21, 2),
        DataType::Int32 | DataType::UInt16 => plain(23, 4),
        DataType::Int64 => plain(20, 8),
        // Ids of the catalogs; no column of a user's has this type.
        DataType::UInt32 => plain(OID, 4),
        DataType::Float16 | DataType::Float32 => plain(700, 4),
        DataType::Float64 => plain(701, 8),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            let modifier = (i32::from(*precision) << 16 | i32::from(*scale)) + 4;
            PgType { oid: 1700, size: -1, modifier }
        }
        DataType::UInt64 => plain(1700, -1),
        uuid if *uuid == sql::UUID => plain(2950, 16),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            plain(17, -1)
        }
        DataType::Date32 | DataType::Date64 => plain(1082, 4),
        DataType::Time32(_) | DataType::Time64(_) => plain(1083, 8),
        DataType::Timestamp(_, None) => plain(1114, 8),
        DataType::Timestamp(_, Some(_)) => plain(1184, 8),
        DataType::Interval(_) | DataType::Duration(_) => plain(1186, 16),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            plain(array_oid(pg_type(field.data_type()).oid), -1)
        }
        DataType::Dictionary(_, values) => pg_type(values),
        _ => plain(25, -1),
    }
}

/// What an array's type holds.
fn element_oid(array: u32) -> Option<u32> {
    let elements = [16, 17, 20, 21, 23, 25, OID, 700, 701, 1082, 1083, 1114, 1184, 1186, 1700, 2950];
    elements.into_iter().find(|element| array_oid(*element) == array)
}

fn array_oid(element: u32) -> u32 {
    match element {
        16 => 1000,
        21 => 1005,
        23 => 1007,
        20 => 1016,
        OID => 1028,
        700 => 1021,
        701 => 1022,
        1700 => 1231,
        17 => 1001,
        1082 => 1182,
        1083 => 1183,
        1114 => 1115,
        1184 => 1185,
        1186 => 1187,
        2950 => 2951,
        _ => 1009,
    }
}

/// The field of a parameter whose type a client declares; None for one it leaves open.
pub(crate) fn parameter(oid: u32) -> Option<Field> {
    let field = Field::new("", arrow_type(oid)?, true);
    Some(match oid {
        114 => TextType::Json.on(field),
        JSONB => TextType::Jsonb.on(field),
        1043 => TextType::Varchar(None).on(field),
        _ => field,
    })
}

fn list_of(element: u32) -> Option<DataType> {
    Some(DataType::new_list(arrow_type(element)?, true))
}

fn arrow_type(oid: u32) -> Option<DataType> {
    use datafusion::arrow::datatypes::{IntervalUnit, TimeUnit};
    Some(match oid {
        16 => DataType::Boolean,
        21 => DataType::Int16,
        23 => DataType::Int32,
        20 => DataType::Int64,
        OID => DataType::UInt32,
        700 => DataType::Float32,
        701 => DataType::Float64,
        1700 => DataType::Decimal128(38, 10),
        25 | 1043 | 1042 | 19 | 114 | JSONB => DataType::Utf8,
        2950 => sql::UUID,
        17 => DataType::Binary,
        1082 => DataType::Date32,
        1083 => DataType::Time64(TimeUnit::Microsecond),
        1114 => DataType::Timestamp(TimeUnit::Microsecond, None),
        1184 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        1186 => DataType::Interval(IntervalUnit::MonthDayNano),
        1002 | 1014 | 1015 => list_of(25)?,
        array => list_of(element_oid(array)?)?,
    })
}

impl PgType {
    /// The name PostgreSQL gives the type, as `format_type` does.
    pub(crate) fn name(self) -> String {
        if let Some(element) = element_oid(self.oid) {
            return format!("{}[]", base_name(element));
        }
        let digits = self.modifier - 4;
        match (self.oid, digits >> 16, digits & 0xffff) {
            // What NUMERIC without digits has.
            (1700, 38, 10) => "numeric".into(),
            (1700, precision, scale) if digits > 0 => format!("numeric({precision},{scale})"),
            (1043, _, most) if digits > 0 => format!("character varying({most})"),
            (oid, ..) => base_name(oid).into(),
        }
    }
}

/// The name PostgreSQL gives the type of values.
pub(crate) fn type_name(data_type: &DataType) -> String {
    pg_type(data_type).name()
}

pub(crate) fn base_name(oid: u32) -> &'static str {
    match oid {
        16 => "boolean",
        17 => "bytea",
        20 => "bigint",
        21 => "smallint",
        23 => "integer",
        OID => "oid",
        700 => "real",
        701 => "double precision",
        1082 => "date",
        1083 => "time without time zone",
        1114 => "timestamp without time zone",
        1184 => "timestamp with time zone",
        1186 => "interval",
        1700 => "numeric",
        114 => "json",
        1043 => "character varying",
        2950 => "uuid",
        JSONB => "jsonb",
        _ => "text",
    }
}
