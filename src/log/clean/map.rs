//! The map from keys to their last offsets (Kafka's `SkimpyOffsetMap`).

use std::hint::black_box;

use siphasher::sip128::SipHasher24;

/// The hash of a key; never 0.
pub type KeyHash = [u64; 2];

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
/// The keys are spread over shards. A shard begins small, and doubles whenever three quarters of
/// its slots are used, up to its part of the largest map. So the map needs little memory for few
/// keys, and never more than its limit and the copy of the shard that grows.
///
/// The hash has a key of its own, which must be random for each map. Otherwise, a producer could
/// find two keys with the same hash, and compaction would remove the value of one of them.
#[derive(Debug)]
pub struct OffsetMap {
    shards: Vec<Shard>,
    used: usize,
    used_max: usize,
    slots_max: usize,
    hasher: SipHasher24,
}

#[derive(Debug)]
struct Shard {
    slots: Vec<Slot>,
    slots_max: usize,
    used: usize,
}

impl OffsetMap {
    /// Creates a map that takes at most `bytes_max` bytes and uses at most `load_factor` of the
    /// slots that fit. It has room for one key at least.
    pub fn new(bytes_max: usize, load_factor: f64, hash_key: [u8; 16]) -> Self {
        let slots_max = (bytes_max / size_of::<Slot>()).max(2);
        let shard_count = (slots_max / SHARD_SLOTS_MIN).clamp(1, SHARDS_MAX);
        let shard = |index| Shard::new((slots_max + index) / shard_count);
        let used_max = (slots_max as f64 * load_factor.clamp(0.0, 1.0)) as usize;
        Self {
            shards: (0..shard_count).map(shard).collect(),
            used: 0,
            used_max: used_max.clamp(1, slots_max - 1),
            slots_max,
            hasher: SipHasher24::new_with_key(&hash_key),
        }
    }

    /// Sets the offset of a key. Returns false if the key is new and the map is full.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        self.put_all(&[(self.hash(key), offset)]) == 1
    }

    /// Sets the offsets of keys in their order. Returns how many it has set. These are all keys,
    /// unless the next one is new and the map is full.
    pub fn put_all(&mut self, keys: &[(KeyHash, i64)]) -> usize {
        // Most slots are in no CPU cache. These reads do not depend on each other, so the CPU waits
        // for several at once.
        for (hash, _) in keys {
            let shard = &self.shards[self.shard_of(*hash)];
            black_box(shard.slots[scale(hash[0], shard.slots.len())]);
        }
        keys.iter().take_while(|(hash, offset)| self.put_hash(*hash, *offset)).count()
    }

    fn put_hash(&mut self, hash: KeyHash, offset: i64) -> bool {
        let index = self.shard_of(hash);
        let shard = &mut self.shards[index];
        let mut at = shard.find(hash);
        if is_free(&shard.slots[at]) {
            if self.used == self.used_max {
                return false;
            }
            if shard.wants_room() {
                shard.grow();
                at = shard.find(hash);
            }
            if !shard.has_room() {
                return false;
            }
            shard.used += 1;
            self.used += 1;
        }
        shard.slots[at] = [hash[0], hash[1], offset as u64];
        true
    }

    /// The offset of a key, if it has one.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let hash = self.hash(key);
        let shard = &self.shards[self.shard_of(hash)];
        let slot = &shard.slots[shard.find(hash)];
        (!is_free(slot)).then_some(slot[2] as i64)
    }

    /// The offsets of all keys, in no order.
    pub fn offsets(&self) -> impl Iterator<Item = i64> {
        let slots = self.shards.iter().flat_map(|shard| &shard.slots);
        slots.filter(|slot| !is_free(slot)).map(|slot| slot[2] as i64)
    }

    /// The used share of the memory that the map may take, from 0 to 1.
    pub fn utilization(&self) -> f64 {
        self.used as f64 / self.slots_max as f64
    }

    /// The number of slots for which the map has memory.
    #[cfg(test)]
    pub fn slots(&self) -> usize {
        self.shards.iter().map(|shard| shard.slots.capacity()).sum()
    }

    pub fn hash(&self, key: &[u8]) -> KeyHash {
        match self.hasher.hash(key).as_u64() {
            (0, 0) => [0, 1],
            (high, low) => [high, low],
        }
    }

    fn shard_of(&self, hash: KeyHash) -> usize {
        scale(hash[1], self.shards.len())
    }
}

impl Shard {
    fn new(slots_max: usize) -> Self {
        Self { slots: vec![[0; 3]; FIRST_SLOTS.min(slots_max)], slots_max, used: 0 }
    }

    /// Whether there is a free slot besides the one at which the search for a missing key ends.
    fn has_room(&self) -> bool {
        self.used + 1 < self.slots.len()
    }

    fn wants_room(&self) -> bool {
        self.used * 4 >= self.slots.len() * 3 && self.slots.len() < self.slots_max
    }

    /// Returns the index of the slot with the hash, or of the free slot where it belongs.
    fn find(&self, hash: KeyHash) -> usize {
        let mut at = scale(hash[0], self.slots.len());
        while !is_free(&self.slots[at]) && self.slots[at][..2] != hash {
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
        at
    }

    /// Doubles the slots, up to their largest number.
    fn grow(&mut self) {
        let larger = vec![[0; 3]; self.slots_max.min(2 * self.slots.len())];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if !is_free(&slot) {
                let at = self.find([slot[0], slot[1]]);
                self.slots[at] = slot;
            }
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
