//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs holds what TestMain built: postern and ledger.
var programs string

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "postern-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	programs = dir
	for _, pkg := range []string{"./cli/postern", "./scripts/ledger"} {
		cmd := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", dir+"/", pkg)
		cmd.Dir = filepath.Join("..", "..")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return m.Run(), nil
}

func program(name string) string { return filepath.Join(programs, name) }

// childEnv names one of children: this test binary started again in that part.
const childEnv = "POSTERN_E2E_CHILD"

// A process is a program that a test started. It ends with the test.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	out  *buffer
	done chan struct{} // closed when it has ended
}

// start runs argv with extra environment, optionally behind a prefix such as ip
// netns exec. Its output goes to the test's log when the test fails.
func start(t testing.TB, name string, env []string, argv ...string) *process {
	t.Helper()
	return startWith(t, name, nil, env, argv...)
}

// startWith is start of a process that has files open, from the fourth on.
func startWith(t testing.TB, name string, files []*os.File, env []string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(argv[0], argv[1:]...), out: new(buffer), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.ExtraFiles = files
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	// Its own group, so that nothing it started outlives it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go p.wait()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("--- %s said:\n%s", name, p.out.tail(8000))
		}
	})
	return p
}

func (p *process) wait() {
	p.cmd.Wait()
	close(p.done)
}

// kill ends the process as kill -9 does, and waits for it.
func (p *process) kill() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// stop asks the process to end, and waits up to a minute for it.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Errorf("%s did not end within a minute of SIGTERM", p.name)
		p.kill()
	}
}

// ended reports whether the process is no more.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// run runs argv to its end and returns its standard output.
func run(t testing.TB, stdin string, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, errs.String())
	}
	return out.String(), nil
}

// must is run for what has to work.
func must(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := run(t, "", argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually polls until ok returns nil, for at most limit.
func eventually(t testing.TB, limit time.Duration, ok func() error) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %v: %v", limit, err)
		case <-tick.C:
		}
	}
}

// A buffer is a bytes.Buffer that a process and a test share.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) tail(n int) string {
	s := b.String()
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
