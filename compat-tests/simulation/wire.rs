//! The network between machines: links and connections. Packets may be delayed or lost. They keep
//! their order within one direction of a connection, but not between connections.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use parking_lot::{Mutex, MutexGuard};
use sordini::{peers::Address, protocol::frame::RAFT_KEY};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{chance::Chance, trace::Trace, trace::hash_of};

pub type MachineId = usize;
pub type ConnectionId = u64;

/// What a client's end of a connection receives.
pub enum Heard {
    Accepted,
    Refused,
    Frame(Bytes),
    Closed,
}

enum Packet {
    Open,
    Frame(Bytes),
    Accepted,
    Refused,
    Closed,
}

/// The direction of a packet: from the client to the server, or back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    There,
    Back,
}

struct Connection {
    client: MachineId,
    server: MachineId,
    port: u16,
    client_end: Option<UnboundedSender<Heard>>,
    server_end: Option<UnboundedSender<Bytes>>,
    there: VecDeque<Packet>,
    back: VecDeque<Packet>,
    last_due_us: [u64; 2],
    /// Whether packets of this connection are dropped without notice to either end.
    is_lost: bool,
}

/// A connection that a machine has accepted.
pub struct Accepted {
    pub id: ConnectionId,
    pub port: u16,
    pub peer: SocketAddr,
    pub frames: UnboundedReceiver<Bytes>,
}

/// How packets travel from one machine to another.
#[derive(Clone, Copy)]
pub struct Link {
    pub is_cut: bool,
    pub delay_us: (u64, u64),
    /// One packet in `breaks_one_in` breaks its connection. 0: none does.
    pub breaks_one_in: u64,
}

/// The least and most delay in a healthy network, in microseconds.
pub const DELAY_US: (u64, u64) = (100, 2_000);
/// The least and most time before a packet is tried again on a cut link, in microseconds.
const AGAIN_US: (u64, u64) = (20_000, 200_000);

impl Default for Link {
    fn default() -> Self {
        Self { is_cut: false, delay_us: DELAY_US, breaks_one_in: 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// The machine is off: packets get no answer, not even a refusal.
    Off,
    /// Connections are refused.
    NoProcess,
    Running,
}

/// The network: its links, its open connections, and the packets under way.
pub struct Wire {
    pub now_us: u64,
    pub chance: Chance,
    pub trace: Trace,
    pub power: Vec<Power>,
    /// Links by sender and receiver.
    pub links: Vec<Vec<Link>>,
    addresses: BTreeMap<(String, u16), MachineId>,
    connections: BTreeMap<ConnectionId, Connection>,
    next_id: u64,
    /// Packets under way by receiver: (time in microseconds, number) to (connection, direction).
    due: Vec<BTreeMap<(u64, u64), (ConnectionId, Way)>>,
}

/// The wire, shared by all machines. They run in turn on one thread, so the lock is never
/// contended.
#[derive(Clone)]
pub struct SharedWire(Arc<Mutex<Wire>>);

impl SharedWire {
    pub fn new(machines: usize, chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(Wire {
            now_us: 0,
            chance,
            trace: Trace::new(),
            power: vec![Power::NoProcess; machines],
            links: vec![vec![Link::default(); machines]; machines],
            addresses: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_id: 0,
            due: (0..machines).map(|_| BTreeMap::new()).collect(),
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock()
    }
}

impl Wire {
    pub fn name(&mut self, host: &str, port: u16, machine: MachineId) {
        self.addresses.insert((host.to_owned(), port), machine);
    }

    pub fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.tell(self.now_us, what);
    }

    /// Opens a connection. If no machine has the address, the receiver's channel is closed at once.
    pub fn open(
        &mut self,
        client: MachineId,
        to: &Address,
    ) -> (ConnectionId, UnboundedReceiver<Heard>) {
        let (sender, receiver) = unbounded_channel();
        let id = self.next_id;
        self.next_id += 1;
        if let Some(&server) = self.addresses.get(&(to.host.clone(), to.port)) {
            let connection = Connection {
                client,
                server,
                port: to.port,
                client_end: Some(sender),
                server_end: None,
                there: VecDeque::new(),
                back: VecDeque::new(),
                last_due_us: [0; 2],
                is_lost: false,
            };
            self.connections.insert(id, connection);
            self.send(id, Way::There, Packet::Open);
        }
        (id, receiver)
    }

    pub fn request(&mut self, id: ConnectionId, frame: Bytes) {
        self.send(id, Way::There, Packet::Frame(frame));
    }

    pub fn respond(&mut self, id: ConnectionId, frame: Bytes) {
        self.send(id, Way::Back, Packet::Frame(frame));
    }

    pub fn close_client(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.client_end = None;
            self.send(id, Way::There, Packet::Closed);
        }
    }

    pub fn close_server(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.server_end = None;
            self.send(id, Way::Back, Packet::Closed);
        }
    }

    fn send(&mut self, id: ConnectionId, way: Way, packet: Packet) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = connection.ends(way);
        let link = self.links[from][to];
        let delay = self.chance.between(link.delay_us.0, link.delay_us.1);
        // Packets of one direction of a connection arrive in order.
        let due = (self.now_us + delay).max(connection.last_due_us[way as usize]);
        connection.last_due_us[way as usize] = due;
        connection.queue(way).push_back(packet);
        self.put(to, due, id, way);
    }

