//! The values of keys that neither file, environment nor arguments set. A default that would
//! contradict a configured value is left out, or derived from that value.

use super::{Properties, host_and_port};

/// Defaults of a start without a properties file.
const WITHOUT_FILE: &[(&str, &str)] = &[("log.dirs", "./data")];

/// Further defaults of a start without a properties file and without other nodes.
const ALONE: &[(&str, &str)] = &[
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
];

/// Sets keys that Kafka requires, if they have one sensible value. Without a properties file, also
/// sets what a broker needs to be usable at once. `broker.id` is set too, as Kafka reports it.
pub(super) fn fill_in(properties: &mut Properties, has_file: bool) {
    let quorum = Quorum::of(properties);
    let set = |properties: &mut Properties, name: &str, value: &str| {
        properties.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    if let Some(id) = quorum.node_id(properties) {
        set(properties, "node.id", &id);
        properties.insert("broker.id".to_owned(), properties["node.id"].clone());
    }
    let is_voter = quorum.own(properties).is_some() || quorum.voters.is_empty();
    set(properties, "process.roles", if is_voter { "broker,controller" } else { "broker" });
    set(properties, "controller.listener.names", "CONTROLLER");
    if has_file {
        return;
    }
    set(properties, "listeners", &quorum.listeners(properties));
    if !properties.contains_key("log.dir") {
        WITHOUT_FILE.iter().for_each(|(name, value)| set(properties, name, value));
    }
    if quorum.is_alone && has_role(properties, "controller") {
        ALONE.iter().for_each(|(name, value)| set(properties, name, value));
    }
}

/// What the properties say about the quorum.
struct Quorum {
    /// Ids and addresses (host:port).
    voters: Vec<(String, String)>,
    is_alone: bool,
}

impl Quorum {
    fn of(properties: &Properties) -> Self {
        let voters = entries(properties, "controller.quorum.voters");
        let voters = voters.filter_map(|entry| entry.split_once('@'));
        let voters: Vec<_> =
            voters.map(|(id, address)| (id.to_owned(), address.to_owned())).collect();
        let servers = entries(properties, "controller.quorum.bootstrap.servers").count();
        Self { is_alone: voters.len() <= 1 && servers <= 1, voters }
    }

    /// The configured id, or the only possible one. `None` if the operator has to choose.
    fn node_id(&self, properties: &Properties) -> Option<String> {
        let broker_id = properties.get("broker.id").filter(|id| id.trim() != "-1");
        if let Some(id) = properties.get("node.id").or(broker_id) {
            return Some(id.clone());
        }
        let may_control =
            !properties.contains_key("process.roles") || has_role(properties, "controller");
        match self.voters.as_slice() {
            [] => Some("1".to_owned()),
            [(id, _)] if may_control => Some(id.clone()),
            _ => None,
        }
    }

    /// This node's address among the voters.
    fn own(&self, properties: &Properties) -> Option<&str> {
        let id = properties.get("node.id")?.trim();
        let own = self.voters.iter().find(|(voter, _)| voter == id);
        own.map(|(_, address)| address.as_str())
    }

    /// The default of `listeners`. Clients are served on this machine only, unless
    /// `advertised.listeners` names other hosts. Controllers listen at their address in
    /// `controller.quorum.voters`.
    fn listeners(&self, properties: &Properties) -> String {
        let mut listeners = Vec::new();
        if has_role(properties, "broker") {
            let mut advertised = entries(properties, "advertised.listeners");
            let is_local = |entry: &str| {
                let address = entry.split_once("://").map_or(entry, |(_, address)| address);
                is_loopback(address)
            };
            let host = if advertised.all(is_local) { "127.0.0.1" } else { "" };
            listeners.push(format!("PLAINTEXT://{host}:9092"));
        }
        let own = self.own(properties);
        let is_reached = !has_role(properties, "broker") || self.voters.len() > 1;
        if has_role(properties, "controller") && is_reached {
            let name = entries(properties, "controller.listener.names").next().unwrap_or_default();
            let address = own.unwrap_or("127.0.0.1:9093");
            let (host, port) = host_and_port(address).unwrap_or(("", 9093));
            let host = if is_loopback(address) { host } else { "" };
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            listeners.push(format!("{name}://{host}:{port}"));
        }
        listeners.join(",")
    }
}

fn entries<'a>(properties: &'a Properties, name: &str) -> impl Iterator<Item = &'a str> {
    let list = properties.get(name).map(String::as_str).unwrap_or_default();
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn has_role(properties: &Properties, role: &str) -> bool {
    entries(properties, "process.roles").any(|it| it == role)
}

fn is_loopback(address: &str) -> bool {
    let Some((host, _)) = host_and_port(address) else { return false };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
