// Package compat drives franz-go against the broker at KAFKA_BOOTSTRAP.
package compat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const deadline = 30 * time.Second

func client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	options = append(options, kgo.SeedBrokers(os.Getenv("KAFKA_BOOTSTRAP")))
	client, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// topic creates a topic that only this test uses, and waits until its leaders respond.
func topic(t *testing.T, name string, partitions int32) (string, *kadm.Client) {
	t.Helper()
	admin := kadm.NewClient(client(t))
	name = "go-" + name
	if _, err := admin.CreateTopic(within(t), partitions, 1, nil, name); err != nil {
		t.Fatal(err)
	}
	for ctx := within(t); ; time.Sleep(50 * time.Millisecond) {
		offsets, err := admin.ListEndOffsets(ctx, name)
		if err == nil && offsets.Error() == nil {
			return name, admin
		}
		if ctx.Err() != nil {
			t.Fatal("no leader: ", err)
		}
	}
}

func produce(t *testing.T, name string, count int, options ...kgo.Opt) {
	t.Helper()
	producer := client(t, options...)
	records := make([]*kgo.Record, count)
	for n := range records {
		records[n] = &kgo.Record{
			Topic: name,
			Key:   fmt.Appendf(nil, "k%d", n),
			Value: fmt.Appendf(nil, "v%d", n),
		}
	}
	if err := producer.ProduceSync(within(t), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, consumer *kgo.Client, count int) []*kgo.Record {
	t.Helper()
	var records []*kgo.Record
	for ctx := within(t); len(records) < count; {
		fetches := consumer.PollRecords(ctx, count-len(records))
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func TestRoundTrip(t *testing.T) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for codec, compression := range codecs {
		t.Run(codec, func(t *testing.T) {
			name, _ := topic(t, "round-trip-"+codec, 1)
			produce(t, name, 500, kgo.ProducerBatchCompression(compression))
			consumer := client(t, kgo.ConsumeTopics(name),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			for n, record := range read(t, consumer, 500) {
				if string(record.Value) != fmt.Sprintf("v%d", n) || record.Offset != int64(n) {
					t.Fatalf("record %d is %q at %d", n, record.Value, record.Offset)
				}
			}
		})
	}
}

func TestGroupResumes(t *testing.T) {
	name, admin := topic(t, "group", 1)
	produce(t, name, 20)
	for _, balancer := range []kgo.GroupBalancer{kgo.CooperativeStickyBalancer()} {
		options := []kgo.Opt{
			kgo.ConsumerGroup("go-group"), kgo.ConsumeTopics(name), kgo.Balancers(balancer),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		}
		first, err := kgo.NewClient(append(options, kgo.SeedBrokers(os.Getenv("KAFKA_BOOTSTRAP")))...)
		if err != nil {
			t.Fatal(err)
		}
		records := read(t, first, 12)
		if err := first.CommitRecords(within(t), records...); err != nil {
			t.Fatal(err)
		}
		first.LeaveGroup()
		first.Close()
		if next := read(t, client(t, options...), 8)[0]; next.Offset != 12 {
			t.Fatalf("resumed at %d", next.Offset)
		}
	}
	offsets, err := admin.FetchOffsets(within(t), "go-group")
	if err != nil {
		t.Fatal(err)
	}
	if at, _ := offsets.Lookup(name, 0); at.At != 12 {
		t.Fatalf("committed %d", at.At)
	}
}

func TestTransactionsAreNotNeededToBeIdempotent(t *testing.T) {
	name, admin := topic(t, "idempotent", 5)
	produce(t, name, 5000, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	ends, err := admin.ListEndOffsets(within(t), name)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	ends.Each(func(end kadm.ListedOffset) { total += end.Offset })
	if total != 5000 {
		t.Fatalf("%d records stored", total)
	}
}

func TestAdmin(t *testing.T) {
	name, admin := topic(t, "admin", 2)
	ctx := within(t)
	if _, err := admin.CreateTopic(ctx, 1, 1, nil, name); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatal("created twice: ", err)
	}
	value := "4321"
	change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}
	if _, err := admin.AlterTopicConfigs(ctx, change, name); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.UpdatePartitions(ctx, 4, name); err != nil {
		t.Fatal(err)
	}
	details, err := admin.ListTopics(ctx, name)
	if err != nil || details[name].ID == (kadm.TopicID{}) {
		t.Fatal("no topic id: ", err)
	}
	brokers, err := admin.ListBrokers(ctx)
	if err != nil || len(brokers) != 1 || brokers[0].NodeID != 1 {
		t.Fatal("brokers: ", brokers, err)
	}
	if _, err := admin.DescribeAllLogDirs(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteTopic(ctx, name); err != nil {
		t.Fatal(err)
	}
}
