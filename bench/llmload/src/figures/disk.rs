//! What the disk costs by itself, and where a RAM disk is.
//! Measures only; a file that cannot be written is an error.

use std::{
    ffi::CString,
    fs::File,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

/// Times `count` fdatasyncs (fewer where they take more than a second together), each after an append of 4 to 8 KiB,
/// in microseconds.
pub fn syncs(folder: &Path, count: usize) -> Result<Vec<f64>, String> {
    let path = folder.join("sync-probe");
    let times = time_syncs(&path, count).map_err(|e| format!("{}: {e}", path.display()));
    let _ = std::fs::remove_file(&path);
    times
}

fn time_syncs(path: &Path, count: usize) -> std::io::Result<Vec<f64>> {
    let mut file = File::create(path)?;
    let mut times = Vec::with_capacity(count);
    let begin = Instant::now();
    for n in 0..count {
        file.write_all(&vec![n as u8; 4096 + 1024 * (n % 5)])?;
        let before = Instant::now();
        file.sync_data()?;
        times.push(before.elapsed().as_secs_f64() * 1e6);
        if begin.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    Ok(times)
}

/// A folder in memory with room for a run's data, if this machine has one.
pub fn ram() -> Option<&'static Path> {
    const ROOM: u64 = 1 << 30;
    let path = Path::new("/dev/shm");
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeroes is a valid `statfs`, a plain C struct of numbers.
    let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` ends in a zero byte and `fs` is a valid place; both outlive the call.
    let failed = unsafe { libc::statfs(name.as_ptr(), &raw mut fs) } != 0;
    let room = fs.f_bavail * fs.f_bsize as u64;
    (!failed && fs.f_type == libc::TMPFS_MAGIC && room >= ROOM).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_and_leave_nothing() {
        let folder = std::env::temp_dir().join(format!("bench-sync-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let times = syncs(&folder, 3).unwrap();
        assert!(!times.is_empty() && times.iter().all(|t| *t > 0.0));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
    }
}
