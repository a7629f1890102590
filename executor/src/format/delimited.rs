//! DELIMITED: values with a character between them, quoted where they must be.
//!
//! Source: ksqlDB, "Serialization Formats: DELIMITED" (Apache Commons CSV, quoting what is needed). An
//! empty value is NULL, so an empty text cannot be told from none.

use super::builder::{Builder, Reason};
use super::cell::Cells;

/// Reads one record into columns.
///
/// # Errors
/// Another number of values than columns; the first that does not read. Each column has an entry more
/// all the same. The index is the column's.
pub(super) fn append(
    columns: &mut [&mut Builder],
    text: &[u8],
    delimiter: char,
) -> Result<(), (Option<usize>, Reason)> {
    let values = match split(text, delimiter) {
        Ok(values) if values.len() == columns.len() => values,
        Ok(values) => {
            columns.iter_mut().for_each(|c| c.append_null());
            return Err((None, format!("{} values, not {}", values.len(), columns.len())));
        }
        Err(reason) => {
            columns.iter_mut().for_each(|c| c.append_null());
            return Err((None, reason));
        }
    };
    let mut first_error = Ok(());
    for (at, (column, value)) in columns.iter_mut().zip(&values).enumerate() {
        let appended = match (&mut **column, value.as_str()) {
            (column, "") => {
                column.append_null();
                Ok(())
            }
            // As Java reads it: anything else is false.
            (Builder::Boolean(b), text) => {
                b.append_value(text.eq_ignore_ascii_case("true"));
                Ok(())
            }
            (column, text) => column.append_text(text),
        };
        first_error = first_error.and(appended.map_err(|reason| (Some(at), reason)));
    }
    first_error
}

/// The values of a record.
fn split(text: &[u8], delimiter: char) -> Result<Vec<String>, Reason> {
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter as u8).build();
    let mut values = vec![0; text.len() + 1];
    let mut ends = vec![0; text.len() + 2];
    // The second call, with nothing more to read, ends the record.
    let (_, read, written, fields) = reader.read_record(text, &mut values, &mut ends);
    let (_, _, more_written, more_fields) =
        reader.read_record(&[], &mut values[written..], &mut ends[fields..]);
    if read < text.len() && text[read..].iter().any(|b| !b.is_ascii_whitespace()) {
        return Err("more than one line".into());
    }
    let mut begin = 0;
    let mut out = Vec::with_capacity(fields + more_fields);
    for end in &ends[..fields + more_fields] {
        let value = values[..written + more_written].get(begin..*end).unwrap_or_default();
        out.push(std::str::from_utf8(value).map_err(|e| e.to_string())?.to_owned());
        begin = *end;
    }
    Ok(out)
}

/// Writes a record.
pub(super) fn write(cells: &[(Vec<u8>, Cells<'_>)], row: usize, delimiter: char, out: &mut Vec<u8>) {
    let mut value = Vec::new();
    for (at, (_, cells)) in cells.iter().enumerate() {
        if at > 0 {
            out.push(delimiter as u8);
        }
        if cells.is_null(row) {
            continue;
        }
        value.clear();
        cells.write_text(row, &mut value);
        write_value(&value, at == 0, delimiter, out);
    }
}

/// Commons CSV also quotes a record's first value unless it begins with a letter or digit, and what
/// begins or ends with a blank.
fn write_value(value: &[u8], first: bool, delimiter: char, out: &mut Vec<u8>) {
    let (Some(begin), Some(end)) = (value.first(), value.last()) else {
        return;
    };
    let quoted = (first && begin.is_ascii() && !begin.is_ascii_alphanumeric())
        || *begin <= b'#'
        || *end <= b' '
        || value.iter().any(|b| matches!(b, b'"' | b'\n' | b'\r') || *b == delimiter as u8);
    if !quoted {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for byte in value {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_split_and_quote() {
        let values = |text: &str| split(text.as_bytes(), ',').unwrap();
        assert_eq!(values("a,b"), ["a", "b"]);
        assert_eq!(values("a,"), ["a", ""]);
        assert_eq!(values(",,"), ["", "", ""]);
        assert_eq!(values("\"a,\"\"b\"\"\",c"), ["a,\"b\"", "c"]);
        assert_eq!(values("solo"), ["solo"]);
        assert!(split(b"a\nb", ',').is_err());
        let written = |value: &str, first| {
            let mut out = Vec::new();
            write_value(value.as_bytes(), first, ',', &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("-1.5", true), "\"-1.5\"");
        assert_eq!(written("-1.5", false), "-1.5");
        assert_eq!(written("a,b", false), "\"a,b\"");
        assert_eq!(written("say \"x\"", false), "\"say \"\"x\"\"\"");
    }
}
