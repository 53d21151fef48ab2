//! Reads the records of a compressed batch while decompressing it chunk by chunk. It accepts what
//! Kafka accepts: the iterator skips keys and values like
//! `DefaultRecordBatch.skipKeyValueIterator`, and `read_whole` keeps them like `streamingIterator`.
//! At the end of the data, it behaves like Java's input streams.

use super::compression::{Decoder, Scratch};
use super::record::{Frame, Frames, RecordSummary, RecordsLeft, Times};
use super::varint::{read_i32, read_i64, write_i32};
use super::{Batch, CodecError, Compression, RecordError};
use bytes::Bytes;

/// The most bytes to which the records of a log are decompressed in memory at a time.
pub const DECOMPRESSED_MAX: usize = 128 << 20;

/// The records of a compressed batch. The iterator follows Kafka's produce path: a record ends
/// where its last field ends, and its declared size is not checked. It ends after the first error.
pub(super) struct RecordStream<'a, 's> {
    decoder: Decoder<'a>,
    scratch: &'s mut Scratch,
    /// Position in the current chunk.
    at: usize,
    /// Length of the current chunk.
    len: usize,
    left: RecordsLeft,
    times: Times,
}

impl<'a, 's> RecordStream<'a, 's> {
    pub(super) fn open(batch: &'a Batch, scratch: &'s mut Scratch) -> Result<Self, RecordError> {
        let header = &batch.header;
        let left = RecordsLeft::of(header)?;
        Ok(Self {
            decoder: Decoder::open(header.compression()?, &batch.payload, scratch)?,
            scratch,
            at: 0,
            len: 0,
            left,
            times: Times::of(header),
        })
    }

    fn read(&mut self) -> Result<RecordSummary, RecordError> {
        self.read_size()?;
        let summary = self.read_fields().map_err(|error| match error {
            RecordError::Codec(CodecError::Underflow { .. }) => RecordError::BadStructure,
            other => other,
        })?;
        self.finish_record()?;
        Ok(summary)
    }

