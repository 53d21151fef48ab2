package sordini.compat;

import static sordini.compat.ClientTests.equal;
import static sordini.compat.ClientTests.fails;
import static sordini.compat.ClientTests.get;
import static sordini.compat.ClientTests.numbered;
import static sordini.compat.ClientTests.poll;
import static sordini.compat.ClientTests.test;
import static sordini.compat.ClientTests.until;
import static sordini.compat.ClientTests.values;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.InconsistentGroupProtocolException;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.InvalidSessionTimeoutException;
import org.apache.kafka.common.errors.OffsetMetadataTooLarge;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;
import org.apache.kafka.common.errors.UnsupportedAssignorException;

/** Tests of the classic group protocol and of the consumer protocol (KIP-848) with the Java consumer. */
final class GroupTests {
    private GroupTests() {}

    static void register() {
        test("group resumes where it committed", GroupTests::resumes);
        test("group commits with metadata", GroupTests::metadata);
        test("group refuses long commit metadata", GroupTests::longMetadata);
        test("group commits automatically", GroupTests::autoCommit);
        test("group commits asynchronously", GroupTests::asyncCommit);
        test("group commits without members", GroupTests::standalone);
        test("group shares partitions eagerly", t -> shares(t, RoundRobinAssignor.class));
        test("group shares partitions cooperatively", t -> shares(t, CooperativeStickyAssignor.class));
        test("group member leaves", GroupTests::leaves);
        test("group static member returns", GroupTests::staticReturns);
        test("group static member is fenced", GroupTests::staticFenced);
        test("group member that is silent loses its partitions", GroupTests::silent);
        test("group late commit is refused", GroupTests::lateCommit);
        test("group follows a pattern", GroupTests::pattern);
        test("group sees new partitions", GroupTests::newPartitions);
        test("group of other protocol is refused", GroupTests::otherProtocol);
        test("group session timeout out of range", GroupTests::sessionTimeout);
        test("group rebalance on request", GroupTests::enforced);
        testWithConsumerProtocol("resumes where it committed", GroupTests::resumes);
        testWithConsumerProtocol("commits with metadata", GroupTests::metadata);
        testWithConsumerProtocol("refuses long commit metadata", GroupTests::longMetadata);
        testWithConsumerProtocol("commits automatically", GroupTests::autoCommit);
        testWithConsumerProtocol("commits asynchronously", GroupTests::asyncCommit);
        testWithConsumerProtocol("commits without members", GroupTests::standalone);
        testWithConsumerProtocol("shares partitions", GroupTests::sharesByServer);
        testWithConsumerProtocol("member leaves", GroupTests::leaves);
        testWithConsumerProtocol("static member returns", GroupTests::staticReturns);
        testWithConsumerProtocol("static member in use is refused", GroupTests::staticUnreleased);
        testWithConsumerProtocol("member that is silent loses its partitions", GroupTests::silent);
        testWithConsumerProtocol("follows a pattern", GroupTests::pattern);
        testWithConsumerProtocol("follows a pattern of the server", GroupTests::serverPattern);
        testWithConsumerProtocol("refuses an invalid pattern of the server", GroupTests::invalidServerPattern);
        testWithConsumerProtocol("sees new partitions", GroupTests::newPartitions);
        testWithConsumerProtocol("refuses an unknown assignor", GroupTests::unknownAssignor);
    }

    private static void testWithConsumerProtocol(String name, ClientTests.Test test) {
        test("consumer group " + name, t -> test.run(t.withConsumerProtocol()));
    }

    private static TopicPartition first(String topic) {
        return new TopicPartition(topic, 0);
    }

