//! The files of the metadata log's segments, and work on them that may wait for the disk.

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

/// Segments that the log has let go of and whose files are still there.
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

/// Room in a segment's file that the disk is to set aside.
#[derive(Debug)]
pub struct Reservation {
    pub file: Arc<dyn DiskFile>,
    pub at: u64,
    pub len: u64,
    /// How often the log had been cut before.
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

/// Indexes that Apache Kafka left speak of bytes that are gone; Kafka rebuilds what is missing.
pub fn remove_indexes(disk: &dyn Disk, dir: &Path, base_offset: i64) {
    for suffix in ["index", "timeindex", "txnindex"] {
        // Most often there is none.
        let _ = disk.remove_file(&dir.join(format!("{base_offset:020}.{suffix}")));
    }
}

/// The batch at a position, if all of it lies before `end`.
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
