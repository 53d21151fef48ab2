//! Random numbers of a run, all from one seed: those that the simulation draws, and those that the
//! process requests from the system (for hash maps and ids).

use std::cell::Cell;

/// A splitmix64 generator.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// At most `most`, at least `least`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// Replaces the system's `getrandom` in this program, so that the order of a hash map is the same
/// in each run.
///
/// # Safety
///
/// `buf` must have room for `len` bytes, as for the system's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buf: *mut u8, len: usize, _flags: u32) -> isize {
    for at in 0..len {
        let asked = ASKED.get();
        ASKED.set(asked + 1);
        let drawn = mix(asked.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1)) as u8;
        // SAFETY: `at` is less than `len`.
        unsafe { buf.add(at).write(drawn) };
    }
    len as isize
}
