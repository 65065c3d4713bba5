// Package accesslog appends lines to a file without ever keeping anybody waiting: what the
// disk does not take, or not fast enough, is lost and counted.
package accesslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

const (
	queued    = 4096        // lines that wait to be written
	batch     = 64 << 10    // bytes that are written at once, about
	reportGap = time.Minute // between two warnings that lines were lost
)

// A Log appends JSON lines to a file. A nil Log takes everything and keeps nothing. Its
// methods are safe for concurrent use.
type Log struct {
	path   string // empty: out is not ours to reopen
	log    *slog.Logger
	lines  chan []byte
	reopen chan struct{} // holds one token while Reopen was not seen to
	lost   atomic.Uint64

	// Owned by Run.
	out      io.WriteCloser
	torn     bool // the last write ended within a line
	reported uint64
	warned   time.Time
}

// Open opens the file at path for appending, and makes it, mode 0600, if it is not there.
// "-" stands for stdout, and "" for no log: Open returns nil then. Run writes and closes
// the file.
func Open(path string, stdout io.Writer, log *slog.Logger) (*Log, error) {
	switch path {
	case "":
		return nil, nil
	case "-":
		return newLog("", kept{stdout}, log), nil
	}
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	return newLog(path, f, log), nil
}

func newLog(path string, out io.WriteCloser, log *slog.Logger) *Log {
	return &Log{path: path, log: log, lines: make(chan []byte, queued), reopen: make(chan struct{}, 1), out: out}
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// kept is a writer that is somebody else's to close.
type kept struct{ io.Writer }

func (kept) Close() error { return nil }

// Add has v written as one line of JSON. It never blocks.
func (l *Log) Add(v any) {
	if l == nil {
		return
	}
	line, err := json.Marshal(v)
	if err != nil {
		panic("accesslog: " + err.Error()) // no value of ours
	}
	select {
	case l.lines <- append(line, '\n'):
	default:
		l.lost.Add(1)
	}
}

// Reopen has Run go on with a new file at the same path: the old one was renamed, to be
// kept elsewhere.
func (l *Log) Reopen() {
	if l == nil || l.path == "" {
		return
	}
	select {
	case l.reopen <- struct{}{}:
	default:
	}
}

// Lost returns how many lines were lost.
func (l *Log) Lost() uint64 {
	if l == nil {
		return 0
	}
	return l.lost.Load()
}

// Run writes until ctx is done, then what is left, and closes the file. It is to be called
// once.
func (l *Log) Run(ctx context.Context) error {
	if l == nil {
		return nil
	}
	defer func() {
		if err := l.out.Close(); err != nil {
			l.log.Warn("close the access log", "err", err)
		}
	}()
	for {
		select {
		case line := <-l.lines:
			l.write(line)
		case <-l.reopen:
			l.turnOver()
		case <-ctx.Done():
			for {
				select {
				case line := <-l.lines:
					l.write(line)
				default:
					return nil
				}
			}
		}
	}
}

// write writes line, with those that wait behind it.
func (l *Log) write(line []byte) {
	var b []byte
	if l.torn {
		b = append(b, '\n') // what is in front of it is of no use, and this line is
	}
	b = append(b, line...)
	n := uint64(1)
collect:
	for len(b) < batch {
		select {
		case line := <-l.lines:
			b = append(b, line...)
			n++
		default:
			break collect
		}
	}
	wrote, err := l.out.Write(b)
	if wrote > 0 {
		l.torn = b[wrote-1] != '\n'
	}
	if err == nil {
		l.warn(nil)
		return
	}
	// Of what was written in part, the whole lines are there.
	for _, c := range b[:wrote] {
		if c == '\n' && n > 0 {
			n--
		}
	}
	l.lost.Add(max(n, 1))
	l.warn(err)
}

// warn tells that lines were lost, now and then. Without err they were more than the disk
// took in time, or were lost since it was last told.
func (l *Log) warn(err error) {
	lost := l.lost.Load()
	if lost == l.reported || time.Since(l.warned) < reportGap {
		return
	}
	attrs := []any{"lines", lost - l.reported}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	l.log.Error("access log not written; the lines are lost", attrs...)
	l.reported, l.warned = lost, time.Now()
}

// turnOver goes on with a new file, or, if there can be none, with the old one.
func (l *Log) turnOver() {
	f, err := open(l.path)
	if err != nil {
		l.log.Error("reopen the access log; going on with the old file", "err", err)
		return
	}
	old := l.out
	l.out, l.torn = f, false
	if err := old.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		l.log.Warn("close the access log", "err", err)
	}
}
