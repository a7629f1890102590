//! The state of aggregate functions, one value for each group, every one able to take rows back.
//!
//! Source of results: DataFusion's own aggregates, which the oracle compares with.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, Int64Type, i256,
};
use datafusion::arrow::error::ArrowError;

use crate::error::{Error, Result};
use crate::keys::{RowCodec, Slot};
use crate::state::{Image, Plain, StateReader, Stateful};

/// What one call sees of a batch.
pub(crate) struct Input<'a> {
    /// The group of each row of `rows`.
    pub(crate) slots: &'a [Slot],
    /// Rows of the batch.
    pub(crate) rows: &'a [u32],
    /// The argument, for all rows of the batch; None counts rows.
    pub(crate) values: Option<&'a ArrayRef>,
    /// Rows that count, for all rows of the batch.
    pub(crate) mask: Option<&'a BooleanArray>,
    /// Weights of all rows of the batch; None is +1.
    pub(crate) weights: Option<&'a Int64Array>,
}

impl Input<'_> {
    /// Calls `f(slot, row, weight)` for each row that counts and is not null.
    pub(super) fn each(&self, mut f: impl FnMut(usize, usize, i64)) {
        let nulls = self.values.and_then(|v| v.logical_nulls());
        let plain = nulls.is_none() && self.mask.is_none();
        for (slot, row) in self.slots.iter().zip(self.rows) {
            let row = *row as usize;
            let counts = plain
                || (nulls.as_ref().is_none_or(|n| n.is_valid(row))
                    && self.mask.is_none_or(|m| m.is_valid(row) && m.value(row)));
            if counts {
                f(*slot as usize, row, self.weights.map_or(1, |w| w.value(row)));
            }
        }
    }
}

/// The state of one aggregate for all groups.
pub(crate) trait Accumulator: Stateful + Send + Sync {
    /// Makes room for slots below `slots`.
    fn grow(&mut self, slots: usize);
    /// Adds and takes back rows.
    fn update(&mut self, input: &Input<'_>) -> Result<()>;
    /// The epoch's rows have all been seen: inside an epoch a row may go before it comes.
    fn settle(&mut self, _slots: &[Slot]) {}
    /// Adds what the group `from` holds to `into`. Only for rows that only come.
    fn merge(&mut self, _into: Slot, _from: Slot) -> Result<()> {
        Err(Error::bug("aggregate", "its states do not merge"))
    }
    /// The results of groups.
    fn results(&self, slots: &[Slot]) -> Result<ArrayRef>;
    /// Forgets a group.
    fn clear(&mut self, slot: Slot);
    /// Bytes of state.
    fn bytes(&self) -> usize;
}

/// The accumulator of a function over an argument type with a result type.
///
/// # Errors
/// [`Error::Bug`] for a combination the planner should not have let through.
pub(crate) fn accumulator(
    function: &str,
    argument: &DataType,
    result: &DataType,
    retracting: bool,
) -> Result<Box<dyn Accumulator>> {
    Ok(match (function, result) {
        ("count", _) => Box::new(Count::default()),
        ("sum", DataType::Int64 | DataType::UInt64) => Box::new(IntegerSum::new(result.clone())),
        ("sum" | "avg", DataType::Float64) if *argument != DataType::Null => {
            Box::new(FloatSum { average: function == "avg", groups: Vec::new() })
        }
        ("sum", DataType::Decimal128(..)) => Box::new(DecimalSum::new(argument, result, false)?),
        ("avg", DataType::Decimal128(..)) => Box::new(DecimalSum::new(argument, result, true)?),
        ("bool_and" | "bool_or", _) => Box::new(Truth { all: function == "bool_and", groups: Vec::new() }),
        ("min" | "max", _) => {
            let codec = RowCodec::try_new([result.clone()])?;
            let least = function == "min";
            if retracting {
                Box::new(Extremes { codec, least, result: result.clone(), groups: Vec::new(), bytes: 0 })
            } else {
                Box::new(Extreme { codec, least, result: result.clone(), groups: Vec::new(), bytes: 0 })
            }
        }
        _ => return Err(unsupported(function, argument)),
    })
}

fn unsupported(function: &str, argument: &DataType) -> Error {
    Error::Plan(planner::Error::NotSupported {
        what: format!("{function} of {argument}"),
        continuous: true,
        hint: Some("cast the argument to BIGINT, DOUBLE PRECISION or NUMERIC".into()),
    })
}

fn out_of_range() -> Error {
    Error::Evaluation(ArrowError::ArithmeticOverflow("bigint out of range".into()))
}

fn numeric_overflow() -> Error {
    Error::Evaluation(ArrowError::ArithmeticOverflow("numeric field overflow".into()))
}

fn typed<'a, T: 'static>(input: &'a Input<'_>, function: &str) -> Result<&'a T> {
    input
        .values
        .and_then(|v| v.as_any().downcast_ref::<T>())
        .ok_or_else(|| Error::bug(function, "the argument has another type than planned"))
}

