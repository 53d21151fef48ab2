"""The tutorial: three brokers on one host, a replicated topic, and the loss of its leader."""

import re


def described(run, topic):
    """Returns (leader, replicas, isr) of each partition, as kafka-topics prints them."""
    printed = run(f"kafka-topics --describe --topic {topic}").ok()
    rows = re.findall(r"Partition: (\d+)\tLeader: (\w+)\tReplicas: ([\d,]*)\tIsr: ([\d,]*)",
                      printed.stdout)  # fmt: skip
    assert rows, printed.stdout
    return {
        int(index): (leader, sorted(replicas.split(",")), sorted(isr.split(",")))
        for index, leader, replicas, isr in rows
    }


def as_in_the_tutorial(cluster):
    """Gives the nodes the keys of the tutorial's files, such as `broker.id` and `log.dir`."""
    for node in cluster.nodes.values():
        node.settings.update(
            {
                "node.id": None,
                "broker.id": str(node.id),
                "log.dirs": None,
                "log.dir": str(node.data),
                "listeners": f"PLAINTEXT://:{node.port},CONTROLLER://:{node.controller_port}",
                "advertised.listeners": None,
            }
        )
    return cluster


def test_three_brokers_on_one_host(new_cluster, tools):
    cluster = as_in_the_tutorial(new_cluster()).start()
    files = sorted(file.name for file in cluster.dir.glob("*.properties"))
    assert files == ["server-1.properties", "server-2.properties", "server.properties"]
    run = tools(cluster)
    topic = "my-replicated-topic"
    where = f"--bootstrap-server localhost:{cluster[1].port}"
    run(f"kafka-topics {where} --create --topic {topic} --partitions 1 --replication-factor 3").ok()
    leader, replicas, isr = described(run, topic)[0]
    assert replicas == ["1", "2", "3"] and isr == replicas and leader in replicas

    messages = ["my test message 1", "my test message 2"]
    run(f"kafka-console-producer --topic {topic}", stdin="\n".join(messages) + "\n").ok()
    read = f"kafka-console-consumer --topic {topic} --from-beginning --max-messages 2"
    assert run(f"{read} --timeout-ms 60000").ok().lines == messages

    cluster.kill(int(leader))
    cluster.wait_until(
        "another node leads",
        lambda: cluster.partition(topic).leader not in (-1, int(leader)),
    )
    new_leader, still, isr = described(run, topic)[0]
    assert still == replicas and new_leader != leader
    assert isr == [node for node in replicas if node != leader]
    assert run(f"{read} --timeout-ms 60000").ok().lines == messages

    cluster.start(int(leader))
    cluster.wait_until_in_sync()
    assert described(run, topic)[0] == (new_leader, replicas, replicas)


def test_under_replicated(cluster, run, topic):
    """The tool's lists of partitions with problems while a node is down."""
    run(f"kafka-topics --create --topic {topic} --replica-assignment 1:2:3,2:3:1,3:1:2"
        " --config min.insync.replicas=3").ok()  # fmt: skip
    listed = "kafka-topics --describe --topic " + topic
    assert run(f"{listed} --under-replicated-partitions").ok().lines == []
    cluster.kill(2)
    everywhere = f"{listed} --under-replicated-partitions"
    run(everywhere, until=lambda out: out.count("Partition: ") == 3, within=60).ok()
    assert run(f"{listed} --under-min-isr-partitions").ok().stdout.count("Partition: ") == 3
    assert run(f"{listed} --at-min-isr-partitions").ok().lines == []
    assert run(f"{listed} --unavailable-partitions").ok().lines == []
    rows = described(run, topic)
    assert all("2" not in isr and leader != "2" for leader, _, isr in rows.values()), rows
    cluster.start(2)
    cluster.wait_until_in_sync()
    assert run(everywhere).ok().lines == []
