"""DescribeCluster, DescribeQuorum, features, voters, and FindCoordinator."""

_POSITIONS = ("highWatermark", "logEndOffset", "leaderEpoch")
_CLOCKS = ("lastFetchTimestamp", "lastCaughtUpTimestamp")


def describe_cluster(t):
    for version in range(3):
        for operations in (False, True):
            t.ask(f"operations {operations}", "DescribeCluster", version,
                  {"includeClusterAuthorizedOperations": operations})  # fmt: skip
        for kind in (1, 2, 3, 0, -1) if version else ():
            t.ask(f"endpoint type {kind}", "DescribeCluster", version, {"endpointType": kind})
    t.ask("fenced too", "DescribeCluster", 2, {"includeFencedBrokers": True})
    t.ask("fenced controllers", "DescribeCluster", 2,
          {"includeFencedBrokers": True, "endpointType": 2})  # fmt: skip


def describe_quorum(t):
    def asked(*topics):
        return {"topics": [{"topicName": name, "partitions": [
            {"partitionIndex": it} for it in partitions]} for name, partitions in topics]}  # fmt: skip

    own = "__cluster_metadata"
    for version in range(3):
        for label, body in {
            "the log": asked((own, [0])),
            "another partition": asked((own, [1])),
            "two partitions": asked((own, [0, 1])),
            "another topic": asked(("none-such", [0])),
            "both": asked((own, [0]), ("none-such", [0])),
            "no partitions": asked((own, [])),
            "nothing": asked(),
        }.items():
            answer = t.call("DescribeQuorum", version, body)
            t.note_answer(label, "DescribeQuorum", version, _still(answer))


def _still(value):
    """Removes fields that change all the time."""
    if isinstance(value, list):
        return [_still(it) for it in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _still(it) for key, it in value.items()}
    for key in (*_POSITIONS, *_CLOCKS):
        if kept.get(key, 0) > 0:
            kept[key] = "moves"
    return kept


def update_features(t):
    def ask(label, version, *updates, **fields):
        listed = [{"feature": name, "maxVersionLevel": level, **more}
                  for name, level, more in updates]  # fmt: skip
        t.ask(label, "UpdateFeatures", version, {"featureUpdates": listed, **fields})

    for version in range(3):
        ask("unknown", version, ("no.such.feature", 1, {}))
        ask("no name", version, ("", 1, {}))
        ask("too high", version, ("metadata.version", 99, {}))
        ask("as it is", version, ("metadata.version", 30, {}))
        ask("lower", version, ("metadata.version", 29, {}))
        ask("negative", version, ("metadata.version", -1, {}))
        ask("group too high", version, ("group.version", 9, {}))
        ask("nothing", version)
        ask("twice", version, ("group.version", 1, {}), ("group.version", 1, {}))
        ask("some", version, ("group.version", 1, {}), ("no.such.feature", 1, {}))
    ask("lower, allowed", 0, ("metadata.version", 99, {"allowDowngrade": True}))
    for kind in (0, 1, 2, 3, 4, -1):
        for version in (1, 2):
            for feature, level in (("metadata.version", 30), ("metadata.version", 2),
                                   ("no.such.feature", 1), ("group.version", 0),
                                   ("kraft.version", 1), ("metadata.version", 0)):  # fmt: skip
                ask(f"{feature} to {level}, type {kind}", version,
                    (feature, level, {"upgradeType": kind}), validateOnly=True)  # fmt: skip
    for version in (1, 2):
        ask("validate", version, ("metadata.version", 30, {}), validateOnly=True)


def unregister_broker(t):
    for broker in (2, 99, 2**31 - 1, -1, -(2**31)):
        t.ask(f"broker {broker}", "UnregisterBroker", 0, {"brokerId": broker})
    t.ask("as before", "DescribeCluster", 2, {"includeFencedBrokers": True})


_DIRECTORY = "00000000-0000-0000-0000-000000000002"


def _cluster_id(t):
    cluster = t.call("DescribeCluster", 0)["clusterId"]
    t.mask_as(cluster, "the cluster")
    return cluster


