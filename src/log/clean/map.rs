//! The map from keys to their last offsets (Kafka's `SkimpyOffsetMap`).

use siphasher::sip128::SipHasher24;

/// The hash of a key and its offset. A slot whose hash is 0 is free.
type Slot = [u64; 3];

/// Maps keys to their last offsets. It holds a hash of 128 bits instead of the key, so that a key
/// of any length takes 24 bytes.
///
/// The hash has a key of its own, which must be random for each map. Otherwise, a producer could
/// find two keys with the same hash, and compaction would remove the value of one of them.
#[derive(Debug)]
pub struct OffsetMap {
    /// The system provides the memory when a slot is first written.
    slots: Vec<Slot>,
    /// The number of slots for which the map may take memory.
    slots_max: usize,
    used: usize,
    used_max: usize,
    hasher: SipHasher24,
}

impl OffsetMap {
    /// Creates a map with room for `keys_max` keys that uses at most `load_factor` of its slots.
    /// It takes at most `bytes_max` bytes and then has room for fewer keys, but for at least one.
    pub fn new(keys_max: u64, bytes_max: usize, load_factor: f64, hash_key: [u8; 16]) -> Self {
        // One slot is always free, so that the search for a key ends.
        let slots_max = (bytes_max / size_of::<Slot>()).max(2);
        let load_factor = load_factor.clamp(0.01, 1.0);
        let slots_wanted = (keys_max as f64 / load_factor).ceil() as usize;
        let slots = slots_wanted.saturating_add(1).clamp(2, slots_max);
        let used_max = (slots as f64 * load_factor) as usize;
        Self {
            slots: vec![[0; 3]; slots],
            slots_max,
            used: 0,
            used_max: used_max.clamp(1, slots - 1),
            hasher: SipHasher24::new_with_key(&hash_key),
        }
    }

    /// Sets the offset of a key. Returns false if the key is new and the map is full.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        if is_free(&self.slots[at]) {
            if self.used == self.used_max {
                return false;
            }
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
        self.used as f64 / self.slots_max as f64
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        match self.hasher.hash(key).as_u64() {
            (0, 0) => [0, 1],
            (high, low) => [high, low],
        }
    }

    /// Returns the index of the slot with the hash, or of the free slot where it belongs.
    fn find(&self, hash: [u64; 2]) -> usize {
        // The upper half of the product is below the number of slots and as uniform as the hash.
        let mut at = ((u128::from(hash[0]) * self.slots.len() as u128) >> 64) as usize;
        while !is_free(&self.slots[at]) && self.slots[at][..2] != hash {
            at += 1;
            if at == self.slots.len() {
                at = 0;
            }
        }
        at
    }
}

fn is_free(slot: &Slot) -> bool {
    slot[..2] == [0, 0]
}
