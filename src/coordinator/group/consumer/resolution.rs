//! The resolution of regular expressions to topics, which is work beside the shard.

use std::{collections::BTreeSet, sync::Arc};

use super::{messages::TopicsSnapshot, records::ResolvedRegex};
use crate::base::re2::Pattern;

/// Work that a shard requests: to find the topics that regular expressions match.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolveRegexes {
    pub group: Arc<str>,
    pub regexes: Vec<Arc<str>>,
    pub topics: Arc<TopicsSnapshot>,
    /// The version of the cluster info with these topics.
    pub version: u64,
    /// When the shard decided on it, in milliseconds.
    pub decided_ms: i64,
}

/// The outcome of [`ResolveRegexes`].
#[derive(Debug, Clone, PartialEq)]
pub struct RegexesResolved {
    pub group: Arc<str>,
    pub version: u64,
    /// The regular expressions with their topics; `None` if the work failed.
    pub resolved: Option<Vec<(Arc<str>, ResolvedRegex)>>,
}

impl ResolveRegexes {
    /// Matches all names of topics, which takes time in proportion to their number.
    pub fn run(&self) -> RegexesResolved {
        let resolve = |regex: &Arc<str>| {
            let topics = match Pattern::new(regex) {
                Ok(pattern) => {
                    let names = self.topics.topics.keys();
                    names.filter(|name| pattern.matches(name)).cloned().collect()
                }
                Err(error) => {
                    // The coordinator refuses it in heartbeats, but a log can have it.
                    tracing::error!(group = &*self.group, %error, "invalid regular expression");
                    BTreeSet::new()
                }
            };
            let (version, timestamp_ms) = (self.version as i64, self.decided_ms);
            (regex.clone(), ResolvedRegex { topics, version, timestamp_ms })
        };
        let resolved = Some(self.regexes.iter().map(resolve).collect());
        RegexesResolved { resolved, ..self.failed() }
    }

    /// The outcome if the work cannot be done.
    pub fn failed(&self) -> RegexesResolved {
        RegexesResolved { group: self.group.clone(), version: self.version, resolved: None }
    }
}
