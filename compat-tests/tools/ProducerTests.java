package sordini.compat;

import static sordini.compat.ClientTests.bytes;
import static sordini.compat.ClientTests.check;
import static sordini.compat.ClientTests.equal;
import static sordini.compat.ClientTests.fails;
import static sordini.compat.ClientTests.get;
import static sordini.compat.ClientTests.numbered;
import static sordini.compat.ClientTests.test;
import static sordini.compat.ClientTests.values;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;

/** Tests of the producer: records are stored once, in order, and acknowledged with their offset. */
final class ProducerTests {
    private ProducerTests() {}

    static void register() {
        for (String acks : List.of("0", "1", "all")) {
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                test("produce acks=" + acks + " " + codec, t -> roundTrip(t, acks, codec));
            }
        }
        test("produce offsets", ProducerTests::offsets);
        test("produce headers", ProducerTests::headers);
        test("produce nulls and empties", ProducerTests::nullsAndEmpties);
        test("produce batches of many sizes", ProducerTests::batching);
        test("produce large messages", ProducerTests::large);
        test("produce too large for the topic", ProducerTests::tooLarge);
        test("produce create time", ProducerTests::createTime);
        test("produce log append time", ProducerTests::logAppendTime);
        test("produce refused timestamps", ProducerTests::refusedTimestamps);
        test("produce to a new topic", ProducerTests::newTopic);
        test("produce to a bad name", ProducerTests::badName);
        test("produce to a compacted topic without a key", ProducerTests::keyless);
        test("produce idempotent to many partitions", ProducerTests::manyPartitions);
        test("produce recompressed", ProducerTests::recompressed);
    }

    private static void roundTrip(ClientTests t, String acks, String codec) throws Exception {
        String topic = t.topic(1);
        String idempotent = acks.equals("all") ? "true" : "false";
        t.send(topic, 300, "acks", acks, "compression.type", codec, "enable.idempotence", idempotent);
        List<ConsumerRecord<String, String>> records = t.read(topic, 300);
        equal(numbered(0, 300), values(records), "values");
        for (int n = 0; n < 300; n++) {
            equal("k" + n, records.get(n).key(), "key");
            equal((long) n, records.get(n).offset(), "offset");
            equal(1000L * (n + 1), records.get(n).timestamp(), "timestamp");
        }
    }

    private static void offsets(ClientTests t) throws Exception {
        String topic = t.topic(1);
        for (int round = 0; round < 3; round++) {
            List<RecordMetadata> acknowledged = t.send(topic, 10);
            for (int n = 0; n < 10; n++) {
                equal(10L * round + n, acknowledged.get(n).offset(), "offset");
                equal(1000L * (n + 1), acknowledged.get(n).timestamp(), "timestamp");
            }
        }
    }

    private static void headers(ClientTests t) throws Exception {
        String topic = t.topic(1);
        try (Producer<String, String> producer = t.producer()) {
            ProducerRecord<String, String> record = new ProducerRecord<>(topic, "k", "v");
            record.headers().add("twice", bytes("1")).add("twice", bytes("2"));
            record.headers().add("null", null).add("empty", new byte[0]).add("", bytes("x"));
            get(producer.send(record));
        }
        List<String> seen = new ArrayList<>();
        for (Header header : t.read(topic, 1).get(0).headers()) {
            seen.add(header.key() + "=" + (header.value() == null ? null : new String(header.value())));
        }
        equal(List.of("twice=1", "twice=2", "null=null", "empty=", "=x"), seen, "headers");
    }

    private static void nullsAndEmpties(ClientTests t) throws Exception {
        String topic = t.topic(1);
        String[][] pairs = {{null, null}, {"", ""}, {null, "v"}, {"k", null}};
        try (Producer<String, String> producer = t.producer()) {
            for (String[] pair : pairs) {
                producer.send(new ProducerRecord<>(topic, 0, pair[0], pair[1]));
            }
        }
        List<ConsumerRecord<String, String>> records = t.read(topic, pairs.length);
        for (int n = 0; n < pairs.length; n++) {
            equal(pairs[n][0], records.get(n).key(), "key " + n);
            equal(pairs[n][1], records.get(n).value(), "value " + n);
        }
    }

    private static void batching(ClientTests t) throws Exception {
        String topic = t.topic(1);
        for (String size : List.of("0", "200", "16384", "1000000")) {
            t.send(topic, 500, "batch.size", size, "linger.ms", "5");
        }
        List<String> expected = new ArrayList<>();
        for (int round = 0; round < 4; round++) {
            expected.addAll(numbered(0, 500));
        }
        equal(expected, values(t.read(topic, 2000)), "values");
    }

    private static void large(ClientTests t) throws Exception {
        String topic = t.topic(1, "max.message.bytes", "9000000");
        String value = "0123456789abcdef".repeat(500_000);
        try (Producer<String, String> producer = t.producer("max.request.size", "9000000")) {
            get(producer.send(new ProducerRecord<>(topic, "before")));
            get(producer.send(new ProducerRecord<>(topic, value)));
            get(producer.send(new ProducerRecord<>(topic, "after")));
        }
        // Far above the consumer's limits: a fetch returns its first batch whatever its size.
        List<ConsumerRecord<String, String>> records =
            t.read(topic, 3, "max.partition.fetch.bytes", "1000", "fetch.max.bytes", "1000");
        equal("before", records.get(0).value(), "first value");
        check(value.equals(records.get(1).value()), "the large value came back whole");
        equal("after", records.get(2).value(), "last value");
    }

    private static void tooLarge(ClientTests t) throws Exception {
        String topic = t.topic(1, "max.message.bytes", "1000");
        try (Producer<String, String> producer = t.producer()) {
            fails(RecordTooLargeException.class,
                () -> get(producer.send(new ProducerRecord<>(topic, "x".repeat(2000)))));
            RecordMetadata next = get(producer.send(new ProducerRecord<>(topic, "v0")));
            equal(0L, next.offset(), "offset after the refused record");
        }
    }

    private static void createTime(ClientTests t) throws Exception {
        String topic = t.topic(1, "message.timestamp.type", "CreateTime");
        t.send(topic, 1);
        ConsumerRecord<String, String> record = t.read(topic, 1).get(0);
        equal(TimestampType.CREATE_TIME, record.timestampType(), "timestamp type");
        equal(1000L, record.timestamp(), "timestamp");
        equal(0, record.leaderEpoch().orElse(-1), "leader epoch");
    }

    private static void logAppendTime(ClientTests t) throws Exception {
        for (String codec : List.of("none", "zstd")) {
            String topic = t.own(codec);
            t.create(topic, 1, "message.timestamp.type", "LogAppendTime");
            long before = System.currentTimeMillis();
            RecordMetadata sent = t.send(topic, 3, "compression.type", codec).get(0);
            long after = System.currentTimeMillis();
            check(before <= sent.timestamp() && sent.timestamp() <= after,
                "the answer carries the broker's time, not " + sent.timestamp());
            for (ConsumerRecord<String, String> record : t.read(topic, 3)) {
                equal(TimestampType.LOG_APPEND_TIME, record.timestampType(), "type");
                check(before <= record.timestamp() && record.timestamp() <= after,
                    "the record carries the broker's time, not " + record.timestamp());
            }
        }
    }

    private static void refusedTimestamps(ClientTests t) throws Exception {
        String topic = t.topic(1, "message.timestamp.before.max.ms", "3600000");
        long now = System.currentTimeMillis();
        long twoHours = 7_200_000;
        try (Producer<String, String> producer = t.producer()) {
            for (long timestamp : new long[] {now - twoHours, now + twoHours}) {
                fails(InvalidTimestampException.class, () -> get(
                    producer.send(new ProducerRecord<>(topic, 0, timestamp, "k", "v"))));
            }
            RecordMetadata kept =
                get(producer.send(new ProducerRecord<>(topic, 0, now, "k", "v")));
            equal(0L, kept.offset(), "offset of the first record in time");
        }
    }

    private static void newTopic(ClientTests t) throws Exception {
        String topic = t.own("created-by-producing");
        try (Producer<String, String> producer = t.producer()) {
            RecordMetadata sent = get(producer.send(new ProducerRecord<>(topic, "v")));
            equal(0L, sent.offset(), "offset");
        }
        check(get(t.admin.listTopics().names()).contains(topic), "it is listed");
    }

    private static void badName(ClientTests t) throws Exception {
        try (Producer<String, String> producer = t.producer()) {
            fails(InvalidTopicException.class,
                () -> get(producer.send(new ProducerRecord<>("not a topic name", "v"))));
        }
    }

    private static void keyless(ClientTests t) throws Exception {
        String topic = t.topic(1, "cleanup.policy", "compact");
        try (Producer<String, String> producer = t.producer()) {
            fails(org.apache.kafka.common.InvalidRecordException.class,
                () -> get(producer.send(new ProducerRecord<>(topic, "no key"))));
            get(producer.send(new ProducerRecord<>(topic, "k", "v0")));
        }
        equal(List.of("v0"), values(t.read(topic, 1)), "values");
    }

    private static void manyPartitions(ClientTests t) throws Exception {
        String topic = t.topic(20);
        try (Producer<String, String> producer = t.producer("enable.idempotence", "true")) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = 0; n < 5000; n++) {
                sent.add(producer.send(new ProducerRecord<>(topic, n % 20, "k", "v" + n)));
            }
            producer.flush();
            for (int n = 0; n < 5000; n++) {
                equal((long) n / 20, get(sent.get(n)).offset(), "offset");
            }
        }
    }

    private static void recompressed(ClientTests t) throws Exception {
        for (String stored : List.of("gzip", "snappy", "lz4", "zstd", "uncompressed")) {
            String topic = t.own(stored);
            t.create(topic, 1, "compression.type", stored);
            t.send(topic, 200, "compression.type", "none");
            t.send(topic, 200, "compression.type", stored.equals("zstd") ? "lz4" : "zstd");
            List<String> expected = new ArrayList<>(numbered(0, 200));
            expected.addAll(numbered(0, 200));
            equal(expected, values(t.read(topic, 400)), "values in " + stored);
        }
    }
}
