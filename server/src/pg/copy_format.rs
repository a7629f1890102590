//! COPY data, in pieces of any size, into rows.
//!
//! Source: PostgreSQL, "COPY", File Formats.

use bytes::{Buf, BytesMut};
use sql::{CopyFormat, CopyOptions};

use super::{RowBuilder, WireError};

/// Longest row.
const MAX_ROW_BYTES: usize = 16 << 20;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Reads COPY data.
pub struct CopyParser {
    options: CopyOptions,
    buffer: BytesMut,
    line: u64,
    header_seen: bool,
    ended: bool,
    /// Reused for fields with quotes or escapes.
    scratch: Vec<u8>,
}

impl CopyParser {
    /// A parser for data laid out as `options` say.
    pub fn new(options: CopyOptions) -> Self {
        let header_seen = !options.header && options.format != CopyFormat::Binary;
        Self { options, buffer: BytesMut::new(), line: 0, header_seen, ended: false, scratch: Vec::new() }
    }

    /// Takes more data; whole rows go to `rows`.
    ///
    /// # Errors
    /// 22P04 and the errors of values, with the line.
    pub fn push(&mut self, data: &[u8], rows: &mut RowBuilder) -> Result<(), WireError> {
        self.buffer.extend_from_slice(data);
        let buffer = std::mem::take(&mut self.buffer);
        let used = match self.options.format {
            CopyFormat::Binary => self.tuples(&buffer, rows),
            CopyFormat::Text | CopyFormat::Csv => self.lines(&buffer, rows),
        }?;
        self.buffer = buffer;
        self.buffer.advance(used);
        if self.buffer.len() > MAX_ROW_BYTES {
            return Err(self.bad(format!("a row is longer than {MAX_ROW_BYTES} bytes"), "54000"));
        }
        Ok(())
    }

    /// The end of the data.
    ///
    /// # Errors
    /// As [`Self::push`]; a row that is not whole.
    pub fn finish(&mut self, rows: &mut RowBuilder) -> Result<(), WireError> {
        if self.buffer.is_empty() || self.ended {
            return Ok(());
        }
        if self.options.format == CopyFormat::Binary {
            return Err(self.bad("unexpected EOF in COPY data", "22P04"));
        }
        self.push(b"\n", rows)?;
        if self.buffer.is_empty() { Ok(()) } else { Err(self.bad("unterminated CSV quoted field", "22P04")) }
    }

    fn bad(&self, message: impl Into<String>, code: &'static str) -> WireError {
        let mut error = WireError::new(code, message);
        error.detail = Some(format!("COPY, line {}", self.line.max(1)));
        error
    }

    fn at_line(&self, mut error: WireError, column: usize) -> WireError {
        error.detail = Some(format!("COPY, line {}, column {}", self.line.max(1), column + 1));
        error
    }

    fn lines(&mut self, buffer: &[u8], rows: &mut RowBuilder) -> Result<usize, WireError> {
        let mut at = 0;
        while let Some(end) = self.line_end(&buffer[at..]) {
            let line = &buffer[at..at + end];
            at += end + 1;
            self.line += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if self.ended {
                continue;
            }
            if !std::mem::replace(&mut self.header_seen, true) {
                continue;
            }
            if line == b"\\." {
                self.ended = true;
                continue;
            }
            if self.options.format == CopyFormat::Csv {
                self.csv_row(line, rows)?
            } else {
                self.text_row(line, rows)?
            }
            rows.end_row();
        }
        Ok(at)
    }

