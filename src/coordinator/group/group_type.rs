//! The protocols of groups besides the classic one.

/// The kind of a group that is not a classic one (`Group.GroupType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupType {
    Consumer,
    Share,
    Streams,
}

impl GroupType {
    /// The type of the group that a record belongs to, by the type of the record
    /// (`CoordinatorRecordType`).
    pub fn of_record(key_type: i16) -> Option<Self> {
        match key_type {
            3..=8 | 16 => Some(Self::Consumer),
            10..=15 => Some(Self::Share),
            17..=23 => Some(Self::Streams),
            _ => None,
        }
    }

    /// The name in ListGroups, which is the protocol type as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Share => "share",
            Self::Streams => "streams",
        }
    }
}
