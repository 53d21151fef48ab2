//! Metrics of each API: requests, bytes, latencies and errors.

use super::{Counter, Histogram, Registry, Scrape};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use std::sync::OnceLock;
use std::time::Duration;

/// Size of the table by API key, with room for keys of later Kafka versions.
const KEYS: usize = 128;
/// Error codes start at -1 (UNKNOWN_SERVER_ERROR); there are about 140.
const CODES: usize = 160;

/// Handles by API key. An unused entry takes two words.
pub(super) struct ApiTable {
    known: Box<[OnceLock<Box<ApiMetrics>>]>,
    unknown: OnceLock<Box<ApiMetrics>>,
}

/// The handles of one API.
pub struct ApiMetrics {
    name: &'static str,
    pub requests: Counter,
    /// Bytes of requests, without the four bytes of the frame's length.
    pub request_bytes: Counter,
    /// Bytes of responses, without the four bytes of the frame's length.
    pub response_bytes: Counter,
    /// Time from reading the request's last byte until the response is ready.
    pub seconds: Histogram,
    /// Counts by error code plus one; empty before the first error of the API.
    errors: OnceLock<Box<[super::Count]>>,
}

impl ApiTable {
    pub(super) fn new() -> Self {
        Self { known: (0..KEYS).map(|_| OnceLock::new()).collect(), unknown: OnceLock::new() }
    }

    pub(super) fn get(&self, api_key: i16, registry: &Registry) -> &ApiMetrics {
        let slot = usize::try_from(api_key).ok().and_then(|key| self.known.get(key));
        // Clients choose the key. Keys that Kafka does not have must not create series.
        let slot = slot.filter(|slot| slot.get().is_some() || name(api_key).is_some());
        slot.unwrap_or(&self.unknown)
            .get_or_init(|| Box::new(ApiMetrics::new(name(api_key).unwrap_or("Unknown"), registry)))
    }

    pub(super) fn collect(&self, scrape: &mut Scrape) {
        let apis = self.known.iter().chain([&self.unknown]);
        for api in apis.filter_map(OnceLock::get) {
            let labels = [("api", api.name)];
            let help = "Time to answer a request";
            scrape.histogram("kafka_server_request_seconds", help, &labels, &api.seconds);
            api.collect_errors(scrape);
        }
    }
}

impl ApiMetrics {
    fn new(name: &'static str, registry: &Registry) -> Self {
        let counter = |family, help| registry.counter(family, help, &[("api", name)]);
        Self {
            name,
            requests: counter("kafka_server_requests_total", "Requests"),
            request_bytes: counter("kafka_server_request_bytes_total", "Bytes of requests"),
            response_bytes: counter("kafka_server_response_bytes_total", "Bytes of responses"),
            seconds: Histogram::default(),
            errors: OnceLock::new(),
        }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, request_bytes: usize, response_bytes: usize, took: Duration) {
        self.requests.increment(1);
        self.request_bytes.increment(request_bytes as u64);
        self.response_bytes.increment(response_bytes as u64);
        self.seconds.observe(took);
    }

    /// Counts an error code in a response. 0 (NONE) does not count.
    pub fn error(&self, code: i16) {
        if code == 0 {
            return;
        }
        let errors = self.errors.get_or_init(|| (0..CODES).map(|_| Default::default()).collect());
        // A code that Kafka does not have counts as UNKNOWN_SERVER_ERROR.
        let at = usize::try_from(i32::from(code) + 1).ok().filter(|at| *at < CODES);
        errors[at.unwrap_or(0)].increment(1);
    }

    fn collect_errors(&self, scrape: &mut Scrape) {
        let errors = self.errors.get().into_iter().flatten().enumerate();
        for (at, count) in errors.filter(|(_, count)| count.get() > 0) {
            let error = error_name(at as i16 - 1);
            let labels = [("api", self.name), ("error", &error)];
            let (name, help) = ("kafka_server_request_errors_total", "Error codes in responses");
            scrape.counter(name, help, &labels, count.get() as f64);
        }
    }
}

/// Kafka's name of an API.
fn name(api_key: i16) -> Option<&'static str> {
    // The message crate lacks these two.
    match api_key {
        88 => return Some("StreamsGroupHeartbeat"),
        89 => return Some("StreamsGroupDescribe"),
        _ => {}
    }
    static NAMES: OnceLock<Box<[Option<Box<str>>]>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let name = |key| ApiKey::try_from(key).ok().map(|key| format!("{key:?}").into());
        (0..KEYS as i16).map(name).collect()
    });
    names.get(usize::try_from(api_key).ok()?)?.as_deref()
}

/// Kafka's name of an error code, such as `NOT_LEADER_OR_FOLLOWER`.
fn error_name(code: i16) -> String {
    let error = match ResponseError::try_from_code(code) {
        None | Some(ResponseError::Unknown(_)) => return code.to_string(),
        Some(error) => error,
    };
    let mut name = String::new();
    for character in format!("{error:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(name(0), Some("Produce"));
        assert_eq!(name(68), Some("ConsumerGroupHeartbeat"));
        assert_eq!(name(88), Some("StreamsGroupHeartbeat"));
        assert_eq!((name(-1), name(120), name(i16::MAX)), (None, None, None));
        assert_eq!(error_name(6), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(error_name(-1), "UNKNOWN_SERVER_ERROR");
        assert_eq!(error_name(150), "150");
    }
}
