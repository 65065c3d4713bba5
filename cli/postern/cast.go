package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A cast is the processes of a demo. What each says goes to a file of its own.
// It ends no process but those that it started.
type cast struct {
	self string    // this program
	dir  string    // of the log files
	show io.Writer // hears what all say, too; nil: nobody
	died func(error)

	wg      sync.WaitGroup
	players []*player // in the order of their start

	mu       sync.Mutex
	stopping bool
}

// A player is one process of a cast.
type player struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// grace is how long a process may take to end in good order.
const grace = 5 * time.Second

func newCast(self, dir string) *cast {
	return &cast{self: self, dir: dir, died: func(error) {}}
}

// log returns the path of the file with what the process called name said.
func (c *cast) log(name string) string { return filepath.Join(c.dir, name+".log") }

// command returns a process that is to be started, and the file that it will
// write to, for the caller to close.
func (c *cast) command(name string, env []string, argv ...string) (*exec.Cmd, *os.File, error) {
	log, err := os.OpenFile(c.log(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(cleanEnv(), env...)
	cmd.SysProcAttr = childAttr()
	var out io.Writer = log
	if c.show != nil {
		out = io.MultiWriter(log, &prefixer{w: c.show, prefix: name + ": "})
	}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, log, nil
}

// cleanEnv is the environment without what would speak to our own commands.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "POSTERN_") || strings.HasPrefix(v, "JOURNAL_STREAM=")
	})
}

// start starts a process that is to stay. If it ends before stop, died hears.
func (c *cast) start(name string, env []string, argv ...string) error {
	cmd, log, err := c.command(name, env, argv...)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		log.Close()
		return fmt.Errorf("start %s: %w", name, err)
	}
	p := &player{name: name, cmd: cmd, done: make(chan struct{})}
	c.players = append(c.players, p)
	c.wg.Go(func() { c.watch(p, log) })
	return nil
}

func (c *cast) watch(p *player, log *os.File) {
	err := p.cmd.Wait()
	log.Close()
	close(p.done)
	c.mu.Lock()
	expected := c.stopping
	c.mu.Unlock()
	if !expected {
		c.died(c.obituary(p.name, err))
	}
}

// do runs a process to its end.
func (c *cast) do(ctx context.Context, name string, env []string, argv ...string) error {
	cmd, log, err := c.command(name, env, argv...)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	defer context.AfterFunc(ctx, func() { cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return c.obituary(name, err)
	}
	return nil
}

// obituary says how a process ended, and its last words.
func (c *cast) obituary(name string, err error) error {
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	words := lastLines(c.log(name), 5)
	return fail("its last words, oldest first: "+words, fmt.Errorf("%s ended: %s", name, how))
}

// lastLines returns the last n lines of a file, joined.
func lastLines(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// stop ends all processes, last started first, and returns when none is left.
func (c *cast) stop() {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	for _, p := range slices.Backward(c.players) {
		p.cmd.Process.Signal(syscall.SIGTERM) // not known to Windows; it is killed below
	}
	patience := time.After(grace)
	for _, p := range slices.Backward(c.players) {
		select {
		case <-p.done:
		case <-patience:
			for _, late := range c.players {
				late.cmd.Process.Kill()
			}
			patience = nil
			<-p.done
		}
	}
	c.wg.Wait()
}

// A prefixer writes each whole line to w with a prefix.
type prefixer struct {
	w      io.Writer
	prefix string
	mu     sync.Mutex
	rest   []byte
}

func (p *prefixer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	var failed error
	for {
		line, rest, whole := bytes.Cut(p.rest, []byte("\n"))
		if !whole {
			return len(b), failed
		}
		_, err := fmt.Fprintf(p.w, "%s%s\n", p.prefix, line)
		failed = errors.Join(failed, err)
		p.rest = rest
	}
}
