//! COPY: rows in as one atom, rows out as they come.

use executor::Write;
use sql::{Copy, CopyDirection};

use super::held::Held;
use super::insert::Target;
use super::{Outcome, Parameters, query};
use crate::pg::{CopyParser, RowBuilder, WireError};
use crate::session::Session;

/// Rows of a batch on its way in.
const BATCH_ROWS: usize = 8 * 1024;

/// A COPY FROM STDIN under way. Nothing of it is written before its end.
pub(crate) struct CopyIn {
    target: Target,
    parser: CopyParser,
    rows: RowBuilder,
    writes: Vec<Write>,
    held: Held,
    count: usize,
    /// Columns of a row, for the client.
    pub(crate) width: usize,
    pub(crate) binary: bool,
}

pub(crate) async fn copy(session: &mut Session, copy: &Copy) -> Result<Outcome, WireError> {
    match &copy.direction {
        CopyDirection::In { name, columns } => {
            let target = Target::new(session, name, columns)?;
            let schema = target.schema();
            Ok(Outcome::CopyIn(Box::new(CopyIn {
                width: schema.fields().len(),
                binary: copy.options.format == sql::CopyFormat::Binary,
                target,
                parser: CopyParser::new(copy.options.clone()),
                rows: RowBuilder::new(schema),
                writes: Vec::new(),
                held: Held::new(session, "one COPY"),
                count: 0,
            })))
        }
        CopyDirection::Out(source) if source.emit.is_some() => {
            let rows = query::push(session, source, None).await?;
            Ok(Outcome::CopyOut(rows, copy.options.clone()))
        }
        CopyDirection::Out(source) => {
            let rows = query::pull(session, source, &Parameters::default()).await?;
            Ok(Outcome::CopyOut(rows, copy.options.clone()))
        }
    }
}

impl CopyIn {
    /// Takes a piece of data.
    pub(crate) fn push(&mut self, session: &Session, data: &[u8]) -> Result<(), WireError> {
        self.parser.push(data, &mut self.rows)?;
        if self.rows.len() >= BATCH_ROWS { self.cut(session) } else { Ok(()) }
    }

    fn cut(&mut self, session: &Session) -> Result<(), WireError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let batch = self.rows.finish()?;
        self.count += batch.num_rows();
        let write = self.target.write(session, &batch)?;
        self.held.grow(write.bytes())?;
        self.writes.push(write);
        Ok(())
    }

    /// The end of the data: everything is written, or nothing. Returns the number of rows.
    pub(crate) async fn finish(mut self, session: &mut Session) -> Result<usize, WireError> {
        self.parser.finish(&mut self.rows)?;
        self.cut(session)?;
        if !self.writes.is_empty() {
            session.write(self.writes).await?;
        }
        Ok(self.count)
    }
}
