//! `max.connections` and `max.connections.per.ip`: who may be connected, counted as it happens.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use crate::base::config::BrokerConfig;

/// How many connections there may be, in all and from one address.
#[derive(Debug, PartialEq, Eq)]
pub struct Limits {
    max: usize,
    max_per_ip: usize,
    overrides: HashMap<IpAddr, usize>,
}

/// A host of `max.connections.per.ip.overrides` that has no address.
#[derive(Debug, thiserror::Error)]
#[error("max.connections.per.ip.overrides: {host}: {source}")]
pub struct UnknownHost {
    host: String,
    source: io::Error,
}

impl Limits {
    /// What the configuration asks for, with the hosts' addresses of today. It may ask the name
    /// service, and so block.
    pub fn resolve(settings: &BrokerConfig) -> Result<Self, UnknownHost> {
        let count = |limit: i32| usize::try_from(limit).unwrap_or(0);
        let per_ip = &settings.max_connections_per_ip;
        let overrides = per_ip.overrides.iter().map(|(host, max)| {
            let ip = address(host).map_err(|source| UnknownHost { host: host.clone(), source })?;
            Ok((ip, count(*max)))
        });
        Ok(Self {
            max: count(settings.max_connections),
            max_per_ip: count(per_ip.max),
            overrides: overrides.collect::<Result<_, _>>()?,
        })
    }
}

/// A host's one address: as Java's `InetAddress.getByName`, of the fourth version if it has one.
fn address(host: &str) -> io::Result<IpAddr> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|it| it.ip()).collect();
    let chosen = found.iter().find(|ip| ip.is_ipv4()).or(found.first());
    chosen.map(IpAddr::to_canonical).ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub struct ConnectionLimits {
    limits: ArcSwap<Limits>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits: ArcSwap::from_pointee(limits), open: Mutex::default() })
    }

    /// Takes other limits for connections from now on; those that are open stay.
    pub fn set(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// A place for a connection, held until the guard is dropped; none if a limit is reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Admitted> {
        let ip = ip.to_canonical();
        let limits = self.limits.load();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = limits.overrides.get(&ip).copied().unwrap_or(limits.max_per_ip);
        let from_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if open.total >= limits.max || from_ip >= limit {
            return None;
        }
        open.total += 1;
        open.by_ip.insert(ip, from_ip + 1);
        Some(Admitted { limits: Arc::clone(self), ip })
    }

    pub fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

pub struct Admitted {
    limits: Arc<ConnectionLimits>,
    ip: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::{Config, Properties};

    const A: [u8; 4] = [127, 0, 0, 1];
    const B: [u8; 4] = [127, 0, 0, 2];

    fn limits(max: usize, max_per_ip: usize, of_b: usize) -> Limits {
        Limits { max, max_per_ip, overrides: HashMap::from([(IpAddr::from(B), of_b)]) }
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let (a, b) = (IpAddr::from(A), IpAddr::from(B));
        let limits = ConnectionLimits::new(limits(3, 2, 1));
        let first = limits.admit(a).expect("place");
        let _second = limits.admit("::ffff:127.0.0.1".parse().expect("address")).expect("place");
        assert!(limits.admit(a).is_none(), "two per ip, however it is written");
        let _third = limits.admit(b).expect("place");
        assert!(limits.admit(b).is_none(), "one by override");
        assert!(limits.admit(IpAddr::from([127, 0, 0, 3])).is_none(), "three in all");
        drop(first);
        assert!(limits.admit(a).is_some());
    }

    #[test]
    fn limits_change_while_connections_are_open() {
        let (a, b) = (IpAddr::from(A), IpAddr::from(B));
        let admitted = ConnectionLimits::new(limits(1, 1, 1));
        let _first = admitted.admit(a).expect("place");
        assert!(admitted.admit(b).is_none());
        admitted.set(limits(3, 1, 2));
        let (_second, _third) = (admitted.admit(b).expect("place"), admitted.admit(b));
        assert!(_third.is_some() && admitted.admit(a).is_none());
        admitted.set(limits(0, 1, 1));
        assert_eq!(admitted.open(), 3, "who is connected stays");
    }

    fn resolved(overrides: &str) -> Result<Limits, UnknownHost> {
        let pairs = [
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("controller.listener.names", "CONTROLLER"),
            ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0"),
            ("max.connections", "9"),
            ("max.connections.per.ip.overrides", overrides),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::new(Properties::from(pairs), "here").expect("valid");
        Limits::resolve(&config.broker)
    }

    #[test]
    fn hosts_of_overrides_have_addresses() {
        let limits = resolved("localhost:5, [::1]:6,127.0.0.9:7").expect("known");
        assert_eq!((limits.max, limits.max_per_ip), (9, i32::MAX as usize));
        let of = |ip: &str| limits.overrides.get(&ip.parse::<IpAddr>().expect("address")).copied();
        assert_eq!([of("127.0.0.1"), of("::1"), of("127.0.0.9")], [Some(5), Some(6), Some(7)]);
        // No label of a name is as long: no server is asked.
        let host = "x".repeat(70);
        let error = resolved(&format!("localhost:5,{host}:1")).expect_err("unknown");
        assert!(error.to_string().contains(&host), "{error}");
    }
}
