//! The files of the metadata log's segments, and operations on them that may wait for the disk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    log::disk::{self, Disk, DiskFile},
    records::{BatchHeader, batch::HEADER_LEN},
};

/// Segments that the log has removed and whose files still exist.
#[derive(Debug)]
pub struct Obsolete {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub base_offsets: Vec<i64>,
}

impl Obsolete {
    pub fn is_empty(&self) -> bool {
        self.base_offsets.is_empty()
    }

    pub fn delete(&self) -> io::Result<()> {
        let mut offsets = self.base_offsets.iter();
        offsets.try_for_each(|offset| delete_segment(&*self.disk, &self.dir, *offset))
    }
}

/// Room that the disk has to reserve in a segment's file.
#[derive(Debug)]
pub struct Reservation {
    pub file: Arc<dyn DiskFile>,
    pub at: u64,
    pub len: u64,
    /// The number of truncations of the log before this reservation.
    pub cuts: u64,
}

impl Reservation {
    pub fn make(&self) -> io::Result<()> {
        self.file.reserve(self.at, self.len)
    }
}

pub fn segment_path(dir: &Path, base_offset: i64) -> PathBuf {
    dir.join(format!("{base_offset:020}.log"))
}

/// Base offsets of the segments in the directory, in order.
pub fn segment_offsets(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<i64>> {
    let mut offsets = Vec::new();
    for entry in disk.list(dir)? {
        let stem = entry.name.strip_suffix(".log");
        offsets.extend(stem.and_then(|stem| stem.parse::<i64>().ok()));
    }
    offsets.sort_unstable();
    Ok(offsets)
}

pub fn delete_segment(disk: &dyn Disk, dir: &Path, base_offset: i64) -> io::Result<()> {
    disk.remove_file(&segment_path(dir, base_offset))?;
    remove_indexes(disk, dir, base_offset);
    Ok(())
}

/// Removes the index files that Apache Kafka left for a segment. They refer to bytes that are
/// removed, and Kafka rebuilds missing indexes.
pub fn remove_indexes(disk: &dyn Disk, dir: &Path, base_offset: i64) {
    for suffix in ["index", "timeindex", "txnindex"] {
        // Usually there is none.
        let _ = disk.remove_file(&dir.join(format!("{base_offset:020}.{suffix}")));
    }
}

/// Reads the batch at a position of the file. `None` if it is invalid or does not end before `end`.
pub fn read_batch(file: &dyn DiskFile, at: u64, end: u64) -> io::Result<Option<Bytes>> {
    let mut header = [0; HEADER_LEN];
    if at + HEADER_LEN as u64 > end {
        return Ok(None);
    }
    disk::read_exact_at(file, &mut header, at)?;
    let Ok(parsed) = BatchHeader::parse(&header) else { return Ok(None) };
    if at + parsed.size() as u64 > end {
        return Ok(None);
    }
    let mut bytes = vec![0; parsed.size()];
    bytes[..HEADER_LEN].copy_from_slice(&header);
    disk::read_exact_at(file, &mut bytes[HEADER_LEN..], at + HEADER_LEN as u64)?;
    Ok(Some(bytes.into()))
}
