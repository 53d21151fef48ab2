//! Tests of the map from keys to offsets.

use super::*;

#[test]
fn last_offset_of_each_key_is_found() {
    let mut map = map_of(&[("a", 1), ("b", 2), ("a", 3), ("", 4), ("c", 0)]);
    assert_eq!(map.get(b"a"), Some(3));
    assert_eq!(map.get(b"b"), Some(2));
    assert_eq!(map.get(b""), Some(4));
    assert_eq!(map.get(b"c"), Some(0));
    assert_eq!(map.get(b"d"), None);
    let long = vec![b'x'; 1 << 20];
    assert!(map.put(&long, i64::MAX));
    assert_eq!(map.get(&long), Some(i64::MAX));
    assert_eq!(map.get(&long[1..]), None);
}

#[test]
fn million_keys_fit_into_24_bytes_each_and_the_load_factor() {
    let count = 1_000_000_u64;
    let bytes = (count as f64 / 0.9) as usize * 24 + 48;
    let mut map = OffsetMap::new(bytes, 0.9, [1; 16]);
    for n in 0..count {
        assert!(map.put(&n.to_be_bytes(), n as i64), "key {n}");
    }
    for n in 0..count {
        assert_eq!(map.get(&n.to_be_bytes()), Some(n as i64));
    }
    assert!(map.utilization() > 0.899 && map.utilization() <= 0.9, "{}", map.utilization());
    for n in count..count + 1000 {
        assert_eq!(map.get(&n.to_be_bytes()), None);
    }
}

#[test]
fn full_map_takes_new_offsets_but_no_new_key() {
    let mut map = OffsetMap::new(24 * 100, 0.5, [1; 16]);
    for n in 0..50_u8 {
        assert!(map.put(&[n], n.into()));
    }
    assert_eq!(map.utilization(), 0.5);
    assert!(!map.put(b"new", 50));
    assert_eq!(map.get(b"new"), None);
    assert!(map.put(&[7], 51));
    assert_eq!(map.get(&[7]), Some(51));
    assert_eq!(map.utilization(), 0.5);
}

#[test]
fn as_many_keys_fit_as_in_apache_kafka() {
    for (bytes, load_factor) in [(1 << 10, 0.9), (1 << 20, 0.9), (1 << 24, 0.95), (1 << 20, 0.3)] {
        let mut map = OffsetMap::new(bytes, load_factor, [9; 16]);
        let fits = (0..u32::MAX).take_while(|n| map.put(&n.to_be_bytes(), 0)).count();
        assert_eq!(fits, ((bytes / 24) as f64 * load_factor) as usize, "{bytes}, {load_factor}");
    }
}

#[test]
fn few_keys_take_little_memory() {
    const KEYS: usize = 100_000;
    let mut map = OffsetMap::new(128 << 20, 0.9, [2; 16]);
    for n in 0..KEYS {
        assert!(map.put(&n.to_be_bytes(), 0));
    }
    assert!(map.slots() < 3 * KEYS, "{}", map.slots());
    for n in 0..KEYS {
        assert_eq!(map.get(&n.to_be_bytes()), Some(0), "key {n} is lost");
    }
}

#[test]
fn map_holds_a_key_with_any_limits() {
    for (bytes, load_factor) in [(0, 0.9), (24, 0.0), (1 << 10, 7.0), (100, f64::MIN)] {
        let mut map = OffsetMap::new(bytes, load_factor, [0; 16]);
        assert!(map.put(b"key", 5), "{bytes} {load_factor}");
        let fits = (0..=255_u8).take_while(|n| map.put(&[*n], 0)).count();
        assert!(fits < 50, "the map is never full");
        assert_eq!(map.get(b"key"), Some(5));
        assert_eq!(map.get(b"other"), None);
    }
}

#[test]
fn place_of_a_key_depends_on_the_hash_key() {
    let full_with = |hash_key| {
        let mut map = OffsetMap::new(1 << 20, 0.9, hash_key);
        for n in 0..1000_u32 {
            map.put(&n.to_be_bytes(), n.into());
        }
        format!("{map:?}").split("hasher").next().map(str::to_owned)
    };
    assert_eq!(full_with([1; 16]), full_with([1; 16]));
    assert_ne!(full_with([1; 16]), full_with([2; 16]));
}