    /// The end of the first row; in CSV a quoted field may hold line ends.
    fn line_end(&self, bytes: &[u8]) -> Option<usize> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        if self.options.format == CopyFormat::Text || !bytes[..end].contains(&self.options.quote) {
            return Some(end);
        }
        let mut quoted = false;
        let mut i = 0;
        while i < bytes.len() {
            let byte = bytes[i];
            if quoted && byte == self.options.escape && self.options.escape != self.options.quote {
                i += 1;
            } else if byte == self.options.quote {
                quoted = !quoted;
            } else if byte == b'\n' && !quoted {
                return Some(i);
            }
            i += 1;
        }
        None
    }

    fn text_row(&mut self, line: &[u8], rows: &mut RowBuilder) -> Result<(), WireError> {
        let width = rows.columns().len();
        let delimiter = self.options.delimiter;
        let mut rest = Some(line);
        for index in 0..width {
            let Some(bytes) = rest else { return Err(self.bad("missing data for a column", "22P04")) };
            let end = field_end(bytes, delimiter);
            let field = &bytes[..end];
            rest = bytes.get(end + 1..);
            let column = &mut rows.columns()[index];
            if field == self.options.null.as_bytes() {
                column.append_null();
                continue;
            }
            let appended = if field.contains(&b'\\') {
                self.scratch.clear();
                unescape(field, &mut self.scratch);
                utf8(&self.scratch).and_then(|text| column.append_text(text))
            } else {
                utf8(field).and_then(|text| column.append_text(text))
            };
            appended.map_err(|e| self.at_line(e, index))?;
        }
        if rest.is_some() { Err(self.bad("extra data after last expected column", "22P04")) } else { Ok(()) }
    }

    fn csv_row(&mut self, line: &[u8], rows: &mut RowBuilder) -> Result<(), WireError> {
        let width = rows.columns().len();
        let mut rest = Some(line);
        for index in 0..width {
            let Some(bytes) = rest else { return Err(self.bad("missing data for a column", "22P04")) };
            let column = &mut rows.columns()[index];
            let quoted = bytes.first() == Some(&self.options.quote);
            let end;
            let appended = if quoted {
                end = unquote(bytes, &self.options, &mut self.scratch);
                utf8(&self.scratch).and_then(|text| column.append_text(text))
            } else {
                end = bytes.iter().position(|b| *b == self.options.delimiter).unwrap_or(bytes.len());
                let field = &bytes[..end];
                if field == self.options.null.as_bytes() {
                    column.append_null();
                    Ok(())
                } else {
                    utf8(field).and_then(|text| column.append_text(text))
                }
            };
            rest = bytes.get(end + 1..);
            appended.map_err(|e| self.at_line(e, index))?;
        }
        if rest.is_some() { Err(self.bad("extra data after last expected column", "22P04")) } else { Ok(()) }
    }

    fn tuples(&mut self, buffer: &[u8], rows: &mut RowBuilder) -> Result<usize, WireError> {
        let mut at = 0;
        if !self.header_seen {
            let Some(header) = buffer.get(..19) else { return Ok(0) };
            if !header.starts_with(SIGNATURE) {
                return Err(self.bad("COPY file signature not recognized", "22P04"));
            }
            let extension = header[15..19].iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
            if buffer.len() < 19 + extension {
                return Ok(0);
            }
            at = 19 + extension;
            self.header_seen = true;
        }
        while let Some(length) = tuple_length(&buffer[at..]) {
            self.line += 1;
            if length == 2 {
                self.ended = true;
                return Ok(buffer.len());
            }
            self.tuple(&buffer[at..at + length], rows)?;
            rows.end_row();
            at += length;
        }
        Ok(at)
    }

    fn tuple(&self, tuple: &[u8], rows: &mut RowBuilder) -> Result<(), WireError> {
        let count = usize::from(u16::from_be_bytes([tuple[0], tuple[1]]));
        if count != rows.columns().len() {
            return Err(
                self.bad(format!("row field count is {count}, expected {}", rows.columns().len()), "22P04")
            );
        }
        let mut at = 2;
        for (index, column) in rows.columns().iter_mut().enumerate() {
            let length = i32::from_be_bytes([tuple[at], tuple[at + 1], tuple[at + 2], tuple[at + 3]]);
            at += 4;
            match usize::try_from(length) {
                Err(_) => column.append_null(),
                Ok(length) => {
                    column.append_binary(&tuple[at..at + length]).map_err(|e| self.at_line(e, index))?;
                    at += length;
                }
            }
        }
        Ok(())
    }
}

/// Length of the first tuple, when it is whole; 2 for the end of data.
fn tuple_length(bytes: &[u8]) -> Option<usize> {
    let count = i16::from_be_bytes(bytes.get(..2)?.try_into().ok()?);
    let mut at = 2;
    for _ in 0..count.max(0) {
        let length = i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    (bytes.len() >= at).then_some(at)
}

fn utf8(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes)
        .map_err(|_| WireError::new("22021", "invalid byte sequence for encoding \"UTF8\""))
}

/// The end of a text field: the first delimiter without a back-slash before it.
fn field_end(bytes: &[u8], delimiter: u8) -> usize {
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b if b == delimiter => return i,
            _ => i += 1,
        }
    }
    bytes.len()
}

fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'v') => out.push(11),
            Some(other) => out.push(other),
            None => out.push(b'\\'),
        }
    }
}

/// Reads a quoted field into `out`; returns where it ends.
fn unquote(bytes: &[u8], options: &CopyOptions, out: &mut Vec<u8>) -> usize {
    out.clear();
    let mut i = 1;
    let mut quoted = true;
    while i < bytes.len() {
        let byte = bytes[i];
        if quoted
            && byte == options.escape
            && matches!(bytes.get(i + 1), Some(b) if *b == options.quote || *b == options.escape)
        {
            out.push(bytes[i + 1]);
            i += 2;
            continue;
        }
        if byte == options.quote {
            quoted = !quoted;
        } else if byte == options.delimiter && !quoted {
            return i;
        } else {
            out.push(byte);
        }
        i += 1;
    }
    bytes.len()
}
