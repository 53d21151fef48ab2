//! Addresses of brokers on a listener, for responses.

use std::collections::BTreeMap;

use crate::metadata::{BrokerImage, Image, records::BrokerEndpoint};

/// The endpoint of a broker on a listener.
pub fn endpoint<'a>(broker: &'a BrokerImage, listener: &str) -> Option<&'a BrokerEndpoint> {
    broker.end_points.iter().find(|endpoint| endpoint.name == listener)
}

/// The endpoint of a broker on a listener. `None` if the broker is fenced or not registered, or
/// does not have the listener.
pub fn alive<'a>(image: &'a Image, id: i32, listener: &str) -> Option<&'a BrokerEndpoint> {
    image.broker(id).filter(|broker| !broker.fenced).and_then(|it| endpoint(it, listener))
}

/// The address of a broker on one listener, with its rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

/// Adds the address of a broker to `nodes`, unless the broker is fenced or lacks the listener.
pub fn add_endpoint(image: &Image, id: i32, listener: &str, nodes: &mut BTreeMap<i32, Node>) {
    if let Some(endpoint) = alive(image, id, listener) {
        let rack = image.broker(id).and_then(|broker| broker.rack.clone());
        let node = Node { host: endpoint.host.clone(), port: endpoint.port.into(), rack };
        nodes.insert(id, node);
    }
}