def add_raft_voter(t):
    """AddRaftVoter to a static quorum, which refuses every voter."""
    cluster = _cluster_id(t)
    port = t.broker.controller_port
    listener = {"name": "CONTROLLER", "host": "127.0.0.1", "port": port}
    voter = {"clusterId": cluster, "timeoutMs": 1000, "voterId": 2,
             "voterDirectoryId": _DIRECTORY, "listeners": [listener]}  # fmt: skip
    for version in range(2):
        for label, fields in {
            "a voter": {},
            "no cluster id": {"clusterId": None},
            "another cluster": {"clusterId": "another"},
            "an empty cluster id": {"clusterId": ""},
            "no directory": {"voterDirectoryId": "00000000-0000-0000-0000-000000000000"},
            "a reserved directory": {"voterDirectoryId": "00000000-0000-0000-0000-000000000001"},
            "the voter that there is": {"voterId": 1},
            "a negative id": {"voterId": -1},
            "no listeners": {"listeners": []},
            "another listener": {"listeners": [{**listener, "name": "OTHER"}]},
            "two listeners": {"listeners": [listener, {**listener, "name": "OTHER"}]},
            "a listener of no host": {"listeners": [{**listener, "host": ""}]},
            "no time": {"timeoutMs": 0},
            "another cluster and a negative id": {"clusterId": "another", "voterId": -1},
            "nothing right": {"clusterId": None, "voterId": -1, "listeners": []},
        }.items():
            t.ask(label, "AddRaftVoter", version, {**voter, **fields})
    t.ask("at once", "AddRaftVoter", 1, {**voter, "ackWhenCommitted": False})


def remove_raft_voter(t):
    cluster = _cluster_id(t)
    voter = {"clusterId": cluster, "voterId": 2, "voterDirectoryId": _DIRECTORY}
    for label, fields in {
        "an unknown voter": {},
        "the only voter": {"voterId": 1},
        "no cluster id": {"clusterId": None},
        "another cluster": {"clusterId": "another"},
        "an empty cluster id": {"clusterId": ""},
        "no directory": {"voterDirectoryId": "00000000-0000-0000-0000-000000000000"},
        "a negative id": {"voterId": -1},
        "another cluster and a negative id": {"clusterId": "another", "voterId": -1},
    }.items():
        t.ask(label, "RemoveRaftVoter", 0, {**voter, **fields})
    answer = t.call("DescribeQuorum", 2, {"topics": [
        {"topicName": "__cluster_metadata", "partitions": [{"partitionIndex": 0}]}]})  # fmt: skip
    partition = answer["topics"][0]["partitions"][0]
    t.note("the voters", [it["replicaId"] for it in partition["currentVoters"]])


def list_config_resources(t):
    t.topic(1)
    t.ask("client metrics", "ListConfigResources", 0)
    for kinds in ([], [4], [8], [16], [32], [4, 8], [4, 4], [0], [3], [99], [4, 99], [-1]):
        answer = t.call("ListConfigResources", 1, {"resourceTypes": kinds})
        if isinstance(answer, dict):
            # Without topics and groups, which are those of other cases.
            answer["configResources"] = [
                it for it in answer["configResources"] if it["resourceType"] not in (2, 32)
            ]
        t.note_answer(f"types {kinds}", "ListConfigResources", 1, answer)
    answer = t.call("ListConfigResources", 1, {"resourceTypes": [2]})
    kinds = {it["resourceType"] for it in answer["configResources"]}
    t.note("only topics", [answer["errorCode"], *kinds])


def find_coordinator(t):
    group = t.new_name("group")
    t.find_coordinator(group)
    for version in range(7):
        if version < 4:
            for key in (group, "", "a b"):
                t.ask(f"key {key!r}".replace(group, "group"), "FindCoordinator", version,
                      {"key": key})  # fmt: skip
        else:
            for label, keys in {"one": [group], "two": [group, group + "-2"],
                                "twice": [group, group], "none": [], "empty": [""]}.items():  # fmt: skip
                t.ask(label, "FindCoordinator", version, {"coordinatorKeys": keys})
        for kind in (2, 3, 9, -1) if version else ():
            keys = {"key": "k"} if version < 4 else {"coordinatorKeys": ["k", "l:x:0", ":a:b"]}
            t.ask(f"type {kind}", "FindCoordinator", version, {"keyType": kind, **keys})