    private static void resumes(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 10);
        String group = t.own("group");
        try (Consumer<String, String> consumer = t.member(group, "max.poll.records", "4")) {
            consumer.subscribe(List.of(topic));
            equal(numbered(0, 4), values(poll(consumer, 4)), "values");
            consumer.commitSync();
        }
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.subscribe(List.of(topic));
            equal(numbered(4, 10), values(poll(consumer, 6)), "values of the second member");
        }
    }

    private static void metadata(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = t.own("group");
        OffsetAndMetadata commit = new OffsetAndMetadata(3, Optional.of(0), "a note: \u00e9");
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.assign(List.of(first(topic)));
            consumer.commitSync(Map.of(first(topic), commit));
            equal(Map.of(first(topic), commit), consumer.committed(Set.of(first(topic))), "committed");
        }
        equal(Map.of(first(topic), commit),
            get(t.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()), "listed");
    }

    private static void longMetadata(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Consumer<String, String> consumer = t.member(t.own("group"))) {
            consumer.assign(List.of(first(topic)));
            fails(OffsetMetadataTooLarge.class, () -> consumer.commitSync(
                Map.of(first(topic), new OffsetAndMetadata(1, "x".repeat(5000)))));
            consumer.commitSync(Map.of(first(topic), new OffsetAndMetadata(1, "x".repeat(4096))));
        }
    }

    private static void autoCommit(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 5);
        String group = t.own("group");
        try (Consumer<String, String> consumer = t.member(group, "enable.auto.commit", "true")) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 5);
        }
        equal(5L, committed(t, group, first(topic)), "committed at close");
    }

    private static void asyncCommit(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 5);
        String group = t.own("group");
        List<Exception> errors = new ArrayList<>();
        List<Long> done = new ArrayList<>();
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.subscribe(List.of(topic));
            poll(consumer, 5);
            for (long offset = 1; offset <= 5; offset++) {
                consumer.commitAsync(Map.of(first(topic), new OffsetAndMetadata(offset)), (offsets, e) -> {
                    if (e != null) {
                        errors.add(e);
                    }
                    done.add(offsets.get(first(topic)).offset());
                });
            }
            until("all answers", () -> polled(consumer).size() == 1 & done.size() == 5);
        }
        equal(List.of(), errors, "errors");
        equal(List.of(1L, 2L, 3L, 4L, 5L), done, "order of the answers");
        equal(5L, committed(t, group, first(topic)), "the last one counts");
    }

    private static void standalone(ClientTests t) throws Exception {
        String topic = t.topic(2);
        String group = t.own("group");
        TopicPartition second = new TopicPartition(topic, 1);
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.assign(List.of(first(topic), second));
            consumer.commitSync(Map.of(first(topic), new OffsetAndMetadata(7)));
            equal(7L, consumer.committed(Set.of(first(topic))).get(first(topic)).offset(), "committed");
            equal(null, consumer.committed(Set.of(second)).get(second), "of the other partition");
        }
        equal(GroupState.EMPTY, describe(t, group).groupState(), "state");
    }

    private static void shares(ClientTests t, Class<?> assignor) throws Exception {
        String topic = t.topic(4);
        String group = t.own("group");
        String strategy = "partition.assignment.strategy";
        shares(t, topic, group, strategy, assignor.getName());
    }

    private static void sharesByServer(ClientTests t) throws Exception {
        for (String assignor : List.of("uniform", "range")) {
            String group = t.own("group-" + assignor);
            t.create(group, 4);
            shares(t, group, group, "group.remote.assignor", assignor);
        }
    }

    private static void shares(ClientTests t, String topic, String group, String... config) throws Exception {
        try (Consumer<String, String> one = t.member(group, config);
                Consumer<String, String> two = t.member(group, config)) {
            one.subscribe(List.of(topic));
            until("all partitions at the first member", () -> polled(one).size() == 4);
            two.subscribe(List.of(topic));
            until("an even share", () -> polled(one).size() == 2 & polled(two).size() == 2);
            Set<TopicPartition> all = new HashSet<>(one.assignment());
            all.addAll(two.assignment());
            equal(4, all.size(), "partitions that are consumed");
            ConsumerGroupDescription described = describe(t, group);
            equal(GroupState.STABLE, described.groupState(), "state");
            equal(2, described.members().size(), "members");
        }
        equal(GroupState.EMPTY, describe(t, group).groupState(), "state after both have left");
    }

    private static void leaves(ClientTests t) throws Exception {
        String topic = t.topic(2);
        String group = t.own("group");
        try (Consumer<String, String> one = t.member(group)) {
            one.subscribe(List.of(topic));
            try (Consumer<String, String> two = t.member(group)) {
                two.subscribe(List.of(topic));
                until("an even share", () -> polled(one).size() == 1 & polled(two).size() == 1);
            }
            until("all partitions at the member that stays", () -> polled(one).size() == 2);
        }
    }

    private static void staticReturns(ClientTests t) throws Exception {
        String topic = t.topic(2);
        String group = t.own("group");
        List<Collection<TopicPartition>> revoked = new ArrayList<>();
        try (Consumer<String, String> stays = t.member(group, "group.instance.id", "stays")) {
            stays.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    revoked.add(partitions);
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}
            });
            Set<TopicPartition> before = new TreeSet<>((a, b) -> a.toString().compareTo(b.toString()));
            try (Consumer<String, String> returns = t.member(group, "group.instance.id", "returns")) {
                returns.subscribe(List.of(topic));
                until("an even share", () -> polled(stays).size() == 1 & polled(returns).size() == 1);
                before.addAll(returns.assignment());
            }
            revoked.clear();
            equal(2, describe(t, group).members().size(), "a static member does not leave at close");
            try (Consumer<String, String> returns = t.member(group, "group.instance.id", "returns")) {
                returns.subscribe(List.of(topic));
                until("the returned member's share", () -> polled(stays).size() == 1 & polled(returns).size() == 1);
                equal(Set.copyOf(before), Set.copyOf(returns.assignment()), "the same partitions");
            }
            equal(List.of(), revoked, "no rebalance for the member that stayed");
            Set<String> ids = new HashSet<>();
            describe(t, group).members().forEach(m -> ids.add(m.groupInstanceId().orElse("none")));
            equal(Set.of("stays", "returns"), ids, "instance ids");
        }
    }

    private static void staticFenced(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = t.own("group");
        try (Consumer<String, String> one = t.member(group, "group.instance.id", "same", "heartbeat.interval.ms", "300");
                Consumer<String, String> two = t.member(group, "group.instance.id", "same")) {
            one.subscribe(List.of(topic));
            until("an assignment", () -> polled(one).size() == 1);
            two.subscribe(List.of(topic));
            until("its assignment", () -> polled(two).size() == 1);
            fails(FencedInstanceIdException.class, () -> until("fencing", () -> {
                one.poll(Duration.ofMillis(100));
                return false;
            }));
        }
    }

    private static void staticUnreleased(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = t.own("group");
        try (Consumer<String, String> one = t.member(group, "group.instance.id", "same");
                Consumer<String, String> two = t.member(group, "group.instance.id", "same")) {
            one.subscribe(List.of(topic));
            until("an assignment", () -> polled(one).size() == 1);
            two.subscribe(List.of(topic));
            fails(UnreleasedInstanceIdException.class, () -> until("refusal", () -> polled(two).size() == 9));
            equal(1, polled(one).size(), "partitions of the first member");
        }
    }

    private static void silent(ClientTests t) throws Exception {
        String topic = t.topic(2);
        String group = t.own("group");
        Consumer<String, String> silent = t.member(group, "max.poll.interval.ms", "1000", "heartbeat.interval.ms", "200");
        try (silent; Consumer<String, String> awake = t.member(group)) {
            silent.subscribe(List.of(topic));
            awake.subscribe(List.of(topic));
            until("an even share", () -> polled(silent).size() == 1 & polled(awake).size() == 1);
            until("all partitions at the member that polls", () -> polled(awake).size() == 2);
        }
    }

    private static void lateCommit(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 5);
        String group = t.own("group");
        try (Consumer<String, String> late = t.member(group, "max.poll.interval.ms", "1000", "heartbeat.interval.ms", "200");
                Consumer<String, String> heir = t.member(group)) {
            late.subscribe(List.of(topic));
            poll(late, 5);
            heir.subscribe(List.of(topic));
            until("the partition at its heir", () -> polled(heir).size() == 1);
            fails(CommitFailedException.class, () -> {
                try {
                    late.commitSync();
                } catch (RebalanceInProgressException e) {
                    throw new CommitFailedException(e.getMessage());
                }
            });
            equal(null, committed(t, group, first(topic)), "committed");
        }
    }

    private static void pattern(ClientTests t) throws Exception {
        String prefix = t.own("match");
        t.create(prefix + "-a", 1);
        try (Consumer<String, String> consumer = t.member(t.own("group"), "metadata.max.age.ms", "500")) {
            consumer.subscribe(Pattern.compile(Pattern.quote(prefix) + "-.*"));
            until("the first topic", () -> polled(consumer).size() == 1);
            t.create(prefix + "-b", 1);
            until("the second topic", () -> polled(consumer).size() == 2);
        }
    }

    private static void serverPattern(ClientTests t) throws Exception {
        String prefix = t.own("match");
        t.create(prefix + "-a", 2);
        t.create("not-" + prefix + "-a", 1);
        String group = t.own("group");
        SubscriptionPattern pattern = new SubscriptionPattern(prefix + "-[a-c]");
        try (Consumer<String, String> one = t.member(group); Consumer<String, String> two = t.member(group)) {
            one.subscribe(pattern);
            until("the first topic", () -> polled(one).size() == 2);
            two.subscribe(pattern);
            until("an even share", () -> polled(one).size() == 1 & polled(two).size() == 1);
            t.create(prefix + "-b", 2);
            t.create(prefix + "-d", 2);
            until("the second topic", () -> polled(one).size() == 2 & polled(two).size() == 2);
        }
    }

    private static void invalidServerPattern(ClientTests t) throws Exception {
        try (Consumer<String, String> consumer = t.member(t.own("group"))) {
            consumer.subscribe(new SubscriptionPattern("(?=look-ahead)"));
            fails(InvalidRegularExpression.class, () -> until("refusal", () -> polled(consumer).size() == 9));
        }
    }

    private static void unknownAssignor(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Consumer<String, String> consumer = t.member(t.own("group"), "group.remote.assignor", "sticky")) {
            consumer.subscribe(List.of(topic));
            fails(UnsupportedAssignorException.class, () -> until("refusal", () -> polled(consumer).size() == 9));
        }
    }

    private static void newPartitions(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Consumer<String, String> consumer = t.member(t.own("group"), "metadata.max.age.ms", "500")) {
            consumer.subscribe(List.of(topic));
            until("the first partition", () -> polled(consumer).size() == 1);
            get(t.admin.createPartitions(
                Map.of(topic, org.apache.kafka.clients.admin.NewPartitions.increaseTo(3))).all());
            until("the new partitions", () -> polled(consumer).size() == 3);
        }
    }

    private static void otherProtocol(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = t.own("group");
        String strategy = "partition.assignment.strategy";
        try (Consumer<String, String> one = t.member(group, strategy, RoundRobinAssignor.class.getName());
                Consumer<String, String> other = t.member(group, strategy, CooperativeStickyAssignor.class.getName())) {
            one.subscribe(List.of(topic));
            until("an assignment", () -> polled(one).size() == 1);
            other.subscribe(List.of(topic));
            fails(InconsistentGroupProtocolException.class, () -> until("refusal", () -> polled(other).size() == 9));
        }
    }

    private static void sessionTimeout(ClientTests t) throws Exception {
        String topic = t.topic(1);
        for (String timeout : List.of("100", "99999999")) {
            String[] config = {"session.timeout.ms", timeout, "heartbeat.interval.ms", "50"};
            try (Consumer<String, String> consumer = t.member(t.own("group"), config)) {
                consumer.subscribe(List.of(topic));
                fails(InvalidSessionTimeoutException.class, () -> until("refusal", () -> polled(consumer).size() == 9));
            }
        }
    }

    private static void enforced(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = t.own("group");
        try (Consumer<String, String> consumer = t.member(group)) {
            consumer.subscribe(List.of(topic));
            until("an assignment", () -> polled(consumer).size() == 1);
            int before = consumer.groupMetadata().generationId();
            consumer.enforceRebalance("because the test asks for it");
            until("the next generation", () -> {
                polled(consumer);
                return consumer.groupMetadata().generationId() > before;
            });
        }
    }

    private static Set<TopicPartition> polled(Consumer<String, String> consumer) {
        consumer.poll(Duration.ofMillis(100));
        return consumer.assignment();
    }

    private static ConsumerGroupDescription describe(ClientTests t, String group) throws Exception {
        return get(t.admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    private static Long committed(ClientTests t, String group, TopicPartition partition) throws Exception {
        OffsetAndMetadata offset =
            get(t.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(partition);
        return offset == null ? null : offset.offset();
    }
}
