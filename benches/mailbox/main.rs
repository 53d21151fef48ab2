//! Compares two owners of a partition's core: a mutex, as in `sordini::partition`, and a writer
//! task behind a mailbox. `cargo bench --bench mailbox [-- ROUNDS] [LINES]` runs on the file system
//! of the build, with the numbers of producers and partitions below, and prints medians. LINES is
//! the beginning of the table lines to measure, such as `'63 KiB | 1 '`.
//!
//! Each producer is a task. It yields to the scheduler, as a connection does when it awaits a
//! request, and then appends a validated batch to the next partition. Latency includes the yield,
//! so that it contains the time in the scheduler's queues in both cases.

mod mailbox;

use std::{
    fmt, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sordini::{
    base::TopicPartition,
    log::{Log, LogConfig, LogStart, RealDisk},
    partition::{Acks, Core, Partition, PartitionCallbacks, Role},
    records::{Batch, BatchBuilder, BatchOptions},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::mailbox::Mailbox;

const NOW_MS: i64 = 1_700_000_000_000;
const WORKERS: usize = 2;
const MANY: usize = 10_000;
const PRODUCERS: [usize; 3] = [1, 8, 64];
/// Records of 1 KiB in a batch, appends in a run, and numbers of partitions.
const BATCHES: [(usize, usize, &[usize]); 2] =
    [(1, 64_000, &[1, 100, MANY]), (63, 6_400, &[1, 100])];
const VARIANTS: [Variant; 3] =
    [Variant::Mutex, Variant::Mailbox { group_max: 64 }, Variant::Mailbox { group_max: 1 }];
const ROUNDS: usize = 3;

#[derive(Clone, Copy)]
enum Variant {
    Mutex,
    Mailbox { group_max: usize },
}

enum Target {
    Mutex(Arc<Partition>),
    Mailbox(Mailbox),
}

impl Target {
    fn new(variant: Variant, dir: &Path, index: usize) -> Self {
        let id = TopicPartition::new("topic", index as i32);
        let start = LogStart {
            recovery_point: 0,
            settled: 0,
            log_start: None,
            clean: true,
            now_ms: NOW_MS,
        };
        let config = Arc::new(LogConfig::default());
        let log = Log::open(Arc::new(RealDisk), &dir.join(id.to_string()), config, start);
        let (mut log, _) = log.expect("opens");
        // Otherwise the first append to each partition would write the epoch checkpoint.
        log.assign_epoch(0).expect("writes");
        let core = Core::new(log, Role::Leader { epoch: 0 }, 0);
        match variant {
            Variant::Mutex => {
                let partition = Partition::new(id, core, PartitionCallbacks::default());
                Self::Mutex(Arc::new(partition))
            }
            Variant::Mailbox { group_max } => Self::Mailbox(Mailbox::new(core, group_max)),
        }
    }

    async fn append(&self, batch: Batch) -> i64 {
        match self {
            Self::Mutex(partition) => {
                partition.append(&mut [batch], Acks::All, NOW_MS).expect("appends").first_offset
            }
            Self::Mailbox(mailbox) => mailbox.append(batch).await,
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy)]
struct Load {
    records: usize,
    appends: usize,
    partitions: usize,
    producers: usize,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB | {} | {}", self.records, self.partitions, self.producers)
    }
}

#[derive(Clone, Copy, Default)]
struct Measured {
    appends_per_s: f64,
    cpu_us_per_append: f64,
    p99_us: f64,
}

fn main() {
    allow_open_files();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Without this argument (`cargo test --benches`), a short run suffices.
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let rounds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let lines = arguments.iter().find(|argument| argument.contains("KiB"));
    let lines = lines.map_or("", String::as_str);
    println!("| batch | partitions | producers | mutex | mailbox | mailbox, one by one |");
    println!("|---|---|---|---|---|---|");
    for (records, appends, partitions) in BATCHES {
        for &partitions in partitions {
            let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            for producers in PRODUCERS {
                let load = Load { records, appends, partitions, producers };
                if !load.to_string().starts_with(lines) {
                    continue;
                }
                match is_bench {
                    true => print_line(dir.path(), load, rounds),
                    false => {
                        print_line(dir.path(), Load { appends: 640, partitions: 10, ..load }, 1)
                    }
                }
            }
        }
    }
    println!("Thousands of appends per second / CPU in microseconds per append / p99 in µs.");
}

fn print_line(dir: &Path, load: Load, rounds: usize) {
    // The variants take turns, so that other work on the machine affects all of them.
    let mut rounds_by_way = [const { Vec::new() }; VARIANTS.len()];
    for _ in 0..rounds {
        for (variant, measured) in VARIANTS.into_iter().zip(&mut rounds_by_way) {
            measured.push(run(dir, load, variant));
        }
    }
    print!("| {load} ");
    for measured in rounds_by_way {
        let median = |field: fn(&Measured) -> f64| {
            let mut values: Vec<f64> = measured.iter().map(field).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let thousands = median(|it| it.appends_per_s) / 1000.0;
        let (cpu, p99) = (median(|it| it.cpu_us_per_append), median(|it| it.p99_us));
        print!("| {thousands:.1} / {cpu:.1} / {p99:.0} ");
    }
    println!("|");
}

fn run(dir: &Path, load: Load, variant: Variant) -> Measured {
    // Each run of few partitions creates its own logs, and removes them before their pages reach
    // the disk. Runs of many partitions share theirs, because creating them takes too long.
    let own = (load.partitions < MANY).then(|| TempDir::new_in(dir).expect("a directory"));
    let dir = own.as_ref().map_or(dir, |own| own.path());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(WORKERS).build().expect("starts");
    let places: Arc<[Target]> = {
        let _entered = runtime.enter();
        (0..load.partitions).map(|index| Target::new(variant, dir, index)).collect()
    };
    let (started, cpu_before) = (Instant::now(), cpu_time());
    let mut latencies = runtime.block_on(produce(&runtime, load, &places));
    let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu_before);
    latencies.sort_unstable();
    let appends = latencies.len() as f64;
    Measured {
        appends_per_s: appends / elapsed.as_secs_f64(),
        cpu_us_per_append: cpu.as_secs_f64() * 1e6 / appends,
        p99_us: latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e6,
    }
}

/// Runs all producers. Returns the latency of each append.
async fn produce(runtime: &Runtime, load: Load, places: &Arc<[Target]>) -> Vec<Duration> {
    let share = load.appends / load.producers;
    let producers: Vec<_> = (0..load.producers)
        .map(|producer| {
            let first = producer * load.partitions / load.producers;
            runtime.spawn(producer_of(batch(load.records), places.clone(), first, share))
        })
        .collect();
    let mut latencies = Vec::with_capacity(load.appends);
    for producer in producers {
        latencies.extend(producer.await.expect("runs to its end"));
    }
    latencies
}

async fn producer_of(
    batch: Batch,
    places: Arc<[Target]>,
    first: usize,
    appends: usize,
) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(appends);
    for at in first..first + appends {
        let started = Instant::now();
        tokio::task::yield_now().await;
        places[at % places.len()].append(batch.clone()).await;
        latencies.push(started.elapsed());
    }
    latencies
}

fn batch(records: usize) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..records {
        builder.append(NOW_MS, None, Some(&[b'x'; 1024]), &[]);
    }
    builder.build()
}

/// CPU time of all current threads of this process.
fn cpu_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("Linux");
    let nanos = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("schedstat");
        let text = fs::read_to_string(path).unwrap_or_default();
        let spent = text.split_whitespace().next().and_then(|first| first.parse::<u64>().ok());
        spent.unwrap_or_default()
    });
    Duration::from_nanos(nanos.sum())
}

/// Raises the limit of open files, because each partition keeps a file open.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).expect("raises its own limit");
}
