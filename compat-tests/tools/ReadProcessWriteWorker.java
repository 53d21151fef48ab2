package sordini.compat;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * The worker of the Java client: it reads a topic, writes to another, and commits both in
 * transactions. harness/workers.py says what all workers do. Arguments: bootstrap, name, group,
 * source topic, sink topic, partitions of each topic, path of the journal.
 */
final class ReadProcessWriteWorker implements ConsumerRebalanceListener {
    private static final int PARTS = 2;
    private static final int MAX_RECORDS = 20;
    private static final int ABORT_EACH = 10;
    private static final Duration COLLECT = Duration.ofMillis(50);
    private static final Duration CALL = Duration.ofSeconds(15);
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String bootstrap;
    private final String name;
    private final String source;
    private final String sink;
    private final int partitions;
    private final FileOutputStream journal;
    private final KafkaConsumer<String, String> consumer;
    private KafkaProducer<String, String> producer;
    private boolean isInTransaction;
    private int count;
    private volatile boolean isEnded;

    private ReadProcessWriteWorker(String[] args) throws IOException {
        bootstrap = args[0];
        name = args[1];
        source = args[3];
        sink = args[4];
        partitions = Integer.parseInt(args[5]);
        journal = new FileOutputStream(args[6], true);
        consumer = newConsumer(args[2]);
    }

    public static void main(String[] args) throws IOException {
        ReadProcessWriteWorker worker = new ReadProcessWriteWorker(args);
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> worker.end(main)));
        worker.run();
    }

    /** On SIGTERM: waits until the worker has left the group. Exits with 0 as other workers do. */
    private void end(Thread main) {
        if (main.isAlive()) {
            isEnded = true;
            try {
                main.join();
            } catch (InterruptedException interrupted) {
                return;
            }
            Runtime.getRuntime().halt(0);
        }
    }

    private Properties config() {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("request.timeout.ms", "3000");
        config.put("socket.connection.setup.timeout.ms", "1000");
        config.put("metadata.max.age.ms", "500");
        config.put("reconnect.backoff.max.ms", "200");
        config.put("retry.backoff.max.ms", "200");
        return config;
    }

    private KafkaConsumer<String, String> newConsumer(String group) {
        Properties config = config();
        config.put("group.id", group);
        config.put("key.deserializer", StringDeserializer.class.getName());
        config.put("value.deserializer", StringDeserializer.class.getName());
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", "false");
        config.put("isolation.level", "read_committed");
        // The assignor that all clients have.
        config.put("partition.assignment.strategy", RangeAssignor.class.getName());
        config.put("session.timeout.ms", "6000");
        config.put("heartbeat.interval.ms", "500");
        config.put("fetch.max.wait.ms", "50");
        config.put("max.poll.records", Integer.toString(MAX_RECORDS));
        config.put("default.api.timeout.ms", Long.toString(CALL.toMillis()));
        return new KafkaConsumer<>(config);
    }

    private KafkaProducer<String, String> newProducer() {
        Properties config = config();
        config.put("transactional.id", name);
        config.put("transaction.timeout.ms", "10000");
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        config.put("linger.ms", "0");
        config.put("max.block.ms", Long.toString(CALL.toMillis()));
        return new KafkaProducer<>(config);
    }

    private void note(Map<String, ?> step) {
        try {
            journal.write((JSON.writeValueAsString(step) + "\n").getBytes());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
        note(Map.of("assigned", assigned.stream().map(TopicPartition::partition).toList()));
    }

    /** Nothing to do: this runs within poll(), and each transaction ends before the next poll(). */
    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> revoked) {}

    private void run() {
        consumer.subscribe(List.of(source), this);
        while (!isEnded) {
            try {
                if (producer == null) {
                    producer = newProducer();
                    retry(producer::initTransactions);
                }
                ConsumerRecords<String, String> records = consumer.poll(COLLECT);
                if (!records.isEmpty()) {
                    process(records);
                }
            } catch (KafkaException error) {
                recover(error);
            }
        }
        consumer.close();
        if (producer != null) {
            producer.close(CALL);
        }
    }

    private void process(ConsumerRecords<String, String> records) {
        count++;
        // The process id makes names of a restarted worker unique.
        String transaction = name + "." + ProcessHandle.current().pid() + "." + count;
        note(Map.of("begin", transaction));
        producer.beginTransaction();
        isInTransaction = true;
        for (ConsumerRecord<String, String> record : records) {
            for (int part = 0; part < PARTS; part++) {
                int partition = (record.partition() + part) % partitions;
                String output =
                    transaction + " " + record.partition() + " " + record.offset() + " " + part;
                note(Map.of("send", output, "partition", partition));
                producer.send(new ProducerRecord<>(sink, partition, null, output));
            }
        }
        producer.sendOffsetsToTransaction(records.nextOffsets(), consumer.groupMetadata());
        if (count % ABORT_EACH == 0) {
            abort();
            return;
        }
        note(Map.of("outcome", "committing"));
        retry(producer::commitTransaction);
        isInTransaction = false;
        note(Map.of("outcome", "committed"));
    }

    /** Repeats a call that timed out: the producer allows no other call before it completes. */
    private static void retry(Runnable call) {
        while (true) {
            try {
                call.run();
                return;
            } catch (TimeoutException again) {
                continue;
            }
        }
    }

    private void abort() {
        retry(producer::abortTransaction);
        isInTransaction = false;
        note(Map.of("outcome", "aborted"));
        rewind();
    }

    /** Aborts the transaction, or else replaces the producer, and reads again from the group. */
    private void recover(KafkaException error) {
        note(Map.of("error", error.toString()));
        if (isInTransaction) {
            try {
                abort();
                return;
            } catch (KafkaException again) {
                note(Map.of("error", again.toString()));
            }
        }
        if (producer != null) {
            producer.close(CALL);
        }
        producer = null;
        isInTransaction = false;
        rewind();
    }

    /** Goes back to the committed offsets of the assigned partitions. */
    private void rewind() {
        while (!isEnded) {
            try {
                Map<TopicPartition, OffsetAndMetadata> committed =
                    consumer.committed(consumer.assignment());
                committed.forEach((partition, offset) ->
                    consumer.seek(partition, offset == null ? 0 : offset.offset()));
                return;
            } catch (KafkaException error) {
                note(Map.of("error", error.toString()));
            }
        }
    }
}
