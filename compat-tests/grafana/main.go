// Command promql evaluates queries over scrapes kept as files, with the engine of Prometheus.
//
//	promql FOLDER <questions >answers
//
// Both are JSON lists. The program only reports results. The tests judge them.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

const step = time.Second

// question is a query, either at the last scrape (instant) or over all of them, as for a graph.
type question struct {
	Expr    string
	Instant bool
}

type answer struct {
	// Error says why the query failed.
	Error string `json:"error,omitempty"`
	// Metrics are the names in the query.
	Metrics []string `json:"metrics"`
	Series  []series `json:"series"`
}

type series struct {
	Labels map[string]string `json:"labels"`
	// Numbers is the number of points that are not NaN.
	Numbers int `json:"numbers"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(folder string) error {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		return err
	}
	stored, err := load(folder)
	if err != nil {
		return err
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples:           50_000_000,
		Timeout:              time.Minute,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
	})
	answers := []answer{}
	for _, ask := range questions {
		answers = append(answers, stored.answer(engine, ask))
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func (s *scrapes) answer(engine *promql.Engine, ask question) answer {
	parsed, err := parser.ParseExpr(ask.Expr)
	if err != nil {
		return answer{Error: err.Error()}
	}
	found := answer{Metrics: []string{}, Series: []series{}}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			found.Metrics = append(found.Metrics, selector.Name)
		}
		return nil
	})
	ctx, first, last := context.Background(), time.UnixMilli(s.first), time.UnixMilli(s.last)
	var query promql.Query
	if ask.Instant {
		query, err = engine.NewInstantQuery(ctx, s, nil, ask.Expr, last)
	} else {
		query, err = engine.NewRangeQuery(ctx, s, nil, ask.Expr, first, last, step)
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	defer query.Close()
	result := query.Exec(ctx)
	if result.Err != nil {
		return answer{Error: result.Err.Error()}
	}
	switch value := result.Value.(type) {
	case promql.Matrix:
		for _, line := range value {
			found.Series = append(found.Series, summary(line.Metric.Map(), line.Floats))
		}
	case promql.Vector:
		for _, sample := range value {
			point := []promql.FPoint{{T: sample.T, F: sample.F}}
			found.Series = append(found.Series, summary(sample.Metric.Map(), point))
		}
	}
	return found
}

func summary(labels map[string]string, points []promql.FPoint) series {
	numbers := 0
	for _, point := range points {
		if !math.IsNaN(point.F) {
			numbers++
		}
	}
	return series{Labels: labels, Numbers: numbers}
}
