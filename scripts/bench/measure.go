package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A target is where requests go: the origin itself, or its route.
type target struct {
	url    string
	client func(keepAlive bool) *http.Client // HTTP/1.1 over TLS 1.3
}

// A measure is one figure, taken from one target at a time.
type measure struct {
	name, unit string
	better     string
	run        func(ctx context.Context, to target) (float64, error)
}

func measures(span time.Duration, bulk int64) []measure {
	return []measure{
		{"road.connections", "new TLS connections/s", more, func(ctx context.Context, to target) (float64, error) {
			return rate(ctx, to, to.client(false), 16, span)
		}},
		{"road.requests", "keep-alive requests/s", more, func(ctx context.Context, to target) (float64, error) {
			return rate(ctx, to, to.client(true), 32, span)
		}},
		{"road.download", "MB/s, 1 connection", more, func(ctx context.Context, to target) (float64, error) {
			return transfer(ctx, to, bulk, http.MethodGet)
		}},
		{"road.upload", "MB/s, 1 connection", more, func(ctx context.Context, to target) (float64, error) {
			return transfer(ctx, to, bulk, http.MethodPost)
		}},
		{"road.latency.p50", "µs, 1 request at a time", less, func(ctx context.Context, to target) (float64, error) {
			return latency(ctx, to, span, 0.50)
		}},
		{"road.latency.p99", "µs, 1 request at a time", less, func(ctx context.Context, to target) (float64, error) {
			return latency(ctx, to, span, 0.99)
		}},
	}
}

// rate returns how many requests a second workers get answered.
func rate(ctx context.Context, to target, c *http.Client, workers int, span time.Duration) (float64, error) {
	defer c.CloseIdleConnections()
	if err := small(ctx, to, c); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := small(ctx, to, c)
				if err == nil {
					done.Add(1)
				} else if ctx.Err() == nil {
					failed.Store(&err)
					cancel()
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(done.Load()) / time.Since(start).Seconds(), nil
}

// latency returns the p-quantile of single requests, in microseconds.
func latency(ctx context.Context, to target, span time.Duration, p float64) (float64, error) {
	c := to.client(true)
	defer c.CloseIdleConnections()
	if err := small(ctx, to, c); err != nil {
		return 0, err
	}
	var took []time.Duration
	for end := time.Now().Add(span); time.Now().Before(end); {
		start := time.Now()
		if err := small(ctx, to, c); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return float64(took[int(p*float64(len(took)-1))]) / 1e3, nil
}

// transfer moves size bytes and returns megabytes (10⁶) a second.
func transfer(ctx context.Context, to target, size int64, method string) (float64, error) {
	c := to.client(true)
	defer c.CloseIdleConnections()
	if err := small(ctx, to, c); err != nil {
		return 0, err
	}
	var body io.Reader
	url := fmt.Sprintf("%s/bulk?size=%d", to.url, size)
	if method == http.MethodPost {
		body = io.LimitReader(zeros{}, size)
	}
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK || method == http.MethodGet && n != size {
		return 0, fmt.Errorf("%s %s: %s with %d bytes", method, url, resp.Status, n)
	}
	return float64(size) / 1e6 / time.Since(start).Seconds(), nil
}

// small asks for a few bytes.
func small(ctx context.Context, to target, c *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.url+"/small", nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", to.url, resp.Status)
	}
	return nil
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
