//! Memory that is at hand, so that what cannot fit is refused before it is begun: a failed allocation ends a program
//! without a word.

use anyhow::{Result, bail};
use std::fs::read_to_string;

/// Refuses `what` where it needs more than is available; where the system does not tell, nothing is refused.
pub(super) fn require(what: &str, needed_bytes: u64) -> Result<()> {
    match available_bytes() {
        Some(available) if needed_bytes > available => bail!(
            "{what} needs at least {:.1} GB of memory, but {:.1} GB are available",
            needed_bytes as f64 / 1e9,
            available as f64 / 1e9
        ),
        _ => Ok(()),
    }
}

/// From now on memory of 256 KiB and more goes back to the system as soon as it is freed. By itself glibc keeps ever larger
/// blocks after the first have been freed; a model whose weights are packed as they are read leaves them in its way: vit_b
/// took 50 MB more at its peak. For programs that allocate much and do not do so for every frame.
pub(super) fn give_back_what_is_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a number of the allocator's own, which it takes at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
    }
}

/// What this process can still take, in bytes: the machine's, its control group's or its own limit, whichever is
/// least.
fn available_bytes() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|t| meminfo(&t));
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max").map(|limit| {
        let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
        // Pages that only cache files are given back when they are needed.
        let cached = read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
        let cached = cached
            .lines()
            .find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok());
        limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0)))
    });
    let own = read_to_string("/proc/self/limits").ok().and_then(|t| limit(&t));
    [machine, group, own].into_iter().flatten().min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The soft limit on address space in `/proc/self/limits`, in bytes; `None` where there is none.
fn limit(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_system_writes_them() {
        let text = "MemTotal:       24579352 kB\nMemAvailable:   18874368 kB\n";
        assert_eq!(meminfo(text), Some(18 << 30));
        let line = |soft: &str| {
            format!("Limit  Soft Limit  Units\nMax address space   {soft}   unlimited   bytes\n")
        };
        assert_eq!(limit(&line("4294967296")), Some(1 << 32));
        assert_eq!(limit(&line("unlimited")), None);
    }

    #[test]
    fn what_no_machine_has_is_refused_with_both_numbers() {
        if available_bytes().is_none() {
            println!("SKIPPED: this system does not say how much memory it has");
            return;
        }
        let text = require("this", u64::MAX).unwrap_err().to_string();
        assert!(text.contains("this needs at least 18446744073.7 GB"), "{text}");
        assert!(text.contains("GB are available"), "{text}");
        require("that", 1).unwrap();
    }
}
