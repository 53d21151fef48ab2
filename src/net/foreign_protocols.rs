//! Logs connections whose first bytes are not Kafka's protocol, with the protocol that they look
//! like. Each address is logged at most once per minute.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tracing::warn;

use super::connection::Closed;
use crate::protocol::frame::DecodeError;

/// The time in which an address is logged at most once.
const SILENT: Duration = Duration::from_secs(60);
/// The most addresses that are remembered. If all of them are recent, other addresses are not
/// logged.
const ADDRESSES_MAX: usize = 1_024;
/// The first four bytes of HTTP requests; `PRI ` begins HTTP/2.
const HTTP: [&[u8; 4]; 10] =
    [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"PRI "];

/// The time when each address was last logged, for one listener. The lock is held for a look-up.
#[derive(Default)]
pub struct ForeignProtocols(Mutex<HashMap<IpAddr, Instant>>);

impl ForeignProtocols {
    /// Logs a connection if it was closed because of an invalid frame size.
    pub fn note(&self, listener: &str, address: IpAddr, closed: &Closed) {
        let Closed::Frame(error) = closed else { return };
        let size = match error {
            DecodeError::NegativeFrame(size) | DecodeError::FrameTooLarge { size, .. } => *size,
            _ => return,
        };
        if self.may_log(address, Instant::now()) {
            let looks_like = looks_like(size.to_be_bytes());
            warn!(looks_like, %address, listener, %error, "connection closed: not Kafka's protocol");
        }
    }

    fn may_log(&self, address: IpAddr, now: Instant) -> bool {
        let mut logged = self.0.lock();
        let is_recent = |at: &Instant| now.duration_since(*at) < SILENT;
        if logged.get(&address).is_some_and(is_recent) {
            return false;
        }
        if logged.len() >= ADDRESSES_MAX {
            logged.retain(|_, at| is_recent(at));
        }
        let has_room = logged.len() < ADDRESSES_MAX;
        if has_room {
            logged.insert(address, now);
        }
        has_room
    }
}

/// The protocol that these first bytes look like. A TLS record begins with its type, which is
/// handshake or alert, and the major version 3.
fn looks_like(bytes: [u8; 4]) -> &'static str {
    match bytes {
        [0x15 | 0x16, 3, ..] => "tls",
        _ if HTTP.contains(&&bytes) => "http",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, expected) in [
            (*b"GET ", "http"),
            (*b"PRI ", "http"),
            ([0x16, 3, 1, 2], "tls"),
            ([0x15, 3, 3, 0], "tls"),
            (*b"SSH-", "unknown"),
            ([0xff; 4], "unknown"),
        ] {
            assert_eq!(looks_like(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_address_is_logged_once_a_minute_and_few_are_remembered() {
        let (noted, begin) = (ForeignProtocols::default(), Instant::now());
        let address = |n: u32| IpAddr::V4(n.into());
        assert!(noted.may_log(address(0), begin));
        assert!(!noted.may_log(address(0), begin + Duration::from_secs(59)));
        assert!(noted.may_log(address(0), begin + SILENT));
        let logged = (0..5_000).filter(|n| noted.may_log(address(*n), begin + SILENT)).count();
        assert_eq!(logged, ADDRESSES_MAX - 1);
        assert_eq!(noted.0.lock().len(), ADDRESSES_MAX);
        assert!(noted.may_log(address(9_999), begin + 2 * SILENT), "the old ones make room");
    }
}
