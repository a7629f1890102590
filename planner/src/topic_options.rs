//! WITH (kafka_topic, format, …): which topic a relation is on, and how its rows are records there.
//!
//! Source: ksqlDB, "Serialization Formats" and the properties of CREATE STREAM. Without a format a
//! topic holds typed columns. Invariant: all relations on a topic agree on what it holds.

use datafusion::arrow::datatypes::DataType;
use sql::Options;

use crate::catalog::{Catalog, Column, Encoding, Format, KeyWindow, RecordFormat, Relation, TopicRef};
use crate::error::{Error, Result};

/// Most partitions of a topic.
const MAX_PARTITIONS: i64 = 1024;
/// The formats of records.
const FORMATS: &str = "JSON, DELIMITED, KAFKA or NONE";
/// What topics hold without a format, as a format.
const NATIVE: [&str; 2] = ["arrow", "native"];

/// What a relation has where its statement does not say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Inherited {
    /// How the first relation it reads is in its topic.
    pub(crate) format: Option<RecordFormat>,
    /// And in how many partitions.
    pub(crate) partitions: Option<u32>,
    /// The length of the windows whose bounds are in its key; None in it for sessions.
    pub(crate) window_ms: Option<Option<i64>>,
}

/// Puts a relation on its topic: the one that is named, or the one it has already.
///
/// # Errors
/// Options that mean nothing together, that do not fit the columns, or the topic there is.
pub(crate) fn place(
    relation: &mut Relation,
    options: &Options,
    catalog: &Catalog,
    inherited: Inherited,
) -> Result<()> {
    if !relation.has_topic() {
        return Ok(());
    }
    let named = options.text("kafka_topic");
    let name = named.clone().unwrap_or_else(|| relation.topic.name.clone());
    let encoding = encoding(relation, options, &inherited)?;
    let asked = partitions(options)?;
    relation.partitions = asked.or(inherited.partitions).unwrap_or(1);
    relation.topic = TopicRef { name, named: named.is_some(), encoding };
    join(relation, asked, catalog)
}

/// Checks a relation against the topic it would be on.
fn join(relation: &mut Relation, asked: Option<u32>, catalog: &Catalog) -> Result<()> {
    let Some(topic) = catalog.topic(&relation.topic.name) else { return Ok(()) };
    if let Some(asked) = asked.filter(|asked| *asked != topic.partitions) {
        return Err(Error::invalid(
            "option \"partitions\"",
            format!("topic \"{}\" has {}, not {asked}", topic.name, topic.partitions),
        ));
    }
    relation.partitions = topic.partitions;
    let others = || catalog.on_topic(topic).filter(|other| other.id != relation.id);
    match (topic.records, relation.topic.encoding) {
        (true, Encoding::Records(_)) => Ok(()),
        (true, Encoding::Columns) => Err(Error::invalid(
            "option \"value_format\"",
            format!("topic \"{}\" holds records, so their format must be given", topic.name),
        )),
        (false, Encoding::Records(_)) => Err(Error::invalid(
            "option \"value_format\"",
            format!("topic \"{}\" holds typed columns, not records in a format", topic.name),
        )),
        (false, Encoding::Columns) => match others().find(|other| !is_alike(other, relation)) {
            None => Ok(()),
            Some(other) => Err(Error::Definition(format!(
                "topic \"{}\" holds the typed columns of \"{}\": only a stream with the same columns can be on it",
                topic.name, other.name
            ))),
        },
    }
}

/// Whether the rows of one are rows of the other.
fn is_alike(a: &Relation, b: &Relation) -> bool {
    let types = |r: &Relation| r.columns.iter().map(|c| c.data_type.clone()).collect::<Vec<_>>();
    a.is_stream() && b.is_stream() && types(a) == types(b)
}

fn partitions(options: &Options) -> Result<Option<u32>> {
    let Some(partitions) = options.integer("partitions")? else { return Ok(None) };
    if !(1..=MAX_PARTITIONS).contains(&partitions) {
        return Err(Error::invalid(
            "option \"partitions\"",
            format!("it must be between 1 and {MAX_PARTITIONS}"),
        ));
    }
    Ok(u32::try_from(partitions).ok())
}

