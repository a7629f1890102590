//! Stream time: the largest time of the rows that came in earlier epochs; where a source may fall idle,
//! it goes on with the clock once nothing has come for so long.
//!
//! Invariant: it is a function of the epochs' rows and their recorded times, and never goes back; what
//! has been closed by it stays closed for rows that come later.
//! Source: ksqlDB, "Time and Windows", stream time; the idle timeout is our own, after Flink's
//! "withIdleness".

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::TimestampMicrosecondType;

use crate::error::Result;
use crate::operator::Changes;
use crate::state::{Image, StateReader, Stateful};

/// Microseconds of a millisecond.
const TICKS: i64 = 1_000;

/// The stream time of an operator, ms.
pub(super) struct StreamClock {
    idle_ms: Option<i64>,
    /// Largest time so far; the clock's own where it went on by itself.
    newest: i64,
    /// The time of the epoch in which rows came last.
    came_ms: i64,
}

/// The time of an epoch, out of the changes of the node that tells it.
pub(super) fn now_ms(clock: &Changes) -> Option<i64> {
    let row = clock.first()?;
    let now = row.rows.column(0).as_primitive_opt::<TimestampMicrosecondType>()?;
    Some(now.value(0).div_euclid(TICKS))
}

impl StreamClock {
    pub(super) fn new(idle_ms: Option<i64>) -> Self {
        Self { idle_ms, newest: i64::MIN, came_ms: 0 }
    }

    /// Stream time when an epoch begins, at `now_ms` where the operator is told.
    pub(super) fn begin(&mut self, now_ms: Option<i64>) -> i64 {
        if let (Some(idle), Some(now)) = (self.idle_ms, now_ms)
            && self.newest > i64::MIN
            && now - self.came_ms >= idle
        {
            self.newest = self.newest.saturating_add(now - self.came_ms);
            self.came_ms = now;
        }
        self.newest
    }

    /// Stream time when an epoch ends whose rows had times up to `newest`; None when none came.
    pub(super) fn end(&mut self, newest: Option<i64>, now_ms: Option<i64>) -> i64 {
        if let Some(newest) = newest {
            self.newest = self.newest.max(newest);
            self.came_ms = now_ms.unwrap_or(0);
        }
        self.newest
    }

    /// When stream time reaches `time` if nothing comes, ms since 1970.
    pub(super) fn reaches(&self, time: i64) -> Option<i64> {
        let wait = self.idle_ms?.max(time.saturating_sub(self.newest));
        Some(self.came_ms.saturating_add(wait))
    }
}

impl Stateful for StreamClock {
    fn save(&self, image: &mut Image) {
        image.value((self.newest, self.came_ms));
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        (self.newest, self.came_ms) = state.value()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_source_lets_time_go_on() {
        let mut clock = StreamClock::new(Some(100));
        assert_eq!(clock.begin(Some(5_000)), i64::MIN, "nothing has come yet");
        assert_eq!(clock.end(Some(10), Some(5_000)), 10);
        assert_eq!(clock.reaches(60), Some(5_100), "not before it is idle");
        assert_eq!(clock.reaches(400), Some(5_390));
        assert_eq!(clock.begin(Some(5_099)), 10);
        assert_eq!(clock.begin(Some(5_120)), 130);
        assert_eq!(clock.end(Some(20), Some(5_120)), 130, "it never goes back");
        assert_eq!(StreamClock::new(None).reaches(1), None);
    }
}
