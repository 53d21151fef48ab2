package sordini.compat;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Apache Kafka's Java clients against one broker: {@code java ClientTests BOOTSTRAP [PATTERN]}.
 * Prints a line per test and ends with {@code N passed, N failed}; exit code 1 if one failed.
 */
public final class ClientTests {
    interface Test {
        void run(ClientTests broker) throws Exception;
    }

    private static final Map<String, Test> TESTS = new LinkedHashMap<>();

    private final String bootstrap;
    private final String name;
    final Admin admin;
    /** The {@code group.protocol} of members. */
    private String groupProtocol = "classic";

    private ClientTests(String bootstrap, String name, Admin admin) {
        this.bootstrap = bootstrap;
        this.name = name;
        this.admin = admin;
    }

    static void test(String name, Test test) {
        if (TESTS.put(name, test) != null) {
            throw new IllegalStateException("two tests are called " + name);
        }
    }

    public static void main(String[] args) {
        String bootstrap = args[0];
        Pattern wanted = Pattern.compile(args.length > 1 ? args[1] : "");
        ProducerTests.register();
        ConsumerTests.register();
        GroupTests.register();
        ConversionTests.register();
        AdminTests.register();
        TransactionTests.register();
        int passed = 0;
        List<String> failed = new ArrayList<>();
        Properties properties = properties(bootstrap);
        try (Admin admin = Admin.create(properties)) {
            for (Map.Entry<String, Test> test : TESTS.entrySet()) {
                if (!wanted.matcher(test.getKey()).find()) {
                    continue;
                }
                long start = System.nanoTime();
                try {
                    test.getValue().run(new ClientTests(bootstrap, test.getKey(), admin));
                    passed++;
                    System.out.printf("ok   %s (%d ms)%n", test.getKey(),
                        (System.nanoTime() - start) / 1_000_000);
                } catch (Exception | AssertionError e) {
                    failed.add(test.getKey());
                    System.out.printf("FAIL %s: %s%n", test.getKey(), e);
                    e.printStackTrace(System.out);
                }
            }
        }
        failed.forEach(name -> System.out.println("failed: " + name));
        System.out.printf("%d passed, %d failed%n", passed, failed.size());
        System.exit(failed.isEmpty() ? 0 : 1);
    }

