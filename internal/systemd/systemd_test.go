//go:build linux

package systemd

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("TAKE_LISTENER") != "" {
		takeListener()
		return
	}
	goleak.VerifyTestMain(m)
}

// manager is a service manager's socket; next returns what it is told next.
func manager(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		b := make([]byte, 512)
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

// Ready, alive as long as it is, and the end.
func TestNotify(t *testing.T) {
	next := manager(t)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(int((20 * time.Millisecond).Microseconds())))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan struct{}, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := Notify(ctx, func() { asked <- struct{}{} }); err != nil {
			t.Error(err)
		}
	})
	if got := next(); got != "READY=1" {
		t.Errorf("first: got %q", got)
	}
	for range 3 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("then: got %q", got)
		}
		<-asked // it was asked, and hangs when nobody takes the answer
	}
	cancel()
	for len(asked) > 0 {
		<-asked
	}
	wg.Wait()
	for got := next(); got != "STOPPING=1"; got = next() {
		if got != "WATCHDOG=1" {
			t.Fatalf("last: got %q", got)
		}
	}
}

// Without a watchdog there is a beginning and an end, without a manager there is nothing.
func TestNotifyWithoutWatchdog(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Notify(context.Background(), nil); err != nil {
		t.Errorf("nobody there: %v", err)
	}
	next := manager(t)
	if err := Notify(ctx, nil); err != nil {
		t.Error(err)
	}
	if got := next() + " " + next(); got != "READY=1 STOPPING=1" {
		t.Errorf("got %q", got)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := Notify(ctx, nil); err == nil {
		t.Error("a manager that does not listen is no matter")
	}
}

// takeListener is a process that systemd started: it answers one connection of the
// listener called https, and has to listen for the other itself.
func takeListener() {
	ln, err := Listen("https", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := ln.Accept()
	if err != nil {
		fmt.Println(err)
		return
	}
	own, err := Listen("http", "127.0.0.1:0")
	fmt.Fprint(c, "hello ", err == nil && own.Addr().String() != ln.Addr().String())
	c.Close()
}

// A connection waits while nobody accepts, and is answered by the process that is given
// the listener.
func TestListenerOfTheManager(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// LISTEN_PID is the process' own, which only the shell knows beforehand.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "TAKE_LISTENER=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=https")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello true" {
		t.Errorf("got %q, %v", got, err)
	}
}
