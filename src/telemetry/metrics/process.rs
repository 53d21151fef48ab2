//! Metrics of the process from Linux's `/proc`, with the names that Prometheus client libraries
//! use. What cannot be read, as on other systems, is left out.

use super::{Kind, Scrape};
use std::fs::{read_dir, read_to_string};

/// Clock ticks per second in `/proc`, a constant of Linux's interface (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn collect(scrape: &mut Scrape) {
    if let Ok(stat) = read_to_string("/proc/self/stat") {
        collect_times(scrape, &stat);
    }
    if let Ok(status) = read_to_string("/proc/self/status") {
        collect_memory(scrape, &status);
    }
    if let Ok(open) = read_dir("/proc/self/fd") {
        // Reading the directory uses one descriptor itself.
        let open = open.count().saturating_sub(1);
        scrape.gauge("process_open_fds", "Open file descriptors", &[], open as f64);
    }
    let limits = read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    if let Some(soft) = limit.and_then(|limit| limit.split_whitespace().next()?.parse().ok()) {
        scrape.gauge("process_max_fds", "Most file descriptors that may be open", &[], soft);
    }
}

fn collect_times(scrape: &mut Scrape, stat: &str) {
    // The second field is a name in parentheses that may contain anything. The fields are split
    // after it.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return;
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let seconds = |number: usize| -> Option<f64> {
        let ticks: f64 = fields.get(number - 3)?.parse().ok()?;
        Some(ticks / TICKS_PER_SECOND)
    };
    if let (Some(user), Some(system)) = (seconds(14), seconds(15)) {
        let (name, help) = ("process_cpu_seconds_total", "User and system CPU time spent");
        scrape.family(name, help, Kind::Counter).sample(&[], user + system);
    }
    if let (Some(since_boot), Some(boot)) = (seconds(22), boot_seconds()) {
        let help = "When the process started, in seconds since the epoch";
        scrape.gauge("process_start_time_seconds", help, &[], boot + since_boot);
    }
}

fn boot_seconds() -> Option<f64> {
    let stat = read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn collect_memory(scrape: &mut Scrape, status: &str) {
    let number = |field: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    };
    if let Some(kib) = number("VmRSS:") {
        scrape.gauge("process_resident_memory_bytes", "Resident memory", &[], kib * 1024.0);
    }
    if let Some(kib) = number("VmSize:") {
        scrape.gauge("process_virtual_memory_bytes", "Virtual memory", &[], kib * 1024.0);
    }
    if let Some(threads) = number("Threads:") {
        scrape.gauge("process_threads", "Threads", &[], threads);
    }
}
