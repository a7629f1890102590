//! `pg_sleep`, `pg_sleep_for` and `pg_sleep_until`: a statement that waits, and can be cancelled while it does.
//!
//! Invariant: no thread waits. Source: PostgreSQL, "Delaying Execution".

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::Result;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::functions::EngineCell;

/// Longest wait for one row: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const DAY_SECONDS: f64 = 86_400.0;
/// As PostgreSQL counts a month.
const MONTH_DAYS: f64 = 30.0;

/// What says how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Until {
    Seconds,
    Interval,
    Moment,
}

/// All of them.
pub(super) fn functions(engine: &EngineCell) -> Vec<Arc<ScalarUDF>> {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let all = [
        ("pg_sleep", Until::Seconds, DataType::Float64),
        ("pg_sleep_for", Until::Interval, interval),
        ("pg_sleep_until", Until::Moment, moment),
    ];
    let of = |(name, until, argument): (&'static str, Until, DataType)| {
        let signature = Signature::exact(vec![argument], Volatility::Volatile);
        let sleep = Sleep { name, until, signature, engine: Arc::clone(engine) };
        Arc::new(AsyncScalarUDF::new(Arc::new(sleep)).into_scalar_udf())
    };
    all.map(of).into()
}

struct Sleep {
    name: &'static str,
    until: Until,
    signature: Signature,
    /// Whose time it is.
    engine: EngineCell,
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// There is one function of a name.
impl PartialEq for Sleep {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Sleep {}

impl Hash for Sleep {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        datafusion::common::not_impl_err!("{} where rows are not asked for once", self.name)
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let column = args.args[0].clone().into_array(rows)?;
        let mut slept = Vec::with_capacity(rows);
        let now_ms = self.engine.get().map_or(0, |engine| engine.now_ms());
        for wait in waits(self.until, &column, now_ms)? {
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
            }
            // Nothing is what it gives; of NULL it gives NULL.
            slept.push(wait.map(|_| ""));
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(slept))))
    }
}

/// How long each row waits, from when the statement comes to it.
fn waits(until: Until, column: &ArrayRef, now_ms: i64) -> Result<Vec<Option<Duration>>> {
    let seconds =
        |seconds: f64| Duration::try_from_secs_f64(seconds).map_or(LONGEST, |wait| wait.min(LONGEST));
    let wait = |value: f64| if value > 0.0 { seconds(value) } else { Duration::ZERO };
    Ok(match until {
        Until::Seconds => column.as_primitive::<Float64Type>().iter().map(|s| s.map(wait)).collect(),
        Until::Interval => {
            let intervals = column.as_primitive::<IntervalMonthDayNanoType>().iter();
            intervals.map(|interval| interval.map(|interval| wait(seconds_of(interval)))).collect()
        }
        Until::Moment => {
            let moments = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let moments = moments.as_primitive::<TimestampMicrosecondType>();
            #[expect(clippy::cast_precision_loss, reason = "a microsecond more or less")]
            let left = |us: i64| wait((us as f64 / 1e3 - now_ms as f64) / 1e3);
            (0..moments.len()).map(|row| moments.is_valid(row).then(|| left(moments.value(row)))).collect()
        }
    })
}

#[expect(clippy::cast_precision_loss, reason = "a microsecond more or less")]
fn seconds_of(interval: IntervalMonthDayNano) -> f64 {
    let days = f64::from(interval.months) * MONTH_DAYS + f64::from(interval.days);
    days * DAY_SECONDS + interval.nanoseconds as f64 / 1e9
}
