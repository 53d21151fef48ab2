//! Listeners: the addresses at which a node listens, and the ones that it advertises to clients.

use std::collections::BTreeMap;

use super::{ConfigError, parse::host_and_port, values::Values};

/// How a listener's connections are secured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SecurityProtocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl SecurityProtocol {
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "PLAINTEXT" => Some(Self::Plaintext),
            "SSL" => Some(Self::Ssl),
            "SASL_PLAINTEXT" => Some(Self::SaslPlaintext),
            "SASL_SSL" => Some(Self::SaslSsl),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// The id in metadata records.
    pub fn id(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }
}

/// An entry of `listeners` or `advertised.listeners`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// In capitals, as in metadata.
    pub name: String,
    pub protocol: SecurityProtocol,
    /// In `listeners`, an empty host stands for all addresses of this machine.
    pub host: String,
    /// In `listeners`, 0 stands for any free port.
    pub port: u16,
}

/// All listeners of a node. Those of controllers are apart from those for clients and brokers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Listeners {
    pub broker: Vec<Listener>,
    pub controller: Vec<Listener>,
    pub advertised: Vec<Listener>,
    pub advertised_controller: Vec<Listener>,
    pub inter_broker: String,
}

impl Listeners {
    /// Reads and checks the listeners (`AbstractKafkaConfig` of Kafka). An advertised listener
    /// without a host gets `host_name`.
    pub fn from_values(values: &Values, host_name: &str) -> Result<Self, ConfigError> {
        let controller_names: Vec<String> = names(values.list("controller.listener.names"));
        let protocols = protocols(values, &controller_names)?;
        let parse = |entries: &[String]| -> Result<Vec<Listener>, ConfigError> {
            let listeners: Result<Vec<_>, _> =
                entries.iter().map(|entry| listener(entry, entries, &protocols)).collect();
            let listeners = listeners?;
            unique_names(entries, &listeners)?;
            Ok(listeners)
        };
        let entries = values.list("listeners").unwrap_or_default();
        let all = parse(entries)?;
        unique_ports(entries, &all)?;
        let is_controllers = |listener: &Listener| controller_names.contains(&listener.name);
        let (controller, broker): (Vec<_>, Vec<_>) = all.into_iter().partition(is_controllers);
        let roles = values.list("process.roles").unwrap_or_default();
        let is_broker = roles.iter().any(|role| role == "broker");
        if broker.is_empty() && is_broker {
            return Err(ConfigError::config(
                "listeners must contain at least one listener that is not one of \
                 controller.listener.names, for this node is a broker",
            ));
        }
        if !broker.is_empty() && !is_broker {
            return Err(ConfigError::requirement(
                "The listeners config must only contain KRaft controller listeners from \
                 controller.listener.names when process.roles=controller",
            ));
        }
        let advertised = match values.list("advertised.listeners") {
            Some(entries) => parse(entries)?,
            None => broker.clone(),
        };
        let (mut advertised_controller, mut advertised): (Vec<_>, Vec<_>) =
            advertised.into_iter().partition(is_controllers);
        for listener in &controller {
            if !advertised_controller.iter().any(|told| told.name == listener.name) {
                advertised_controller.push(listener.clone());
            }
        }
        for listener in advertised.iter_mut().chain(&mut advertised_controller) {
            if listener.host.is_empty() {
                host_name.clone_into(&mut listener.host);
            }
        }
        let inter_broker = inter_broker(values, &protocols, &broker)?;
        let listeners =
            Self { broker, controller, advertised, advertised_controller, inter_broker };
        listeners.check()?;
        Ok(listeners)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Some(meta) = self.advertised.iter().find(|listener| listener.host == "0.0.0.0") {
            return Err(ConfigError::requirement(format!(
                "advertised.listeners cannot use the nonroutable meta-address {}. Use a routable \
                 IP address.",
                meta.host
            )));
        }
        let is_open = |name: &str| self.broker.iter().any(|listener| listener.name == name);
        if self.advertised.iter().any(|listener| !is_open(&listener.name)) {
            let open: Vec<&str> = self.broker.iter().map(|l| l.name.as_str()).collect();
            return Err(ConfigError::requirement(format!(
                "advertised.listeners listener names must be equal to or a subset of the ones \
                 defined in listeners. The valid options based on the current configuration are {}",
                open.join(",")
            )));
        }
        let is_broker = !self.broker.is_empty();
        if is_broker && !self.advertised.iter().any(|it| it.name == self.inter_broker) {
            let advertised: Vec<&str> = self.advertised.iter().map(|l| l.name.as_str()).collect();
            return Err(ConfigError::requirement(format!(
                "inter.broker.listener.name must be a listener name defined in \
                 advertised.listeners. The valid options based on currently configured listeners \
                 are {}",
                advertised.join(",")
            )));
        }
        Ok(())
    }
}

