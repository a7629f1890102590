//! How much memory this process takes, and what for.
//!
//! One limit for the server: three quarters are for what is kept (tables, views, the state of queries), one
//! quarter for the questions that run, which put on disk what does not fit and fail when that does not help.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use storage::Fs;

use crate::question_pool::QuestionPool;

/// What the limit of the server leaves for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryLimits {
    /// Most bytes of all that is kept.
    pub kept: Option<u64>,
    /// Most bytes of all questions.
    pub questions: Option<u64>,
}

impl MemoryLimits {
    /// Of bytes, a size such as `8GB`, a part of the machine's memory such as `75%`, or `none`; None when it is
    /// none of these.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::default());
        }
        let bytes = match text.strip_suffix('%') {
            Some(percent) => {
                let percent: u64 = percent.trim().parse().ok().filter(|p| (1..=100).contains(p))?;
                machine_bytes()? / 100 * percent
            }
            None => planner::parse_bytes(text)?,
        };
        Some(Self { kept: Some(bytes / 4 * 3), questions: Some(bytes / 4) })
    }

    /// Where questions run. What they put on disk is in a directory of its own, which is emptied here.
    ///
    /// # Errors
    /// Any of the disk.
    pub(crate) fn runtime(self, fs: &dyn Fs, data_dir: &Path) -> Result<Arc<RuntimeEnv>, storage::Error> {
        let spilled: PathBuf = data_dir.join(executor::SPILLED);
        fs.remove(&spilled)?;
        let disk =
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spilled.clone()]));
        let mut builder = RuntimeEnvBuilder::new().with_disk_manager_builder(disk);
        if let Some(bytes) = self.questions {
            let pool = QuestionPool::new(usize::try_from(bytes).unwrap_or(usize::MAX));
            builder = builder.with_memory_pool(Arc::new(pool));
        }
        builder.build_arc().map_err(|error| storage::Error::Io {
            action: "use directory",
            path: spilled,
            source: std::io::Error::other(error),
        })
    }
}

/// What a sort keeps for merging what it has put on disk: in a small pool less than DataFusion's default, which would
/// be more than there is.
pub(crate) fn sort_reservation(runtime: &RuntimeEnv) -> Option<usize> {
    const PART: usize = 32;
    const MOST: usize = 10 << 20;
    match runtime.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => Some((bytes / PART).min(MOST)),
        _ => None,
    }
}

/// Bytes of memory that this process may have: the machine's, or less where a control group says so.
fn machine_bytes() -> Option<u64> {
    let total = read("/proc/meminfo").lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(kib * 1024)
    });
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = group.iter().filter_map(|path| read(path).trim().parse::<u64>().ok());
    limits.chain(total).min()
}

#[allow(clippy::disallowed_methods, reason = "reads /proc and /sys, not data")]
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let limits = |text| MemoryLimits::parse(text).map(|limits| (limits.kept, limits.questions));
        assert_eq!(limits("4GB"), Some((Some(3 << 30), Some(1 << 30))));
        assert_eq!(limits("none"), Some((None, None)));
        assert_eq!(limits("much"), None);
        assert_eq!(limits("0%"), None);
        let (Some((Some(half), _)), Some((Some(all), _))) = (limits("50%"), limits("100%")) else {
            panic!("the machine does not say how much memory it has");
        };
        assert!(half > 0 && half <= all / 2 + 4);
    }
}
