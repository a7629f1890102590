//! sum() of whole numbers: an error where the result does not fit, as in PostgreSQL. DataFusion's wraps around, which is
//! a wrong answer.
//!
//! They are added up as numbers of 38 digits, which no number of rows fills; the result alone has to fit.
//! Source: PostgreSQL, "Aggregate Functions"; int8_sum and int4_sum in numeric.c.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Int64Type, UInt64Type,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

/// What whole numbers are added up as.
const WIDE: DataType = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);

/// The aggregate.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::new_from_impl(CheckedSum { inner: Sum::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    inner: Sum,
}

/// The type of whole numbers that a result is to have.
fn whole(result: &DataType) -> Option<DataType> {
    matches!(result, DataType::Int64 | DataType::UInt64).then(|| result.clone())
}

fn widened(args: AccumulatorArgs<'_>) -> AccumulatorArgs<'_> {
    AccumulatorArgs { return_field: Arc::new(Field::new(args.name, WIDE, true)), ..args }
}

impl AggregateUDFImpl for CheckedSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match whole(args.return_type()) {
            None => self.inner.accumulator(args),
            Some(result) => Ok(Box::new(Narrowing { sum: self.inner.accumulator(widened(args))?, result })),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        match whole(args.return_type()) {
            None => self.inner.state_fields(args),
            Some(_) => {
                let return_field = Arc::new(Field::new(args.name, WIDE, true));
                self.inner.state_fields(StateFieldsArgs { return_field, ..args })
            }
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        match whole(args.return_type()) {
            None => self.inner.create_groups_accumulator(args),
            Some(result) => {
                let sums = self.inner.create_groups_accumulator(widened(args))?;
                Ok(Box::new(NarrowingGroups { sums, result }))
            }
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match whole(args.return_type()) {
            // DataFusion slides over distinct numbers of this one type.
            Some(result) if !args.is_distinct => {
                let sum = self.inner.create_sliding_accumulator(widened(args))?;
                Ok(Box::new(Narrowing { sum, result }))
            }
            _ => self.inner.create_sliding_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> datafusion::logical_expr::utils::AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(data_type)
    }
}

fn wide(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    values.iter().map(|values| Ok(cast(values, &WIDE)?)).collect()
}

/// Sums that fit into the result's type.
fn narrow(sums: &ArrayRef, result: &DataType) -> Result<ArrayRef> {
    let sums = sums.as_primitive::<Decimal128Type>();
    Ok(match result {
        DataType::UInt64 => Arc::new(sums.try_unary::<_, UInt64Type, DataFusionError>(|sum| {
            u64::try_from(sum).map_err(|_| out_of_range())
        })?),
        _ => Arc::new(sums.try_unary::<_, Int64Type, DataFusionError>(|sum| {
            i64::try_from(sum).map_err(|_| out_of_range())
        })?),
    })
}

fn out_of_range() -> DataFusionError {
    exec_datafusion_err!("bigint out of range")
}

/// The sum of one group.
#[derive(Debug)]
struct Narrowing {
    sum: Box<dyn Accumulator>,
    result: DataType,
}

impl Accumulator for Narrowing {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.update_batch(&wide(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.sum.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&narrow(&sum, &self.result)?, 0)
    }

    fn size(&self) -> usize {
        self.sum.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.sum.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sum.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.retract_batch(&wide(values)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.sum.supports_retract_batch()
    }
}

/// The sums of many groups.
struct NarrowingGroups {
    sums: Box<dyn GroupsAccumulator>,
    result: DataType,
}

impl GroupsAccumulator for NarrowingGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.update_batch(&wide(values)?, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        narrow(&self.sums.evaluate(emit_to)?, &self.result)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.sums.state(emit_to)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.sums.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.sums.convert_to_state(&wide(values)?, opt_filter)
    }

    fn size(&self) -> usize {
        self.sums.size()
    }
}
