//! Groups neighbouring segments that compaction rewrites into one segment
//! (Kafka's `Cleaner.groupSegmentsBySize`).

/// The numbers of a segment that decide on its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSizes {
    pub base_offset: i64,
    /// Bytes of the `.log` file.
    pub log: u64,
    pub offset_index: u64,
    pub time_index: u64,
}

/// The largest sizes of the segments in a group together.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.index.bytes`.
    pub index_bytes: u64,
}

/// Returns the numbers of segments in the groups, in order. A segment that exceeds a limit is a
/// group of its own. `range_end` is the offset after the last segment.
pub fn group(segments: &[SegmentSizes], limits: GroupLimits, range_end: i64) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some((first, others)) = rest.split_first() {
        let (mut log, mut offsets, mut times) = (first.log, first.offset_index, first.time_index);
        let mut count = 1;
        for (index, next) in others.iter().enumerate() {
            log += next.log;
            offsets += next.offset_index;
            times += next.time_index;
            // The base offset of the segment after it bounds the last offset.
            let end = others.get(index + 1).map_or(range_end, |after| after.base_offset);
            let offsets_fit = next.log == 0 || end - 1 - first.base_offset <= i64::from(i32::MAX);
            let fits = log <= limits.segment_bytes
                && offsets <= limits.index_bytes
                && times <= limits.index_bytes;
            if !fits || !offsets_fit {
                break;
            }
            count += 1;
        }
        groups.push(count);
        rest = &rest[count..];
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(base_offset: i64, log: u64) -> SegmentSizes {
        SegmentSizes { base_offset, log, offset_index: log / 10, time_index: log / 10 }
    }

    const LIMITS: GroupLimits = GroupLimits { segment_bytes: 100, index_bytes: 100 };

    #[test]
    fn groups_fit_the_segment_size() {
        let segments: Vec<_> =
            [40, 60, 1, 99, 200, 50].iter().zip(0..).map(|(log, base)| sizes(base, *log)).collect();
        assert_eq!(group(&segments, LIMITS, 6), [2, 2, 1, 1]);
        assert_eq!(group(&segments, GroupLimits { index_bytes: 5, ..LIMITS }, 6), [1; 6]);
        assert_eq!(group(&[], LIMITS, 0), [0; 0]);
    }

    /// Offsets in an index are relative and have 32 bits.
    #[test]
    fn offsets_of_a_group_fit_its_base_offset() {
        let far = i64::from(i32::MAX);
        let two = [sizes(0, 1), sizes(10, 1)];
        assert_eq!(group(&two, LIMITS, far + 1), [2]);
        assert_eq!(group(&two, LIMITS, far + 2), [1, 1]);
        assert_eq!(group(&[sizes(0, 1), sizes(10, 1), sizes(far + 2, 1)], LIMITS, far + 3), [1, 2]);
        // An empty segment has no offset.
        assert_eq!(group(&[sizes(0, 1), sizes(10, 0)], LIMITS, far + 2), [2]);
    }

    proptest! {
        #[test]
        fn groups_are_complete_and_within_limits(logs in prop::collection::vec(0..150u64, 0..30)) {
            let segments: Vec<_> = logs.iter().zip(0..).map(|(log, at)| sizes(at, *log)).collect();
            let groups = group(&segments, LIMITS, logs.len() as i64);
            prop_assert_eq!(groups.iter().sum::<usize>(), logs.len());
            let mut rest = &logs[..];
            for count in groups {
                let (group, later) = rest.split_at(count);
                let size: u64 = group.iter().sum();
                prop_assert!(count == 1 || size <= LIMITS.segment_bytes);
                if let Some(next) = later.first() {
                    prop_assert!(size + next > LIMITS.segment_bytes, "the next one fits, too");
                }
                rest = later;
            }
        }
    }
}
