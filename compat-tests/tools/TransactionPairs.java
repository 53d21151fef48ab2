package sordini.compat;

import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes pairs of overlapping transactions, one committed and one aborted, with ten records each.
 * It prints the committed values in the order of their offsets. Arguments: bootstrap, topic, the
 * prefix of each value, number of pairs, characters of a value.
 */
final class TransactionPairs {
    private TransactionPairs() {}

    private static final int RECORDS = 10;

    public static void main(String[] args) throws Exception {
        String topic = args[1];
        int pairs = Integer.parseInt(args[3]);
        int size = Integer.parseInt(args[4]);
        List<String> expected = new ArrayList<>();
        String committing = args[2] + "-committed";
        String aborting = args[2] + "-aborted";
        try (KafkaProducer<String, String> committed = producer(args[0], topic + committing);
                KafkaProducer<String, String> aborted = producer(args[0], topic + aborting)) {
            for (int pair = 0; pair < pairs; pair++) {
                committed.beginTransaction();
                aborted.beginTransaction();
                for (int number = 0; number < RECORDS; number++) {
                    String value = value(committing, pair, number, size);
                    String hidden = value(aborting, pair, number, size);
                    committed.send(new ProducerRecord<>(topic, value)).get();
                    aborted.send(new ProducerRecord<>(topic, hidden)).get();
                    expected.add(value);
                }
                // The aborted transaction ends last and first alternately.
                if (pair % 2 == 0) {
                    committed.commitTransaction();
                    aborted.abortTransaction();
                } else {
                    aborted.abortTransaction();
                    committed.commitTransaction();
                }
            }
        }
        expected.forEach(System.out::println);
    }

    private static KafkaProducer<String, String> producer(String bootstrap, String id) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        config.put("transactional.id", id);
        KafkaProducer<String, String> producer = new KafkaProducer<>(config);
        producer.initTransactions();
        return producer;
    }

    private static String value(String name, int pair, int number, int size) {
        String value = name + "-" + pair + "-" + number;
        return value + ".".repeat(Math.max(0, size - value.length()));
    }
}
