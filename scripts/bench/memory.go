package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"postern/scripts/bench/process"
)

const (
	idleConnections = 1000
	warmConnections = 100 // before the first look
	idleLimit       = 16  // KiB that an idle connection may take at the gateway
)

// idleWays are those of recipes that have processes of their own for connections.
var idleWays = []string{us, viaHAProxy, viaOpenSSH, viaStunnel}

// benchMemory measures what an idle connection, after its handshake and one answer,
// takes of each way's processes. Every run sets up its way anew, since a process
// that has had as many connections before may reuse what it kept of them.
func benchMemory(ctx context.Context, o options) ([]Result, error) {
	if err := raiseFileLimit(); err != nil {
		return nil, err
	}
	all, s, err := openSite(o)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	wanted := slices.DeleteFunc(slices.Clone(recipes), func(r recipe) bool { return !slices.Contains(idleWays, r.name) })
	setups, err := openAll(ctx, wanted, s)
	if err != nil {
		return nil, err
	}
	closeSetups(setups) // all that was to be seen is which there are
	var ways []way
	for _, found := range setups {
		ways = append(ways, way{found.recipe.name, func(ctx context.Context) (figures, error) {
			fmt.Fprintf(os.Stderr, "bench: memory: %s\n", found.recipe.name)
			fresh, err := found.recipe.open(ctx, s)
			if err != nil {
				return nil, err
			}
			defer fresh.close()
			return fresh.measureIdle(ctx)
		}})
	}
	got, err := interleave(ctx, o.runs, ways...)
	if err != nil {
		return nil, err
	}
	const unit = "KiB/connection"
	results := []Result{
		got.compare("memory.idle.gateway", "cloud", unit, less, us, "", 0).within(idleLimit),
		got.compare("memory.idle.node", "office", unit, less, us, "", 0),
	}
	for _, end := range []struct{ name, figure string }{{"memory.idle.gateway", "cloud"}, {"memory.idle.node", "office"}} {
		for _, other := range idleWays[1:] {
			if got[other][end.figure] != nil {
				results = append(results, got.compare(end.name, end.figure, unit, less, us, other, 0))
			}
		}
	}
	return results, nil
}

// measureIdle returns by how many KiB each end's processes grow for each idle
// connection.
func (s *setup) measureIdle(ctx context.Context) (figures, error) {
	warm, err := dialAll(ctx, s.addr, warmConnections)
	if err != nil {
		return nil, err
	}
	closeAll(warm)
	before, err := s.settled(ctx)
	if err != nil {
		return nil, err
	}
	idle, err := dialAll(ctx, s.addr, idleConnections)
	if err != nil {
		return nil, fmt.Errorf("%d connections: %w", idleConnections, err)
	}
	defer closeAll(idle)
	after, err := s.settled(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range idle { // are they all still there?
		if err := c.small(); err != nil {
			return nil, err
		}
	}
	f := figures{}
	for end, kib := range after {
		f[end] = (kib - before[end]) / idleConnections
	}
	return f, nil
}

// settled returns how much memory each end that has processes has, in KiB, once
// that has hardly changed for a second.
func (s *setup) settled(ctx context.Context) (figures, error) {
	var last figures
	for range 30 {
		now, err := s.memory()
		if err != nil {
			return nil, err
		}
		if alike(last, now) {
			return now, nil
		}
		last = now
		if err := pause(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("memory does not settle")
}

func (s *setup) memory() (figures, error) {
	f := figures{}
	for end, pids := range map[string][]int{"cloud": s.cloud, "office": s.office} {
		if len(pids) == 0 {
			continue
		}
		kib, err := process.Resident(pids)
		if err != nil {
			return nil, err
		}
		f[end] = kib
	}
	return f, nil
}

func alike(a, b figures) bool {
	for end := range b {
		if math.Abs(a[end]-b[end]) > b[end]/200 {
			return false
		}
	}
	return true
}
