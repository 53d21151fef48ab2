//! A hash map of copy-on-write shards. A clone copies one pointer, and a change copies one shard
//! instead of the whole map: with 10,000 entries, a change copies about 80.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

const SHARDS: usize = 128;

/// A hash map that is cheap to clone; see the module's documentation.
#[derive(Clone, Debug)]
pub struct ShardedMap<K, V> {
    shards: Arc<[Arc<HashMap<K, V>>; SHARDS]>,
    len: usize,
}

/// The index of a key's shard. It is the same in every map and in every run; only the hash maps
/// inside the shards have random seeds.
fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % SHARDS
}

impl<K, V> Default for ShardedMap<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashMap::new());
        Self { shards: Arc::new(std::array::from_fn(|_| empty.clone())), len: 0 }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> ShardedMap<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards[shard_of(key)].get(key)
    }

    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    /// Copies the key's shard if another map shares it.
    pub fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key)?;
        let shards = Arc::make_mut(&mut self.shards);
        Arc::make_mut(&mut shards[shard_of(key)]).get_mut(key)
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shards = Arc::make_mut(&mut self.shards);
        let old = Arc::make_mut(&mut shards[shard_of(&key)]).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key)?;
        let shards = Arc::make_mut(&mut self.shards);
        let old = Arc::make_mut(&mut shards[shard_of(key)]).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    /// All keys, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> ShardedMap<K, V> {
    /// The keys of entries that differ between the maps, or that only one of them has, in no
    /// particular order. Passes over the shards that the maps share.
    pub fn changed_keys<'a>(&'a self, old: &'a Self) -> impl Iterator<Item = &'a K> {
        let shards = self.shards.iter().zip(old.shards.iter());
        shards.filter(|(new, old)| !Arc::ptr_eq(new, old)).flat_map(|(new, old)| {
            let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
            let removed = old.iter().filter(|(key, _)| !new.contains_key(key));
            changed.chain(removed).map(|(key, _)| key)
        })
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> PartialEq for ShardedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shards, &other.shards)
            || self.len == other.len
                && self
                    .shards
                    .iter()
                    .zip(other.shards.iter())
                    .all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_keys_are_those_of_new_changed_and_removed_entries() {
        let mut old = ShardedMap::default();
        for key in 0..1000 {
            old.insert(key, key);
        }
        let mut new = old.clone();
        assert_eq!(new.changed_keys(&old).count(), 0);
        new.insert(5, 6);
        new.insert(7, 7);
        new.insert(2000, 0);
        new.remove(&900);
        let sorted = |mut keys: Vec<i32>| {
            keys.sort_unstable();
            keys
        };
        let changed = new.changed_keys(&old).copied().collect();
        assert_eq!(sorted(changed), [5, 900, 2000]);
        let back = old.changed_keys(&new).copied().collect();
        assert_eq!(sorted(back), [5, 900, 2000]);
    }
}
