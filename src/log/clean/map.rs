//! The map from keys to their last offsets (Kafka's `SkimpyOffsetMap`).

use siphasher::sip128::SipHasher24;

/// The hash of a key and its offset. A slot whose hash is 0 is free.
type Slot = [u64; 3];

/// Largest number of shards. When a shard grows, its entries are copied, so shards are small.
const SHARDS_MAX: usize = 256;
/// A smaller map has fewer shards. In shards of this size, chance fills none much earlier than the
/// others.
const SHARD_SLOTS_MIN: usize = 4096;
/// The number of slots that a shard begins with.
const FIRST_SLOTS: usize = 64;

/// Maps keys to their last offsets. It holds a hash of 128 bits instead of the key, so that a key
/// of any length takes 24 bytes.
///
/// The keys are spread over shards. Each shard has room for its part of the largest map, but uses
/// only the first slots of it, and twice as many whenever three quarters of them are used. So the
/// map needs little memory for few keys, and never more than its limit.
///
/// The hash has a key of its own, which must be random for each map. Otherwise, a producer could
/// find two keys with the same hash, and compaction would remove the value of one of them.
#[derive(Debug)]
pub struct OffsetMap {
    /// The slots of all shards. The system provides the memory when a slot is first written.
    slots: Vec<Slot>,
    shards: Vec<Shard>,
    used: usize,
    used_max: usize,
    hasher: SipHasher24,
}

#[derive(Debug, Clone, Copy)]
struct Shard {
    /// Index of the first slot.
    start: usize,
    /// The number of slots in use, and their largest number.
    len: usize,
    len_max: usize,
    used: usize,
}

impl Shard {
    /// Whether there is a free slot besides the one at which the search for a missing key ends.
    fn has_room(&self) -> bool {
        self.used + 1 < self.len
    }

    fn can_grow(&self) -> bool {
        self.len < self.len_max
    }
}

impl OffsetMap {
    /// Creates a map that takes at most `bytes_max` bytes and uses at most `load_factor` of the
    /// slots that fit. It has room for one key at least.
    pub fn new(bytes_max: usize, load_factor: f64, hash_key: [u8; 16]) -> Self {
        let slots = (bytes_max / size_of::<Slot>()).max(2);
        let shard_count = (slots / SHARD_SLOTS_MIN).clamp(1, SHARDS_MAX);
        let shard = |index| {
            let (start, end) = (index * slots / shard_count, (index + 1) * slots / shard_count);
            let len_max = end - start;
            Shard { start, len: FIRST_SLOTS.min(len_max), len_max, used: 0 }
        };
        let used_max = (slots as f64 * load_factor.clamp(0.0, 1.0)) as usize;
        Self {
            slots: vec![[0; 3]; slots],
            shards: (0..shard_count).map(shard).collect(),
            used: 0,
            used_max: used_max.clamp(1, slots - 1),
            hasher: SipHasher24::new_with_key(&hash_key),
        }
    }

    /// Sets the offset of a key. Returns false if the key is new and the map is full.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let mut at = self.find(hash);
        if is_free(&self.slots[at]) {
            let index = self.shard_of(hash);
            if self.used == self.used_max {
                return false;
            }
            if self.shards[index].used * 4 >= self.shards[index].len * 3
                && self.shards[index].can_grow()
            {
                self.grow(index);
                at = self.find(hash);
            }
            if !self.shards[index].has_room() {
                return false;
            }
            self.shards[index].used += 1;
            self.used += 1;
        }
        self.slots[at] = [hash[0], hash[1], offset as u64];
        true
    }

    /// The offset of a key, if it has one.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = &self.slots[self.find(self.hash(key))];
        (!is_free(slot)).then_some(slot[2] as i64)
    }

    /// The used share of the memory that the map may take, from 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.used as f64 / self.slots.len() as f64
    }

    /// The number of slots that may have been written.
    #[cfg(test)]
    pub fn slots_in_use(&self) -> usize {
        self.shards.iter().map(|shard| shard.len).sum()
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        match self.hasher.hash(key).as_u64() {
            (0, 0) => [0, 1],
            (high, low) => [high, low],
        }
    }

    fn shard_of(&self, hash: [u64; 2]) -> usize {
        scale(hash[1], self.shards.len())
    }

    /// Returns the index of the slot with the hash, or of the free slot where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        let Shard { start, len, .. } = self.shards[self.shard_of(hash)];
        let slots = &self.slots[start..start + len];
        let mut at = scale(hash[0], len);
        while !is_free(&slots[at]) && slots[at][..2] != hash {
            at += 1;
            if at == len {
                at = 0;
            }
        }
        start + at
    }

    /// Doubles the slots that a shard uses, up to its largest number.
    fn grow(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        let slots = &mut self.slots[shard.start..shard.start + shard.len];
        let used: Vec<Slot> = slots.iter().filter(|slot| !is_free(slot)).copied().collect();
        slots.fill([0; 3]);
        shard.len = shard.len_max.min(2 * shard.len);
        for slot in used {
            let at = self.find([slot[0], slot[1]]);
            self.slots[at] = slot;
        }
    }
}

fn is_free(slot: &Slot) -> bool {
    slot[..2] == [0, 0]
}

/// Maps a hash to a number below `count`: the upper half of the product is as uniform as the hash.
fn scale(hash: u64, count: usize) -> usize {
    ((u128::from(hash) * count as u128) >> 64) as usize
}
