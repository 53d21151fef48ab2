"""Every API with a minimal request, with nulls in fields that are not nullable, and with unknown
tagged fields."""

from .. import schema

_APIS = """ListOffsets OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat LeaveGroup
    SyncGroup DescribeGroups ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId
    OffsetForLeaderEpoch DescribeConfigs AlterConfigs DescribeLogDirs CreatePartitions DeleteGroups
    ElectLeaders IncrementalAlterConfigs ListPartitionReassignments OffsetDelete DescribeQuorum
    UpdateFeatures DescribeCluster DescribeProducers Produce Fetch Metadata ListGroups
    ListConfigResources DescribeTopicPartitions AlterReplicaLogDirs DescribeAcls CreateAcls
    DeleteAcls CreateDelegationToken RenewDelegationToken ExpireDelegationToken
    DescribeDelegationToken DescribeClientQuotas DescribeUserScramCredentials ListTransactions""".split()
# An empty request returns everything, including what other cases created.
_OF_ALL = {"ListGroups", "ListConfigResources", "DescribeTopicPartitions"}
_UNKNOWN_TAGS = b"\x02\x63\x02ab\xff\x7f\x00"


def _body(api):
    return {"acks": 1} if api == "Produce" else {}


def empty(t):
    t.find_coordinator("anyone")
    for api in _APIS:
        if api not in _OF_ALL:
            for version in schema.versions(api):
                if api != "Metadata" or version > 0:
                    t.note_answer("empty", api, version, _brief(t.call(api, version, _body(api))))


def unknown_tags(t):
    t.find_coordinator("anyone")
    for api in _APIS:
        if api in _OF_ALL:
            continue
        for version in schema.versions(api):
            if not schema.is_flexible(api, version):
                continue
            body = schema.encode_request(api, version, _body(api))
            assert body.endswith(b"\0"), "no tagged fields"
            answer = t.call(api, version, body[:-1] + _UNKNOWN_TAGS)
            t.note_answer("unknown tags", api, version, _brief(answer))


def _brief(answer):
    """Replaces an ApiVersions response by a mark: `connections` has it in full."""
    if isinstance(answer, dict) and "apiKeys" in answer and answer["apiKeys"]:
        return "all APIs"
    return answer


def nulls(t):
    """Requests in which one string, bytes or array field is null, for each such field."""
    for api in _APIS:
        versions = schema.versions(api)
        for version in sorted({versions[0], versions[-1]}):
            for name in schema.nullable_by_mistake(api, version):
                connection = t.connect()
                answer = connection.request(api, version, {**_body(api), name: None})
                t.note_answer(f"null {name}", api, version, _brief(answer))
                connection.close()
