//! What processes cost, read from /proc. A process that is gone costs nothing.

use std::{collections::BTreeSet, fs};

/// CPU seconds used so far, threads that ended included.
pub fn cpu(pids: &BTreeSet<u32>) -> f64 {
    pids.iter().filter_map(|&pid| seconds(pid)).sum()
}

/// (busy, total) CPU seconds of the machine since boot.
pub fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let f: Vec<f64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|x| x.parse().ok()).collect();
    let total: f64 = f.iter().take(8).sum();
    let idle = f.get(3).unwrap_or(&0.0) + f.get(4).unwrap_or(&0.0);
    ((total - idle) / 100.0, total / 100.0)
}

/// A line of the process's status in MiB: `VmRSS:` (resident now), `VmHWM:` (its peak).
pub fn memory(pid: u32, line: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(line))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// CPU seconds of a process by its own clock: in nanoseconds, where /proc counts hundredths of a second.
fn seconds(pid: u32) -> Option<f64> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock` is a valid place that the call fills in.
    let found = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) } == 0;
    // SAFETY: `time` is a valid timespec that the call fills in.
    let read = found && unsafe { libc::clock_gettime(clock, &raw mut time) } == 0;
    read.then(|| time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let me = std::process::id();
        let (now, peak) = (memory(me, "VmRSS:").unwrap(), memory(me, "VmHWM:").unwrap());
        assert!(now > 0.1 && peak >= now, "{now} {peak}");
        assert!(cpu(&BTreeSet::from([me])) > 0.0 && machine().1 > machine().0);
        assert_eq!(memory(u32::MAX, "VmRSS:"), None);
    }
}
