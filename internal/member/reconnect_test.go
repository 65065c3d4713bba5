package member

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"postern"
)

// A stream that looks alive is opened anew over another connection, and so is one that
// waits for long after a failure.
func TestReconnect(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	var mu sync.Mutex
	streams, away := 0, false
	f.streams(func(_ io.Writer, send func(postern.MapMessage)) *postern.Problem {
		mu.Lock()
		defer mu.Unlock()
		streams++
		if away {
			return postern.NewProblem(503, postern.CodeUnavailable, "not now", "")
		}
		send(postern.MapMessage{Version: 1, Section: section("", 1), Synced: true})
		return nil
	})
	id, err := join(t, f, dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(dir, id, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.backoff = func(int) time.Duration { return time.Hour }
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { c.Follow(ctx, postern.Map{}, func(postern.Map) {}) })
	defer following.Wait()
	defer cancel()

	count := func() int { mu.Lock(); defer mu.Unlock(); return streams }
	connections := func() (all []*tracked) {
		cs := c.http.Load()
		cs.mu.Lock()
		defer cs.mu.Unlock()
		for conn := range cs.all {
			all = append(all, conn)
		}
		return all
	}
	eventually(t, func() bool { return c.Link().Up })
	first := connections()
	c.Reconnect()
	eventually(t, func() bool { return count() == 2 && c.Link().Up })
	if now := connections(); len(first) != 1 || len(now) != 1 || now[0] == first[0] {
		t.Errorf("had connections %v, and has %v", first, now)
	}

	mu.Lock()
	away = true
	mu.Unlock()
	c.Reconnect()
	eventually(t, func() bool { return count() >= 3 && !c.Link().Up })
	mu.Lock()
	away = false
	mu.Unlock()
	c.Reconnect()
	eventually(t, func() bool { return c.Link().Up })
}
