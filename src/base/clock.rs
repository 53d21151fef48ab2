//! The wall clock.

pub use super::world::now_ms;
