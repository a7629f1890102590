//! What this process has used of the machine, from /proc.

/// Clock ticks of /proc in one second, as Linux has it on every machine it runs on today.
const TICKS: f64 = 100.0;

#[allow(clippy::disallowed_methods, reason = "reads /proc, not data")]
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// CPU seconds, user and system.
pub(super) fn cpu_seconds() -> f64 {
    let text = read("/proc/self/stat");
    let after = text.rsplit(')').next().unwrap_or("");
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}

/// Peak resident memory in MiB.
pub(super) fn peak_mib() -> u64 {
    read("/proc/self/status")
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib / 1024)
}
