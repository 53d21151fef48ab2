//! Random numbers and ids of the controller. They come from a seed, so that decisions can be
//! replayed.

use uuid::Uuid;

use crate::base::random::Random as Stream;

#[derive(Debug, Clone)]
pub struct Random {
    streams: [Stream; 2],
}

impl Random {
    pub fn new(seed: u128) -> Self {
        Self { streams: [(seed >> 64) as u64, seed as u64].map(Stream::new) }
    }

    /// A number below `end`. `end` must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.streams[0].below(end)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }

    /// A random id (UUID version 4). As in Kafka, its text never begins with a dash, because the
    /// command line tools would take it for an option.
    pub fn uuid(&mut self) -> Uuid {
        loop {
            let [high, low] = self.streams.each_mut().map(Stream::next_u64);
            let bytes = Uuid::from_u64_pair(high, low).into_bytes();
            let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
            if id.as_bytes()[0] >> 2 != 62 {
                return id;
            }
        }
    }
}