fn names(entries: Option<&[String]>) -> Vec<String> {
    entries.unwrap_or_default().iter().map(|name| name.to_ascii_uppercase()).collect()
}

type Protocols = BTreeMap<String, SecurityProtocol>;

/// Reads `listener.security.protocol.map`. If it is not set, controller listeners are PLAINTEXT.
fn protocols(values: &Values, controller_names: &[String]) -> Result<Protocols, ConfigError> {
    const NAME: &str = "listener.security.protocol.map";
    let text = values.text(NAME).unwrap_or_default();
    let mut protocols = Protocols::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let Some((name, protocol)) = entry.rsplit_once(':') else {
            return Err(ConfigError::config(format!(
                "Error parsing configuration property '{NAME}': {entry} is not name:protocol"
            )));
        };
        let Some(parsed) = SecurityProtocol::parse(protocol.trim()) else {
            return Err(ConfigError::config(format!(
                "Invalid security protocol `{}` defined in {NAME}",
                protocol.trim()
            )));
        };
        protocols.insert(name.trim().to_ascii_uppercase(), parsed);
    }
    let is_default = super::keys::broker()[NAME].default_text() == Some(text);
    if is_default {
        for name in controller_names {
            protocols.entry(name.clone()).or_insert(SecurityProtocol::Plaintext);
        }
    }
    Ok(protocols)
}

fn bracketed(entries: &[String]) -> String {
    format!("[{}]", entries.join(", "))
}

fn refused(entries: &[String], why: &str) -> ConfigError {
    let entries = bracketed(entries);
    ConfigError::config(format!("Error creating broker listeners from '{entries}': {why}"))
}

fn listener(
    entry: &str,
    entries: &[String],
    protocols: &Protocols,
) -> Result<Listener, ConfigError> {
    let Some((name, address)) = entry.split_once("://") else {
        let message = format!("Unable to parse a listener name from {entry}");
        return Err(ConfigError::config(message));
    };
    let name = name.to_ascii_uppercase();
    let Some(protocol) = protocols.get(&name).copied() else {
        let why = format!("No security protocol defined for listener {name}");
        return Err(refused(entries, &why));
    };
    let parsed = match address.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| ("", port)),
        None => host_and_port(address),
    };
    let Some((host, port)) = parsed else {
        let why = format!("Unable to parse {entry} to a broker endpoint");
        return Err(refused(entries, &why));
    };
    Ok(Listener { protocol, host: host.to_owned(), port, name })
}

fn unique_names(entries: &[String], listeners: &[Listener]) -> Result<(), ConfigError> {
    let is_repeated = |(i, listener): (usize, &Listener)| {
        listeners[..i].iter().any(|earlier| earlier.name == listener.name)
    };
    match listeners.iter().enumerate().any(is_repeated) {
        false => Ok(()),
        true => {
            let listed = bracketed(entries);
            let why = format!("Each listener must have a different name, listeners: {listed}");
            Err(refused(entries, &why))
        }
    }
}

/// Checks that no two listeners have the same port. One for IPv4 and one for IPv6 may share a port.
fn unique_ports(entries: &[String], listeners: &[Listener]) -> Result<(), ConfigError> {
    let is_ip = |host: &str| host.parse::<std::net::IpAddr>().ok().map(|ip| ip.is_ipv6());
    let clash = |a: &Listener, b: &Listener| {
        let families = (is_ip(&a.host), is_ip(&b.host));
        let are_both_families = matches!(families, (Some(x), Some(y)) if x != y);
        a.port != 0 && a.port == b.port && !are_both_families
    };
    let is_taken = |(i, listener): (usize, &Listener)| {
        listeners[..i].iter().any(|earlier| clash(earlier, listener))
    };
    match listeners.iter().enumerate().any(is_taken) {
        false => Ok(()),
        true => {
            let listed = bracketed(entries);
            let why = format!("Each listener must have a different port, listeners: {listed}");
            Err(refused(entries, &why))
        }
    }
}

/// The name of the listener that brokers use among themselves.
fn inter_broker(
    values: &Values,
    protocols: &Protocols,
    broker: &[Listener],
) -> Result<String, ConfigError> {
    let Some(name) = values.text("inter.broker.listener.name") else {
        let protocol = values.text("security.inter.broker.protocol").unwrap_or("PLAINTEXT");
        // Kafka requires a listener with this protocol. Sordini takes the first listener if there
        // is none.
        let named = broker.iter().find(|listener| listener.name == protocol);
        return Ok(named.or(broker.first()).map_or(protocol, |l| &l.name).to_owned());
    };
    let name = name.to_ascii_uppercase();
    match protocols.contains_key(&name) {
        true => Ok(name),
        false => Err(ConfigError::config(format!(
            "Listener with name {name} defined in inter.broker.listener.name not found in \
             listener.security.protocol.map."
        ))),
    }
}
