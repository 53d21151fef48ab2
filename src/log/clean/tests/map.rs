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
    let mut map = OffsetMap::new(u64::MAX, bytes, 0.9, [1; 16]);
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
    let mut map = OffsetMap::new(u64::MAX, 24 * 100, 0.5, [1; 16]);
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
fn all_expected_keys_fit_if_memory_allows_it() {
    for (keys, load_factor) in [(1_u32, 0.9), (2, 0.1), (1000, 0.9), (1000, 1.0), (5000, 0.33)] {
        let mut map = OffsetMap::new(keys.into(), 1 << 20, load_factor, [9; 16]);
        for n in 0..keys {
            assert!(map.put(&n.to_be_bytes(), 0), "key {n} of {keys}, {load_factor}");
        }
        // The map is not much larger than necessary.
        let more = (keys..keys + 10).filter(|n| map.put(&n.to_be_bytes(), 0)).count();
        assert!(more < 3, "{more} more than {keys}");
    }
}

#[test]
fn map_holds_a_key_with_any_limits() {
    for (keys, bytes, load_factor) in
        [(0, 0, 0.9), (0, 1 << 20, 0.9), (5, 24, 0.0), (5, 1 << 10, 7.0), (5, 100, f64::MIN)]
    {
        let mut map = OffsetMap::new(keys, bytes, load_factor, [0; 16]);
        assert!(map.put(b"key", 5), "{keys} {bytes} {load_factor}");
        let fits = (0..=255_u8).take_while(|n| map.put(&[*n], 0)).count();
        assert!(fits < 50, "the map is never full");
        assert_eq!(map.get(b"key"), Some(5));
        assert_eq!(map.get(b"other"), None);
    }
}

#[test]
fn place_of_a_key_depends_on_the_hash_key() {
    let full_with = |hash_key| {
        let mut map = OffsetMap::new(1000, 1 << 20, 0.9, hash_key);
        for n in 0..1000_u32 {
            map.put(&n.to_be_bytes(), n.into());
        }
        format!("{map:?}").split("hasher").next().map(str::to_owned)
    };
    assert_eq!(full_with([1; 16]), full_with([1; 16]));
    assert_ne!(full_with([1; 16]), full_with([2; 16]));
}
