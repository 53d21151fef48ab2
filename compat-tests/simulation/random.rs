//! Random numbers of a run, all from one seed: those that the simulation draws, and those that the
//! process requests from the system (for hash maps and ids).

use std::cell::Cell;

use sordini::base::random::Random;

/// The generator of one part of the simulation.
pub struct Rng(Random);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// At most `most`, at least `least`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// The distance between the seeds of two bytes.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

thread_local! {
    /// Number of bytes that this thread has requested from the system.
    static REQUESTED: Cell<u64> = const { Cell::new(0) };
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
        let requested = REQUESTED.get();
        REQUESTED.set(requested + 1);
        let seed = requested.wrapping_sub(1).wrapping_mul(SEED_STEP).wrapping_add(1);
        let byte = Random::new(seed).next_u64() as u8;
        // SAFETY: `at` is less than `len`.
        unsafe { buf.add(at).write(byte) };
    }
    len as isize
}
