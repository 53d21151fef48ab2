package sordini.compat;

import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes transactions of two records each to partition 0, one after another. Arguments: bootstrap,
 * topic, transactional id, and a letter for each transaction: c is committed, a is aborted.
 */
final class TransactionSeries {
    private TransactionSeries() {}

    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        config.put("transactional.id", args[2]);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            producer.initTransactions();
            for (int number = 0; number < args[3].length(); number++) {
                producer.beginTransaction();
                for (String part : new String[] {"first", "second"}) {
                    String value = number + " " + part;
                    producer.send(new ProducerRecord<>(args[1], 0, null, value)).get();
                }
                if (args[3].charAt(number) == 'c') {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
    }
}
