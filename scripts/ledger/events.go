package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// broadcast wakes everyone who waits. The zero value is ready.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next fire.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

// fire wakes all that wait.
func (b *broadcast) fire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// heartbeat is how often a silent event stream says that it is alive, so that
// no proxy on the way takes it for dead.
const heartbeat = 15 * time.Second

// events streams server-sent events (HTML Standard, section 9.2): one event
// "voucher" for each that is posted, its data the voucher and its id the
// voucher's. The query's company limits it to one company's; its after, or the
// Last-Event-ID of a reader that comes back, is the last voucher already
// known. Without either the stream begins with what is posted from now on.
func (a *App) events(w http.ResponseWriter, r *http.Request) error {
	company, err := queryInt(r, "company", 0)
	if err != nil {
		return err
	}
	newest, err := a.store.Newest(r.Context())
	if err != nil {
		return err
	}
	after, err := queryInt(r, "after", newest)
	if err != nil {
		return err
	}
	if id, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		after = id
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	fmt.Fprint(w, "retry: 2000\n\n")
	a.streamEvents(r.Context(), w, company, after)
	return nil
}

// streamEvents writes events until ctx is done, the App stops or w fails.
func (a *App) streamEvents(ctx context.Context, w http.ResponseWriter, company, after int64) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	out := http.NewResponseController(w)
	for {
		// Asked for before the look into the books, so that no posting falls between.
		posted := a.store.posted.wait()
		vouchers, err := a.store.Vouchers(ctx, VoucherFilter{Company: company, After: after, Limit: 100})
		if err != nil {
			if ctx.Err() == nil {
				a.log.ErrorContext(ctx, "read vouchers for an event stream", "err", err)
			}
			return
		}
		for _, v := range vouchers {
			data, err := json.Marshal(v)
			if err != nil {
				panic("encode voucher: " + err.Error())
			}
			fmt.Fprintf(w, "id: %d\nevent: voucher\ndata: %s\n\n", v.ID, data)
			after = v.ID
		}
		if out.Flush() != nil {
			return
		}
		if len(vouchers) > 0 {
			continue
		}
		select {
		case <-posted:
		case <-beat.C:
			fmt.Fprint(w, ": alive\n\n")
		case <-a.ending:
			return
		case <-ctx.Done():
			return
		}
	}
}
