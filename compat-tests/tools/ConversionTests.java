package sordini.compat;

import static sordini.compat.ClientTests.equal;
import static sordini.compat.ClientTests.get;
import static sordini.compat.ClientTests.test;
import static sordini.compat.ClientTests.until;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;

/**
 * Groups whose members change from the classic protocol to the consumer protocol (KIP-848) and back,
 * one after the other, while they read.
 */
final class ConversionTests {
    private static final int MEMBERS = 3;
    private static final int PARTITIONS = 6;

    private final ClientTests t;
    private final String topic;
    private final String group;
    private final Class<?> assignor;
    private final boolean areStatic;
    private final List<Consumer<String, String>> members = new ArrayList<>();
    private final Set<String> read = new HashSet<>();
    private int sent = 0;

    private ConversionTests(ClientTests t, Class<?> assignor, boolean areStatic) throws Exception {
        this.t = t;
        this.topic = t.topic(PARTITIONS);
        this.group = t.own("group");
        this.assignor = assignor;
        this.areStatic = areStatic;
    }

    static void register() {
        for (Class<?> assignor : List.of(RangeAssignor.class, CooperativeStickyAssignor.class)) {
            for (boolean areStatic : List.of(false, true)) {
                String kind = (areStatic ? " of static members, " : " of dynamic members, ") + assignor.getSimpleName();
                test("conversion" + kind, t -> new ConversionTests(t, assignor, areStatic).thereAndBack());
            }
        }
    }

    private void thereAndBack() throws Exception {
        try {
            for (int place = 0; place < MEMBERS; place++) {
                members.add(join("classic", place));
            }
            readAll("at the start");
            equal(GroupType.CLASSIC, describe().type(), "type at the start");
            for (int place = 0; place < MEMBERS; place++) {
                replace("consumer", place);
                equal(GroupType.CONSUMER, describe().type(), "type with consumers");
                equal(place + 1L, upgraded(), "members of the consumer protocol");
            }
            for (int place = 0; place < MEMBERS; place++) {
                replace("classic", place);
                boolean isLast = place == MEMBERS - 1;
                equal(isLast ? GroupType.CLASSIC : GroupType.CONSUMER, describe().type(), "type on the way back");
            }
        } finally {
            members.forEach(Consumer::close);
        }
    }

    private Consumer<String, String> join(String protocol, int place) {
        List<String> config = new ArrayList<>(List.of("group.id", group, "group.protocol", protocol));
        if (protocol.equals("classic")) {
            config.addAll(List.of("partition.assignment.strategy", assignor.getName(), "heartbeat.interval.ms", "300"));
        }
        if (areStatic) {
            config.addAll(List.of("group.instance.id", "member-" + place));
        }
        Consumer<String, String> consumer = t.consumer(config.toArray(new String[0]));
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    /** Restarts a member with the other protocol. */
    private void replace(String protocol, int place) throws Exception {
        members.get(place).close();
        members.set(place, join(protocol, place));
        readAll("with member " + place + " as " + protocol);
    }

    /** Sends records to all partitions, and waits until the members share the partitions and have committed all. */
    private void readAll(String when) throws Exception {
        Set<String> values = send();
        until("an even share and all records " + when, () -> {
            poll();
            Set<TopicPartition> owned = new HashSet<>();
            boolean isEven = true;
            for (Consumer<String, String> member : members) {
                owned.addAll(member.assignment());
                isEven &= member.assignment().size() == PARTITIONS / MEMBERS;
            }
            return isEven && owned.size() == PARTITIONS && read.containsAll(values) && commit();
        });
    }

    private void poll() {
        for (Consumer<String, String> member : members) {
            for (ConsumerRecord<String, String> record : member.poll(Duration.ofMillis(50))) {
                read.add(record.value());
            }
        }
    }

    /** Commits what each member has read. Returns false if a rebalance has to end first. */
    private boolean commit() {
        try {
            members.forEach(Consumer::commitSync);
            return true;
        } catch (RebalanceInProgressException e) {
            return false;
        }
    }

    private Set<String> send() throws Exception {
        Set<String> values = new HashSet<>();
        try (Producer<String, String> producer = t.producer()) {
            List<Future<?>> pending = new ArrayList<>();
            for (int partition = 0; partition < PARTITIONS; partition++) {
                String value = "v" + sent++;
                values.add(value);
                pending.add(producer.send(new ProducerRecord<>(topic, partition, null, value)));
            }
            for (Future<?> it : pending) {
                get(it);
            }
        }
        return values;
    }

    private ConsumerGroupDescription describe() throws Exception {
        return get(t.admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    private long upgraded() throws Exception {
        return describe().members().stream().filter(it -> it.upgraded().orElse(false)).count();
    }
}
