// kafkajs against the broker at KAFKA_BOOTSTRAP.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import kafkajs from "kafkajs";

const { CompressionTypes, Kafka, logLevel } = kafkajs;
const kafka = new Kafka({
  brokers: [process.env.KAFKA_BOOTSTRAP],
  clientId: "node",
  logLevel: logLevel.NOTHING,
});
const admin = kafka.admin();

before(() => admin.connect());
after(() => admin.disconnect());

async function createTopic(topic, numPartitions = 1) {
  await admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true });
}

async function produce(topic, count, options = {}) {
  const producer = kafka.producer(options.producer ?? {});
  await producer.connect();
  const messages = Array.from({ length: count }, (_, n) => ({
    key: `k${n}`,
    value: `v${n}`,
    partition: 0,
    headers: { h: "1" },
  }));
  await producer.send({ topic, messages, acks: -1, compression: options.compression });
  await producer.disconnect();
}

/** Consumes until `count` messages have arrived, and leaves the group. */
async function consume(topic, groupId, count, autoCommit = true) {
  const consumer = kafka.consumer({ groupId });
  const messages = [];
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`only ${messages.length} came`)), 30_000);
    consumer.run({
      autoCommit,
      eachMessage: async ({ message }) => {
        messages.push(message);
        if (messages.length === count) {
          clearTimeout(timer);
          resolve();
        }
      },
    });
  });
  await consumer.stop();
  await consumer.disconnect();
  return messages;
}

for (const [name, compression] of [
  ["none", CompressionTypes.None],
  ["gzip", CompressionTypes.GZIP],
]) {
  test(`round trip, ${name}`, async () => {
    const topic = `node-round-trip-${name}`;
    await createTopic(topic);
    await produce(topic, 200, { compression });
    const messages = await consume(topic, `${topic}-group`, 200);
    assert.deepEqual(
      messages.map((m) => [m.offset, m.key.toString(), m.value.toString()]),
      Array.from({ length: 200 }, (_, n) => [`${n}`, `k${n}`, `v${n}`]),
    );
    assert.equal(messages[0].headers.h.toString(), "1");
  });
}

test("idempotent producer", async () => {
  await createTopic("node-idempotent");
  await produce("node-idempotent", 100, { producer: { idempotent: true, maxInFlightRequests: 1 } });
  const [end] = await admin.fetchTopicOffsets("node-idempotent");
  assert.equal(end.high, "100");
});

test("group resumes where it committed", async () => {
  await createTopic("node-resumed");
  await produce("node-resumed", 5);
  await consume("node-resumed", "node-group", 5);
  const [{ partitions }] = await admin.fetchOffsets({ groupId: "node-group", topics: ["node-resumed"] });
  assert.equal(partitions[0].offset, "5");
  await produce("node-resumed", 1);
  const [next] = await consume("node-resumed", "node-group", 1);
  assert.equal(next.offset, "5");
});

test("offsets by time", async () => {
  await createTopic("node-timed");
  await produce("node-timed", 3);
  const [found] = await admin.fetchTopicOffsetsByTimestamp("node-timed", 1);
  assert.equal(found.offset, "0");
});

test("admin", async () => {
  await createTopic("node-admin", 2);
  assert.equal(await admin.createTopics({ topics: [{ topic: "node-admin" }] }), false);
  await admin.createPartitions({ topicPartitions: [{ topic: "node-admin", count: 3 }] });
  const { brokers, clusterId } = await admin.describeCluster();
  assert.deepEqual([brokers.length, brokers[0].nodeId, clusterId.length], [1, 1, 22]);
  await admin.alterConfigs({
    resources: [
      { type: 2, name: "node-admin", configEntries: [{ name: "retention.ms", value: "99" }] },
    ],
  });
  const groups = await admin.describeGroups(["node-no-group"]);
  assert.equal(groups.groups[0].state, "Dead");
  await admin.deleteTopics({ topics: ["node-admin"] });
});
