//! `max.connections` and `max.connections.per.ip`: who may be connected, counted as it happens.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

pub struct ConnectionLimits {
    max: usize,
    max_per_ip: usize,
    overrides: HashMap<IpAddr, usize>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    pub fn new(max: usize, max_per_ip: usize, overrides: HashMap<IpAddr, usize>) -> Arc<Self> {
        Arc::new(Self { max, max_per_ip, overrides, open: Mutex::default() })
    }

    /// A place for a connection, held until the guard is dropped; none if a limit is reached.
    pub fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Admitted> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.overrides.get(&ip).copied().unwrap_or(self.max_per_ip);
        let from_ip = open.by_ip.get(&ip).copied().unwrap_or(0);
        if open.total >= self.max || from_ip >= limit {
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

    #[test]
    fn places_are_limited_and_given_back() {
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let limits = ConnectionLimits::new(3, 2, HashMap::from([(b, 1)]));
        let first = limits.admit(a).expect("place");
        let _second = limits.admit(a).expect("place");
        assert!(limits.admit(a).is_none(), "two per ip");
        let _third = limits.admit(b).expect("place");
        assert!(limits.admit(b).is_none(), "one by override");
        assert!(limits.admit(IpAddr::from([127, 0, 0, 3])).is_none(), "three in all");
        drop(first);
        assert!(limits.admit(a).is_some());
    }
}
