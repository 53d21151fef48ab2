package sordini.compat;

import static sordini.compat.ClientTests.check;
import static sordini.compat.ClientTests.equal;
import static sordini.compat.ClientTests.fails;
import static sordini.compat.ClientTests.get;
import static sordini.compat.ClientTests.test;
import static sordini.compat.ClientTests.until;
import static sordini.compat.ClientTests.values;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.FeatureMetadata;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.QuorumInfo;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Tests of the Java admin client against a single broker. */
final class AdminTests {
    private AdminTests() {}

    static void register() {
        test("admin describes the cluster", AdminTests::cluster);
        test("admin creates and describes a topic", AdminTests::createAndDescribe);
        test("admin creates with the broker's defaults", AdminTests::defaults);
        test("admin creates many topics and one fails", AdminTests::partlyCreated);
        test("admin validates a topic without creating it", AdminTests::validateOnly);
        test("admin is refused bad topics", AdminTests::refused);
        test("admin lists topics", AdminTests::listTopics);
        test("admin finds topics by id", AdminTests::byId);
        test("admin deletes topics", AdminTests::delete);
        test("admin adds partitions", AdminTests::partitions);
        test("admin reads topic configs", AdminTests::topicConfigs);
        test("admin reads config documentation", AdminTests::documentation);
        test("admin changes topic configs", AdminTests::changeConfigs);
        test("admin appends and subtracts", AdminTests::appendAndSubtract);
        test("admin is refused bad configs", AdminTests::badConfigs);
        test("admin reads broker configs", AdminTests::brokerConfigs);
        test("admin changes broker configs", AdminTests::changeBroker);
        test("admin lists offsets", AdminTests::listOffsets);
        test("admin deletes records", AdminTests::deleteRecords);
        test("admin describes log directories", AdminTests::logDirs);
        test("admin describes producers", AdminTests::producers);
        test("admin lists and describes groups", AdminTests::groups);
        test("admin changes group offsets", AdminTests::groupOffsets);
        test("admin deletes group offsets", AdminTests::deleteGroupOffsets);
        test("admin removes members", AdminTests::removeMembers);
        test("admin deletes groups", AdminTests::deleteGroups);
        test("admin describes features", AdminTests::features);
        test("admin describes the quorum", AdminTests::quorum);
    }

    private static TopicPartition first(String topic) {
        return new TopicPartition(topic, 0);
    }

    private static void cluster(ClientTests t) throws Exception {
        DescribeClusterResult cluster = t.admin.describeCluster();
        equal(22, get(cluster.clusterId()).length(), "length of the cluster id");
        Collection<Node> nodes = get(cluster.nodes());
        equal(1, nodes.size(), "nodes");
        Node node = nodes.iterator().next();
        equal(1, node.id(), "node id");
        equal("127.0.0.1", node.host(), "host");
        check(!node.isFenced(), "the broker is not fenced");
        equal(1, get(cluster.controller()).id(), "controller");
    }