    /// Appends the next record to `out`, which may grow to `limit` bytes, and returns its frame, or
    /// `None` after the last record. Fails if the record's declared size is wrong.
    fn read_whole(
        &mut self,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<Option<Frame>, RecordError> {
        if self.left.is_zero() {
            return Ok(None);
        }
        let size = self.read_size()?;
        let start = out.len();
        write_i32(out, size);
        let mut left = usize::try_from(size).map_err(|_| RecordError::BadSize(size))?;
        while left > 0 {
            if self.at == self.len && !self.next_chunk()? {
                return Err(RecordError::PrematureEnd);
            }
            let part = left.min(self.len - self.at);
            if part > limit.saturating_sub(out.len()) {
                return Err(CodecError::TooLarge { limit }.into());
            }
            out.extend_from_slice(&self.rest()[..part]);
            self.at += part;
            left -= part;
        }
        let frame = Frame::parse(&out[start..], self.times)?;
        self.finish_record()?;
        Ok(Some(frame))
    }

    fn read_size(&mut self) -> Result<i32, RecordError> {
        self.read_i32().map_err(|error| match error {
            RecordError::BadStructure => RecordError::PrematureEnd,
            other => other,
        })
    }

    fn finish_record(&mut self) -> Result<(), RecordError> {
        if self.left.count_one() && self.read_byte()?.is_some() {
            return Err(RecordError::TrailingBytes);
        }
        Ok(())
    }

    fn read_fields(&mut self) -> Result<RecordSummary, RecordError> {
        // The attributes of a record are unused. Kafka accepts any value.
        self.read_byte()?;
        let timestamp_delta = self.read_i64()?;
        let offset_delta = self.read_i32()?;
        let key_len = self.read_i32()?;
        self.skip(key_len)?;
        let value_len = self.read_i32()?;
        self.skip(value_len)?;
        let header_count = self.read_i32()?;
        if header_count < 0 {
            return Err(RecordError::BadHeaderCount(header_count));
        }
        for _ in 0..header_count {
            let key_len = self.read_i32()?;
            if key_len < 0 {
                return Err(RecordError::BadHeaderKeySize(key_len));
            }
            self.skip(key_len)?;
            let value_len = self.read_i32()?;
            self.skip(value_len)?;
        }
        let timestamp = self.times.at(timestamp_delta);
        Ok(RecordSummary { timestamp, offset_delta, key_len, value_len })
    }

    fn rest(&self) -> &[u8] {
        &self.scratch.chunk(self.len)[self.at..]
    }

    /// Reads the next chunk. Returns false if it is empty or the data ends. Callers treat an empty
    /// chunk as the end of the data, unless they read on.
    fn next_chunk(&mut self) -> Result<bool, RecordError> {
        (self.at, self.len) = (0, 0);
        self.len = self.decoder.read(self.scratch)?.unwrap_or(0);
        Ok(self.len > 0)
    }

    /// Reads the next byte; `None` at the end.
    fn read_byte(&mut self) -> Result<Option<u8>, RecordError> {
        if self.at == self.len && !self.next_chunk()? {
            return Ok(None);
        }
        self.at += 1;
        Ok(Some(self.scratch.chunk(self.len)[self.at - 1]))
    }

    #[inline]
    fn read_i32(&mut self) -> Result<i32, RecordError> {
        match read_i32(self.rest(), 0) {
            Ok((value, len)) => {
                self.at += len;
                Ok(value)
            }
            Err(_) => {
                let bytes = self.read_varint::<5>()?;
                Ok(read_i32(&bytes, 0)?.0)
            }
        }
    }

    #[inline]
    fn read_i64(&mut self) -> Result<i64, RecordError> {
        match read_i64(self.rest(), 0) {
            Ok((value, len)) => {
                self.at += len;
                Ok(value)
            }
            Err(_) => {
                let bytes = self.read_varint::<10>()?;
                Ok(read_i64(&bytes, 0)?.0)
            }
        }
    }

    /// Reads the bytes of a number that may continue in the next chunk. As in Java, bytes past the
    /// end of the data read as -1, so a number that is cut short has too many bytes.
    #[cold]
    fn read_varint<const MAX: usize>(&mut self) -> Result<[u8; MAX], RecordError> {
        let mut bytes = [0; MAX];
        for byte in &mut bytes {
            *byte = self.read_byte()?.unwrap_or(0xff);
            if *byte < 0x80 {
                break;
            }
        }
        Ok(bytes)
    }

    /// Skips a field of this length; any negative length means null.
    #[inline]
    fn skip(&mut self, len: i32) -> Result<(), RecordError> {
        let len = usize::try_from(len).unwrap_or(0);
        if len <= self.len - self.at {
            self.at += len;
            return Ok(());
        }
        self.skip_chunks(len)
    }

    fn skip_chunks(&mut self, mut len: usize) -> Result<(), RecordError> {
        loop {
            let here = len.min(self.len - self.at);
            self.at += here;
            len -= here;
            if len == 0 {
                return Ok(());
            }
            // As in Java, two empty chunks are not the end yet. After them, a byte is read, and
            // only if that fails, too, the data has ended.
            if self.next_chunk()? || self.next_chunk()? {
                continue;
            }
            match self.read_byte()? {
                Some(_) => len -= 1,
                None => return Err(RecordError::PrematureEnd),
            }
        }
    }
}

impl Iterator for RecordStream<'_, '_> {
    type Item = Result<RecordSummary, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_zero() {
            return None;
        }
        let read = self.read();
        self.left.item(read)
    }
}

impl Batch {
    /// The bytes of the records without compression. Fails if decompression yields more than
    /// `limit` bytes.
    pub fn uncompressed_payload(&self, limit: usize) -> Result<Bytes, RecordError> {
        if self.header.compression()? == Compression::None {
            return Ok(self.payload.clone());
        }
        Scratch::with(|scratch| {
            let mut records = RecordStream::open(self, scratch)?;
            let mut payload = vec![];
            while records.read_whole(&mut payload, limit)?.is_some() {}
            Ok(payload.into())
        })
    }

    /// Finds the first record that `wanted` accepts. A compressed batch is decompressed record by
    /// record.
    pub fn find_record(
        &self,
        wanted: impl Fn(&RecordSummary) -> bool,
    ) -> Result<Option<RecordSummary>, RecordError> {
        if self.header.compression()? == Compression::None {
            let is_wanted = |record: &Result<_, _>| record.as_ref().map_or(true, &wanted);
            return Frames::new(&self.header, &self.payload)?
                .summaries()
                .find(is_wanted)
                .transpose();
        }
        Scratch::with(|scratch| {
            let mut records = RecordStream::open(self, scratch)?;
            let mut record = vec![];
            while let Some(frame) = records.read_whole(&mut record, DECOMPRESSED_MAX)? {
                if wanted(&frame.summary) {
                    return Ok(Some(frame.summary));
                }
                record.clear();
            }
            Ok(None)
        })
    }
}
