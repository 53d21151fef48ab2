//! Micro-benchmarks of the work for a request in each layer, without sockets:
//! `cargo bench --bench hot [-- NAME]`.

mod assignor;
mod consumer_group;
mod disk;
mod fetch;
mod group;
mod log;
mod partition;
mod protocol;
mod records;

use sordini::records::{Batch, BatchBuilder, BatchOptions, Compression};

fn main() {
    divan::main();
}

/// The wall-clock time that the benches pass to the code. Any value will do.
const NOW_MS: i64 = 1_700_000_000_000;

/// Random words, which compress like text.
fn text(len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["offset ", "leader ", "epoch ", "batch ", "segment ", "index ", "group ", "topic "];
    let mut state = 1u32;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        WORDS[(state >> 29) as usize].bytes()
    });
    words.flatten().take(len).collect()
}

/// A batch of equal records.
fn batch(records: usize, record_len: usize) -> Batch {
    batch_of(records, record_len, Compression::None)
}

fn batch_of(records: usize, record_len: usize, compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    let values = text(records * record_len);
    for value in values.chunks(record_len) {
        builder.append(NOW_MS, None, Some(value), &[]);
    }
    builder.build()
}