#[derive(Default)]
struct Count(Vec<i64>);

impl Accumulator for Count {
    fn grow(&mut self, slots: usize) {
        self.0.resize(slots.max(self.0.len()), 0);
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        input.each(|slot, _, weight| self.0[slot] += weight);
        Ok(())
    }

    fn merge(&mut self, into: Slot, from: Slot) -> Result<()> {
        self.0[into as usize] += self.0[from as usize];
        Ok(())
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        Ok(Arc::new(slots.iter().map(|s| self.0[*s as usize]).collect::<Int64Array>()))
    }

    fn clear(&mut self, slot: Slot) {
        self.0[slot as usize] = 0;
    }

    fn bytes(&self) -> usize {
        self.0.capacity() * 8
    }
}

impl Stateful for Count {
    fn save(&self, image: &mut Image) {
        image.vector(&self.0);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.0 = state.vector()?;
        Ok(())
    }
}

/// bool_and and bool_or: how many were true and how many false.
struct Truth {
    all: bool,
    groups: Vec<[i64; 2]>,
}

impl Accumulator for Truth {
    fn grow(&mut self, slots: usize) {
        self.groups.resize(slots.max(self.groups.len()), [0, 0]);
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        let values = typed::<BooleanArray>(input, "bool_and")?;
        input.each(|slot, row, weight| self.groups[slot][usize::from(values.value(row))] += weight);
        Ok(())
    }

    fn merge(&mut self, into: Slot, from: Slot) -> Result<()> {
        let [no, yes] = self.groups[from as usize];
        let group = &mut self.groups[into as usize];
        *group = [group[0] + no, group[1] + yes];
        Ok(())
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        let truth = |slot: &Slot| {
            let [no, yes] = self.groups[*slot as usize];
            (no + yes > 0).then_some(if self.all { no == 0 } else { yes > 0 })
        };
        Ok(Arc::new(slots.iter().map(truth).collect::<BooleanArray>()))
    }

    fn clear(&mut self, slot: Slot) {
        self.groups[slot as usize] = [0, 0];
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * 16
    }
}

impl Stateful for Truth {
    fn save(&self, image: &mut Image) {
        image.vector(&self.groups);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.groups = state.vector()?;
        Ok(())
    }
}

/// Sum of integers. A sum that does not fit is an error only where it is asked for: it may fit again when
/// the epoch has ended.
struct IntegerSum {
    result: DataType,
    groups: Vec<WideSum>,
}

/// A sum that no number of rows fills, and how many there are.
#[derive(Debug, Clone, Copy, Default)]
struct WideSum {
    /// The sum is `high` times 2 to the 64th and `low`.
    high: i64,
    low: u64,
    count: i64,
}

impl WideSum {
    fn total(&self) -> i128 {
        i128::from(self.high) << 64 | i128::from(self.low)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is cut in two")]
    fn add(&mut self, value: i128, count: i64) {
        let sum = self.total().wrapping_add(value);
        (self.high, self.low) = ((sum >> 64) as i64, sum as u64);
        self.count += count;
    }
}

impl Plain for WideSum {
    const BYTES: usize = 24;

    fn put(self, out: &mut Vec<u8>) {
        ((self.high, self.low), self.count).put(out);
    }

    fn get(bytes: &[u8]) -> Self {
        let ((high, low), count) = Plain::get(bytes);
        Self { high, low, count }
    }
}

impl IntegerSum {
    fn new(result: DataType) -> Self {
        Self { result, groups: Vec::new() }
    }
}

impl Accumulator for IntegerSum {
    fn grow(&mut self, slots: usize) {
        self.groups.resize(slots.max(self.groups.len()), WideSum::default());
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        let cast_values =
            input.values.filter(|v| *v.data_type() != DataType::Int64).map(|v| cast(v, &DataType::Int64));
        let cast_values = cast_values.transpose()?;
        let values = match &cast_values {
            Some(values) => values.as_primitive::<Int64Type>(),
            None => typed::<Int64Array>(input, "sum")?,
        };
        input.each(|slot, row, weight| {
            self.groups[slot].add(i128::from(values.value(row)) * i128::from(weight), weight);
        });
        Ok(())
    }

