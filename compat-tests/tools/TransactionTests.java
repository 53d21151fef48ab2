package sordini.compat;

import static sordini.compat.ClientTests.check;
import static sordini.compat.ClientTests.equal;
import static sordini.compat.ClientTests.fails;
import static sordini.compat.ClientTests.get;
import static sordini.compat.ClientTests.poll;
import static sordini.compat.ClientTests.test;
import static sordini.compat.ClientTests.until;
import static sordini.compat.ClientTests.values;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.AbortTransactionSpec;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TransactionalIdNotFoundException;

/**
 * Tests of transactional producers, read_committed consumers, and the admin client's transactions.
 * They pass at each {@code transaction.version}.
 */
final class TransactionTests {
    private TransactionTests() {}

    static void register() {
        test("transaction commit and abort", TransactionTests::commitAndAbort);
        test("transaction over partitions", TransactionTests::partitions);
        test("transaction is read after its end", TransactionTests::lastStableOffset);
        test("transaction without records", TransactionTests::empty);
        test("transaction fenced by another producer", TransactionTests::fenced);
        test("transaction takes too long", TransactionTests::overdue);
        test("transaction timeout is too large", TransactionTests::timeoutTooLarge);
        test("transaction with offsets", TransactionTests::offsets);
        test("transaction of an old generation", TransactionTests::oldGeneration);
        test("transaction described and aborted", TransactionTests::admin);
        test("transaction terminated", TransactionTests::terminated);
        test("transaction producers fenced", TransactionTests::fencedByAdmin);
    }

    private static Producer<String, String> begin(ClientTests t, String topic, String... config)
            throws Exception {
        Producer<String, String> producer = start(t, topic, config);
        producer.beginTransaction();
        return producer;
    }

    private static Producer<String, String> start(ClientTests t, String topic, String... config)
            throws Exception {
        String[] all = new String[config.length + 2];
        System.arraycopy(config, 0, all, 2, config.length);
        all[0] = "transactional.id";
        all[1] = topic + "-id";
        Producer<String, String> producer = t.producer(all);
        producer.initTransactions();
        return producer;
    }

    private static void send(Producer<String, String> producer, String topic, String... values)
            throws Exception {
        for (String value : values) {
            get(producer.send(new ProducerRecord<>(topic, 0, null, value)));
        }
    }

    private static List<String> committed(ClientTests t, String topic, int count) {
        return values(t.read(topic, count, "isolation.level", "read_committed"));
    }

