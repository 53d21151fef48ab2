//! Fuzz targets for files. The files are on a file system in memory.

use std::{path::Path, sync::Arc};

use sordini::{
    base::config::{Sources, load},
    log::{
        CleanShutdown, Disk, Epochs, Log, LogConfig, LogStart, MetaProperties, checkpoint,
        disk::{FileDurability, replace_file},
        faulty::FaultyDisk,
        formats,
    },
    quorum::{self, formats::QuorumState},
};

use crate::Input;

const DIR: &str = "/log";

/// Parses the small files of a log directory. The first byte chooses the format.
pub fn log_files(data: &[u8]) {
    let mut input = Input(data);
    let format = input.byte();
    let data = input.rest();
    match format % 7 {
        0 => {
            let Ok(offsets) = checkpoint::decode(data) else { return };
            let text = checkpoint::encode(offsets.iter().map(|(of, offset)| (of, *offset)));
            assert_eq!(checkpoint::decode(text.as_bytes()), Ok(offsets));
        }
        1 => {
            let Ok(epochs) = Epochs::decode(data) else { return };
            let decoded = Epochs::decode(epochs.encode().as_bytes()).expect("decodes");
            assert_eq!(decoded.entries(), epochs.entries());
        }
        2 => {
            let Ok(properties) = MetaProperties::decode(data) else { return };
            assert!(MetaProperties::decode(properties.encode().as_bytes()).is_ok());
        }
        3 => {
            let Ok(id) = formats::decode_partition_metadata(data) else { return };
            let text = formats::encode_partition_metadata(id);
            assert_eq!(formats::decode_partition_metadata(text.as_bytes()), Ok(id));
        }
        4 => drop(CleanShutdown::decode(data)),
        5 => names(&String::from_utf8_lossy(data)),
        _ => producer_snapshot(data),
    }
}

fn names(name: &str) {
    let _ = formats::parse_file(name);
    let _ = formats::parse_future_dir(name);
    let Some(partition) = formats::parse_partition_dir(name) else { return };
    assert_eq!(formats::parse_partition_dir(&partition.to_string()), Some(partition));
}

fn producer_snapshot(data: &[u8]) {
    const CRC_AT: usize = 2;
    const CRC_END: usize = 6;
    let mut data = data.to_vec();
    if data.len() > CRC_END {
        let crc = crc32c::crc32c(&data[CRC_END..]);
        data[CRC_AT..CRC_END].copy_from_slice(&crc.to_be_bytes());
    }
    let Ok(entries) = formats::decode_snapshot(&data) else { return };
    let encoded = formats::encode_snapshot(entries.iter().map(|(id, entry)| (*id, entry)));
    assert_eq!(formats::decode_snapshot(&encoded), Ok(entries));
}

/// Opens the log of a partition as after a crash, reads it, and opens it again as after a clean
/// shutdown.
pub fn log_directories(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let disk = FaultyDisk::default();
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).expect("memory has room");
    const FILES: [&str; 10] = [
        "00000000000000000000.log",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "00000000000000000000.txnindex",
        "00000000000000000002.log",
        "00000000000000000002.index",
        "00000000000000000002.snapshot",
        "leader-epoch-checkpoint",
        "00000000000000000000.log.swap",
        "00000000000000000002.log.cleaned",
    ];
    while !input.0.is_empty() {
        let name = FILES[usize::from(input.byte()) % FILES.len()];
        let content = match (name.contains(".log"), input.piece()) {
            (true, content) => Input(content).batches(),
            (false, content) => content.to_vec(),
        };
        replace_file(&disk, &dir.join(name), &content, FileDurability::Synced).expect("written");
    }
    let config = Arc::new(LogConfig { index_interval_bytes: 64, ..LogConfig::default() });
    let start = LogStart {
        recovery_point: i64::from(flags >> 4),
        clean: flags & 1 == 1,
        ..LogStart::of_new(1_700_000_000_000)
    };
    let open = |start| Log::open(Arc::new(disk.clone()), dir, config.clone(), start);
    let Ok((log, _)) = open(start) else { return };
    let end = read(&log);
    drop(log);
    if !start.clean && start.recovery_point == 0 {
        let (again, _) = open(LogStart { clean: true, ..start }).expect("a checked log opens");
        assert_eq!(read(&again), end);
    }
}

/// Reads everything that Fetch and ListOffsets can read. Returns the log end offset.
fn read(log: &Log) -> i64 {
    let view = log.view();
    let (start, end) = (log.log_start(), log.log_end());
    for offset in start..end.min(start.saturating_add(8)) {
        let _ = view.read(offset, 1 << 16, end, true);
        let _ = view.timestamp_at(offset, end);
        let _ = log.epoch_for_offset(offset);
    }
    for timestamp in [i64::MIN, 0, 1_000, 1_700_000_000_000, i64::MAX] {
        let _ = view.offset_for_timestamp(timestamp, end);
    }
    let _ = view.max_timestamp();
    end
}

/// Reads a snapshot of the metadata log, and `quorum-state`.
pub fn metadata_snapshots(data: &[u8]) {
    let mut input = Input(data);
    let disk = FaultyDisk::default();
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).expect("memory has room");
    let is_state = input.byte().is_multiple_of(4);
    let (name, content) = match is_state {
        true => ("quorum-state", input.rest().to_vec()),
        false => ("00000000000000000000-0000000000.checkpoint", input.batches()),
    };
    let path = dir.join(name);
    replace_file(&disk, &path, &content, FileDurability::Synced).expect("written");
    match is_state {
        true => drop(QuorumState::read(&disk, dir)),
        false => drop(quorum::read_checkpoint(&disk, &path)),
    }
}

/// Parses `server.properties` and builds the broker's configuration from it.
pub fn properties(data: &[u8]) {
    let file = Some(("server.properties".to_owned(), data.to_vec()));
    let host_name = "host".to_owned();
    let _ = load(Sources { file, host_name, ..Sources::default() });
}
