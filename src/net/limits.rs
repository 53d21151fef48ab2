//! `max.connections` and `max.connections.per.ip`: counts the open connections, and decides whether
//! a new one is admitted and which open one must close.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::base::config::BrokerConfig;

/// How many connections may be open, in total and from one address.
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
    /// The limits of the configuration. Resolves the hosts of the overrides to their current
    /// addresses, so it may block on the name service.
    ///
    /// # Errors
    /// A host has no address.
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

/// The address of a host. Like Java's `InetAddress.getByName`, prefers IPv4.
fn address(host: &str) -> io::Result<IpAddr> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|it| it.ip()).collect();
    let chosen = found.iter().find(|ip| ip.is_ipv4()).or(found.first());
    chosen.map(IpAddr::to_canonical).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The limits of this node and its open connections, on all listeners.
pub struct ConnectionLimits {
    limits: ArcSwap<Limits>,
    /// Held only to count, admit and choose connections. Never held across an await.
    open: Mutex<Open>,
    /// Wakes the connections that wait for a place, because one may be free.
    freed: Notify,
    /// The time that [`OpenConnection::last_used`] counts from.
    began: Instant,
}

/// The places of the open connections.
#[derive(Default)]
struct Open {
    next_id: u64,
    places: HashMap<u64, Arc<OpenConnection>>,
    by_ip: HashMap<IpAddr, usize>,
}

/// The place that one open connection takes.
struct OpenConnection {
    ip: IpAddr,
    is_protected: bool,
    /// Milliseconds since [`ConnectionLimits::began`].
    last_used: AtomicU64,
    /// Whether the connection was chosen to close, and has not closed yet.
    is_leaving: AtomicBool,
    /// Wakes the connection when it must close.
    leave: Notify,
}

/// Why a connection is not admitted.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// `max.connections` are open.
    Full,
    /// Its address has reached its own limit.
    FromAddress,
}

impl ConnectionLimits {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits: ArcSwap::from_pointee(limits),
            open: Mutex::default(),
            freed: Notify::new(),
            began: Instant::now(),
        })
    }

    /// Changes the limits. If too many connections are open then, the least recently used ones
    /// close.
    pub fn set(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
        self.end_excess(&self.lock());
        self.freed.notify_waiters();
    }

    /// Admits a new connection, which takes a place until the guard is dropped. `None` if its
    /// address has reached its limit. At `max.connections`, a new connection waits until an open
    /// one closes. A connection of a protected listener is admitted at once, and the least recently
    /// used connection of another listener must close.
    pub async fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        is_protected: bool,
    ) -> Option<ConnectionPermit> {
        loop {
            // Register before checking, so that a place that becomes free in between is noticed.
            let freed = self.freed.notified();
            match self.try_admit(ip, is_protected) {
                Ok(admitted) => return Some(admitted),
                Err(Refused::FromAddress) => return None,
                Err(Refused::Full) => freed.await,
            }
        }
    }

    fn try_admit(
        self: &Arc<Self>,
        ip: IpAddr,
        is_protected: bool,
    ) -> Result<ConnectionPermit, Refused> {
        let ip = ip.to_canonical();
        let limits = self.limits.load();
        let mut open = self.lock();
        if open.places.len() >= limits.max && !is_protected {
            return Err(Refused::Full);
        }
        let limit = limits.overrides.get(&ip).copied().unwrap_or(limits.max_per_ip);
        let from_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if from_ip >= limit {
            return Err(Refused::FromAddress);
        }
        open.by_ip.insert(ip, from_ip + 1);
        let place = Arc::new(OpenConnection {
            ip,
            is_protected,
            last_used: AtomicU64::new(self.began.elapsed().as_millis() as u64),
            is_leaving: AtomicBool::new(false),
            leave: Notify::new(),
        });
        let id = open.next_id;
        open.next_id += 1;
        open.places.insert(id, Arc::clone(&place));
        self.end_excess(&open);
        Ok(ConnectionPermit { limits: Arc::clone(self), id, place })
    }

    /// Makes the least recently used connections above `max.connections` close, but none of a
    /// protected listener.
    fn end_excess(&self, open: &Open) {
        let excess = open.places.len().saturating_sub(self.limits.load().max);
        if excess == 0 {
            return;
        }
        let mut all: Vec<_> = open.places.values().filter(|place| !place.is_protected).collect();
        let last_used = |place: &&Arc<OpenConnection>| place.last_used.load(Ordering::Relaxed);
        // Connections that are closing already come first, so that no others close instead.
        all.sort_by_key(|place| (!place.is_leaving.load(Ordering::Relaxed), last_used(place)));
        for place in all.into_iter().take(excess) {
            if !place.is_leaving.swap(true, Ordering::Relaxed) {
                place.leave.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.lock().places.len()
    }
}

/// The guard of a connection's place. Dropping it frees the place.
pub struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    id: u64,
    place: Arc<OpenConnection>,
}

