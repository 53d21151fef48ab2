//! DescribeLogDirs: the replicas in each log directory, and the space on its disk (KIP-113,
//! KIP-827).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use kafka_protocol::{messages::ApiKey, protocol::StrBytes};

use super::{
    Context, ErrorCode, Handler, Reply,
    error_counts::{each, error_codes},
    errors,
};
use crate::{
    broker::Broker,
    log::LogView,
    partition::{Partition, Role},
    protocol::{
        checks::CLUSTER_DESCRIBE,
        messages::{
            DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
            DescribeLogDirsResult, DescribeLogDirsTopic,
        },
    },
};

/// The lag of a future replica whose current replica is offline.
const UNKNOWN_LAG: i64 = -1;

pub struct DescribeLogDirs;

impl Handler for DescribeLogDirs {
    const API: ApiKey = ApiKey::DescribeLogDirs;
    type Request = DescribeLogDirsRequest;
    type Response = DescribeLogDirsResponse;

    async fn handle(
        cx: &mut Context<'_>,
        request: DescribeLogDirsRequest,
    ) -> Reply<DescribeLogDirsResponse> {
        if let Err(code) = cx.check_on_cluster(CLUSTER_DESCRIBE) {
            return Reply::Now(DescribeLogDirsResponse {
                error_code: code.code(),
                ..Default::default()
            });
        }
        let broker = Arc::clone(cx.broker);
        // `statvfs` may block for long, for example on a volume that does not respond. Clients whose
        // requests timed out send them again, which must not occupy all blocking threads.
        let threads = &cx.broker.limits.dir_descriptions;
        let described = threads.run((), move || describe(&broker, &request)).await;
        Reply::Now(described.unwrap_or_else(|_| DescribeLogDirsResponse {
            error_code: ErrorCode::UnknownServerError.code(),
            ..Default::default()
        }))
    }
}

error_codes!(DescribeLogDirsResponse: |it| each!(it.results).chain([it.error_code]));

fn describe(broker: &Broker, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let mut by_dir: BTreeMap<PathBuf, Vec<Described>> = BTreeMap::new();
    let partitions = broker.replicas.partitions.partitions();
    for partition in partitions.into_iter().filter(|it| is_asked(request, it)) {
        // Read the current directory first. If a move ends in between, the response then does
        // not show the replica as moving to the directory where it is.
        let dir = partition.log_dir().to_path_buf();
        if let Some(future) = partition.future_view() {
            let described = Described::future(&partition, &future.log);
            by_dir.entry(future.log_dir.clone()).or_default().push(described);
        }
        by_dir.entry(dir).or_default().push(Described::of(&partition));
    }
    let dirs: Vec<(PathBuf, bool)> = {
        let dirs = broker.replicas.log_dirs.lock();
        dirs.dirs().iter().map(|dir| (dir.path.clone(), dir.is_offline())).collect()
    };
    let cordoned = &broker.settings().cordoned_log_dirs;
    let describe = |(path, is_offline): (PathBuf, bool)| match is_offline {
        true => offline(&path),
        false => DescribeLogDirsResult {
            is_cordoned: cordoned.contains(&path),
            ..online(&path, by_dir.remove(&path).unwrap_or_default())
        },
    };
    let results = dirs.into_iter().map(describe).collect();
    DescribeLogDirsResponse { results, ..Default::default() }
}

fn is_asked(request: &DescribeLogDirsRequest, partition: &Partition) -> bool {
    let Some(topics) = &request.topics else { return true };
    topics.iter().any(|topic| {
        *topic.topic == *partition.id.topic && topic.partitions.contains(&partition.id.partition)
    })
}

fn name(path: &Path) -> StrBytes {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    StrBytes::from_string(absolute.display().to_string())
}

fn offline(path: &Path) -> DescribeLogDirsResult {
    DescribeLogDirsResult {
        error_code: ErrorCode::KafkaStorageError.code(),
        log_dir: name(path),
        ..Default::default()
    }
}

/// A replica or a future replica in the form of the response.
struct Described {
    topic: Arc<str>,
    described: DescribeLogDirsPartition,
}

impl Described {
    fn of(partition: &Partition) -> Self {
        let view = partition.view();
        let described = DescribeLogDirsPartition {
            partition_index: partition.id.partition,
            partition_size: view.log.size() as i64,
            // The distance from the log end to the high watermark, which is 0 for a leader.
            offset_lag: (view.high_watermark - view.log.log_end()).max(0),
            is_future_key: false,
        };
        Self { topic: partition.id.topic.clone(), described }
    }

    fn future(partition: &Partition, log: &LogView) -> Self {
        let view = partition.view();
        let offset_lag = match view.role {
            Role::Offline | Role::Closed => UNKNOWN_LAG,
            Role::Leader { .. } | Role::Follower { .. } => view.log.log_end() - log.log_end(),
        };
        let described = DescribeLogDirsPartition {
            partition_index: partition.id.partition,
            partition_size: log.size() as i64,
            offset_lag,
            is_future_key: true,
        };
        Self { topic: partition.id.topic.clone(), described }
    }
}

fn online(path: &Path, replicas: Vec<Described>) -> DescribeLogDirsResult {
    let mut topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for Described { topic, described } in replicas {
        topics.entry(topic).or_default().push(described);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| DescribeLogDirsTopic {
        name: StrBytes::from_string(topic.to_string()),
        partitions,
    });
    let (total_bytes, usable_bytes) = room(path);
    DescribeLogDirsResult {
        error_code: errors::NONE,
        log_dir: name(path),
        topics: topics.collect(),
        total_bytes,
        usable_bytes,
        is_cordoned: false,
    }
}

/// Total and usable bytes of the directory's file system, or -1 if they are not known.
fn room(path: &Path) -> (i64, i64) {
    let Ok(stat) = rustix::fs::statvfs(path) else { return (-1, -1) };
    let bytes =
        |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).unwrap_or(i64::MAX);
    (bytes(stat.f_blocks), bytes(stat.f_bavail))
}
