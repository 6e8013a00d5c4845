//! What processes cost, read from /proc. A process that is gone costs nothing, unless it was counted with its parent.

use std::{collections::BTreeSet, fs};

/// Whose CPU time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// One process, its ended threads included.
    Process(u32),
    /// A process and all its children, those included that have ended and that it has waited for.
    Family(u32),
}

/// CPU seconds used so far.
pub fn cpu(all: &BTreeSet<Counted>) -> f64 {
    let of = |counted: &Counted| match *counted {
        Counted::Process(pid) => seconds(pid).unwrap_or(0.0),
        // The living are asked first: one that ends meanwhile is counted twice by its last reading at worst, never lost.
        Counted::Family(pid) => {
            let living: f64 = children(pid).into_iter().filter_map(seconds).sum();
            living + seconds(pid).unwrap_or(0.0) + seconds_of_ended(pid).unwrap_or(0.0)
        }
    };
    all.iter().map(of).sum()
}

fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid, 1) == Some(u64::from(parent))).collect()
}

/// What a process's children had used when it waited for them, in hundredths of a second each of user and system.
fn seconds_of_ended(pid: u32) -> Option<f64> {
    Some((stat(pid, 13)? + stat(pid, 14)?) as f64 / 100.0)
}

/// A number of /proc/PID/stat, counted from the state, which is 0. The name before it may hold anything but ends in `)`.
fn stat(pid: u32, field: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(field)?.parse().ok()
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
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let me = std::process::id();
        let (now, peak) = (memory(me, "VmRSS:").unwrap(), memory(me, "VmHWM:").unwrap());
        assert!(now > 0.1 && peak >= now, "{now} {peak}");
        assert!(cpu(&BTreeSet::from([Counted::Process(me)])) > 0.0 && machine().1 > machine().0);
        assert_eq!(memory(u32::MAX, "VmRSS:"), None);
    }

    #[test]
    fn a_family_keeps_what_its_children_used_after_their_end() {
        let busy = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
        let mut parent = Command::new("sh")
            .args(["-c", &format!("({busy}); echo ended; read -r _")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (alone, family) = (Counted::Process(parent.id()), Counted::Family(parent.id()));
        let [alone, family] = [alone, family].map(|counted| cpu(&BTreeSet::from([counted])));
        drop(parent.stdin.take());
        parent.wait().unwrap();
        assert_eq!(line, "ended\n");
        assert!(family > alone + 0.005, "{family} {alone}");
    }
}