    private static Properties properties(String bootstrap, String... pairs) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("request.timeout.ms", "10000");
        properties.put("default.api.timeout.ms", "15000");
        for (int i = 0; i < pairs.length; i += 2) {
            properties.put(pairs[i], pairs[i + 1]);
        }
        return properties;
    }

    /** Returns a name that only this test uses, for a topic, a group or a client. */
    String own(String what) {
        return "java-" + name.replaceAll("[^a-z0-9]+", "-") + "-" + what;
    }

    String topic(int partitions, String... configs) throws Exception {
        create(own("topic"), partitions, configs);
        return own("topic");
    }

    /**
     * Creates a topic and waits until its leaders respond. Kafka responds to the creation before
     * its broker has the partitions. A producer that starts too early may then see its first
     * batches reordered.
     *
     * <p>Without {@code retention.ms} among the configs, records do not expire: {@link #send} gives them
     * timestamps of 1970, so the first check of retention would delete them in the middle of a test.
     */
    void create(String topic, int partitions, String... configs) throws Exception {
        Map<String, String> map = new HashMap<>(Map.of("retention.ms", "-1"));
        for (int i = 0; i < configs.length; i += 2) {
            map.put(configs[i], configs[i + 1]);
        }
        get(admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(map))).all());
        Map<TopicPartition, OffsetSpec> all = new HashMap<>();
        for (int partition = 0; partition < partitions; partition++) {
            all.put(new TopicPartition(topic, partition), OffsetSpec.latest());
        }
        until("leaders of " + topic, () -> {
            try {
                return get(admin.listOffsets(all).all()) != null;
            } catch (Exception e) {
                return false;
            }
        });
    }

    Producer<String, String> producer(String... pairs) {
        Properties properties = properties(bootstrap, pairs);
        properties.putIfAbsent("delivery.timeout.ms", "60000");
        properties.remove("default.api.timeout.ms");
        return new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
    }

    Consumer<String, String> consumer(String... pairs) {
        Properties properties = properties(bootstrap, pairs);
        properties.putIfAbsent("auto.offset.reset", "earliest");
        properties.putIfAbsent("enable.auto.commit", "false");
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    /** Lets members use the consumer protocol (KIP-848). */
    ClientTests withConsumerProtocol() {
        groupProtocol = "consumer";
        return this;
    }

    /** A member of a group. The configs that only the classic protocol has are left out in the other one. */
    Consumer<String, String> member(String group, String... pairs) {
        List<String> all = new ArrayList<>(List.of("group.id", group, "group.protocol", groupProtocol));
        for (int i = 0; i < pairs.length; i += 2) {
            if (groupProtocol.equals("classic") || !pairs[i].equals("heartbeat.interval.ms")) {
                all.addAll(List.of(pairs[i], pairs[i + 1]));
            }
        }
        return consumer(all.toArray(new String[0]));
    }

    /** Sends values v0, v1, ... to partition 0 with keys k0, k1, ... and timestamps 1000, 2000, ... */
    List<RecordMetadata> send(String topic, int count, String... pairs) throws Exception {
        try (Producer<String, String> producer = producer(pairs)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int n = 0; n < count; n++) {
                long timestamp = 1000L * (n + 1);
                sent.add(producer.send(new ProducerRecord<>(topic, 0, timestamp, "k" + n, "v" + n)));
            }
            producer.flush();
            List<RecordMetadata> acknowledged = new ArrayList<>();
            for (Future<RecordMetadata> future : sent) {
                acknowledged.add(future.get(60, TimeUnit.SECONDS));
            }
            return acknowledged;
        }
    }

    List<ConsumerRecord<String, String>> read(String topic, int count, String... pairs) {
        try (Consumer<String, String> consumer = consumer(pairs)) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            return poll(consumer, count);
        }
    }

    /** Polls until {@code count} records have arrived. Fails if fewer or more arrive. */
    static List<ConsumerRecord<String, String>> poll(Consumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        until(count + " records", () -> {
            consumer.poll(Duration.ofMillis(100)).forEach(records::add);
            return records.size() >= count;
        });
        equal(count, records.size(), "number of records");
        return records;
    }

    static List<String> values(Collection<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    static List<String> numbered(int from, int to) {
        List<String> values = new ArrayList<>();
        for (int n = from; n < to; n++) {
            values.add("v" + n);
        }
        return values;
    }

    static void until(String what, BooleanSupplier condition) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("20 s have passed without " + what);
            }
        }
    }

    static <T> T get(Future<T> future) throws Exception {
        return future.get(60, TimeUnit.SECONDS);
    }

    static void equal(Object expected, Object actual, String what) {
        if (!Objects.equals(expected, actual)) {
            throw new AssertionError(what + ": expected <" + expected + ">, got <" + actual + ">");
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError("it does not hold that " + what);
        }
    }

    interface Action {
        void run() throws Exception;
    }

    /** Runs an action that must fail with this exception. Returns the exception. */
    static <E extends Throwable> E fails(Class<E> expected, Action action) throws Exception {
        try {
            action.run();
        } catch (Throwable thrown) {
            Throwable cause = thrown instanceof ExecutionException ? thrown.getCause() : thrown;
            if (expected.isInstance(cause)) {
                return expected.cast(cause);
            }
            throw new AssertionError("expected " + expected.getSimpleName() + ", got " + cause, cause);
        }
        throw new AssertionError("expected " + expected.getSimpleName() + ", and it succeeded");
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static <K, V> Map<K, V> sorted(Map<K, V> map) {
        return new TreeMap<>(map);
    }

    static <T> Set<T> set(Collection<T> items) {
        return new HashSet<>(items);
    }
}
