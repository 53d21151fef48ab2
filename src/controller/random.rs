//! Random numbers from a seed, so that a decision can be replayed. Two SplitMix64 streams
//! (Steele, Lea and Flood 2014).

use uuid::Uuid;

#[derive(Debug, Clone)]
pub struct Random {
    streams: [u64; 2],
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    pub fn new(seed: u128) -> Self {
        Self { streams: [(seed >> 64) as u64, seed as u64] }
    }

    fn next(&mut self) -> u64 {
        split_mix(&mut self.streams[0])
    }

    /// A number below `bound`, which is not 0. Its bias is below 2^-32 for any list of brokers.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }

    /// A random id of version 4 whose text does not begin with a dash, as Kafka's never do: the
    /// tools would take it for an option.
    pub fn uuid(&mut self) -> Uuid {
        loop {
            let high = self.next();
            let low = split_mix(&mut self.streams[1]);
            let id = uuid::Builder::from_random_bytes(
                (u128::from(high) << 64 | u128::from(low)).to_be_bytes(),
            )
            .into_uuid();
            if id.as_bytes()[0] >> 2 != 62 {
                return id;
            }
        }
    }
}
