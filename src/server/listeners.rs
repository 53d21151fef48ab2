//! The listeners of a node. A start binds all of them first, and serves them once requests can be
//! answered.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    net::{TcpListener, TcpSocket, lookup_host},
    runtime::Handle,
    task::JoinSet,
};

use super::ServerError;
use crate::{
    base::config::{BrokerConfig, Listener},
    broker::Broker,
    net::{self, ConnectionLimits, Shutdown},
};

/// Kafka's default of `socket.send.buffer.bytes` and `socket.receive.buffer.bytes`.
const SOCKET_BUFFER_DEFAULT: u32 = 100 << 10;

/// Bound sockets that own their ports but still refuse connections.
pub(super) struct Bound(Vec<(String, TcpSocket)>);

impl Bound {
    /// Binds all listeners.
    pub async fn all(listeners: &[Listener], settings: &BrokerConfig) -> Result<Self, ServerError> {
        let mut bound = Vec::new();
        for listener in listeners {
            bound.push((listener.name.clone(), bind(listener, settings).await?));
        }
        Ok(Self(bound))
    }

    /// The address of each listener, by name.
    pub fn addresses(&self) -> io::Result<Vec<(String, SocketAddr)>> {
        self.0.iter().map(|(name, socket)| Ok((name.clone(), socket.local_addr()?))).collect()
    }

    /// Makes the sockets listen: connections now wait in the backlog. `runtime` is the one that
    /// will accept them.
    pub fn listen(
        self,
        settings: &BrokerConfig,
        runtime: &Handle,
    ) -> Result<Listening, ServerError> {
        let _entered = runtime.enter();
        // The kernel limits the backlog to net.core.somaxconn.
        let backlog = settings.socket_listen_backlog.unwrap_or(i32::MAX).max(1) as u32;
        let listen = |(name, socket): (String, TcpSocket)| {
            let address = socket.local_addr()?.to_string();
            match listen(socket, backlog) {
                Ok(listening) => Ok((name, listening)),
                Err(source) => Err(ServerError::Bind { name, address, source }),
            }
        };
        self.0.into_iter().map(listen).collect::<Result<_, _>>().map(Listening)
    }
}

/// Listening sockets.
pub(super) struct Listening(Vec<(String, TcpListener)>);

impl Listening {
    /// Spawns a task per socket that serves its connections until the shutdown. `runtime` must be
    /// the one that was passed to [`Bound::listen`].
    pub fn serve(
        self,
        (broker, limits): (&Arc<Broker>, &Arc<ConnectionLimits>),
        shutdown: &Shutdown,
        tasks: &mut JoinSet<()>,
        runtime: &Handle,
    ) {
        for (name, socket) in self.0 {
            let (broker, limits) = (Arc::clone(broker), Arc::clone(limits));
            let name = Arc::from(name);
            tasks.spawn_on(net::serve(socket, name, broker, limits, shutdown.clone()), runtime);
        }
    }
}

async fn bind(listener: &Listener, settings: &BrokerConfig) -> Result<TcpSocket, ServerError> {
    // As in Java, an empty host or 0.0.0.0 stands for all IPv4 and IPv6 addresses.
    let host = match listener.host.as_str() {
        "" | "0.0.0.0" if has_ipv6() => "::",
        "" => "0.0.0.0",
        host => host,
    };
    let error = |source| ServerError::Bind {
        name: listener.name.clone(),
        address: format!("{host}:{}", listener.port),
        source,
    };
    let address = lookup_host((host, listener.port))
        .await
        .and_then(|mut found| found.next().ok_or(io::ErrorKind::AddrNotAvailable.into()))
        .map_err(error)?;
    let bind = || -> io::Result<TcpSocket> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
                socket
            }
        };
        socket.set_reuseaddr(true)?;
        // Accepted sockets inherit the buffer sizes of the listening socket.
        if let Some(size) = buffer_size(settings.socket_receive_buffer_bytes) {
            socket.set_recv_buffer_size(size)?;
        }
        if let Some(size) = buffer_size(settings.socket_send_buffer_bytes) {
            socket.set_send_buffer_size(size)?;
        }
        socket.bind(address)?;
        reserve_port(&socket, listener.port)?;
        Ok(socket)
    };
    bind().map_err(error)
}

/// Makes a bound socket the only owner of its port, or fails with `AddrInUse`. Several sockets with
/// `SO_REUSEADDR` can bind one port until one of them listens. The socket therefore listens for a
/// moment, clears `SO_REUSEADDR`, so that no other socket can bind the port, and stops listening. A
/// port that the system chose (`port` is 0) belongs to one socket anyway.
fn reserve_port(socket: &TcpSocket, port: u16) -> io::Result<()> {
    if port == 0 {
        return Ok(());
    }
    rustix::net::listen(socket, 1)?;
    socket.set_reuseaddr(false)?;
    // Stops listening, but keeps the port.
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Read)?)
}

fn listen(socket: TcpSocket, backlog: u32) -> io::Result<TcpListener> {
    // Connections of an earlier process may still occupy the port, in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.listen(backlog)
}

/// The buffer size to set in bytes, or `None` for the system's default. Kafka's default value also
/// means the system's: a fixed size would prevent the kernel from growing the buffer as needed. -1
/// means the system's default in Kafka, too.
fn buffer_size(configured: i32) -> Option<u32> {
    u32::try_from(configured).ok().filter(|size| *size > 0 && *size != SOCKET_BUFFER_DEFAULT)
}

fn has_ipv6() -> bool {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    TcpSocket::new_v6().is_ok_and(|socket| socket.bind(any).is_ok())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    }

    fn reserved(address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = bound(address)?;
        reserve_port(&socket, address.port()).map(|()| socket)
    }

    /// Reserves a port with one of two sockets, then listens on it, then reserves it once more.
    /// Fails with `AddrInUse` if another process or test takes the port while it is free.
    async fn reserve_and_listen() -> io::Result<()> {
        let chosen = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?;
        let (first, second) = (bound(chosen)?, bound(chosen)?);
        reserve_port(&first, chosen.port())?;
        let refused = reserve_port(&second, chosen.port()).expect_err("the first has it");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(bound(chosen).is_err(), "the first has it");
        let refused = TcpStream::connect(chosen).await.expect_err("it does not listen yet");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        drop(second);
        let listener = listen(first, 8).expect("listens");
        assert_eq!(listener.local_addr().expect("has one"), chosen);
        // The side that closes first keeps the connection in TIME_WAIT.
        let (client, accepted) = tokio::join!(TcpStream::connect(chosen), listener.accept());
        drop(accepted.expect("accepts"));
        drop((client.expect("connects"), listener));
        // The port is free. It can be bound despite the connection in TIME_WAIT.
        let again = reserved(chosen)?;
        assert!(reserved(chosen).is_err());
        listen(again, 8).expect("listens beside TIME_WAIT");
        Ok(())
    }

    #[tokio::test]
    async fn only_one_socket_reserves_a_port_and_refuses_connections_until_it_listens() {
        for _ in 0..10 {
            match reserve_and_listen().await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => (),
                result => return result.expect("binds"),
            }
        }
        panic!("no port could be bound again");
    }
}
