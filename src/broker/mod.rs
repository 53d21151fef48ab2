//! Composition: one broker out of the layers below. Handlers reach everything through it.

pub mod sessions;

use std::sync::Arc;

/// All handles, no state of its own.
pub struct Broker {
    pub cluster_id: Arc<str>,
}
