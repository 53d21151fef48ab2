//! The state that the log determines: the last record of each transactional id.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    records::{Record, Unreadable},
    state::Transaction,
};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoggedState {
    pub transactions: BTreeMap<Arc<str>, Transaction>,
    /// The number of records that could not be read, and the reason for the first.
    pub unreadable: Option<(usize, Unreadable)>,
}

impl LoggedState {
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::State { id, value, version } => {
                self.transactions.insert(id.clone(), value.as_logged(*version));
            }
            Record::Expired { id } => {
                self.transactions.remove(id);
            }
            Record::Unreadable { reason, .. } => {
                self.unreadable.get_or_insert((0, *reason)).0 += 1;
            }
        }
    }
}
