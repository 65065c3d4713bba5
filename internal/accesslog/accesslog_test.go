package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type entry struct{ N int }

// start runs l until the returned func is called.
func start(t *testing.T, l *Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Lines are appended, and all that was added before the end is in the file.
func TestAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	for round := range 2 {
		l, err := Open(path, nil, discard())
		if err != nil {
			t.Fatal(err)
		}
		stop := start(t, l)
		l.Add(entry{round})
		stop()
	}
	if got := read(t, path); got != "{\"N\":0}\n{\"N\":1}\n" {
		t.Errorf("got %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
}

// A file that was renamed is let go of when it is reopened, and loses no line.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, err := Open(path, nil, discard())
	if err != nil {
		t.Fatal(err)
	}
	stop := start(t, l)
	for n := range 100 {
		l.Add(entry{n})
		if n == 50 {
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			l.Reopen()
			for _, err := os.Stat(path); err != nil; _, err = os.Stat(path) {
			}
		}
	}
	stop()
	both := read(t, path+".1") + read(t, path)
	for n := range 100 {
		if !strings.Contains(both, fmt.Sprintf("{\"N\":%d}\n", n)) {
			t.Errorf("line %d is lost", n)
		}
	}
	if !strings.HasSuffix(read(t, path), "{\"N\":99}\n") || l.Lost() != 0 {
		t.Errorf("the new file has %q; %d lost", read(t, path), l.Lost())
	}
}

// A stuck is a disk that takes nothing until it is let go.
type stuck struct {
	given   chan int // how many bytes it was to write
	release chan struct{}
}

func (s stuck) Write(b []byte) (int, error) {
	select {
	case s.given <- len(b):
	default:
	}
	<-s.release
	return len(b), nil
}
func (s stuck) Close() error { return nil }

// A disk that hangs keeps nobody waiting, and costs bounded memory. That lines were lost is
// told when it goes on.
func TestNeverBlocks(t *testing.T) {
	disk := stuck{make(chan int, 1), make(chan struct{})}
	var out bytes.Buffer
	l := newLog("", disk, slog.New(slog.NewTextHandler(&out, nil)))
	stop := start(t, l)
	l.Add(entry{0})
	<-disk.given // it hangs
	for n := range 3 * queued {
		l.Add(entry{n})
	}
	if lost := l.Lost(); lost != 2*queued {
		t.Errorf("%d of %d lines are lost, want what does not fit %d", lost, 3*queued, queued)
	}
	close(disk.release)
	stop()
	if want := fmt.Sprintf("lines=%d", l.Lost()); strings.Count(out.String(), "access log not written") != 1 || !strings.Contains(out.String(), want) {
		t.Errorf("want one warning with %s:\n%s", want, out.String())
	}
}

// A disk is full at a number of bytes, until there is room again.
type disk struct {
	bytes.Buffer
	room int
}

func (d *disk) Write(b []byte) (int, error) {
	n := min(len(b), d.room)
	d.room -= n
	d.Buffer.Write(b[:n])
	if n < len(b) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *disk) Close() error { return nil }

// A full disk costs lines, which are counted, and nothing that is there. With room
// again, lines are whole again.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		d := &disk{room: 12}
		l := newLog("", d, slog.New(slog.NewTextHandler(&out, nil)))
		stop := start(t, l)
		for n := range 10 {
			l.Add(entry{n}) // 8 bytes
			synctest.Wait()
		}
		if got := l.Lost(); got != 9 {
			t.Errorf("%d lines lost, want 9", got)
		}
		<-time.After(2 * reportGap)
		l.Add(entry{10})
		synctest.Wait()
		d.room = 100
		l.Add(entry{11})
		synctest.Wait()
		stop()
		var whole []int
		for line := range strings.Lines(d.String()) {
			var e entry
			if json.Unmarshal([]byte(line), &e) == nil {
				whole = append(whole, e.N)
			}
		}
		if fmt.Sprint(whole) != "[0 11]" {
			t.Errorf("whole lines are %v in %q", whole, d.String())
		}
		if n := strings.Count(out.String(), "access log not written"); n != 2 || !strings.Contains(out.String(), "no space left") {
			t.Errorf("want 2 warnings:\n%s", out.String())
		}
	})
}

// The real thing.
func TestDevFull(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return // not Linux
	}
	if err != nil {
		t.Fatal(err)
	}
	l := newLog("", f, discard())
	stop := start(t, l)
	l.Add(entry{1})
	stop()
	if l.Lost() != 1 {
		t.Errorf("%d lost, want 1", l.Lost())
	}
}

func TestOpenNothing(t *testing.T) {
	l, err := Open("", nil, nil)
	if l != nil || err != nil {
		t.Fatalf("got %v, %v", l, err)
	}
	l.Add(entry{1})
	l.Reopen()
	if err := l.Run(t.Context()); err != nil || l.Lost() != 0 {
		t.Error(err, l.Lost())
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none", "x"), nil, discard()); err == nil {
		t.Error("a log in no directory")
	}
	var out bytes.Buffer
	if l, err = Open("-", &out, discard()); err != nil {
		t.Fatal(err)
	}
	stop := start(t, l)
	l.Reopen() // nothing to do
	l.Add(entry{1})
	stop()
	if out.String() != "{\"N\":1}\n" {
		t.Errorf("got %q", out.String())
	}
}
