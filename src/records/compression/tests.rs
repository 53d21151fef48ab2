//! Tests of the codecs: round trips, invalid data, and data of other encoders.

use super::*;
use proptest::prelude::*;
use std::io::Write;

/// Decompresses `input`, and fails if the output exceeds `limit` bytes.
fn decompress(codec: Compression, input: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    Scratch::with(|scratch| {
        let mut decoder = Decoder::open(codec, input, scratch)?;
        let mut output = vec![];
        while let Some(len) = decoder.read(scratch)? {
            output.extend_from_slice(scratch.chunk(len));
            if output.len() > limit {
                return Err(CodecError::TooLarge { limit });
            }
        }
        Ok(output)
    })
}

fn is_too_large(result: Result<Vec<u8>, CodecError>) -> bool {
    matches!(result, Err(CodecError::TooLarge { .. }))
}

/// Random data with runs of equal bytes, so that it compresses.
fn any_data() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec((any::<u8>(), 1..3000_usize), 0..60)
        .prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| vec![byte; len]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn data_comes_back_within_its_length(data in any_data(), level in -3..30, which in 0..5_usize) {
        let codec = Compression::ALL[which];
        let packed = compress(codec, Some(level), &data).unwrap();
        prop_assert_eq!(&decompress(codec, &packed, data.len()).unwrap()[..], &data[..]);
        prop_assert_eq!(&decompress(codec, &packed, usize::MAX / 2).unwrap()[..], &data[..]);
        if !data.is_empty() {
            prop_assert!(is_too_large(decompress(codec, &packed, data.len() - 1)));
            prop_assert!(is_too_large(decompress(codec, &packed, data.len() / 2)));
        }
    }

    #[test]
    fn garbage_is_an_error_or_within_the_limit(
        data in proptest::collection::vec(any::<u8>(), 0..500),
        which in 0..5_usize,
        framed: bool,
    ) {
        let mut input = if framed { compress(Compression::ALL[which], None, b"").unwrap() } else { vec![] };
        input.extend_from_slice(&data);
        if let Ok(output) = decompress(Compression::ALL[which], &input, 1000) {
            prop_assert!(output.len() <= 1000);
        }
    }

    #[test]
    fn a_damaged_frame_is_an_error_or_within_the_limit(
        data in any_data(),
        which in 0..5_usize,
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
    ) {
        let mut packed = compress(Compression::ALL[which], None, &data).unwrap();
        for (at, byte) in damage {
            let len = packed.len();
            if len > 0 {
                packed[usize::from(at) % len] = byte;
            }
        }
        if let Ok(output) = decompress(Compression::ALL[which], &packed, data.len()) {
            prop_assert!(output.len() <= data.len());
        }
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0; 32 << 20];
    for codec in Compression::ALL {
        let bomb = compress(codec, None, &zeros).unwrap();
        assert!(is_too_large(decompress(codec, &bomb, 1 << 20)), "{codec:?}");
        assert!(is_too_large(decompress(codec, &bomb, 0)), "{codec:?}");
    }
}

#[test]
fn a_snappy_length_is_checked_before_it_is_allocated() {
    // Blocks without a frame that declare lengths of 4 GiB - 1 and 256 MiB, but are too short.
    for claim in [[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0], [0x80, 0x80, 0x80, 0x80, 0x01, 0, 0]] {
        let refused = decompress(Compression::Snappy, &claim, 1 << 30);
        assert!(matches!(refused, Err(CodecError::Corrupt { .. })));
    }
    // The limit is for all blocks together.
    let block = snap::raw::Encoder::new().compress_vec(&[7; 1000]).unwrap();
    let mut framed = compress(Compression::Snappy, None, b"").unwrap();
    for _ in 0..3 {
        framed.extend_from_slice(&(block.len() as i32).to_be_bytes());
        framed.extend_from_slice(&block);
    }
    assert!(is_too_large(decompress(Compression::Snappy, &framed, 2999)));
    assert_eq!(decompress(Compression::Snappy, &framed, 3000).unwrap()[..], [7; 3000]);
}

#[test]
fn bare_snappy_blocks_are_read() {
    let bare = snap::raw::Encoder::new().compress_vec(b"as librdkafka writes them").unwrap();
    let read = decompress(Compression::Snappy, &bare, 100).unwrap();
    assert_eq!(&read[..], b"as librdkafka writes them");
}

#[test]
fn snappy_blocks_hold_32_kib() {
    let framed = compress(Compression::Snappy, None, &vec![1; 40_000]).unwrap();
    let first = i32::from_be_bytes(framed[16..20].try_into().unwrap()) as usize;
    assert_eq!(snap::raw::decompress_len(&framed[20..20 + first]).unwrap(), 32 * 1024);
}

