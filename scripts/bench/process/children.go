// Package process runs the processes that the bench measures and needs, and says what
// they take.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Children are the processes of a part of the bench, and the temporary directory
// with all their state. They end with Close and, should the bench be killed, with
// the bench.
type Children struct {
	Dir      string
	commands []*exec.Cmd
	closers  []func()
}

// New makes the directory. The caller closes the children.
func New() (*Children, error) {
	dir, err := os.MkdirTemp("", "postern-bench-")
	return &Children{Dir: dir}, err
}

// Start starts cmd and returns its process id. What it writes, unless it goes
// elsewhere already, goes to a file of that name in the children's directory.
func (c *Children) Start(name string, cmd *exec.Cmd) (pid int, err error) {
	log, err := os.Create(c.Path(name + ".log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	Bind(cmd, syscall.SIGKILL)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	c.commands = append(c.commands, cmd)
	return cmd.Process.Pid, nil
}

// Path returns where the file called name is.
func (c *Children) Path(name string) string { return filepath.Join(c.Dir, name) }

// Write makes a file that only its owner may read, and returns its path.
func (c *Children) Write(name, content string) (path string, err error) {
	path = c.Path(name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// OnClose has f called when all children have ended.
func (c *Children) OnClose(f func()) { c.closers = append(c.closers, f) }

// Explain adds to err how the children's logs end.
func (c *Children) Explain(err error) error {
	logs, _ := filepath.Glob(c.Path("*.log"))
	for _, file := range logs {
		text, _ := os.ReadFile(file)
		if text = bytes.TrimSpace(text); len(text) > 0 {
			err = fmt.Errorf("%w\n%s: %s", err, filepath.Base(file), text[max(0, len(text)-500):])
		}
	}
	return err
}

// Close ends all children, last started first, with what they started themselves,
// and removes their state. The second time it does nothing.
func (c *Children) Close() {
	for i := len(c.commands) - 1; i >= 0; i-- {
		for _, pid := range Family(c.commands[i].Process.Pid) {
			if p, err := os.FindProcess(pid); err == nil {
				p.Kill()
			}
		}
		c.commands[i].Wait()
	}
	for _, f := range c.closers {
		f()
	}
	os.RemoveAll(c.Dir)
	c.commands, c.closers = nil, nil
}

// Output runs cmd to its end, or ctx's, and returns what it wrote.
func Output(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { cmd.Process.Kill() })()
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// Poll repeats try until it succeeds, for half a minute.
func Poll(ctx context.Context, try func() error) error {
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