    fn merge(&mut self, into: Slot, from: Slot) -> Result<()> {
        let from = self.groups[from as usize];
        self.groups[into as usize].add(from.total(), from.count);
        Ok(())
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        let fitting = |slot: &Slot| -> Result<Option<i64>> {
            let group = &self.groups[*slot as usize];
            let sum = (group.count != 0).then(|| i64::try_from(group.total()));
            sum.transpose().map_err(|_| out_of_range())
        };
        let sums: ArrayRef = Arc::new(slots.iter().map(fitting).collect::<Result<Int64Array>>()?);
        Ok(if self.result == DataType::Int64 { sums } else { cast(&sums, &self.result)? })
    }

    fn clear(&mut self, slot: Slot) {
        self.groups[slot as usize] = WideSum::default();
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<WideSum>()
    }
}

impl Stateful for IntegerSum {
    fn save(&self, image: &mut Image) {
        image.vector(&self.groups);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.groups = state.vector()?;
        Ok(())
    }
}

/// A sum of floats that can be taken back: the sum in two parts, so that what was added and
/// removed cancels, and the values that are no numbers counted apart.
///
/// Source: Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen" (1974).
#[derive(Clone, Copy, Default)]
struct Float {
    high: f64,
    low: f64,
    count: i64,
    nan: i32,
    infinite: i32,
    negative_infinite: i32,
}

impl Plain for Float {
    const BYTES: usize = 36;

    fn put(self, out: &mut Vec<u8>) {
        ([self.high, self.low], self.count).put(out);
        ([self.nan, self.infinite], self.negative_infinite).put(out);
    }

    fn get(bytes: &[u8]) -> Self {
        let (finite, other): (&[u8], &[u8]) = bytes.split_at(24);
        let ([high, low], count) = Plain::get(finite);
        let ([nan, infinite], negative_infinite) = Plain::get(other);
        Self { high, low, count, nan, infinite, negative_infinite }
    }
}

impl Float {
    fn add(&mut self, value: f64, weight: i64) {
        self.count += weight;
        #[allow(clippy::cast_possible_truncation, reason = "weights of one row are small")]
        let times = weight as i32;
        if value.is_nan() {
            self.nan += times;
        } else if value == f64::INFINITY {
            self.infinite += times;
        } else if value == f64::NEG_INFINITY {
            self.negative_infinite += times;
        } else {
            #[allow(clippy::cast_precision_loss, reason = "weights of one row are small")]
            let value = value * weight as f64;
            let sum = self.high + value;
            self.low += if self.high.abs() >= value.abs() {
                (self.high - sum) + value
            } else {
                (value - sum) + self.high
            };
            self.high = sum;
        }
    }

    /// Adds the values of another sum.
    fn add_all(&mut self, other: &Self) {
        let count = self.count + other.count;
        self.add(other.high, 1);
        self.add(other.low, 1);
        self.count = count;
        self.nan += other.nan;
        self.infinite += other.infinite;
        self.negative_infinite += other.negative_infinite;
    }

    fn sum(&self) -> f64 {
        if self.nan > 0 || (self.infinite > 0 && self.negative_infinite > 0) {
            f64::NAN
        } else if self.infinite > 0 {
            f64::INFINITY
        } else if self.negative_infinite > 0 {
            f64::NEG_INFINITY
        } else {
            self.high + self.low
        }
    }
}

struct FloatSum {
    average: bool,
    groups: Vec<Float>,
}

impl Accumulator for FloatSum {
    fn grow(&mut self, slots: usize) {
        self.groups.resize(slots.max(self.groups.len()), Float::default());
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        if let Some(values) = input.values.and_then(|v| v.as_any().downcast_ref::<Float32Array>()) {
            input.each(|slot, row, weight| self.groups[slot].add(f64::from(values.value(row)), weight));
            return Ok(());
        }
        let cast_values =
            input.values.filter(|v| *v.data_type() != DataType::Float64).map(|v| cast(v, &DataType::Float64));
        let cast_values = cast_values.transpose()?;
        let values = match &cast_values {
            Some(values) => values.as_primitive::<Float64Type>(),
            None => typed::<Float64Array>(input, "sum")?,
        };
        input.each(|slot, row, weight| self.groups[slot].add(values.value(row), weight));
        Ok(())
    }

    fn merge(&mut self, into: Slot, from: Slot) -> Result<()> {
        let other = self.groups[from as usize];
        self.groups[into as usize].add_all(&other);
        Ok(())
    }

