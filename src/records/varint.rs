//! Zigzag variable-length integers, with the limits of Kafka's `ByteUtils`: at most 5 bytes for an
//! int and 10 for a long. Bits that do not fit into the type are dropped.

/// Why a number cannot be read: it ends past the input, or it has too many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VarintError {
    Underflow,
    TooLong,
}

/// Reads an int at `at`. Returns it and the position after it. Most ints have one byte.
#[inline(always)]
pub(super) fn read_i32(bytes: &[u8], at: usize) -> Result<(i32, usize), VarintError> {
    match bytes.get(at) {
        Some(&byte) if byte < 0x80 => Ok((unzigzag_i32(u32::from(byte)), at + 1)),
        _ => read_long_i32(bytes, at),
    }
}

fn read_long_i32(bytes: &[u8], at: usize) -> Result<(i32, usize), VarintError> {
    let mut value = 0_u32;
    for i in 0..5 {
        let byte = *bytes.get(at + i).ok_or(VarintError::Underflow)?;
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok((unzigzag_i32(value), at + i + 1));
        }
    }
    Err(VarintError::TooLong)
}

/// Reads a long at `at`. Returns it and the position after it. Most longs have one byte.
#[inline(always)]
pub(super) fn read_i64(bytes: &[u8], at: usize) -> Result<(i64, usize), VarintError> {
    match bytes.get(at) {
        Some(&byte) if byte < 0x80 => Ok((unzigzag_i64(u64::from(byte)), at + 1)),
        _ => read_long_i64(bytes, at),
    }
}

fn read_long_i64(bytes: &[u8], at: usize) -> Result<(i64, usize), VarintError> {
    let mut value = 0_u64;
    for i in 0..10 {
        let byte = *bytes.get(at + i).ok_or(VarintError::Underflow)?;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Ok((unzigzag_i64(value), at + i + 1));
        }
    }
    Err(VarintError::TooLong)
}

fn unzigzag_i64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn unzigzag_i32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

pub(super) fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_unsigned(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

pub(super) fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The size of an encoded long in bytes.
pub(super) fn size_i64(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn longs_come_back(value: i64) {
            let mut out = vec![];
            write_i64(&mut out, value);
            prop_assert_eq!(out.len(), size_i64(value));
            prop_assert_eq!(read_i64(&out, 0), Ok((value, out.len())));
            prop_assert_eq!(read_i64(&out[1..], out.len()), Err(VarintError::Underflow));
        }

        #[test]
        fn ints_come_back(value: i32) {
            let mut out = vec![];
            write_i32(&mut out, value);
            prop_assert_eq!(read_i32(&out, 0), Ok((value, out.len())));
            let mut long = vec![];
            write_i64(&mut long, value.into());
            prop_assert_eq!(out, long);
        }
    }

    #[test]
    fn too_many_bytes_are_refused() {
        assert_eq!(read_i32(&[0xff; 9], 0), Err(VarintError::TooLong));
        assert_eq!(read_i64(&[0xff; 20], 0), Err(VarintError::TooLong));
        assert_eq!(read_i32(&[0xff; 4], 0), Err(VarintError::Underflow));
    }
}
