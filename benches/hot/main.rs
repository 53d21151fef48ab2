//! What a request costs in each layer, without sockets: `cargo bench --bench hot [-- NAME]`.

mod disk;
mod fetch;
mod group;
mod log;
mod partition;
mod protocol;
mod records;

fn main() {
    divan::main();
}

/// Wall-clock time is an argument to everything below; any will do.
const NOW_MS: i64 = 1_700_000_000_000;

/// Half letters, half repetition: data that compresses to about a half.
fn text(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 28) as u8
    };
    (0..len).map(|_| letter()).collect()
}

/// A batch of equal records.
fn batch(records: usize, record_len: usize) -> sordini::records::Batch {
    batch_of(records, record_len, sordini::records::Compression::None)
}

fn batch_of(
    records: usize,
    record_len: usize,
    compression: sordini::records::Compression,
) -> sordini::records::Batch {
    use sordini::records::{BatchBuilder, BatchOptions};
    let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    let values = text(records * record_len);
    for value in values.chunks(record_len) {
        builder.append(NOW_MS, None, Some(value), &[]);
    }
    builder.build()
}
