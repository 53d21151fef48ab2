package sordini.compat;

import java.io.IOException;
import java.io.PrintStream;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * An idempotent producer with several requests in flight. It sends 0, 1, 2 and so on, round robin
 * to the partitions of a topic, until there is input. For each number it prints the acknowledged
 * partition and offset, or the error. Arguments: bootstrap, topic, partitions, records per second,
 * then properties of the producer as key=value.
 */
final class NumberedProducer {
    private NumberedProducer() {}

    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        config.put("enable.idempotence", "true");
        config.put("acks", "all");
        config.put("max.in.flight.requests.per.connection", "5");
        config.put("batch.size", "2000");
        config.put("delivery.timeout.ms", "300000");
        config.put("request.timeout.ms", "10000");
        config.put("max.block.ms", "120000");
        config.put("reconnect.backoff.max.ms", "200");
        for (int n = 4; n < args.length; n++) {
            String[] pair = args[n].split("=", 2);
            config.put(pair[0], pair[1]);
        }
        int partitions = Integer.parseInt(args[2]);
        int perTick = Integer.parseInt(args[3]) / 100;
        PrintStream out = new PrintStream(System.out, false);
        AtomicInteger failed = new AtomicInteger();
        int next = 0;
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            while (!isInputAtEnd()) {
                for (int n = 0; n < perTick; n++, next++) {
                    String value = Integer.toString(next);
                    producer.send(
                        new ProducerRecord<>(args[1], next % partitions, null, value),
                        (metadata, error) -> {
                            if (error == null) {
                                out.println("at " + metadata.partition() + " " + metadata.offset()
                                    + " " + value);
                            } else {
                                failed.incrementAndGet();
                                out.println("failed " + value + " " + error);
                            }
                        });
                }
                out.flush();
                Thread.sleep(10);
            }
        }
        out.println("sent " + next + " failed " + failed);
        out.flush();
    }

    /** Whether the parent process has written a byte to stop this program. */
    private static boolean isInputAtEnd() throws IOException {
        return System.in.available() > 0;
    }
}
