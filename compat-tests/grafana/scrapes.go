package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// scrapes has, in memory, the series that Prometheus would have stored for a target.
type scrapes struct {
	series      map[uint64]*promql.Series
	first, last int64
}

// load reads a folder of scrapes in the order of their times. The file <milliseconds>.prom has the
// target's response, and is empty if there was none.
func load(folder string) (*scrapes, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.prom"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no scrapes in %s: %w", folder, err)
	}
	stored := &scrapes{series: map[uint64]*promql.Series{}}
	before := map[uint64]bool{}
	for _, file := range files {
		at, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(file), ".prom"), 10, 64)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		now := map[uint64]bool{}
		if err := stored.scrape(text, at, now); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		// A series that is gone ends, as in Prometheus. Otherwise its last value would stay for minutes.
		for id := range before {
			if !now[id] {
				stored.add(stored.series[id].Metric, at, math.Float64frombits(value.StaleNaN))
			}
		}
		before = now
		if stored.first == 0 {
			stored.first = at
		}
		stored.last = at
	}
	return stored, nil
}

// scrape stores one response of the target, and `up`, with the labels that a scrape adds.
func (s *scrapes) scrape(text []byte, at int64, now map[uint64]bool) error {
	store := func(metric labels.Labels, sample float64) {
		named := labels.NewBuilder(metric).Set("job", "sordini").Set("instance", "broker:9644")
		now[s.add(named.Labels(), at, sample)] = true
	}
	up := 0.0
	if len(text) > 0 {
		up = 1
	}
	store(labels.FromStrings(labels.MetricName, "up"), up)
	parser := textparse.NewPromParser(text, labels.NewSymbolTable(), false)
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var metric labels.Labels
		parser.Labels(&metric)
		_, _, sample := parser.Series()
		store(metric, sample)
	}
}

func (s *scrapes) add(metric labels.Labels, at int64, sample float64) uint64 {
	id := metric.Hash()
	if s.series[id] == nil {
		s.series[id] = &promql.Series{Metric: metric}
	}
	s.series[id].Floats = append(s.series[id].Floats, promql.FPoint{T: at, F: sample})
	return id
}

// Querier implements the storage interface of the engine.
func (s *scrapes) Querier(int64, int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: s.find}, nil
}

func (s *scrapes) find(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &found{}
	for _, series := range s.series {
		matches := true
		for _, matcher := range matchers {
			matches = matches && matcher.Matches(series.Metric.Get(matcher.Name))
		}
		if matches {
			found.series = append(found.series, promql.NewStorageSeries(*series))
		}
	}
	return found
}

// found iterates over the series that a selector matches.
type found struct {
	series []storage.Series
	next   int
}

func (f *found) Next() bool                        { f.next++; return f.next <= len(f.series) }
func (f *found) At() storage.Series                { return f.series[f.next-1] }
func (f *found) Err() error                        { return nil }
func (f *found) Warnings() annotations.Annotations { return nil }
