package sordini.compat;

import static sordini.compat.ClientTests.check;
import static sordini.compat.ClientTests.equal;
import static sordini.compat.ClientTests.fails;
import static sordini.compat.ClientTests.get;
import static sordini.compat.ClientTests.numbered;
import static sordini.compat.ClientTests.poll;
import static sordini.compat.ClientTests.set;
import static sordini.compat.ClientTests.test;
import static sordini.compat.ClientTests.values;

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.TimeoutException;

/** Tests of a consumer without a group: start offsets, skipped records, and queries of the log. */
final class ConsumerTests {
    private ConsumerTests() {}

    static void register() {
        test("consume from a seek", ConsumerTests::seek);
        test("consume from begin and end", ConsumerTests::beginAndEnd);
        test("consume from the middle of a batch", ConsumerTests::middleOfBatch);
        test("consume offsets for times", ConsumerTests::offsetsForTimes);
        test("consume out of range", ConsumerTests::outOfRange);
        test("consume without a reset policy", ConsumerTests::noReset);
        test("consume from a duration ago", ConsumerTests::byDuration);
        test("consume paused partitions", ConsumerTests::pause);
        test("consume lag", ConsumerTests::lag);
        test("consume what arrives while waiting", ConsumerTests::longPoll);
        test("consume with min bytes", ConsumerTests::minBytes);
        test("consume after records were deleted", ConsumerTests::afterDelete);
        test("consume read_committed", ConsumerTests::readCommitted);
        test("consume metadata", ConsumerTests::metadata);
        test("consume many partitions in turn", ConsumerTests::manyPartitions);
        test("consume across segments", ConsumerTests::segments);
        test("consume a bad name", ConsumerTests::badName);
        test("consume an unknown topic", ConsumerTests::unknownTopic);
    }

    private static TopicPartition first(String topic) {
        return new TopicPartition(topic, 0);
    }

