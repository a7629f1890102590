//! JSON, as ksqlDB reads and writes it.
//!
//! Source: ksqlDB, "Serialization Formats: JSON". Fields are found by name, whatever the case when no
//! name is written the same; others are passed over; what is missing is NULL. A text column takes any
//! value as its text. Bytes are base64, dates days, times and timestamps milliseconds.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::builder::{Builder, Reason, unreadable};
use super::cell::Cells;

/// Names of the fields of an object, as columns have them.
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self(names.map(str::to_owned).collect())
    }

    /// The column of a field; `next` is where it usually is.
    fn find(&self, field: &str, next: usize) -> Option<usize> {
        if self.0.get(next).is_some_and(|name| name == field) {
            return Some(next);
        }
        let exact = self.0.iter().position(|name| name == field);
        exact.or_else(|| self.0.iter().position(|name| name.eq_ignore_ascii_case(field)))
    }
}

/// The texts of an object's fields, in the order of `names`; None where it has no such field.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn object<'de>(
    text: &'de str,
    names: &Names,
    fields: &mut Vec<Option<&'de RawValue>>,
) -> Result<(), Reason> {
    fields.clear();
    fields.resize(names.0.len(), None);
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Object { names, fields }.deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|error| error.to_string())
}

struct Object<'a, 'de> {
    names: &'a Names,
    fields: &'a mut Vec<Option<&'de RawValue>>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut next = 0;
        while let Some(at) = map.next_key_seed(Field { names: self.names, next })? {
            match at {
                Some(at) => {
                    self.fields[at] = Some(map.next_value()?);
                    next = at + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct Field<'a> {
    names: &'a Names,
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Field<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a field")
    }

    fn visit_str<E>(self, field: &str) -> Result<Self::Value, E> {
        Ok(self.names.find(field, self.next))
    }
}

/// The elements of an array.
struct Elements<'a, 'de>(&'a mut Vec<&'de RawValue>);

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            self.0.push(element);
        }
        Ok(())
    }
}

/// Whether a text is JSON's null, and nothing else.
pub(super) fn is_null(text: &[u8]) -> bool {
    text.trim_ascii() == b"null"
}

/// Appends a value of any type to a column.
///
/// # Errors
/// What is wrong with the text; the column has an entry more all the same.
pub(super) fn append(column: &mut Builder, raw: &str) -> Result<(), Reason> {
    if raw == "null" {
        column.append_null();
        return Ok(());
    }
    let first = raw.as_bytes().first().copied().unwrap_or_default();
    match column {
        Builder::List(_) => list(column, raw),
        Builder::Struct(_) => record(column, raw),
        Builder::Map(_) => map(column, raw),
        Builder::Json(..) => column.append_text(raw),
        Builder::Text(_)
        | Builder::Bytes(_)
        | Builder::Date(_)
        | Builder::Time(_)
        | Builder::Timestamp(_)
        | Builder::Uuid(_)
            if first == b'"' =>
        {
            quoted_text(column, raw, |text| text)
        }
        Builder::Text(_) => column.append_text(raw),
        Builder::Boolean(_) => column.append_text(raw),
        // A number may be written as a string.
        _ if first == b'"' => quoted_text(column, raw, str::trim),
        Builder::Bytes(_) => {
            column.append_null();
            Err(unreadable(raw, "a string of base64"))
        }
        _ => column.append_text(raw),
    }
}

fn quoted_text(column: &mut Builder, raw: &str, take: fn(&str) -> &str) -> Result<(), Reason> {
    match unquoted(raw) {
        Ok(text) => column.append_text(take(&text)),
        Err(reason) => {
            column.append_null();
            Err(reason)
        }
    }
}

/// The text in a string. serde_json has read it already, so it is one.
fn unquoted(raw: &str) -> Result<Cow<'_, str>, Reason> {
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str::<String>(raw).map(Cow::Owned).map_err(|error| error.to_string()),
    }
}

