// The worker of franz-go: it reads a topic, writes to another, and commits both in transactions.
// harness/workers.py says what all workers do. Arguments: bootstrap, name, group, source topic,
// sink topic, partitions of each topic, path of the journal.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	parts       = 2
	collectTime = 50 * time.Millisecond
	maxRecords  = 20
	abortEach   = 10
)

type worker struct {
	bootstrap, name, group, source, sink string
	partitions                           int32
	journal                              *os.File
	count                                int
}

func main() {
	partitions, err := strconv.Atoi(os.Args[6])
	if err != nil {
		log.Fatal(err)
	}
	journal, err := os.OpenFile(os.Args[7], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	w := worker{
		bootstrap: os.Args[1], name: os.Args[2], group: os.Args[3], source: os.Args[4],
		sink: os.Args[5], partitions: int32(partitions), journal: journal,
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		if err := w.run(ctx); err != nil {
			w.note("error", err.Error())
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// note writes one line to the journal: keys and values in turns.
func (w *worker) note(step ...any) {
	fields := map[string]any{}
	for n := 0; n < len(step); n += 2 {
		fields[step[n].(string)] = step[n+1]
	}
	line, err := json.Marshal(fields)
	if err == nil {
		_, err = w.journal.Write(append(line, '\n'))
	}
	if err != nil {
		log.Fatal("cannot write the journal: ", err)
	}
}

// run processes records in one session, until an error ends the session or ctx is done. After an
// error the outcome of the last transaction may be unknown. The next session aborts it, or reads
// the offsets that it has committed.
func (w *worker) run(ctx context.Context) error {
	session, err := kgo.NewGroupTransactSession(w.options()...)
	if err != nil {
		return err
	}
	defer session.Close()
	for ctx.Err() == nil {
		if records := w.collect(ctx, session); len(records) > 0 {
			if err := w.process(session, records); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *worker) options() []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(strings.Split(w.bootstrap, ",")...),
		kgo.WithLogger(kgo.BasicLogger(os.Stderr, kgo.LogLevelWarn, nil)),
		kgo.DialTimeout(time.Second),
		kgo.RequestTimeoutOverhead(3 * time.Second),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.TransactionalID(w.name),
		kgo.TransactionTimeout(10 * time.Second),
		kgo.ProduceRequestTimeout(3 * time.Second),
		kgo.ProducerLinger(0),
		// The test reads the batches of the sink itself, and does not decompress them.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ConsumerGroup(w.group),
		kgo.ConsumeTopics(w.source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50 * time.Millisecond),
		// The assignor that all clients have.
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.SessionTimeout(6 * time.Second),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.OnPartitionsAssigned(
			func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
				w.note("assigned", assigned[w.source])
			},
		),
	}
}

// collect returns the records of one transaction, or none after a short time.
func (w *worker) collect(ctx context.Context, session *kgo.GroupTransactSession) []*kgo.Record {
	ctx, cancel := context.WithTimeout(ctx, collectTime)
	defer cancel()
	fetches := session.PollRecords(ctx, maxRecords)
	fetches.EachError(func(_ string, _ int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			w.note("error", err.Error())
		}
	})
	return fetches.Records()
}

func (w *worker) process(session *kgo.GroupTransactSession, records []*kgo.Record) error {
	w.count++
	// The process id makes names of a restarted worker unique.
	name := fmt.Sprintf("%s.%d.%d", w.name, os.Getpid(), w.count)
	w.note("begin", name)
	if err := session.Begin(); err != nil {
		return err
	}
	// SIGTERM does not cancel the transaction: its outcome would be unknown.
	ctx := context.Background()
	sent := kgo.AbortingFirstErrPromise(session.Client())
	for _, record := range records {
		for part := range int32(parts) {
			partition := (record.Partition + part) % w.partitions
			output := fmt.Sprintf("%s %d %d %d", name, record.Partition, record.Offset, part)
			w.note("send", output, "partition", partition)
			out := &kgo.Record{Topic: w.sink, Partition: partition, Value: []byte(output)}
			session.Produce(ctx, out, sent.Promise())
		}
	}
	commit := w.count%abortEach != 0
	if commit && sent.Err() != nil {
		w.note("error", sent.Err().Error())
		commit = false
	}
	if commit {
		w.note("outcome", "committing")
	}
	// End aborts the transaction instead of committing it if the group has rebalanced.
	committed, err := session.End(ctx, kgo.TransactionEndTry(commit))
	switch {
	case err != nil:
		return err
	case committed:
		w.note("outcome", "committed")
	default:
		w.note("outcome", "aborted")
	}
	return nil
}