    fn put(&mut self, to: MachineId, due_us: u64, id: ConnectionId, way: Way) {
        let number = self.next_id;
        self.next_id += 1;
        self.due[to].insert((due_us, number), (id, way));
    }

    /// Closes the connections of a process that has ended, as its system does. A machine that is
    /// off sends no packet.
    pub fn process_ended(&mut self, machine: MachineId, power: Power) {
        self.power[machine] = power;
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let (is_client, is_server) =
                (connection.client == machine, connection.server == machine);
            if is_client {
                connection.client_end = None;
            }
            if is_server {
                connection.server_end = None;
            }
            if power != Power::Off && is_client {
                self.send(id, Way::There, Packet::Closed);
            }
            if power != Power::Off && is_server {
                self.send(id, Way::Back, Packet::Closed);
            }
        }
    }

    /// Delivers the due packets of a machine. For a paused process, connections are accepted by its
    /// system and other packets wait.
    pub fn deliver(&mut self, machine: MachineId, is_paused: bool) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        let later = self.due[machine].split_off(&(self.now_us + 1, 0));
        let due = std::mem::replace(&mut self.due[machine], later);
        for (key, (id, way)) in due {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let is_open = matches!(connection.queue(way).front(), Some(Packet::Open));
            if is_paused && !is_open {
                self.due[machine].insert(key, (id, way));
                continue;
            }
            let (from, to) = connection.ends(way);
            if self.links[from][to].is_cut {
                let again = self.now_us + self.chance.between(AGAIN_US.0, AGAIN_US.1);
                self.put(machine, again, id, way);
                continue;
            }
            let Some(packet) = connection.queue(way).pop_front() else { continue };
            accepted.extend(self.arrive(id, way, packet));
        }
        accepted
    }

    fn arrive(&mut self, id: ConnectionId, way: Way, packet: Packet) -> Option<Accepted> {
        let connection = self.connections.get_mut(&id)?;
        let (from, to) = connection.ends(way);
        let breaks_one_in = self.links[from][to].breaks_one_in;
        if breaks_one_in > 0 && self.chance.one_in(breaks_one_in) {
            connection.is_lost = true;
            if self.chance.one_in(2) {
                connection.break_now();
            }
        }
        if connection.is_lost || self.power[to] == Power::Off {
            self.tell(format_args!("m{from}>m{to} c{id} lost"));
            return None;
        }
        self.trace.tell(self.now_us, format_args!("m{from}>m{to} c{id} {}", told(&packet, way)));
        let connection = self.connections.get_mut(&id)?;
        match (way, packet) {
            (Way::There, Packet::Open) if self.power[to] == Power::Running => {
                let (sender, frames) = unbounded_channel();
                connection.server_end = Some(sender);
                let port = connection.port;
                self.send(id, Way::Back, Packet::Accepted);
                let peer = SocketAddr::new(Ipv4Addr::new(10, 0, 0, from as u8).into(), 1);
                return Some(Accepted { id, port, peer, frames });
            }
            (Way::There, Packet::Open) => self.send(id, Way::Back, Packet::Refused),
            (Way::There, Packet::Frame(frame)) => {
                let end = connection.server_end.as_ref();
                if end.is_none_or(|end| end.send(frame).is_err()) {
                    self.send(id, Way::Back, Packet::Closed);
                }
            }
            (Way::There, _) => {
                connection.server_end = None;
                if connection.client_end.is_none() {
                    self.connections.remove(&id);
                }
            }
            (Way::Back, packet) => connection.tell_client(packet),
        }
        None
    }

    /// Breaks random connections, one in `one_in`.
    pub fn break_connections(&mut self, one_in: u64) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            if self.chance.one_in(one_in)
                && let Some(connection) = self.connections.get_mut(&id)
            {
                connection.break_now();
            }
        }
    }
}

impl Connection {
    fn ends(&self, way: Way) -> (MachineId, MachineId) {
        match way {
            Way::There => (self.client, self.server),
            Way::Back => (self.server, self.client),
        }
    }

    fn queue(&mut self, way: Way) -> &mut VecDeque<Packet> {
        match way {
            Way::There => &mut self.there,
            Way::Back => &mut self.back,
        }
    }

    /// Closes both ends at once.
    fn break_now(&mut self) {
        self.is_lost = true;
        self.server_end = None;
        self.tell_client(Packet::Closed);
    }

    fn tell_client(&mut self, packet: Packet) {
        let heard = match packet {
            Packet::Accepted => Heard::Accepted,
            Packet::Refused => Heard::Refused,
            Packet::Frame(frame) => Heard::Frame(frame),
            Packet::Closed | Packet::Open => Heard::Closed,
        };
        if let Some(end) = &self.client_end {
            // Fails if the client has closed its end.
            let _ = end.send(heard);
        }
    }
}

fn told(packet: &Packet, way: Way) -> String {
    match packet {
        Packet::Open => "open".to_owned(),
        Packet::Accepted => "accepted".to_owned(),
        Packet::Refused => "refused".to_owned(),
        Packet::Closed => "closed".to_owned(),
        Packet::Frame(frame) => {
            let api = match frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key)) {
                Some(RAFT_KEY) if way == Way::There => "Raft".to_owned(),
                Some(key) if way == Way::There => {
                    ApiKey::try_from(key).map_or("?".to_owned(), |api| format!("{api:?}"))
                }
                _ => "answer".to_owned(),
            };
            format!("{api} {} {:016x}", frame.len(), hash_of(frame))
        }
    }
}
