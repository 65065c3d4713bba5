package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/kardianos/service"
)

const (
	serviceFile = ""
	serviceLog  = "Event Viewer, Windows Logs, Application, source " + serviceName
)

// hosted runs f as what started this process wants it: Windows' service manager wants to
// hear at once that the service has begun, says by a call when it is to end, and waits for
// that. What f writes goes to the event log then.
func hosted(f func(ctx context.Context, stdout, stderr io.Writer) int) int {
	if service.Interactive() {
		return f(context.Background(), os.Stdout, os.Stderr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h := &hostedRun{f: f, ctx: ctx, cancel: cancel, done: make(chan struct{})}
	s, err := service.New(h, &service.Config{Name: serviceName})
	if err != nil {
		return exitFailed
	}
	if h.log, err = s.SystemLogger(nil); err != nil {
		return exitFailed
	}
	if err := s.Run(); err != nil {
		h.log.Error(err)
		return exitFailed
	}
	return h.code
}

// A hostedRun is f while the service manager has a hand on it.
type hostedRun struct {
	f      func(ctx context.Context, stdout, stderr io.Writer) int
	ctx    context.Context // a field, since it is Start that begins what Stop ends
	cancel context.CancelFunc
	log    service.Logger
	done   chan struct{} // closed when f has returned, and code is set
	code   int
}

// Start implements service.Interface. It does not wait for what it begins.
func (h *hostedRun) Start(service.Service) error {
	go h.run()
	return nil
}

func (h *hostedRun) run() {
	w := eventWriter{h.log}
	h.code = h.f(h.ctx, w, w)
	close(h.done)
	if h.ctx.Err() == nil { // nobody asked for it: the manager learns by the process' end
		os.Exit(max(h.code, exitFailed))
	}
}

// Stop implements service.Interface. It waits until what is under way has ended.
func (h *hostedRun) Stop(service.Service) error {
	h.cancel()
	<-h.done
	if h.code != exitDone {
		return fmt.Errorf("it ended with %d", h.code)
	}
	return nil
}

// An eventWriter writes each line to Windows' event log, at the level that it has.
type eventWriter struct{ log service.Logger }

// Write implements io.Writer.
func (w eventWriter) Write(b []byte) (int, error) {
	text := string(bytes.TrimSpace(b))
	var err error
	switch {
	case bytes.Contains(b, []byte("level=ERROR")), bytes.Contains(b, []byte(`"level":"ERROR"`)), bytes.HasPrefix(b, []byte("postern: error:")):
		err = w.log.Error(text)
	case bytes.Contains(b, []byte("level=WARN")), bytes.Contains(b, []byte(`"level":"WARN"`)):
		err = w.log.Warning(text)
	default:
		err = w.log.Info(text)
	}
	return len(b), err
}