    fn settle(&mut self, slots: &[Slot]) {
        // Without values the sum is exactly nothing, whatever rounding left.
        for slot in slots {
            let group = &mut self.groups[*slot as usize];
            if group.count == 0 {
                *group = Float::default();
            }
        }
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        let results = slots.iter().map(|s| &self.groups[*s as usize]).map(|group| {
            #[allow(clippy::cast_precision_loss, reason = "as DataFusion divides")]
            let count = group.count as f64;
            (group.count != 0).then(|| if self.average { group.sum() / count } else { group.sum() })
        });
        Ok(Arc::new(results.collect::<Float64Array>()))
    }

    fn clear(&mut self, slot: Slot) {
        self.groups[slot as usize] = Float::default();
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Float>()
    }
}

impl Stateful for FloatSum {
    fn save(&self, image: &mut Image) {
        image.vector(&self.groups);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.groups = state.vector()?;
        Ok(())
    }
}

struct DecimalSum {
    precision: u8,
    scale: i8,
    /// For an average: digits the result has more than the argument.
    shift: Option<u32>,
    groups: Vec<(i128, i64)>,
}

impl DecimalSum {
    fn new(argument: &DataType, result: &DataType, average: bool) -> Result<Self> {
        let (DataType::Decimal128(_, from), DataType::Decimal128(precision, scale)) = (argument, result)
        else {
            return Err(unsupported("sum", argument));
        };
        let shift = average.then(|| u32::try_from(scale - from).unwrap_or(0));
        Ok(Self { precision: *precision, scale: *scale, shift, groups: Vec::new() })
    }

    /// A sum, or a quotient of one.
    fn result(&self, sum: i128, count: i64) -> Result<i128> {
        let result = match self.shift {
            Some(shift) => {
                let sum = i256::from_i128(sum).wrapping_mul(i256::from_i128(10_i128.pow(shift)));
                sum.wrapping_div(i256::from_i128(i128::from(count))).to_i128()
            }
            None => Some(sum),
        };
        let digits = 10_u128.pow(u32::from(DECIMAL128_MAX_PRECISION));
        result.filter(|result| result.unsigned_abs() < digits).ok_or_else(numeric_overflow)
    }
}

impl Accumulator for DecimalSum {
    fn grow(&mut self, slots: usize) {
        self.groups.resize(slots.max(self.groups.len()), (0, 0));
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        let values = input
            .values
            .and_then(|v| v.as_primitive_opt::<Decimal128Type>())
            .ok_or_else(|| Error::bug("sum", "the argument is no decimal"))?;
        let mut fits = true;
        input.each(|slot, row, weight| {
            let (sum, count) = &mut self.groups[slot];
            let change = values.value(row).checked_mul(i128::from(weight));
            match change.and_then(|change| sum.checked_add(change)) {
                Some(new) => *sum = new,
                None => fits = false,
            }
            *count += weight;
        });
        if fits { Ok(()) } else { Err(numeric_overflow()) }
    }

    fn merge(&mut self, into: Slot, from: Slot) -> Result<()> {
        let (sum, count) = self.groups[from as usize];
        let group = &mut self.groups[into as usize];
        *group = (group.0.checked_add(sum).ok_or_else(numeric_overflow)?, group.1 + count);
        Ok(())
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        let groups = slots.iter().map(|slot| self.groups[*slot as usize]);
        let results = groups.map(|(sum, count)| (count != 0).then(|| self.result(sum, count)).transpose());
        let array = results
            .collect::<Result<Decimal128Array>>()?
            .with_precision_and_scale(self.precision, self.scale)?;
        Ok(Arc::new(array))
    }

    fn clear(&mut self, slot: Slot) {
        self.groups[slot as usize] = (0, 0);
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * 32
    }
}

impl Stateful for DecimalSum {
    fn save(&self, image: &mut Image) {
        image.vector(&self.groups);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.groups = state.vector()?;
        Ok(())
    }
}

/// The least or greatest value of rows that only come, as comparable bytes.
struct Extreme {
    codec: RowCodec,
    least: bool,
    result: DataType,
    groups: Vec<Option<Box<[u8]>>>,
    bytes: usize,
}

impl Accumulator for Extreme {
    fn grow(&mut self, slots: usize) {
        self.groups.resize(slots.max(self.groups.len()), None);
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        let encoded = encode(&self.codec, input, &self.result)?;
        input.each(|slot, row, _| {
            let value = encoded.row(row);
            let group = &mut self.groups[slot];
            let better = group
                .as_ref()
                .is_none_or(|best| (value < best.as_ref()) == self.least && value != best.as_ref());
            if better {
                self.bytes += value.len();
                self.bytes -= group.as_ref().map_or(0, |old| old.len());
                *group = Some(value.into());
            }
        });
        Ok(())
    }