fn list(column: &mut Builder, raw: &str) -> Result<(), Reason> {
    let mut elements = Vec::new();
    let read = serde_json::Deserializer::from_str(raw).deserialize_seq(Elements(&mut elements));
    if read.is_err() {
        column.append_null();
        return Err(unreadable(raw, "an array"));
    }
    let Builder::List(list) = column else { return Err(unreadable(raw, "an array")) };
    let mut first_error = Ok(());
    for element in &elements {
        first_error = first_error.and(append(&mut list.items, element.get()));
    }
    list.end(elements.len(), true);
    first_error
}

fn record(column: &mut Builder, raw: &str) -> Result<(), Reason> {
    let Builder::Struct(record) = column else { return Err(unreadable(raw, "an object")) };
    let names = Names::new(record.fields.iter().map(|f| f.name().as_str()));
    let mut fields = Vec::new();
    let mut first_error = object(raw, &names, &mut fields).map_err(|_| unreadable(raw, "an object"));
    for (column, field) in record.columns.iter_mut().zip(fields) {
        match field {
            Some(raw) if first_error.is_ok() => first_error = append(column, raw.get()),
            _ => column.append_null(),
        }
    }
    record.end(first_error.is_ok());
    first_error
}

fn map(column: &mut Builder, raw: &str) -> Result<(), Reason> {
    let read = serde_json::Deserializer::from_str(raw).deserialize_map(Entries);
    let (Builder::Map(map), Ok(entries)) = (&mut *column, read) else {
        column.append_null();
        return Err(unreadable(raw, "an object"));
    };
    let mut first_error = Ok(());
    for (key, value) in entries {
        map.keys.append_value(key);
        first_error = first_error.and(append(&mut map.values, value.get()));
    }
    map.end(true);
    first_error
}

/// The members of an object, of equal names the last, where the first stood.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut places = HashMap::new();
        while let Some((key, value)) = map.next_entry::<String, _>()? {
            match places.entry(key.clone()) {
                Entry::Occupied(place) => {
                    let place: usize = *place.get();
                    entries[place] = (key, value);
                }
                Entry::Vacant(place) => {
                    place.insert(entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(entries)
    }
}

/// Reads one value, whatever stands in it.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn value(text: &str) -> Result<&RawValue, Reason> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = <&RawValue>::deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| error.to_string())
}

/// Writes an object of columns.
pub(super) fn write_object(cells: &[(Vec<u8>, Cells<'_>)], row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (name, cells)) in cells.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.push(b':');
        write(cells, row, out);
    }
    out.push(b'}');
}

/// Writes one value.
pub(super) fn write(cells: &Cells<'_>, row: usize, out: &mut Vec<u8>) {
    if cells.is_null(row) {
        out.extend_from_slice(b"null");
        return;
    }
    match cells {
        Cells::List(list, items) => {
            out.push(b'[');
            let offsets = list.value_offsets();
            for at in offsets[row]..offsets[row + 1] {
                if at > offsets[row] {
                    out.push(b',');
                }
                write(items, usize::try_from(at).unwrap_or(0), out);
            }
            out.push(b']');
        }
        Cells::Struct(_, fields) => write_object(fields, row, out),
        Cells::Map(map, keys, values) => {
            out.push(b'{');
            let offsets = map.value_offsets();
            for at in offsets[row]..offsets[row + 1] {
                if at > offsets[row] {
                    out.push(b',');
                }
                let at = usize::try_from(at).unwrap_or(0);
                write_string(keys.value(at), out);
                out.push(b':');
                write(values, at, out);
            }
            out.push(b'}');
        }
        Cells::Text(text) => write_string(text.value(row), out),
        _ if cells.is_bare(row) => cells.write_text(row, out),
        _ => {
            let mut text = Vec::new();
            cells.write_text(row, &mut text);
            write_string(&String::from_utf8_lossy(&text), out);
        }
    }
}

/// A name as it stands in an object.
pub(super) fn quoted(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    write_string(name, &mut out);
    out
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}
