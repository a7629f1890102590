//! sum() of whole numbers and of NUMERIC: an error where the result does not fit. DataFusion's wraps around, which is a
//! wrong answer.
//!
//! They are added up in twice as many bits, which no number of rows fills; the result alone has to fit.
//! Source: PostgreSQL, "Aggregate Functions"; int8_sum and int4_sum in numeric.c.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Field,
    FieldRef, Int64Type, UInt64Type, i256,
};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

/// What numbers are added up as whose sum has this type; None: as they are.
fn wide_of(result: &DataType) -> Option<DataType> {
    match result {
        DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
        DataType::Decimal128(_, scale) => Some(DataType::Decimal256(DECIMAL256_MAX_PRECISION, *scale)),
        _ => None,
    }
}

/// The aggregate.
pub(super) fn function() -> AggregateUDF {
    AggregateUDF::new_from_impl(CheckedSum { inner: Sum::new() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedSum {
    inner: Sum,
}

fn widened<'a>(args: AccumulatorArgs<'a>, wide: &DataType) -> AccumulatorArgs<'a> {
    AccumulatorArgs { return_field: Arc::new(Field::new(args.name, wide.clone(), true)), ..args }
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
        let result = args.return_type().clone();
        match wide_of(&result) {
            None => self.inner.accumulator(args),
            Some(wide) => {
                let sum = self.inner.accumulator(widened(args, &wide))?;
                Ok(Box::new(Narrowing { sum, wide, result }))
            }
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        match wide_of(args.return_type()) {
            None => self.inner.state_fields(args),
            Some(wide) => {
                let return_field = Arc::new(Field::new(args.name, wide, true));
                self.inner.state_fields(StateFieldsArgs { return_field, ..args })
            }
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let result = args.return_type().clone();
        match wide_of(&result) {
            None => self.inner.create_groups_accumulator(args),
            Some(wide) => {
                let sums = self.inner.create_groups_accumulator(widened(args, &wide))?;
                Ok(Box::new(NarrowingGroups { sums, wide, result }))
            }
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let result = args.return_type().clone();
        match wide_of(&result) {
            // DataFusion slides over distinct numbers of one type only.
            Some(wide) if !args.is_distinct => {
                let sum = self.inner.create_sliding_accumulator(widened(args, &wide))?;
                Ok(Box::new(Narrowing { sum, wide, result }))
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

fn cast_all(values: &[ArrayRef], wide: &DataType) -> Result<Vec<ArrayRef>> {
    values.iter().map(|values| Ok(cast(values, wide)?)).collect()
}

/// Sums that fit into the result's type.
fn narrow(sums: &ArrayRef, result: &DataType) -> Result<ArrayRef> {
    if let DataType::Decimal128(precision, scale) = result {
        let sums = sums.as_primitive::<Decimal256Type>();
        let digits = i256::from_i128(10_i128.pow(u32::from(DECIMAL128_MAX_PRECISION)));
        let fits = |sum: &i256| sum.wrapping_abs() < digits;
        let sums = sums.try_unary::<_, Decimal128Type, DataFusionError>(|sum| {
            let sum = Some(sum).filter(fits).and_then(i256::to_i128);
            sum.ok_or_else(|| exec_datafusion_err!("numeric field overflow"))
        })?;
        return Ok(Arc::new(sums.with_precision_and_scale(*precision, *scale)?));
    }
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
    wide: DataType,
    result: DataType,
}

impl Accumulator for Narrowing {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.update_batch(&cast_all(values, &self.wide)?)
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
        self.sum.retract_batch(&cast_all(values, &self.wide)?)
    }

    fn supports_retract_batch(&self) -> bool {
        self.sum.supports_retract_batch()
    }
}

/// The sums of many groups.
struct NarrowingGroups {
    sums: Box<dyn GroupsAccumulator>,
    wide: DataType,
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
        self.sums.update_batch(&cast_all(values, &self.wide)?, group_indices, opt_filter, total_num_groups)
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
        self.sums.convert_to_state(&cast_all(values, &self.wide)?, opt_filter)
    }

    fn size(&self) -> usize {
        self.sums.size()
    }
}