    private static void createAndDescribe(ClientTests t) throws Exception {
        String topic = t.own("topic");
        NewTopic asked = new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "60000"));
        CreateTopicsResult created = t.admin.createTopics(List.of(asked));
        get(created.all());
        equal(3, get(created.numPartitions(topic)), "partitions in the answer");
        equal(1, get(created.replicationFactor(topic)), "replicas in the answer");
        equal("60000", get(created.config(topic)).get("retention.ms").value(), "config in the answer");
        hasPartitions(t, topic, 3);
        TopicDescription described = describe(t, topic);
        equal(get(created.topicId(topic)), described.topicId(), "topic id");
        check(!described.isInternal(), "it is not internal");
        equal(3, described.partitions().size(), "partitions");
        for (TopicPartitionInfo partition : described.partitions()) {
            equal(1, partition.leader().id(), "leader");
            equal(1, partition.replicas().size(), "replicas");
            equal(1, partition.isr().size(), "in-sync replicas");
        }
    }

    private static void defaults(ClientTests t) throws Exception {
        String topic = t.own("topic");
        NewTopic asked = new NewTopic(topic, java.util.Optional.empty(), java.util.Optional.empty());
        CreateTopicsResult created = t.admin.createTopics(List.of(asked));
        equal(1, get(created.numPartitions(topic)), "partitions");
        equal(1, get(created.replicationFactor(topic)), "replicas");
        Config config = get(created.config(topic));
        equal(ConfigEntry.ConfigSource.DEFAULT_CONFIG, config.get("retention.ms").source(), "source");
    }

    private static void partlyCreated(ClientTests t) throws Exception {
        String good = t.own("good");
        CreateTopicsResult created = t.admin.createTopics(
            List.of(new NewTopic(good, 1, (short) 1), new NewTopic("bad name", 1, (short) 1)));
        get(created.values().get(good));
        fails(InvalidTopicException.class, () -> get(created.values().get("bad name")));
        t.create(t.own("after"), 1);
    }

    private static void validateOnly(ClientTests t) throws Exception {
        String topic = t.own("topic");
        CreateTopicsOptions only = new CreateTopicsOptions().validateOnly(true);
        CreateTopicsResult checked = t.admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1)), only);
        get(checked.all());
        equal(2, get(checked.numPartitions(topic)), "partitions");
        check(!get(t.admin.listTopics().names()).contains(topic), "it was not created");
    }

    private static void refused(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String other = t.own("other");
        fails(TopicExistsException.class, () -> submit(t, new NewTopic(topic, 1, (short) 1)));
        fails(InvalidReplicationFactorException.class, () -> submit(t, new NewTopic(other, 1, (short) 3)));
        fails(InvalidReplicationFactorException.class, () -> submit(t, new NewTopic(other, 1, (short) 0)));
        fails(InvalidPartitionsException.class, () -> submit(t, new NewTopic(other, 0, (short) 1)));
        fails(InvalidReplicaAssignmentException.class,
            () -> submit(t, new NewTopic(other, Map.of(0, List.of(1), 2, List.of(1)))));
        fails(InvalidReplicaAssignmentException.class,
            () -> submit(t, new NewTopic(other, Map.of(0, List.of(1, 1)))));
        fails(InvalidReplicaAssignmentException.class, () -> submit(t, new NewTopic(other, Map.of(0, List.of(9)))));
        fails(InvalidConfigurationException.class,
            () -> submit(t, new NewTopic(other, 1, (short) 1).configs(Map.of("retention.ms", "long"))));
        t.create(t.own("collides") + ".x", 1);
        fails(InvalidTopicException.class, () -> submit(t, new NewTopic(t.own("collides") + "_x", 1, (short) 1)));
        check(!get(t.admin.listTopics().names()).contains(other), "nothing was created");
    }

    private static void submit(ClientTests t, NewTopic... topics) throws Exception {
        get(t.admin.createTopics(List.of(topics)).all());
    }

    private static void listTopics(ClientTests t) throws Exception {
        String topic = t.topic(1);
        var listed = get(t.admin.listTopics().namesToListings());
        equal(describe(t, topic).topicId(), listed.get(topic).topicId(), "topic id");
        // The offsets topic exists once a group has committed, and is listed only on request.
        try (Consumer<String, String> consumer = t.member(t.own("group"))) {
            consumer.assign(List.of(first(topic)));
            consumer.commitSync(Map.of(first(topic), new OffsetAndMetadata(0)));
        }
        check(!get(t.admin.listTopics().names()).contains("__consumer_offsets"), "internal topics are left out");
        Set<String> all = get(t.admin.listTopics(new ListTopicsOptions().listInternal(true)).names());
        check(all.contains("__consumer_offsets"), "internal topics are listed when asked for");
        check(describe(t, "__consumer_offsets").isInternal(), "it is internal");
    }

    private static void byId(ClientTests t) throws Exception {
        String topic = t.topic(2);
        Uuid id = describe(t, topic).topicId();
        TopicCollection ids = TopicCollection.ofTopicIds(List.of(id));
        equal(topic, get(t.admin.describeTopics(ids).allTopicIds()).get(id).name(), "name");
        get(t.admin.deleteTopics(ids).all());
        gone(t, topic);
        fails(UnknownTopicIdException.class, () -> get(t.admin.describeTopics(ids).allTopicIds()));
        fails(UnknownTopicIdException.class, () -> get(t.admin.deleteTopics(ids).all()));
    }

    private static void delete(ClientTests t) throws Exception {
        String topic = t.topic(1);
        get(t.admin.deleteTopics(List.of(topic)).all());
        gone(t, topic);
        fails(UnknownTopicOrPartitionException.class, () -> get(t.admin.deleteTopics(List.of(topic)).all()));
        t.topic(1);
        t.send(topic, 1);
        equal(List.of("v0"), values(t.read(topic, 1)), "values in the new topic of that name");
    }

    private static void partitions(ClientTests t) throws Exception {
        String topic = t.topic(1);
        get(t.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all());
        hasPartitions(t, topic, 3);
        for (int count : new int[] {3, 2, 0, -1}) {
            fails(InvalidPartitionsException.class,
                () -> get(t.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(count))).all()));
        }
        fails(InvalidReplicaAssignmentException.class, () -> get(t.admin.createPartitions(
            Map.of(topic, NewPartitions.increaseTo(4, List.of(List.of(9))))).all()));
        fails(UnknownTopicOrPartitionException.class, () -> get(t.admin.createPartitions(
            Map.of(t.own("missing"), NewPartitions.increaseTo(4))).all()));
        get(t.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4, List.of(List.of(1))))).all());
        hasPartitions(t, topic, 4);
        DescribeTopicsOptions oneByOne = new DescribeTopicsOptions().partitionSizeLimitPerResponse(1);
        equal(4, get(t.admin.describeTopics(List.of(topic), oneByOne).allTopicNames()).get(topic).partitions().size(),
            "partitions, one per answer");
    }

    private static ConfigResource of(String topic) {
        return new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    private static final ConfigResource BROKER = new ConfigResource(ConfigResource.Type.BROKER, "1");

    private static ConfigEntry entry(ClientTests t, ConfigResource resource, String name) throws Exception {
        return get(t.admin.describeConfigs(List.of(resource),
            new DescribeConfigsOptions().includeSynonyms(true)).all()).get(resource).get(name);
    }

    /** Waits for a config value: the broker may apply a change after the controller's response. */
    private static void becomes(String value, ClientTests t, ConfigResource resource, String name) throws Exception {
        String last = entry(t, resource, name).value();
        for (int tries = 0; tries < 50 && !value.equals(last); tries++) {
            Thread.sleep(20);
            last = entry(t, resource, name).value();
        }
        equal(value, last, name);
    }

    private static void topicConfigs(ClientTests t) throws Exception {
        String topic = t.topic(1, "segment.bytes", "2097152");
        ConfigEntry changed = entry(t, of(topic), "segment.bytes");
        equal("2097152", changed.value(), "value");
        equal(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, changed.source(), "source");
        equal(ConfigEntry.ConfigType.INT, changed.type(), "type");
        equal(2, changed.synonyms().size(), "synonyms");
        equal("log.segment.bytes", changed.synonyms().get(1).name(), "the broker's synonym");
        ConfigEntry inherited = entry(t, of(topic), "max.message.bytes");
        equal("1048588", inherited.value(), "value");
        check(inherited.isDefault() && !inherited.isReadOnly() && !inherited.isSensitive(), "a plain default");
        fails(UnknownTopicOrPartitionException.class, () -> entry(t, of(t.own("missing")), "retention.ms"));
    }

    private static void documentation(ClientTests t) throws Exception {
        String topic = t.topic(1);
        DescribeConfigsOptions documented = new DescribeConfigsOptions().includeDocumentation(true);
        for (ConfigResource resource : List.of(of(topic), BROKER)) {
            for (ConfigEntry entry : get(t.admin.describeConfigs(List.of(resource), documented).all()).get(resource).entries()) {
                check(entry.documentation() != null && !entry.documentation().isEmpty(), entry.name() + " is documented");
                check(entry.type() != ConfigEntry.ConfigType.UNKNOWN, entry.name() + " has a type");
            }
        }
    }

    private static void alter(ClientTests t, ConfigResource resource, AlterConfigOp... ops) throws Exception {
        get(t.admin.incrementalAlterConfigs(Map.of(resource, List.of(ops))).all());
    }

    private static AlterConfigOp op(OpType type, String name, String value) {
        return new AlterConfigOp(new ConfigEntry(name, value), type);
    }

    private static void changeConfigs(ClientTests t) throws Exception {
        ConfigResource topic = of(t.topic(1));
        alter(t, topic, op(OpType.SET, "retention.ms", "1000"), op(OpType.SET, "retention.bytes", "5"));
        becomes("1000", t, topic, "retention.ms");
        alter(t, topic, op(OpType.DELETE, "retention.ms", null));
        becomes("604800000", t, topic, "retention.ms");
        becomes("5", t, topic, "retention.bytes");
        get(t.admin.incrementalAlterConfigs(Map.of(topic, List.of(op(OpType.SET, "retention.ms", "7"))),
            new AlterConfigsOptions().validateOnly(true)).all());
        becomes("604800000", t, topic, "retention.ms");
    }

    private static void appendAndSubtract(ClientTests t) throws Exception {
        ConfigResource topic = of(t.topic(1));
        alter(t, topic, op(OpType.APPEND, "cleanup.policy", "compact"));
        becomes("delete,compact", t, topic, "cleanup.policy");
        alter(t, topic, op(OpType.APPEND, "cleanup.policy", "compact"));
        becomes("delete,compact", t, topic, "cleanup.policy");
        alter(t, topic, op(OpType.SUBTRACT, "cleanup.policy", "delete"));
        becomes("compact", t, topic, "cleanup.policy");
        fails(InvalidConfigurationException.class, () -> alter(t, topic, op(OpType.APPEND, "retention.ms", "1")));
    }

    private static void badConfigs(ClientTests t) throws Exception {
        ConfigResource topic = of(t.topic(1));
        fails(InvalidConfigurationException.class, () -> alter(t, topic, op(OpType.SET, "retention.ms", "soon")));
        fails(InvalidConfigurationException.class, () -> alter(t, topic, op(OpType.SET, "no.such.key", "1")));
        fails(InvalidConfigurationException.class, () -> alter(t, topic, op(OpType.SET, "retention.bytes", "1"),
            op(OpType.SET, "min.insync.replicas", "0")));
        becomes("-1", t, topic, "retention.bytes");
        fails(UnknownTopicOrPartitionException.class,
            () -> alter(t, of(t.own("missing")), op(OpType.SET, "retention.ms", "1")));
    }

    private static void brokerConfigs(ClientTests t) throws Exception {
        ConfigEntry node = entry(t, BROKER, "node.id");
        equal("1", node.value(), "node.id");
        equal(ConfigEntry.ConfigSource.STATIC_BROKER_CONFIG, node.source(), "source");
        check(node.isReadOnly(), "node.id is read-only");
        ConfigEntry password = entry(t, BROKER, "ssl.keystore.password");
        check(password.isSensitive() && password.value() == null, "a password is not shown");
        equal(ConfigEntry.ConfigSource.DEFAULT_CONFIG, entry(t, BROKER, "num.io.threads").source(), "source");
    }

    private static void changeBroker(ClientTests t) throws Exception {
        alter(t, BROKER, op(OpType.SET, "log.retention.bytes", "123456789"));
        becomes("123456789", t, BROKER, "log.retention.bytes");
        ConfigEntry changed = entry(t, BROKER, "log.retention.bytes");
        equal(ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG, changed.source(), "source");
        becomes("123456789", t, of(t.topic(1)), "retention.bytes");
        alter(t, BROKER, op(OpType.DELETE, "log.retention.bytes", null));
        becomes("-1", t, BROKER, "log.retention.bytes");
    }

    private static void listOffsets(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 10, "batch.size", "0");
        Map<OffsetSpec, Long> expected = new HashMap<>();
        expected.put(OffsetSpec.earliest(), 0L);
        expected.put(OffsetSpec.latest(), 10L);
        expected.put(OffsetSpec.forTimestamp(2500), 2L);
        expected.put(OffsetSpec.forTimestamp(99_999), -1L);
        expected.put(OffsetSpec.maxTimestamp(), 9L);
        expected.put(OffsetSpec.earliestLocal(), 0L);
        expected.put(OffsetSpec.latestTiered(), -1L);
        for (Map.Entry<OffsetSpec, Long> entry : expected.entrySet()) {
            var info = get(t.admin.listOffsets(Map.of(first(topic), entry.getKey())).all()).get(first(topic));
            equal(entry.getValue(), info.offset(), entry.getKey().getClass().getSimpleName());
        }
        var latest = get(t.admin.listOffsets(Map.of(first(topic), OffsetSpec.maxTimestamp())).all()).get(first(topic));
        equal(10_000L, latest.timestamp(), "the largest timestamp");
        equal(0, latest.leaderEpoch().orElse(-1), "its leader epoch");
    }

    private static void deleteRecords(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 10);
        equal(4L, trim(t, topic, 4), "low watermark");
        equal(4L, trim(t, topic, 2), "it does not move back");
        fails(OffsetOutOfRangeException.class, () -> trim(t, topic, 11));
        equal(10L, trim(t, topic, -1), "all up to the high watermark");
        t.send(topic, 1);
        equal(10L, t.read(topic, 1).get(0).offset(), "offset of the next record");
    }

    private static long trim(ClientTests t, String topic, long before) throws Exception {
        return get(t.admin.deleteRecords(Map.of(first(topic), RecordsToDelete.beforeOffset(before)))
            .lowWatermarks().get(first(topic))).lowWatermark();
    }

    private static void logDirs(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 10);
        Map<String, LogDirDescription> dirs = get(t.admin.describeLogDirs(List.of(1)).allDescriptions()).get(1);
        equal(1, dirs.size(), "log directories");
        LogDirDescription dir = dirs.values().iterator().next();
        equal(null, dir.error(), "error");
        check(dir.totalBytes().getAsLong() > dir.usableBytes().getAsLong(), "the volume's sizes are known");
        check(dir.replicaInfos().get(first(topic)).size() > 100, "the size counts the records");
        equal(0L, dir.replicaInfos().get(first(topic)).offsetLag(), "lag");
    }

    private static void producers(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 10);
        t.send(topic, 3);
        t.send(topic, 1, "enable.idempotence", "false");
        List<Integer> sequences = new ArrayList<>();
        for (ProducerState state : get(t.admin.describeProducers(List.of(first(topic))).all()).get(first(topic)).activeProducers()) {
            equal(0, state.producerEpoch(), "producer epoch");
            check(state.currentTransactionStartOffset().isEmpty(), "no transaction is open");
            sequences.add(state.lastSequence());
        }
        sequences.sort(null);
        equal(List.of(2, 9), sequences, "last sequences");
    }

    private static String committedGroup(ClientTests t, String topic) {
        String group = t.own("group");
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.assign(List.of(first(topic)));
            consumer.commitSync(Map.of(first(topic), new OffsetAndMetadata(5)));
        }
        return group;
    }

    private static void groups(ClientTests t) throws Exception {
        String topic = t.topic(2);
        String group = t.own("group");
        try (Consumer<String, String> consumer = t.member(group, "client.id", "a-client", "client.rack", "r1")) {
            consumer.subscribe(List.of(topic));
            until("an assignment", () -> {
                consumer.poll(java.time.Duration.ofMillis(100));
                return consumer.assignment().size() == 2;
            });
            ConsumerGroupDescription described = get(t.admin.describeConsumerGroups(List.of(group)).all()).get(group);
            equal("range", described.partitionAssignor(), "assignor");
            equal(1, described.coordinator().id(), "coordinator");
            equal(1, described.members().size(), "members");
            var member = described.members().iterator().next();
            equal("a-client", member.clientId(), "client id");
            equal("/127.0.0.1", member.host(), "host");
            equal(2, member.assignment().topicPartitions().size(), "assigned partitions");
            check(member.consumerId().startsWith("a-client-"), "the member id begins with the client's id");
        }
        check(get(t.admin.listGroups().all()).stream().anyMatch(g -> g.groupId().equals(group)), "it is listed");
        fails(GroupIdNotFoundException.class,
            () -> get(t.admin.describeConsumerGroups(List.of(t.own("missing"))).all()));
    }

    private static void groupOffsets(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = committedGroup(t, topic);
        OffsetAndMetadata moved = new OffsetAndMetadata(2, "moved");
        get(t.admin.alterConsumerGroupOffsets(group, Map.of(first(topic), moved)).all());
        var spec = new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(first(topic), new TopicPartition(topic, 7)));
        var listed = get(t.admin.listConsumerGroupOffsets(Map.of(group, spec)).all()).get(group);
        equal(moved, listed.get(first(topic)), "offset");
        equal(null, listed.get(new TopicPartition(topic, 7)), "offset of a partition without one");
        equal(Map.of(), get(t.admin.listConsumerGroupOffsets(t.own("missing")).partitionsToOffsetAndMetadata()), "of no group");
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.subscribe(List.of(topic));
            until("an assignment", () -> {
                consumer.poll(java.time.Duration.ofMillis(100));
                return !consumer.assignment().isEmpty();
            });
            fails(UnknownMemberIdException.class,
                () -> get(t.admin.alterConsumerGroupOffsets(group, Map.of(first(topic), moved)).all()));
        }
    }

    private static void deleteGroupOffsets(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = committedGroup(t, topic);
        get(t.admin.deleteConsumerGroupOffsets(group, Set.of(first(topic))).all());
        equal(Map.of(), get(t.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()), "offsets");
        String other = t.own("other");
        try (Consumer<String, String> consumer = t.member(other)) {
            consumer.subscribe(List.of(topic));
            until("an assignment", () -> {
                consumer.poll(java.time.Duration.ofMillis(100));
                return !consumer.assignment().isEmpty();
            });
            fails(GroupSubscribedToTopicException.class,
                () -> get(t.admin.deleteConsumerGroupOffsets(other, Set.of(first(topic))).partitionResult(first(topic))));
        }
        fails(GroupIdNotFoundException.class,
            () -> get(t.admin.deleteConsumerGroupOffsets(t.own("missing"), Set.of(first(topic))).all()));
    }

    private static void removeMembers(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = t.own("group");
        try (Consumer<String, String> consumer = t.member(group, "group.instance.id", "i1")) {
            consumer.subscribe(List.of(topic));
            until("an assignment", () -> {
                consumer.poll(java.time.Duration.ofMillis(100));
                return !consumer.assignment().isEmpty();
            });
        }
        var byInstance = new org.apache.kafka.clients.admin.MemberToRemove("i1");
        get(t.admin.removeMembersFromConsumerGroup(group,
            new org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions(Set.of(byInstance))).all());
        equal(0, get(t.admin.describeConsumerGroups(List.of(group)).all()).get(group).members().size(), "members");
        fails(UnknownMemberIdException.class, () -> get(t.admin.removeMembersFromConsumerGroup(group,
            new org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions(Set.of(byInstance))).all()));
    }

    private static void deleteGroups(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = committedGroup(t, topic);
        get(t.admin.deleteConsumerGroups(List.of(group)).all());
        fails(GroupIdNotFoundException.class, () -> get(t.admin.deleteConsumerGroups(List.of(group)).all()));
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.subscribe(List.of(topic));
            until("an assignment", () -> {
                consumer.poll(java.time.Duration.ofMillis(100));
                return !consumer.assignment().isEmpty();
            });
            fails(GroupNotEmptyException.class, () -> get(t.admin.deleteConsumerGroups(List.of(group)).all()));
        }
    }

    private static void features(ClientTests t) throws Exception {
        FeatureMetadata features = get(t.admin.describeFeatures().featureMetadata());
        equal((short) 30, features.finalizedFeatures().get("metadata.version").maxVersionLevel(), "metadata.version");
        check(features.finalizedFeaturesEpoch().isPresent(), "the epoch of the features is known");
    }

    private static void quorum(ClientTests t) throws Exception {
        QuorumInfo quorum = get(t.admin.describeMetadataQuorum().quorumInfo());
        equal(1, quorum.leaderId(), "leader");
        check(quorum.leaderEpoch() > 0, "the quorum's epoch is positive");
        equal(1, quorum.voters().size(), "voters");
        check(quorum.highWatermark() > 0, "the metadata log is not empty");
    }

    private static void gone(ClientTests t, String topic) throws Exception {
        until("the end of " + topic, () -> {
            try {
                return !get(t.admin.listTopics().names()).contains(topic);
            } catch (Exception e) {
                throw new AssertionError(e);
            }
        });
        fails(UnknownTopicOrPartitionException.class, () -> describe(t, topic));
    }

    private static void hasPartitions(ClientTests t, String topic, int count) {
        until(count + " partitions", () -> {
            try {
                return describe(t, topic).partitions().size() == count;
            } catch (Exception e) {
                throw new AssertionError(e);
            }
        });
    }

    private static TopicDescription describe(ClientTests t, String topic) throws Exception {
        return get(t.admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
    }
}
