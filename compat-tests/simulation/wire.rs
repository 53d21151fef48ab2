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

use crate::{random::Rng, trace::Trace, trace::hash_of};

pub type MachineId = usize;
pub type ConnectionId = u64;

/// An event at the client's end of a connection.
pub enum ClientEvent {
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
enum Direction {
    ToServer,
    ToClient,
}

struct Connection {
    client: MachineId,
    server: MachineId,
    port: u16,
    client_end: Option<UnboundedSender<ClientEvent>>,
    server_end: Option<UnboundedSender<Bytes>>,
    to_server: VecDeque<Packet>,
    to_client: VecDeque<Packet>,
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
/// The least and most time before a packet is sent again on a cut link, in microseconds.
const RETRY_US: (u64, u64) = (20_000, 200_000);

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
    pub rng: Rng,
    pub trace: Trace,
    pub power: Vec<Power>,
    /// Links by sender and receiver.
    pub links: Vec<Vec<Link>>,
    addresses: BTreeMap<(String, u16), MachineId>,
    connections: BTreeMap<ConnectionId, Connection>,
    next_id: u64,
    /// Packets under way by receiver: (time in microseconds, number) to (connection, direction).
    due: Vec<BTreeMap<(u64, u64), (ConnectionId, Direction)>>,
}

/// The wire, shared by all machines. They run in turn on one thread, so the lock is never
/// contended.
#[derive(Clone)]
pub struct SharedWire(Arc<Mutex<Wire>>);

impl SharedWire {
    pub fn new(machines: usize, rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(Wire {
            now_us: 0,
            rng,
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

    pub fn record(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.add(self.now_us, what);
    }

    /// Opens a connection. If no machine has the address, the receiver's channel is closed at once.
    pub fn open(
        &mut self,
        client: MachineId,
        to: &Address,
    ) -> (ConnectionId, UnboundedReceiver<ClientEvent>) {
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
                to_server: VecDeque::new(),
                to_client: VecDeque::new(),
                last_due_us: [0; 2],
                is_lost: false,
            };
            self.connections.insert(id, connection);
            self.send(id, Direction::ToServer, Packet::Open);
        }
        (id, receiver)
    }

    pub fn request(&mut self, id: ConnectionId, frame: Bytes) {
        self.send(id, Direction::ToServer, Packet::Frame(frame));
    }

    /// Delays all packets of a connection that are under way to its server by `us` microseconds.
    pub fn hold_back(&mut self, id: ConnectionId, us: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.last_due_us[Direction::ToServer as usize] += us;
        let due = &mut self.due[connection.server];
        let is_held =
            |_: &(u64, u64), it: &mut (ConnectionId, Direction)| *it == (id, Direction::ToServer);
        let held: Vec<_> = due.extract_if(.., is_held).collect();
        due.extend(held.into_iter().map(|((due_us, number), it)| ((due_us + us, number), it)));
    }

    pub fn respond(&mut self, id: ConnectionId, frame: Bytes) {
        self.send(id, Direction::ToClient, Packet::Frame(frame));
    }

    pub fn close_client(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.client_end = None;
            self.send(id, Direction::ToServer, Packet::Closed);
        }
    }

    pub fn close_server(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.server_end = None;
            self.send(id, Direction::ToClient, Packet::Closed);
        }
    }