#[test]
fn concatenated_gzip_members_are_read() {
    let mut packed = compress(Compression::Gzip, None, b"one").unwrap();
    packed.extend(compress(Compression::Gzip, Some(9), b"two").unwrap());
    assert_eq!(&decompress(Compression::Gzip, &packed, 6).unwrap()[..], b"onetwo");
    assert!(is_too_large(decompress(Compression::Gzip, &packed, 5)));
}

#[test]
fn zstd_frames_may_hide_their_size_or_follow_each_other() {
    let data = vec![9; 300_000];
    let streamed = ::zstd::stream::encode_all(&data[..], 3).unwrap();
    assert_eq!(::zstd::zstd_safe::get_frame_content_size(&streamed).unwrap(), None);
    assert_eq!(decompress(Compression::Zstd, &streamed, 300_000).unwrap()[..], data[..]);
    assert!(is_too_large(decompress(Compression::Zstd, &streamed, 299_999)));
    let mut twice = compress(Compression::Zstd, None, &data).unwrap();
    twice.extend(streamed);
    assert_eq!(decompress(Compression::Zstd, &twice, 600_000).unwrap().len(), 600_000);
    assert!(is_too_large(decompress(Compression::Zstd, &twice, 599_999)));
}

#[test]
fn zstd_windows_are_limited_and_large_ones_are_not_kept() {
    // Frames with an empty last block that declare windows of 1 GiB and 128 MiB.
    let frame = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x00, window, 0x01, 0x00, 0x00];
    assert!(decompress(Compression::Zstd, &frame(0xa0), 1000).is_err());
    assert_eq!(decompress(Compression::Zstd, &frame(0x88), 1000).unwrap().len(), 0);
    assert!(Scratch::with(|scratch| scratch.zstd.is_none()));
}

#[test]
fn much_output_needs_little_memory() {
    let zeros = vec![0; 32 << 20];
    for codec in Compression::ALL {
        let packed = compress(codec, None, &zeros).unwrap();
        assert_eq!(decompress(codec, &packed, zeros.len()).unwrap().len(), zeros.len());
        Scratch::with(|scratch| {
            assert_eq!(scratch.output.len(), CHUNK_LEN, "{codec:?}");
            let context = scratch.zstd.as_ref().map_or(0, DCtx::sizeof);
            assert!(context <= zstd::KEPT_CONTEXT_MAX, "{context} bytes");
        });
    }
}

/// As in Kafka's `Lz4BlockOutputStream`, 9 is the fast compression, and any other level is one of
/// the high compression.
#[test]
fn lz4_has_levels() {
    let words = ["offset", "epoch", "leader", "replica", "segment", "index", "batch"];
    let text: String = (0..20_000_usize).map(|at| words[at * at / 7 % words.len()]).collect();
    let size = |level| compress(Compression::Lz4, level, text.as_bytes()).unwrap().len();
    assert_eq!(size(None), size(Some(9)));
    assert!(size(Some(1)) < size(None) && size(Some(12)) < size(Some(1)));
    assert_eq!((size(Some(0)), size(Some(18))), (size(Some(1)), size(Some(17))));
}

#[test]
fn lz4_frames_are_checked_as_kafka_checks_them() {
    let good = compress(Compression::Lz4, None, &[5; 1000]).unwrap();
    assert_eq!(good[..7], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]);
    let read = |input: &[u8]| decompress(Compression::Lz4, input, 5000);
    assert!(read(&good).is_ok());
    for cut in 0..good.len() {
        assert!(read(&good[..cut]).is_err(), "cut at {cut}");
    }
    for (at, byte) in [(0, 5), (4, 0x40), (4, 0x61), (5, 0x30), (6, 0x83), (10, 0x7f)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert!(read(&bad).is_err(), "{byte:#x} at {at}");
    }
    // As in Kafka, bytes after the end mark are ignored.
    assert_eq!(read(&[&good[..], b"tail"].concat()).unwrap().len(), 1000);
}

#[test]
fn lz4_frames_of_other_writers_are_read() {
    use ::lz4::{BlockMode, BlockSize, ContentChecksum, EncoderBuilder, liblz4::BlockChecksum};
    let data: Vec<u8> = (0..200_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        let mut encoder = EncoderBuilder::new()
            .block_mode(BlockMode::Independent)
            .block_size(size)
            .block_checksum(BlockChecksum::BlockChecksumEnabled)
            .checksum(ContentChecksum::ChecksumEnabled)
            .content_size(data.len() as u64)
            .build(Vec::new())
            .unwrap();
        encoder.write_all(&data).unwrap();
        let (packed, finished) = encoder.finish();
        finished.unwrap();
        let read = decompress(Compression::Lz4, &packed, data.len()).unwrap();
        assert!(read[..] == data[..]);
        assert!(is_too_large(decompress(Compression::Lz4, &packed, data.len() - 1)));
    }
}