    fn merge(&mut self, into: Slot, from: Slot) -> Result<()> {
        let Some(value) = self.groups[from as usize].take() else { return Ok(()) };
        let (len, group) = (value.len(), &mut self.groups[into as usize]);
        let better = group.as_ref().is_none_or(|best| (value < *best) == self.least);
        let lost = if better { group.replace(value).map_or(0, |old| old.len()) } else { len };
        self.bytes -= lost;
        Ok(())
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        decode(&self.codec, &self.result, slots.iter().map(|s| self.groups[*s as usize].as_deref()))
    }

    fn clear(&mut self, slot: Slot) {
        if let Some(old) = self.groups[slot as usize].take() {
            self.bytes -= old.len();
        }
    }

    fn bytes(&self) -> usize {
        self.bytes + self.groups.capacity() * 16
    }
}

impl Stateful for Extreme {
    fn save(&self, image: &mut Image) {
        image.count(self.groups.len());
        for group in &self.groups {
            image.flag(group.is_some());
            group.iter().for_each(|value| image.bytes(value));
        }
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        for _ in 0..state.count()? {
            let value = if state.flag()? { Some(state.bytes()?.into_boxed_slice()) } else { None };
            self.bytes += value.as_ref().map_or(0, |value| value.len());
            self.groups.push(value);
        }
        Ok(())
    }
}

/// All values of a group with their weights, so that the next one is known when the best one goes.
struct Extremes {
    codec: RowCodec,
    least: bool,
    result: DataType,
    groups: Vec<BTreeMap<Box<[u8]>, i64>>,
    bytes: usize,
}

/// What a B-tree keeps for each entry beside the value's own bytes.
const ENTRY_BYTES: usize = 32;

impl Accumulator for Extremes {
    fn grow(&mut self, slots: usize) {
        self.groups.resize_with(slots.max(self.groups.len()), BTreeMap::new);
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        let encoded = encode(&self.codec, input, &self.result)?;
        input.each(|slot, row, weight| {
            let value = encoded.row(row);
            let group = &mut self.groups[slot];
            match group.get_mut(value) {
                Some(count) => {
                    *count += weight;
                    if *count == 0 {
                        group.remove(value);
                        self.bytes -= value.len() + ENTRY_BYTES;
                    }
                }
                None => {
                    group.insert(value.into(), weight);
                    self.bytes += value.len() + ENTRY_BYTES;
                }
            }
        });
        Ok(())
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        let best = |slot: &Slot| {
            let mut values = self.groups[*slot as usize].iter().filter(|(_, count)| **count > 0);
            let best = if self.least { values.next() } else { values.next_back() };
            best.map(|(value, _)| value.as_ref())
        };
        decode(&self.codec, &self.result, slots.iter().map(best))
    }

    fn clear(&mut self, slot: Slot) {
        let old = std::mem::take(&mut self.groups[slot as usize]);
        self.bytes -= old.keys().map(|value| value.len() + ENTRY_BYTES).sum::<usize>();
    }

    fn bytes(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<BTreeMap<Box<[u8]>, i64>>()
    }
}

impl Stateful for Extremes {
    fn save(&self, image: &mut Image) {
        image.count(self.groups.len());
        for group in &self.groups {
            image.count(group.len());
            for (value, count) in group {
                image.value(*count);
                image.bytes(value);
            }
        }
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        for _ in 0..state.count()? {
            let mut group = BTreeMap::new();
            for _ in 0..state.count()? {
                let (count, value) = (state.value()?, state.bytes()?.into_boxed_slice());
                self.bytes += value.len() + ENTRY_BYTES;
                group.insert(value, count);
            }
            self.groups.push(group);
        }
        Ok(())
    }
}

fn encode(codec: &RowCodec, input: &Input<'_>, data_type: &DataType) -> Result<crate::keys::EncodedRows> {
    let values = input.values.ok_or_else(|| Error::bug("min or max", "there is no argument"))?;
    let values = if values.data_type() == data_type { Arc::clone(values) } else { cast(values, data_type)? };
    codec.encode(&[values], 0)
}

fn decode<'a>(
    codec: &RowCodec,
    data_type: &DataType,
    values: impl Iterator<Item = Option<&'a [u8]>>,
) -> Result<ArrayRef> {
    let null = codec.encode(&[datafusion::arrow::array::new_null_array(data_type, 1)], 1)?;
    let array = codec.decode(values.map(|v| v.unwrap_or_else(|| null.row(0))))?.pop();
    array.ok_or_else(|| Error::bug("min or max", "nothing was decoded"))
}