    fn send(&mut self, id: ConnectionId, direction: Direction, packet: Packet) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (from, to) = connection.ends(direction);
        let link = self.links[from][to];
        let delay = self.rng.between(link.delay_us.0, link.delay_us.1);
        // Packets of one direction of a connection arrive in order.
        let due = (self.now_us + delay).max(connection.last_due_us[direction as usize]);
        connection.last_due_us[direction as usize] = due;
        connection.queue(direction).push_back(packet);
        self.put(to, due, id, direction);
    }

    fn put(&mut self, to: MachineId, due_us: u64, id: ConnectionId, direction: Direction) {
        let number = self.next_id;
        self.next_id += 1;
        self.due[to].insert((due_us, number), (id, direction));
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
                self.send(id, Direction::ToServer, Packet::Closed);
            }
            if power != Power::Off && is_server {
                self.send(id, Direction::ToClient, Packet::Closed);
            }
        }
    }

    /// Delivers the due packets of a machine. For a paused process, connections are accepted by its
    /// system and other packets wait.
    pub fn deliver(&mut self, machine: MachineId, is_paused: bool) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        let later = self.due[machine].split_off(&(self.now_us + 1, 0));
        let due = std::mem::replace(&mut self.due[machine], later);
        for (key, (id, direction)) in due {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let is_open = matches!(connection.queue(direction).front(), Some(Packet::Open));
            if is_paused && !is_open {
                self.due[machine].insert(key, (id, direction));
                continue;
            }
            let (from, to) = connection.ends(direction);
            if self.links[from][to].is_cut {
                let retry_us = self.now_us + self.rng.between(RETRY_US.0, RETRY_US.1);
                self.put(machine, retry_us, id, direction);
                continue;
            }
            let Some(packet) = connection.queue(direction).pop_front() else { continue };
            accepted.extend(self.arrive(id, direction, packet));
        }
        accepted
    }

    fn arrive(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        packet: Packet,
    ) -> Option<Accepted> {
        let connection = self.connections.get_mut(&id)?;
        let (from, to) = connection.ends(direction);
        let breaks_one_in = self.links[from][to].breaks_one_in;
        if breaks_one_in > 0 && self.rng.one_in(breaks_one_in) {
            connection.is_lost = true;
            if self.rng.one_in(2) {
                connection.break_now();
            }
        }
        if connection.is_lost || self.power[to] == Power::Off {
            self.record(format_args!("m{from}>m{to} c{id} lost"));
            return None;
        }
        self.trace
            .add(self.now_us, format_args!("m{from}>m{to} c{id} {}", describe(&packet, direction)));
        let connection = self.connections.get_mut(&id)?;
        match (direction, packet) {
            (Direction::ToServer, Packet::Open) if self.power[to] == Power::Running => {
                let (sender, frames) = unbounded_channel();
                connection.server_end = Some(sender);
                let port = connection.port;
                self.send(id, Direction::ToClient, Packet::Accepted);
                let peer = SocketAddr::new(Ipv4Addr::new(10, 0, 0, from as u8).into(), 1);
                return Some(Accepted { id, port, peer, frames });
            }
            (Direction::ToServer, Packet::Open) => {
                self.send(id, Direction::ToClient, Packet::Refused)
            }
            (Direction::ToServer, Packet::Frame(frame)) => {
                let end = connection.server_end.as_ref();
                if end.is_none_or(|end| end.send(frame).is_err()) {
                    self.send(id, Direction::ToClient, Packet::Closed);
                }
            }
            (Direction::ToServer, _) => {
                connection.server_end = None;
                if connection.client_end.is_none() {
                    self.connections.remove(&id);
                }
            }
            (Direction::ToClient, packet) => connection.notify_client(packet),
        }
        None
    }

    /// Breaks random connections, one in `one_in`.
    pub fn break_connections(&mut self, one_in: u64) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            if self.rng.one_in(one_in)
                && let Some(connection) = self.connections.get_mut(&id)
            {
                connection.break_now();
            }
        }
    }
}

impl Connection {
    fn ends(&self, direction: Direction) -> (MachineId, MachineId) {
        match direction {
            Direction::ToServer => (self.client, self.server),
            Direction::ToClient => (self.server, self.client),
        }
    }

    fn queue(&mut self, direction: Direction) -> &mut VecDeque<Packet> {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }

    /// Closes both ends at once.
    fn break_now(&mut self) {
        self.is_lost = true;
        self.server_end = None;
        self.notify_client(Packet::Closed);
    }

    fn notify_client(&mut self, packet: Packet) {
        let event = match packet {
            Packet::Accepted => ClientEvent::Accepted,
            Packet::Refused => ClientEvent::Refused,
            Packet::Frame(frame) => ClientEvent::Frame(frame),
            Packet::Closed | Packet::Open => ClientEvent::Closed,
        };
        if let Some(end) = &self.client_end {
            // Fails if the client has closed its end.
            let _ = end.send(event);
        }
    }
}

fn describe(packet: &Packet, direction: Direction) -> String {
    match packet {
        Packet::Open => "open".to_owned(),
        Packet::Accepted => "accepted".to_owned(),
        Packet::Refused => "refused".to_owned(),
        Packet::Closed => "closed".to_owned(),
        Packet::Frame(frame) => {
            let api = match frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key)) {
                Some(RAFT_KEY) if direction == Direction::ToServer => "Raft".to_owned(),
                Some(key) if direction == Direction::ToServer => {
                    ApiKey::try_from(key).map_or("?".to_owned(), |api| format!("{api:?}"))
                }
                _ => "answer".to_owned(),
            };
            format!("{api} {} {:016x}", frame.len(), hash_of(frame))
        }
    }
}
