//! Updates a CRC-32C after a change of leading bytes, without reading the bytes that follow them.

/// Castagnoli's polynomial with its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `a * b` modulo the polynomial. All bits are reversed: the top bit is the coefficient of x^0.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 != 0 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

/// Entry `k` is x^(8 * 2^k). The difference of two CRCs is multiplied by it if the same `2^k` bytes
/// follow on both sides.
const BYTES_SHIFT: [u32; 32] = {
    let mut table = [0; 32];
    table[0] = 1 << (31 - 8);
    let mut k = 1;
    while k < 32 {
        table[k] = multiply(table[k - 1], table[k - 1]);
        k += 1;
    }
    table
};

/// Computes the CRC of `new` followed by `len` bytes. `crc` is the CRC of `old` followed by the
/// same bytes.
///
/// `crc32c::crc32c_combine` would also work, but it squares matrices for each bit of the length,
/// which takes as long as a second pass over 64 KiB. This function multiplies once per set bit.
pub(super) fn replace_prefix(crc: u32, old: &[u8], new: &[u8], len: usize) -> u32 {
    assert_eq!(old.len(), new.len(), "the bytes that follow must not move");
    let mut difference = crc32c::crc32c(old) ^ crc32c::crc32c(new);
    let mut rest = len;
    for shift in BYTES_SHIFT {
        if rest & 1 != 0 {
            difference = multiply(difference, shift);
        }
        rest >>= 1;
    }
    assert_eq!(rest, 0, "a batch is shorter than 4 GiB");
    crc ^ difference
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_second_pass(
            old: [u8; 40],
            new: [u8; 40],
            rest in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let before = crc32c::crc32c_append(crc32c::crc32c(&old), &rest);
            let after = crc32c::crc32c_append(crc32c::crc32c(&new), &rest);
            prop_assert_eq!(super::replace_prefix(before, &old, &new, rest.len()), after);
        }
    }
}
