//! Types of groups other than the classic one.

/// The type of a group that is not a classic one (Kafka's `Group.GroupType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupType {
    Consumer,
    Share,
    Streams,
}

impl GroupType {
    /// The type of the group that a record belongs to; `None` if it belongs to a classic group or
    /// is unknown. `key_type` is the type of the record (Kafka's `CoordinatorRecordType`).
    pub fn of_record(key_type: i16) -> Option<Self> {
        match key_type {
            3..=8 | 16 => Some(Self::Consumer),
            10..=15 => Some(Self::Share),
            17..=23 => Some(Self::Streams),
            _ => None,
        }
    }

    /// The name of the type in ListGroups, which is also its protocol type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Share => "share",
            Self::Streams => "streams",
        }
    }
}
