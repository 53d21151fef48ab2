package sordini.compat;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads the committed records of partition 0 of a topic from the start to the end, again and again, until it has read a
 * record with the key "stop". Prints a line for each record (offset, key, value) and for each end of
 * the partition ("end" and its offset). Arguments: bootstrap, topic, max.partition.fetch.bytes, and
 * how long to pause after the first records, in ms.
 */
final class RepeatedReader {
    private RepeatedReader() {}

    public static void main(String[] args) throws InterruptedException {
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        config.put("key.deserializer", ByteArrayDeserializer.class.getName());
        config.put("value.deserializer", ByteArrayDeserializer.class.getName());
        config.put("auto.offset.reset", "none");
        config.put("isolation.level", "read_committed");
        config.put("max.partition.fetch.bytes", args[2]);
        config.put("fetch.max.wait.ms", "10");
        TopicPartition partition = new TopicPartition(args[1], 0);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config)) {
            consumer.assign(List.of(partition));
            while (!readOnce(consumer, partition, Long.parseLong(args[3]))) {}
        }
    }

    /** Returns whether there was a record with the key "stop". */
    private static boolean readOnce(
            KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition, long pauseMs)
            throws InterruptedException {
        boolean isStopped = false;
        boolean isPaused = pauseMs == 0;
        consumer.seek(partition, 0);
        // The lag is unknown until the first response after the seek.
        do {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                String key = text(record.key());
                isStopped |= key.equals("stop");
                System.out.println(record.offset() + " " + key + " " + text(record.value()));
                if (!isPaused) {
                    Thread.sleep(pauseMs);
                    isPaused = true;
                }
            }
        } while (consumer.currentLag(partition).orElse(1) > 0);
        System.out.println("end " + consumer.position(partition));
        return isStopped;
    }

    private static String text(byte[] bytes) {
        return new String(bytes, StandardCharsets.UTF_8);
    }
}