    private static long end(ClientTests t, String topic, IsolationLevel isolation) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        ListOffsetsOptions options = new ListOffsetsOptions(isolation);
        return get(t.admin.listOffsets(Map.of(partition, OffsetSpec.latest()), options).all())
                .get(partition).offset();
    }

    private static void commitAndAbort(ClientTests t) throws Exception {
        String topic = t.topic(1);
        List<String> expected = new ArrayList<>();
        try (Producer<String, String> producer = start(t, topic)) {
            for (int n = 0; n < 12; n++) {
                producer.beginTransaction();
                send(producer, topic, n + "a", n + "b");
                if (n % 3 == 0) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                    expected.addAll(List.of(n + "a", n + "b"));
                }
            }
        }
        equal(expected, committed(t, topic, 16), "committed values");
        equal(24, t.read(topic, 24).size(), "all values");
    }

    private static void partitions(ClientTests t) throws Exception {
        String topic = t.topic(5);
        try (Producer<String, String> producer = start(t, topic)) {
            for (int n = 0; n < 4; n++) {
                producer.beginTransaction();
                for (int partition = 0; partition < 5; partition++) {
                    producer.send(new ProducerRecord<>(topic, partition, null, n + "-" + partition));
                }
                if (n == 2) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        try (Consumer<String, String> consumer = t.consumer("isolation.level", "read_committed")) {
            List<TopicPartition> all = new ArrayList<>();
            for (int partition = 0; partition < 5; partition++) {
                all.add(new TopicPartition(topic, partition));
            }
            consumer.assign(all);
            equal(15, poll(consumer, 15).size(), "committed records");
        }
    }

    private static void lastStableOffset(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Producer<String, String> producer = begin(t, topic);
                Consumer<String, String> consumer = t.consumer("isolation.level", "read_committed")) {
            send(producer, topic, "a", "b");
            equal(2L, end(t, topic, IsolationLevel.READ_UNCOMMITTED), "end");
            equal(0L, end(t, topic, IsolationLevel.READ_COMMITTED), "last stable offset");
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            check(consumer.poll(Duration.ofMillis(500)).isEmpty(), "the open transaction is hidden");
            producer.commitTransaction();
            equal(List.of("a", "b"), values(poll(consumer, 2)), "values after the commit");
            equal(3L, end(t, topic, IsolationLevel.READ_COMMITTED), "last stable offset");
        }
    }

    private static void empty(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Producer<String, String> producer = start(t, topic)) {
            producer.beginTransaction();
            producer.commitTransaction();
            producer.beginTransaction();
            producer.abortTransaction();
            producer.beginTransaction();
            send(producer, topic, "a");
            producer.commitTransaction();
        }
        equal(List.of("a"), committed(t, topic, 1), "values");
    }

    private static void fenced(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Producer<String, String> first = begin(t, topic)) {
            send(first, topic, "first");
            try (Producer<String, String> second = begin(t, topic)) {
                send(second, topic, "second");
                KafkaException refused = fails(KafkaException.class, () -> {
                    send(first, topic, "late");
                    first.commitTransaction();
                });
                check(refused instanceof ProducerFencedException
                        || refused instanceof InvalidProducerEpochException
                        || refused.getCause() instanceof ProducerFencedException
                        || refused.getCause() instanceof InvalidProducerEpochException,
                        "the first producer is fenced: " + refused);
                second.commitTransaction();
            }
        }
        equal(List.of("second"), committed(t, topic, 1), "values");
    }

    private static void overdue(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Producer<String, String> producer = begin(t, topic, "transaction.timeout.ms", "1000")) {
            send(producer, topic, "overdue");
            until("an abort", () -> {
                try {
                    return end(t, topic, IsolationLevel.READ_COMMITTED) == 2;
                } catch (Exception e) {
                    return false;
                }
            });
            fails(KafkaException.class, producer::commitTransaction);
        }
        try (Producer<String, String> producer = begin(t, topic)) {
            send(producer, topic, "next");
            producer.commitTransaction();
        }
        equal(List.of("next"), committed(t, topic, 1), "values");
    }

    private static void timeoutTooLarge(ClientTests t) throws Exception {
        KafkaException refused = fails(KafkaException.class,
                () -> start(t, t.topic(1), "transaction.timeout.ms", "900001").close());
        check(refused.getMessage().contains("transaction.max.timeout.ms"), "why: " + refused);
    }

    private static Map<TopicPartition, OffsetAndMetadata> upTo(String topic, long offset) {
        return Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(offset));
    }

    private static Long groupOffset(ClientTests t, String group, String topic) throws Exception {
        OffsetAndMetadata found =
                get(t.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata())
                        .get(new TopicPartition(topic, 0));
        return found == null ? null : found.offset();
    }

    private static void offsets(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String group = topic + "-group";
        t.send(topic, 10);
        try (Consumer<String, String> member = t.member(group, "isolation.level", "read_committed");
                Producer<String, String> producer = start(t, topic)) {
            member.subscribe(List.of(topic));
            poll(member, 10);
            ConsumerGroupMetadata metadata = member.groupMetadata();
            producer.beginTransaction();
            send(producer, topic, "aborted");
            producer.sendOffsetsToTransaction(upTo(topic, 4), metadata);
            producer.abortTransaction();
            equal(null, groupOffset(t, group, topic), "offset after an abort");
            producer.beginTransaction();
            send(producer, topic, "committed");
            producer.sendOffsetsToTransaction(upTo(topic, 6), metadata);
            equal(null, groupOffset(t, group, topic), "offset before the end");
            producer.commitTransaction();
            until("the offset", () -> {
                try {
                    return Long.valueOf(6).equals(groupOffset(t, group, topic));
                } catch (Exception e) {
                    return false;
                }
            });
            equal(6L, member.committed(Set.of(new TopicPartition(topic, 0)))
                    .get(new TopicPartition(topic, 0)).offset(), "offset that a member gets");
        }
        List<String> read = committed(t, topic, 11);
        equal("committed", read.get(10), "last value");
    }

    private static void oldGeneration(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 1);
        String group = topic + "-group";
        ConsumerGroupMetadata metadata;
        try (Consumer<String, String> member = t.member(group)) {
            member.subscribe(List.of(topic));
            poll(member, 1);
            metadata = member.groupMetadata();
        }
        try (Producer<String, String> producer = begin(t, topic)) {
            fails(CommitFailedException.class, () -> {
                producer.sendOffsetsToTransaction(upTo(topic, 1), metadata);
                producer.commitTransaction();
            });
            producer.abortTransaction();
        }
        equal(null, groupOffset(t, group, topic), "offset");
    }

    private static void admin(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String id = topic + "-id";
        TopicPartition partition = new TopicPartition(topic, 0);
        fails(TransactionalIdNotFoundException.class, () -> get(
                t.admin.describeTransactions(List.of(id)).description(id)));
        try (Producer<String, String> producer = begin(t, topic)) {
            send(producer, topic, "a");
            TransactionDescription open =
                    get(t.admin.describeTransactions(List.of(id)).description(id));
            equal(TransactionState.ONGOING, open.state(), "state");
            equal(Set.of(partition), open.topicPartitions(), "partitions");
            check(get(t.admin.listTransactions().all()).stream().anyMatch(
                    it -> it.transactionalId().equals(id) && it.state() == TransactionState.ONGOING),
                    "the open transaction is listed");
            ProducerState state = get(t.admin.describeProducers(List.of(partition)).all())
                    .get(partition).activeProducers().get(0);
            equal(open.producerId(), state.producerId(), "producer id");
            equal(0L, state.currentTransactionStartOffset().getAsLong(), "start offset");
            short epoch = (short) (state.producerEpoch() + 1);
            AbortTransactionSpec spec =
                    new AbortTransactionSpec(partition, state.producerId(), epoch, 0);
            get(t.admin.abortTransaction(spec).all());
            equal(2L, end(t, topic, IsolationLevel.READ_COMMITTED), "last stable offset");
        }
    }

    private static void terminated(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Producer<String, String> producer = begin(t, topic)) {
            send(producer, topic, "a");
            get(t.admin.forceTerminateTransaction(topic + "-id").result());
            equal(2L, end(t, topic, IsolationLevel.READ_COMMITTED), "last stable offset");
            fails(KafkaException.class, producer::commitTransaction);
        }
    }

    private static void fencedByAdmin(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Producer<String, String> producer = begin(t, topic)) {
            send(producer, topic, "a");
            get(t.admin.fenceProducers(List.of(topic + "-id")).all());
            fails(KafkaException.class, () -> {
                send(producer, topic, "late");
                producer.commitTransaction();
            });
        }
        equal(2L, end(t, topic, IsolationLevel.READ_COMMITTED), "last stable offset");
    }
}
