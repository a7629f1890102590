//! mode() WITHIN GROUP (ORDER BY v): the value that is there most often, of several the least.
//!
//! Source: PostgreSQL, "Ordered-Set Aggregate Functions".

use std::collections::BTreeMap;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

/// The aggregate.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::new_from_impl(Mode { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mode {
    signature: Signature,
}

impl AggregateUDFImpl for Mode {
    fn name(&self) -> &str {
        "mode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Counts { data_type: args.return_field.data_type().clone(), counts: Vec::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let values = Field::new_list(
            "values",
            Field::new_list_field(args.return_field.data_type().clone(), true),
            true,
        );
        Ok(vec![values.into()])
    }
}

/// All values: they are counted when the result is asked for.
#[derive(Debug)]
struct Counts {
    data_type: DataType,
    counts: Vec<ArrayRef>,
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.counts.push(ArrayRef::clone(&values[0]));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let converter =
            datafusion::arrow::row::RowConverter::new(vec![datafusion::arrow::row::SortField::new(
                self.data_type.clone(),
            )])?;
        let mut counts: BTreeMap<Box<[u8]>, (usize, ScalarValue)> = BTreeMap::new();
        for values in &self.counts {
            let rows = converter.convert_columns(&[ArrayRef::clone(values)])?;
            let nulls = values.logical_nulls();
            for row in (0..values.len()).filter(|row| nulls.as_ref().is_none_or(|n| n.is_valid(*row))) {
                match counts.get_mut(rows.row(row).data()) {
                    Some((count, _)) => *count += 1,
                    None => {
                        let value = ScalarValue::try_from_array(values, row)?;
                        counts.insert(rows.row(row).data().into(), (1, value));
                    }
                }
            }
        }
        let mut best: Option<(usize, ScalarValue)> = None;
        for (count, value) in counts.into_values() {
            if best.as_ref().is_none_or(|(most, _)| count > *most) {
                best = Some((count, value));
            }
        }
        best.map_or_else(|| ScalarValue::try_from(&self.data_type), |(_, value)| Ok(value))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.iter().map(|c| c.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let arrays: Vec<&dyn Array> = self.counts.iter().map(|a| a.as_ref()).collect();
        let all = match arrays.as_slice() {
            [] => datafusion::arrow::array::new_empty_array(&self.data_type),
            arrays => datafusion::arrow::compute::concat(arrays)?,
        };
        Ok(vec![SingleRowListArrayBuilder::new(all).build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(lists) = states[0].as_any().downcast_ref::<datafusion::arrow::array::ListArray>() else {
            return exec_err!("the state of mode() is no list");
        };
        self.counts.extend(lists.iter().flatten());
        Ok(())
    }
}