impl ConnectionPermit {
    /// Records that the connection was used.
    pub fn used(&self, now: Instant) {
        let since = now.saturating_duration_since(self.limits.began);
        self.place.last_used.store(since.as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until the connection must close to make a place free.
    pub async fn told_to_leave(&self) {
        self.place.leave.notified().await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.lock();
        open.places.remove(&self.id);
        if let Entry::Occupied(mut count) = open.by_ip.entry(self.place.ip) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        drop(open);
        self.limits.freed.notify_waiters();
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
    fn connection_limits_are_enforced_and_released() {
        let (a, b) = (IpAddr::from(A), IpAddr::from(B));
        let limits = ConnectionLimits::new(limits(4, 2, 1));
        let admit = |ip: IpAddr| limits.try_admit(ip, false);
        let first = admit(a).expect("place");
        let _second = admit("::ffff:127.0.0.1".parse().expect("address")).expect("place");
        assert_eq!(admit(a).err(), Some(Refused::FromAddress), "two, however it is written");
        let _third = admit(b).expect("place");
        assert_eq!(admit(b).err(), Some(Refused::FromAddress), "one by override");
        let c = IpAddr::from([127, 0, 0, 3]);
        let _fourth = admit(c).expect("place");
        assert_eq!(admit(c).err(), Some(Refused::Full), "four in all");
        assert_eq!(admit(a).err(), Some(Refused::Full), "from any address");
        drop(first);
        assert!(admit(a).is_ok());
    }

    #[tokio::test]
    async fn new_connection_waits_at_max_connections() {
        let (a, b) = (IpAddr::from(A), IpAddr::from(B));
        let limits = ConnectionLimits::new(limits(1, 9, 9));
        let first = limits.admit(a, false).await.expect("place");
        let mut waiting = std::pin::pin!(limits.admit(b, false));
        let brief = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(brief, &mut waiting).await.is_err(), "it waits");
        drop(first);
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn protected_listener_closes_least_recently_used_connection() {
        let (a, b) = (IpAddr::from(A), IpAddr::from(B));
        let limits = ConnectionLimits::new(limits(2, 9, 9));
        let first = limits.admit(a, false).await.expect("place");
        let second = limits.admit(a, false).await.expect("place");
        let later = |ms| limits.began + std::time::Duration::from_millis(ms);
        first.used(later(2_000));
        second.used(later(1_000));
        let _third = limits.admit(b, true).await.expect("place");
        second.told_to_leave().await;
        assert!(!first.place.is_leaving.load(Ordering::Relaxed));
        let _fourth = limits.admit(b, true).await.expect("place");
        first.told_to_leave().await;
        let _fifth = limits.admit(b, true).await.expect("no unprotected one is left to close");
        drop((first, second));
        assert_eq!(limits.open(), 3);
    }

    #[test]
    fn limits_change_while_connections_are_open() {
        let (a, b) = (IpAddr::from(A), IpAddr::from(B));
        let admitted = ConnectionLimits::new(limits(1, 1, 1));
        let admit = |ip: IpAddr| admitted.try_admit(ip, false);
        let first = admit(a).expect("place");
        assert_eq!(admit(b).err(), Some(Refused::Full));
        admitted.set(limits(4, 1, 2));
        let (second, third) = (admit(b).expect("place"), admit(b).expect("place"));
        assert_eq!(admit(a).err(), Some(Refused::FromAddress));
        let is_leaving = |it: &ConnectionPermit| it.place.is_leaving.load(Ordering::Relaxed);
        admitted.set(limits(3, 1, 1));
        assert!(![&first, &second, &third].into_iter().any(is_leaving), "one address has too many");
        let seconds = std::time::Duration::from_secs;
        first.used(admitted.began + seconds(8));
        second.used(admitted.began + seconds(9));
        third.used(admitted.began + seconds(7));
        admitted.set(limits(2, 1, 1));
        assert_eq!([&first, &second, &third].map(is_leaving), [false, false, true]);
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
        // No label of a host name is so long, so no name server is queried.
        let host = "x".repeat(70);
        let error = resolved(&format!("localhost:5,{host}:1")).expect_err("unknown");
        assert!(error.to_string().contains(&host), "{error}");
    }
}
