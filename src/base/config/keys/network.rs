//! Listeners, connections and sockets.

use super::{Key, keys};

keys! {
    NETWORK:

    "listeners" List "PLAINTEXT://:9092" list_not_empty High PerBroker Used
        "Where this node listens: name://host:port, separated by commas.";
    "advertised.listeners" List null list_not_empty High ReadOnly Used
        "Where clients are told to connect; the listeners themselves if not set.";
    "listener.security.protocol.map" String
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT" any Low
        PerBroker Used
        "Which security protocol each listener name stands for.";
    "early.start.listeners" List null list High ReadOnly Ignored
        "Listeners that open before the authorizer is ready.";
    "inter.broker.listener.name" String null any Medium ReadOnly Used
        "The listener that brokers use among themselves.";
    "security.inter.broker.protocol" String "PLAINTEXT"
        (one_of "PLAINTEXT" "SSL" "SASL_PLAINTEXT" "SASL_SSL") Medium ReadOnly
        (protects "brokers talk in plaintext and do not authenticate")
        "The protocol among brokers, unless inter.broker.listener.name is set.";
    "socket.send.buffer.bytes" Int "102400" any High ReadOnly Used
        "The kernel's send buffer of a connection; -1 and the default leave it to the system.";
    "socket.receive.buffer.bytes" Int "102400" any High ReadOnly Used
        "The kernel's receive buffer of a connection; -1 and the default leave it to the system.";
    "socket.request.max.bytes" Int "104857600" (at_least 1) High ReadOnly Used
        "The largest request that a connection may send, in bytes.";
    "socket.listen.backlog.size" Int "50" (at_least 1) Medium ReadOnly Used
        "How many connections the kernel holds before they are accepted; not set, as many as it can.";
    "socket.connection.setup.timeout.ms" Long "10000" any Medium ReadOnly Ignored
        "The first wait for a connection to another broker to come up.";
    "socket.connection.setup.timeout.max.ms" Long "30000" any Medium ReadOnly Ignored
        "The longest wait for a connection to another broker to come up.";
    "max.connections.per.ip" Int "2147483647" (at_least 0) Medium ClusterWide Used
        "The most connections from one address.";
    "max.connections.per.ip.overrides" String "" any Medium ClusterWide Used
        "Limits of single hosts: host:count, separated by commas.";
    "max.connections" Int "2147483647" (at_least 0) Medium ClusterWide Used
        "The most connections of this broker, or of a listener by its prefix.";
    "max.connection.creation.rate" Int "2147483647" (at_least 0) Medium ClusterWide
        (protects "the rate of new connections is not limited")
        "The most new connections in a second.";
    "connections.max.idle.ms" Long "600000" any Medium ReadOnly Used
        "A connection silent for this long is closed.";
    "connection.failed.authentication.delay.ms" Int "100" (at_least 0) Low ReadOnly Ignored
        "How long a failed login is kept waiting for its close.";
    "queued.max.requests" Int "500" (at_least 1) High ReadOnly Ignored
        "The most requests waiting for a worker.";
    "queued.max.request.bytes" Long "-1" any Medium ReadOnly
        (protects_above 0 "the memory for requests is not limited")
        "The most bytes of requests held in memory; -1 sets no bound.";
    "num.network.threads" Int "3" (at_least 1) High ClusterWide Ignored
        "Threads for the network; the workers serve both network and requests.";
    "controller.socket.timeout.ms" Int "30000" any Medium ReadOnly Ignored
        "Socket timeout towards a controller.";
}
