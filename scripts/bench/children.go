package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Children are the processes of a part of the bench, and the temporary directory
// with all their state. They end with close and, should the bench be killed, with
// the bench.
type children struct {
	dir      string
	commands []*exec.Cmd
	closers  []func()
}

func newChildren() (*children, error) {
	dir, err := os.MkdirTemp("", "postern-bench-")
	return &children{dir: dir}, err
}

// start starts cmd and returns its process id. What it writes, unless it goes
// elsewhere already, goes to a file of that name in the children's directory.
func (c *children) start(name string, cmd *exec.Cmd) (pid int, err error) {
	log, err := os.Create(c.path(name + ".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	bind(cmd)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	c.commands = append(c.commands, cmd)
	return cmd.Process.Pid, nil
}

// path returns where the file called name is.
func (c *children) path(name string) string { return filepath.Join(c.dir, name) }

// write makes a file that only its owner may read, and returns its path.
func (c *children) write(name, content string) (path string, err error) {
	path = c.path(name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// onClose has f called when all children have ended.
func (c *children) onClose(f func()) { c.closers = append(c.closers, f) }

// explain adds to err how the children's logs end.
func (c *children) explain(err error) error {
	logs, _ := filepath.Glob(c.path("*.log"))
	for _, file := range logs {
		text, _ := os.ReadFile(file)
		if text = bytes.TrimSpace(text); len(text) > 0 {
			err = fmt.Errorf("%w\n%s: %s", err, filepath.Base(file), text[max(0, len(text)-500):])
		}
	}
	return err
}

// close ends all children, last started first, with what they started themselves,
// and removes their state. The second time it does nothing.
func (c *children) close() {
	for i := len(c.commands) - 1; i >= 0; i-- {
		for _, pid := range family(c.commands[i].Process.Pid) {
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
		c.commands[i].Wait()
	}
	for _, f := range c.closers {
		f()
	}
	os.RemoveAll(c.dir)
	c.commands, c.closers = nil, nil
}

// output runs a program to its end and returns what it wrote.
func output(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return out, nil
}

// poll repeats try until it succeeds, for half a minute.
func poll(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("not ready in time"), err)
		case <-tick.C:
		}
	}
}
