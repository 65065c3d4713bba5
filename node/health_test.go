package node

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

func TestHealthFollowsTheApplication(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	svc, err := newService(Service{Upstream: "http://" + addr}, discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { svc.probeEvery(ctx, time.Millisecond) })
	state := func(want string) func() bool { return func() bool { return svc.status().State == want } }
	await(t, "down", state(UpstreamDown))
	if svc.status().Error == "" {
		t.Error("down without a reason")
	}
	if ln, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	await(t, "up", state(UpstreamUp))
	if got := svc.status(); got.Error != "" || got.Since.IsZero() {
		t.Errorf("up: %+v", got)
	}
}