fn encoding(relation: &Relation, options: &Options, from: &Inherited) -> Result<Encoding> {
    let (inherited, window) = (from.format, key_window(relation, from.window_ms));
    let both = options.text("format");
    for one in ["key_format", "value_format"] {
        if both.is_some() && options.text(one).is_some() {
            return Err(Error::invalid(format!("option \"{one}\""), "\"format\" gives it already"));
        }
    }
    let value = both.clone().or_else(|| options.text("value_format"));
    let key = both.or_else(|| options.text("key_format"));
    let value = match (&value, inherited) {
        (Some(name), _) if is_native(name) => return Ok(Encoding::Columns),
        (Some(name), _) => format(name, options, "value_delimiter")?,
        (None, Some(inherited)) => inherited.value,
        (None, None) if key.as_ref().is_none_or(|name| is_native(name)) => return Ok(Encoding::Columns),
        (None, None) => {
            return Err(Error::invalid("option \"key_format\"", "\"value_format\" must be given as well"));
        }
    };
    let keyed = !key_columns(relation, window).is_empty();
    if !keyed && !relation.is_stream() && options.text("value_format").or(options.text("format")).is_none() {
        // What is inherited cannot be; rows without a key need no records.
        return Ok(Encoding::Columns);
    }
    let key = match (&key, inherited) {
        // A key of no columns is read as none, whatever its format.
        (Some(name), _) => {
            format(name, options, "key_delimiter").map(|f| if keyed { f } else { Format::None })?
        }
        (None, _) if !keyed => Format::None,
        (None, Some(RecordFormat { key, .. })) if key != Format::None && can_hold(key, relation, window) => {
            key
        }
        (None, _) if can_hold(Format::Kafka, relation, window) => Format::Kafka,
        (None, _) => Format::Json,
    };
    let wrapped = wrapped(relation, options, value)?;
    let format = RecordFormat { key, value, wrapped, window };
    check(relation, &format)?;
    Ok(Encoding::Records(format))
}

/// Whether a value of one column is an object with one field.
fn wrapped(relation: &Relation, options: &Options, value: Format) -> Result<bool> {
    let asked = options.text("wrap_single_value");
    let refused = |why: String| Err(Error::invalid("option \"wrap_single_value\"", why));
    let columns = relation.value_columns().count();
    match asked.as_deref() {
        None => Ok(true),
        Some("true" | "false") if columns != 1 => {
            refused(format!("it is for values of one column, and there are {columns}"))
        }
        Some("true") if matches!(value, Format::Kafka | Format::None) => {
            refused("the format KAFKA holds one value as it is".into())
        }
        Some(wrapped @ ("true" | "false")) => Ok(wrapped == "true"),
        Some(_) => refused("expected true or false".into()),
    }
}

/// Whether a format is none, but typed columns.
pub(crate) fn is_native(name: &str) -> bool {
    NATIVE.contains(&name.to_ascii_lowercase().as_str())
}

fn format(name: &str, options: &Options, delimiter: &str) -> Result<Format> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "none" => Format::None,
        "kafka" => Format::Kafka,
        "json" => Format::Json,
        "delimited" => Format::Delimited(self::delimiter(options, delimiter)?),
        "avro" | "protobuf" | "protobuf_nosr" | "json_sr" => {
            return Err(Error::NotSupported {
                what: format!("the format {name}"),
                continuous: false,
                hint: Some(format!("use {FORMATS}; without a format topics hold typed columns")),
            });
        }
        _ => return Err(Error::invalid(format!("format {name}"), format!("expected {FORMATS}"))),
    })
}

fn delimiter(options: &Options, name: &str) -> Result<char> {
    let Some(text) = options.text(name) else { return Ok(',') };
    let mut chars = text.chars();
    match (text.to_ascii_uppercase().as_str(), chars.next(), chars.next()) {
        ("SPACE", ..) => Ok(' '),
        ("TAB", ..) => Ok('\t'),
        (_, Some(one), None) if one.is_ascii() => Ok(one),
        _ => Err(Error::invalid(format!("option \"{name}\""), "expected one ASCII character, SPACE or TAB")),
    }
}

