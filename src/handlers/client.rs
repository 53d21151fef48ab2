//! [`Client`]: who sent a request.

use std::net::SocketAddr;

use crate::protocol::Principal;

/// The client that sent a request. If a broker forwarded the request in an Envelope, it is the
/// client of that broker.
#[derive(Clone, Debug)]
pub struct Client {
    /// The port is 0 in forwarded requests.
    pub address: SocketAddr,
    pub principal: Principal,
}

impl Client {
    /// A client of a listener without authentication.
    pub fn anonymous(address: SocketAddr) -> Self {
        Self { address, principal: Principal::anonymous() }
    }

    /// This node itself, for requests that it sends on its own behalf.
    pub fn this_node() -> Self {
        Self::anonymous(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}
