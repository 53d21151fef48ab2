//! The trace of a run: a line per event, and a hash of all lines.

use std::{
    collections::VecDeque,
    env, fmt,
    fs::File,
    io::{BufWriter, Write},
};

/// Number of last lines that are kept for the report of a failure.
const KEPT: usize = 120;

pub struct Trace {
    hash: u64,
    last: VecDeque<String>,
    /// Receives all lines if `SIMULATION_TRACE` names a file.
    file: Option<BufWriter<File>>,
}

impl Trace {
    pub fn new() -> Self {
        let file = env::var_os("SIMULATION_TRACE").and_then(|path| File::create(path).ok());
        Self {
            hash: hash_of(&[]),
            last: VecDeque::with_capacity(KEPT),
            file: file.map(BufWriter::new),
        }
    }

    pub fn add(&mut self, now_us: u64, what: fmt::Arguments<'_>) {
        let line = format!("{:>9}.{:03} {what}", now_us / 1000, now_us % 1000);
        self.hash = extend(self.hash, line.as_bytes());
        if let Some(file) = &mut self.file {
            // The file is only for reading. A failed write does not fail the run.
            let _ = writeln!(file, "{line}");
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(file) = &mut self.file {
            let _ = file.flush();
        }
    }
}

/// Returns the FNV-1a hash of `bytes`.
pub fn hash_of(bytes: &[u8]) -> u64 {
    extend(0xcbf2_9ce4_8422_2325, bytes)
}

fn extend(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
