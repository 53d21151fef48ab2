package sordini.compat;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Commits transactions of ten records of 100 bytes in three partitions. It prints the transactions
 * per second, and the median and the 99th percentile of the time of a commit in milliseconds.
 * Arguments: bootstrap, topic, number of producers, number of transactions of all producers
 * together. The first fifth of them warms up and is not measured.
 */
final class TransactionLoad {
    private TransactionLoad() {}

    private static final int RECORDS = 10;
    private static final int PARTITIONS = 3;
    private static final byte[] VALUE = new byte[100];

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int transactions = Integer.parseInt(args[3]);
        List<KafkaProducer<byte[], byte[]>> producers = new ArrayList<>();
        for (int number = 0; number < Integer.parseInt(args[2]); number++) {
            producers.add(producer(args[0], topic + "-" + number));
        }
        ExecutorService threads = Executors.newFixedThreadPool(producers.size());
        try {
            run(threads, producers, topic, transactions / 5);
            long start = System.nanoTime();
            List<Long> commits = run(threads, producers, topic, transactions - transactions / 5);
            double seconds = (System.nanoTime() - start) / 1e9;
            Collections.sort(commits);
            System.out.printf("%.1f %.2f %.2f%n", commits.size() / seconds,
                commits.get(commits.size() / 2) / 1e6, commits.get(commits.size() * 99 / 100) / 1e6);
        } finally {
            threads.shutdown();
            producers.forEach(KafkaProducer::close);
        }
    }

    /** Returns the time of each commit in nanoseconds. */
    private static List<Long> run(ExecutorService threads,
            List<KafkaProducer<byte[], byte[]>> producers, String topic, int transactions)
            throws Exception {
        AtomicInteger left = new AtomicInteger(transactions);
        List<Callable<List<Long>>> work = new ArrayList<>();
        for (KafkaProducer<byte[], byte[]> producer : producers) {
            work.add(() -> {
                List<Long> commits = new ArrayList<>();
                while (left.getAndDecrement() > 0) {
                    commits.add(commitOne(producer, topic));
                }
                return commits;
            });
        }
        List<Long> all = new ArrayList<>();
        for (Future<List<Long>> done : threads.invokeAll(work)) {
            all.addAll(done.get());
        }
        return all;
    }

    private static long commitOne(KafkaProducer<byte[], byte[]> producer, String topic) {
        producer.beginTransaction();
        for (int number = 0; number < RECORDS; number++) {
            producer.send(new ProducerRecord<>(topic, number % PARTITIONS, null, VALUE));
        }
        producer.flush();
        long start = System.nanoTime();
        producer.commitTransaction();
        return System.nanoTime() - start;
    }

    private static KafkaProducer<byte[], byte[]> producer(String bootstrap, String id) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("key.serializer", ByteArraySerializer.class.getName());
        config.put("value.serializer", ByteArraySerializer.class.getName());
        config.put("transactional.id", id);
        config.put("linger.ms", "0");
        config.put("buffer.memory", "2000000");
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config);
        producer.initTransactions();
        return producer;
    }
}
