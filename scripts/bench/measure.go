package main

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// bulkBuffer is how many bytes a client reads or writes at a time.
const bulkBuffer = 64 << 10

// transfer has clients move size bytes in all, by download or upload, at the same time.
// It returns megabytes (10⁶) a second until the last has ended.
func transfer(ctx context.Context, addr string, clients int, size int64, move func(c *client, size int64, buf []byte) error) (float64, error) {
	all, err := dialAll(ctx, addr, clients)
	if err != nil {
		return 0, err
	}
	defer closeAll(all)
	share := size / int64(clients)
	var moving errgroup.Group
	start := time.Now()
	for _, c := range all {
		moving.Go(func() error { return move(c, share, make([]byte, bulkBuffer)) })
	}
	if err := moving.Wait(); err != nil {
		return 0, err
	}
	return float64(share*int64(clients)) / 1e6 / time.Since(start).Seconds(), nil
}

// requests has clients ask for one small answer after the other, each on its one
// connection. It returns how many there were, and in what time.
func requests(ctx context.Context, addr string, clients int, span time.Duration) (count int64, took time.Duration, err error) {
	all, err := dialAll(ctx, addr, clients)
	if err != nil {
		return 0, 0, err
	}
	defer closeAll(all)
	var answered atomic.Int64
	var asking errgroup.Group
	start := time.Now()
	for _, c := range all {
		asking.Go(func() error {
			for time.Since(start) < span {
				if err := c.small(); err != nil {
					return err
				}
				answered.Add(1)
			}
			return nil
		})
	}
	err = asking.Wait()
	return answered.Load(), time.Since(start), err
}

// latencies returns how long each of rate small answers a second took, from clients
// that take turns, each on its one connection. A request that was meant to be sent
// while its client still waited for the last answer counts from when it was meant
// to be, so that a way that stalls is not asked less; one whose client was only
// woken late counts from when it was sent.
func latencies(ctx context.Context, addr string, clients int, rate float64, span time.Duration) ([]time.Duration, error) {
	all, err := dialAll(ctx, addr, clients)
	if err != nil {
		return nil, err
	}
	defer closeAll(all)
	every := time.Duration(float64(time.Second) / rate)
	took := make([][]time.Duration, clients)
	var asking errgroup.Group
	start := time.Now()
	for i, c := range all {
		asking.Go(func() error {
			for meant := time.Duration(i) * every; meant < span; meant += time.Duration(clients) * every {
				from := start.Add(meant)
				if wait := time.Until(from); wait > 0 {
					if err := pause(ctx, wait); err != nil {
						return err
					}
					from = time.Now()
				}
				if err := c.small(); err != nil {
					return err
				}
				took[i] = append(took[i], time.Since(from))
			}
			return nil
		})
	}
	if err := asking.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(took...), nil
}

// connections has so many workers make one connection after the other, each for one
// small answer. It returns how long each took, until it had that answer.
func connections(ctx context.Context, addr string, workers int, span time.Duration) (took []time.Duration, all time.Duration, err error) {
	each := make([][]time.Duration, workers)
	var connecting errgroup.Group
	start := time.Now()
	for i := range workers {
		connecting.Go(func() error {
			for time.Since(start) < span {
				from := time.Now()
				c, err := dial(ctx, addr)
				if err != nil {
					return err
				}
				err = c.small()
				each[i] = append(each[i], time.Since(from))
				c.close()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = connecting.Wait()
	return slices.Concat(each...), time.Since(start), err
}

// quantile returns the p-quantile of took in microseconds. It sorts took.
func quantile(took []time.Duration, p float64) float64 {
	slices.Sort(took)
	return float64(took[int(p*float64(len(took)-1))]) / 1e3
}