    private static void seek(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 50);
        try (Consumer<String, String> consumer = t.consumer()) {
            consumer.assign(List.of(first(topic)));
            for (int at : new int[] {40, 7, 0, 49}) {
                consumer.seek(first(topic), at);
                equal(numbered(at, 50),
                    values(poll(consumer, 50 - at)), "values from " + at);
                equal(50L, consumer.position(first(topic)), "position");
            }
        }
    }

    private static void beginAndEnd(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 5);
        try (Consumer<String, String> consumer = t.consumer()) {
            consumer.assign(List.of(first(topic)));
            equal(Map.of(first(topic), 0L), consumer.beginningOffsets(List.of(first(topic))), "begin");
            equal(Map.of(first(topic), 5L), consumer.endOffsets(List.of(first(topic))), "end");
            consumer.seekToEnd(List.of(first(topic)));
            equal(5L, consumer.position(first(topic)), "position at the end");
            t.send(topic, 1);
            equal(5L, poll(consumer, 1).get(0).offset(), "next offset");
            consumer.seekToBeginning(List.of(first(topic)));
            equal(0L, consumer.position(first(topic)), "position at the beginning");
        }
    }

    private static void middleOfBatch(ClientTests t) throws Exception {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            String topic = t.own(codec);
            t.create(topic, 1);
            t.send(topic, 100, "linger.ms", "100", "compression.type", codec);
            try (Consumer<String, String> consumer = t.consumer()) {
                consumer.assign(List.of(first(topic)));
                consumer.seek(first(topic), 60);
                equal(numbered(60, 100),
                    values(poll(consumer, 40)), codec);
            }
        }
    }

    private static void offsetsForTimes(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 100, "linger.ms", "100");
        t.send(topic, 100, "batch.size", "0");
        try (Consumer<String, String> consumer = t.consumer()) {
            Map<Long, Long> expected = new HashMap<>();
            expected.put(0L, 0L);
            expected.put(1L, 0L);
            expected.put(1000L, 0L);
            expected.put(1001L, 1L);
            expected.put(50_000L, 49L);
            expected.put(99_500L, 99L);
            expected.put(100_000L, 99L);
            expected.put(100_001L, null);
            for (Map.Entry<Long, Long> entry : expected.entrySet()) {
                OffsetAndTimestamp found =
                    consumer.offsetsForTimes(Map.of(first(topic), entry.getKey())).get(first(topic));
                Long offset = found == null ? null : found.offset();
                equal(entry.getValue(), offset, "offset for time " + entry.getKey());
                if (found != null) {
                    equal(1000L * (found.offset() + 1), found.timestamp(), "its timestamp");
                }
            }
        }
    }

    private static void outOfRange(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 5);
        try (Consumer<String, String> consumer = t.consumer("auto.offset.reset", "none")) {
            consumer.assign(List.of(first(topic)));
            consumer.seek(first(topic), 99);
            fails(OffsetOutOfRangeException.class, () -> poll(consumer, 1));
        }
        try (Consumer<String, String> consumer = t.consumer("auto.offset.reset", "earliest")) {
            consumer.assign(List.of(first(topic)));
            consumer.seek(first(topic), 99);
            equal(numbered(0, 5), values(poll(consumer, 5)), "reset");
        }
    }

    private static void noReset(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Consumer<String, String> consumer = t.member(t.own("group"), "auto.offset.reset", "none")) {
            consumer.assign(List.of(first(topic)));
            fails(NoOffsetForPartitionException.class, () -> poll(consumer, 1));
        }
    }

    private static void byDuration(ClientTests t) throws Exception {
        String topic = t.topic(1, "message.timestamp.type", "LogAppendTime");
        t.send(topic, 5);
        List<ConsumerRecord<String, String>> records =
            t.read(topic, 5, "auto.offset.reset", "by_duration:PT1H");
        equal(0L, records.get(0).offset(), "first offset");
    }

    private static void pause(ClientTests t) throws Exception {
        String topic = t.topic(2);
        TopicPartition second = new TopicPartition(topic, 1);
        t.send(topic, 5);
        try (Consumer<String, String> consumer = t.consumer()) {
            consumer.assign(List.of(first(topic), second));
            consumer.pause(List.of(first(topic)));
            equal(0, consumer.poll(Duration.ofMillis(700)).count(), "records while paused");
            consumer.resume(List.of(first(topic)));
            equal(numbered(0, 5), values(poll(consumer, 5)), "values");
        }
    }

    private static void lag(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 10);
        try (Consumer<String, String> consumer = t.consumer("max.poll.records", "4")) {
            consumer.assign(List.of(first(topic)));
            poll(consumer, 4);
            equal(6L, consumer.currentLag(first(topic)).orElse(-1), "lag");
        }
    }

    /** A waiting fetch completes when a record arrives, not only after its maximum wait time. */
    private static void longPoll(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Consumer<String, String> consumer = t.consumer("fetch.max.wait.ms", "5000")) {
            consumer.assign(List.of(first(topic)));
            consumer.poll(Duration.ofMillis(500));
            t.send(topic, 1);
            long start = System.nanoTime();
            poll(consumer, 1);
            long waitedMs = (System.nanoTime() - start) / 1_000_000;
            check(waitedMs < 2_500, "it came at once, not after " + waitedMs + " ms");
        }
    }

    private static void minBytes(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 1);
        try (Consumer<String, String> consumer = t.consumer("fetch.min.bytes", "100000", "fetch.max.wait.ms", "1500")) {
            consumer.assign(List.of(first(topic)));
            consumer.position(first(topic));
            long start = System.nanoTime();
            poll(consumer, 1);
            long waitedMs = (System.nanoTime() - start) / 1_000_000;
            check(waitedMs > 1_000, "too few bytes wait out their time, not " + waitedMs + " ms");
        }
    }

    private static void afterDelete(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 20);
        equal(12L, get(t.admin.deleteRecords(
            Map.of(first(topic), RecordsToDelete.beforeOffset(12))).lowWatermarks().get(first(topic))).lowWatermark(), "low watermark");
        equal(numbered(12, 20), values(t.read(topic, 8)), "values");
        try (Consumer<String, String> consumer = t.consumer("auto.offset.reset", "none")) {
            equal(Map.of(first(topic), 12L), consumer.beginningOffsets(List.of(first(topic))), "begin");
            consumer.assign(List.of(first(topic)));
            consumer.seek(first(topic), 3);
            fails(OffsetOutOfRangeException.class, () -> poll(consumer, 1));
        }
    }

    private static void readCommitted(ClientTests t) throws Exception {
        String topic = t.topic(1);
        t.send(topic, 10);
        equal(numbered(0, 10),
            values(t.read(topic, 10, "isolation.level", "read_committed")), "values");
        try (Consumer<String, String> consumer = t.consumer("isolation.level", "read_committed")) {
            equal(Map.of(first(topic), 10L), consumer.endOffsets(List.of(first(topic))), "end");
        }
    }

    private static void metadata(ClientTests t) throws Exception {
        String topic = t.topic(3);
        try (Consumer<String, String> consumer = t.consumer()) {
            List<PartitionInfo> partitions = consumer.partitionsFor(topic);
            equal(3, partitions.size(), "partitions");
            for (PartitionInfo partition : partitions) {
                equal(1, partition.leader().id(), "leader");
                equal(1, partition.inSyncReplicas().length, "in-sync replicas");
                equal(0, partition.offlineReplicas().length, "offline replicas");
            }
            check(consumer.listTopics().containsKey(topic), "it is listed");
        }
    }

    private static void manyPartitions(ClientTests t) throws Exception {
        String topic = t.topic(30);
        try (var producer = t.producer()) {
            for (int n = 0; n < 3000; n++) {
                producer.send(new org.apache.kafka.clients.producer.ProducerRecord<>(topic, n % 30, "k", "v" + n));
            }
        }
        try (Consumer<String, String> consumer = t.consumer("max.partition.fetch.bytes", "500", "fetch.max.bytes", "3000")) {
            List<TopicPartition> all = new java.util.ArrayList<>();
            for (int p = 0; p < 30; p++) {
                all.add(new TopicPartition(topic, p));
            }
            consumer.assign(all);
            Map<Integer, Long> next = new HashMap<>();
            for (ConsumerRecord<String, String> record : poll(consumer, 3000)) {
                long expected = next.getOrDefault(record.partition(), 0L);
                equal(expected, record.offset(), "offset in " + record.partition());
                equal("v" + (30 * expected + record.partition()), record.value(), "value");
                next.put(record.partition(), expected + 1);
            }
        }
    }

    private static void segments(ClientTests t) throws Exception {
        String topic = t.topic(1, "segment.bytes", "1048576", "index.interval.bytes", "4096");
        String padding = "x".repeat(1000);
        try (var producer = t.producer()) {
            for (int n = 0; n < 5000; n++) {
                producer.send(new org.apache.kafka.clients.producer.ProducerRecord<>(topic, 0, 1000L * (n + 1), "k", "v" + n + padding));
            }
        }
        try (Consumer<String, String> consumer = t.consumer()) {
            consumer.assign(List.of(first(topic)));
            for (int at : new int[] {0, 4999, 1234, 3456}) {
                consumer.seek(first(topic), at);
                ConsumerRecord<String, String> record = consumer.poll(Duration.ofSeconds(10)).iterator().next();
                equal((long) at, record.offset(), "offset");
                equal("v" + at + padding, record.value(), "value");
                long time = 1000L * (at + 1);
                equal((long) at, consumer.offsetsForTimes(Map.of(first(topic), time)).get(first(topic)).offset(), "offset for time " + time);
            }
            consumer.seekToBeginning(List.of(first(topic)));
            long expected = 0;
            for (ConsumerRecord<String, String> record : poll(consumer, 5000)) {
                equal(expected++, record.offset(), "offset");
            }
        }
    }

    private static void badName(ClientTests t) throws Exception {
        try (Consumer<String, String> consumer = t.member(t.own("group"))) {
            consumer.subscribe(List.of("not a topic name"));
            fails(InvalidTopicException.class, () -> poll(consumer, 1));
        }
    }

    private static void unknownTopic(ClientTests t) throws Exception {
        try (Consumer<String, String> consumer = t.consumer("allow.auto.create.topics", "false", "default.api.timeout.ms", "1500")) {
            TopicPartition nowhere = new TopicPartition(t.own("nowhere"), 0);
            fails(TimeoutException.class, () -> consumer.endOffsets(List.of(nowhere)));
            equal(Set.of(), set(consumer.listTopics().keySet().stream()
                .filter(Pattern.compile(Pattern.quote(nowhere.topic())).asMatchPredicate()).toList()), "it was not created");
        }
    }
}
