//! [`Client`]: who sent a request, and what the authorizer allows it.

use std::{net::SocketAddr, sync::Arc};

use crate::protocol::{
    ErrorCode, Principal,
    checks::{CLUSTER_NAME, Check, ResourceType},
};

/// The client that sent a request. If a broker forwarded the request in an Envelope, it is the
/// client of that broker.
#[derive(Clone)]
pub struct Client {
    /// The port is 0 in forwarded requests.
    pub address: SocketAddr,
    pub principal: Principal,
    /// Decides what the client may do. Without an authorizer, everything is allowed.
    pub authorizer: Option<Arc<dyn Authorizer>>,
}

/// Decides which operations are allowed (`authorizer.class.name`). No implementation can be
/// configured yet.
pub trait Authorizer: Send + Sync {
    /// Whether the client may do the operation on the resource with this name. Handlers call it
    /// through [`Client::allowed`], once for each resource that Kafka checks.
    fn allows(&self, client: &Client, check: Check, name: &str) -> bool;

    /// Whether the client may do the operation on at least one resource of the type (Kafka's
    /// `authorizeByResourceType`).
    fn allows_on_any(&self, client: &Client, check: Check) -> bool;

    /// The operations that the client may do on the resource, as a set of bits. A bit's number is
    /// the code of the operation. Responses that contain authorized operations need it.
    fn operations(&self, client: &Client, resource: ResourceType, name: &str) -> i32;
}

impl Client {
    /// A client of a listener without authentication. Only this function chooses the authorizer:
    /// the context of every connection, and of the node's requests to itself, begins here. A
    /// client whose request arrives in an Envelope gets the authorizer of that connection.
    pub fn anonymous(address: SocketAddr) -> Self {
        Self { address, principal: Principal::anonymous(), authorizer: None }
    }

    /// This node itself, for requests that it sends on its own behalf.
    pub fn this_node() -> Self {
        Self::anonymous(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Whether the client may do the operation on the resource with this name. If not, the handler
    /// answers with the error code that Kafka answers, or leaves the resource out.
    pub fn allowed(&self, check: Check, name: &str) -> bool {
        self.authorizer.as_ref().is_none_or(|it| it.allows(self, check, name))
    }

    pub fn allowed_on_cluster(&self, check: Check) -> bool {
        self.allowed(check, CLUSTER_NAME)
    }

    /// As [`Self::allowed`], with Kafka's error code if the client may not.
    pub fn check(&self, check: Check, name: &str) -> Result<(), ErrorCode> {
        match self.allowed(check, name) {
            true => Ok(()),
            false => Err(check.resource.denial()),
        }
    }

    /// Whether the client may do the operation on at least one resource of the type.
    pub fn allowed_on_any(&self, check: Check) -> bool {
        self.authorizer.as_ref().is_none_or(|it| it.allows_on_any(self, check))
    }

    /// The operations that the client may do on the resource, as in [`Authorizer::operations`].
    pub fn operations(&self, resource: ResourceType, name: &str) -> i32 {
        match &self.authorizer {
            Some(authorizer) => authorizer.operations(self, resource, name),
            None => resource.operations().iter().fold(0, |set, it| set | 1 << *it as i32),
        }
    }
}
