//! Rows that are there from the beginning: VALUES, SELECT without FROM, generate_series.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::fragment::Fragment;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader};

pub(crate) struct Values {
    /// Gives the rows, once.
    pub(crate) fragment: Option<Fragment>,
    pub(crate) schema: SchemaRef,
}

impl Operator for Values {
    fn step(&mut self, _: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let Some(fragment) = self.fragment.take() else { return Ok(Vec::new()) };
        let nothing = RecordBatch::new_empty(Arc::clone(fragment.input()));
        let rows = fragment.run(nothing, &self.schema)?;
        Ok(rows.into_iter().map(ChangeBatch::inserted).collect())
    }

    fn save(&self, image: &mut Image) {
        image.flag(self.fragment.is_none());
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        if state.flag()? {
            self.fragment = None;
        }
        Ok(())
    }
}