/// The window in a relation's key.
fn key_window(relation: &Relation, window_ms: Option<Option<i64>>) -> Option<KeyWindow> {
    let bound = |name: &str| {
        let at = relation.column(name)?;
        let is_bound = relation.columns[at].data_type == DataType::Int64 && relation.record_key.contains(&at);
        is_bound.then_some(at)
    };
    Some(KeyWindow { bounds: [bound("windowstart")?, bound("windowend")?], size_ms: window_ms? })
}

/// The columns that are the key in its format.
fn key_columns(relation: &Relation, window: Option<KeyWindow>) -> Vec<&Column> {
    let is_bound = |at: &usize| window.is_some_and(|w| w.bounds.contains(at));
    relation.record_key.iter().filter(|at| !is_bound(at)).map(|at| &relation.columns[*at]).collect()
}

/// Whether a format can hold a relation's key.
fn can_hold(format: Format, relation: &Relation, window: Option<KeyWindow>) -> bool {
    fits(format, &key_columns(relation, window), "key").is_ok()
}

/// Checks that the records of a relation can hold the columns that it has got.
pub(crate) fn check_added(relation: &Relation) -> Result<()> {
    match relation.record_format() {
        Some(format) if !format.wrapped => Err(Error::invalid(
            "list of columns",
            format!("values of \"{}\" hold one column, without a name", relation.name),
        )),
        Some(format) => check(relation, format),
        None => Ok(()),
    }
}

/// Whether the formats can hold the columns.
fn check(relation: &Relation, format: &RecordFormat) -> Result<()> {
    fits(format.key, &key_columns(relation, format.window), "key")?;
    let values = relation.value_columns().map(|at| &relation.columns[at]);
    fits(format.value, &values.collect::<Vec<_>>(), "value")?;
    if !relation.is_stream() && relation.record_key.is_empty() {
        return Err(Error::Definition(format!(
            "table \"{}\" needs a primary key: it is the key of its records",
            relation.name
        )));
    }
    Ok(())
}

fn fits(format: Format, columns: &[&Column], part: &str) -> Result<()> {
    let option = format!("option \"{part}_format\"");
    match format {
        Format::None if columns.is_empty() => Ok(()),
        Format::None => Err(Error::invalid(
            option,
            format!("NONE holds nothing, but column \"{}\" is in the {part}", columns[0].name),
        )),
        Format::Kafka if columns.len() > 1 => Err(Error::invalid(
            option,
            format!(
                "KAFKA holds one column, but the {part} has {}: JSON and DELIMITED hold more",
                columns.len()
            ),
        )),
        Format::Kafka => refuse(columns, option, "KAFKA", |t| {
            matches!(
                t,
                DataType::Int32 | DataType::Int64 | DataType::Float64 | DataType::Utf8 | DataType::Binary
            )
        }),
        Format::Delimited(_) => refuse(columns, option, "DELIMITED", |t| !t.is_nested() && is_written(t)),
        Format::Json => refuse(columns, option, "JSON", |t| is_written(t) && has_names_for_keys(t)),
    }
}

/// Whether texts have values of a type.
fn is_written(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) | DataType::Duration(_) | DataType::Null => false,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            is_written(field.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| is_written(field.data_type())),
        DataType::Map(entries, _) => is_written(entries.data_type()),
        other => !other.is_nested(),
    }
}

/// Whether the maps in a type have texts for keys: JSON's objects have no others.
fn has_names_for_keys(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            has_names_for_keys(field.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| has_names_for_keys(field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entry) => {
                entry.first().is_some_and(|key| *key.data_type() == DataType::Utf8)
                    && entry.iter().all(|field| has_names_for_keys(field.data_type()))
            }
            _ => false,
        },
        _ => true,
    }
}

fn refuse(columns: &[&Column], option: String, format: &str, fits: impl Fn(&DataType) -> bool) -> Result<()> {
    match columns.iter().find(|c| !fits(&c.data_type)) {
        None => Ok(()),
        Some(column) => Err(Error::invalid(
            option,
            format!("{format} cannot hold the type of column \"{}\"", column.name),
        )),
    }
}
