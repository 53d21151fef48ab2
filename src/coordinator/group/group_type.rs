//! Types of groups whose protocols are not served.

/// The type of a group whose protocol is not served (Kafka's `Group.GroupType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupType {
    Share,
    Streams,
}

impl GroupType {
    /// The type of the group that a record belongs to; `None` if it belongs to a group of another
    /// type or is unknown. `key_type` is the type of the record (Kafka's `CoordinatorRecordType`).
    pub fn of_record(key_type: i16) -> Option<Self> {
        match key_type {
            10..=15 => Some(Self::Share),
            17..=23 => Some(Self::Streams),
            _ => None,
        }
    }

    /// The name of the type in ListGroups, which is also its protocol type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Streams => "streams",
        }
    }
}
