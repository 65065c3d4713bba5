package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
)

func dnsCommand() *cli.Command {
	return &cli.Command{
		Name: "dns", Usage: "show which addresses are to be in DNS", Action: operate(showDNS),
		Description: "They are those of the gateways that are fit: that report, have tunnels and do not drain. If none is, " +
			"they are of those that were last. With --exec it stays, and runs COMMAND, a program without arguments, with the " +
			"JSON on its standard input: at once, and when names or addresses have changed and stayed so for a moment. " +
			"A command that fails is run again after a while that doubles, up to 5 minutes; one that takes a minute has failed.",
		UsageText: "postern gateways dns -o json\npostern gateways dns --watch\npostern gateways dns --exec /etc/postern/dns-hook",
		Flags: adminFlags(append(append(outputFlags(), logFlags()...),
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it again when it has changed"},
			&cli.StringFlag{Name: "exec", Usage: "`COMMAND` to run with the JSON on its standard input, at each change"})...),
	}
}

func showDNS(c *cli.Context, a *admin, words []string) error {
	ask := func(ctx context.Context) (s postern.DNSState, err error) {
		return s, a.call(ctx, http.MethodGet, "/dns", nil, &s)
	}
	command := c.String("exec")
	if command != "" {
		if _, err := exec.LookPath(command); err != nil {
			return misuse("name a program that this user may run, such as --exec /etc/postern/dns-hook", "--exec: %w", err)
		}
		log, err := logger(c)
		if err != nil {
			return err
		}
		h := &dnsHook{ask: ask, log: log.With("command", command)}
		h.run = func(ctx context.Context, in []byte) error {
			return runHook(ctx, command, in, c.App.Writer, c.App.ErrWriter)
		}
		h.watch(c.Context)
		return nil
	}
	s, err := ask(c.Context)
	if err != nil {
		return err
	}
	if err := show(c, s, dnsTable); err != nil || !c.Bool("watch") {
		return err
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
		now, err := ask(c.Context)
		if err != nil || reflect.DeepEqual(now, s) {
			continue // what is watched may well be a coordinator's restart
		}
		s = now
		if err := show(c, s, dnsTable); err != nil {
			return err
		}
	}
}

func dnsTable(t *table, s postern.DNSState) {
	for i, name := range s.Names {
		label := "Name"
		if i > 0 {
			label = ""
		}
		t.field(label, name)
	}
	for _, addr := range s.A {
		t.field("A", addr.String())
	}
	for _, addr := range s.AAAA {
		t.field("AAAA", addr.String())
	}
	if s.Kept {
		t.field("Kept", "no gateway is fit, these are of those that were last")
	}
	for _, g := range s.Gateways {
		line := g.Name + " is " + fitness(g.Fit)
		if g.Reason != "" {
			line += ": " + g.Reason
		}
		t.field("Gateway", line)
	}
}

const (
	hookTimeout  = time.Minute     // for a command
	minHookRetry = 2 * time.Second // from one that failed to the next
	maxHookRetry = 5 * time.Minute
)

// A dnsHook has a command put addresses into DNS.
type dnsHook struct {
	ask func(context.Context) (postern.DNSState, error)
	run func(ctx context.Context, in []byte) error // the command, to its end
	log *slog.Logger

	// Owned by watch.
	seen     string // what is to be in DNS, as of the last look
	done     string // what the command put there; empty: nobody knows
	failures int    // in a row
	retry    time.Time
	trouble  string // that was logged last
}

// watch runs the command whenever that is due, until ctx is done.
func (h *dnsHook) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		h.look(ctx, time.Now())
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// look runs the command if what is to be in DNS is not there, and was the same at the
// last look.
func (h *dnsHook) look(ctx context.Context, now time.Time) {
	s, err := h.ask(ctx)
	if err == nil && len(s.A)+len(s.AAAA) == 0 {
		err = errors.New("no gateway has told its address yet")
	}
	if err != nil {
		if ctx.Err() == nil && err.Error() != h.trouble {
			h.log.Warn("DNS stays as it is", "err", err)
		}
		h.trouble = err.Error()
		return
	}
	h.trouble = ""
	key := dnsKey(s)
	if last := h.seen; key != last {
		h.seen, h.failures, h.retry = key, 0, time.Time{}
		if last != "" {
			return // more may follow
		}
	}
	if key == h.done || now.Before(h.retry) {
		return
	}
	in, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("JSON of %+v: %v", s, err))
	}
	if err := h.run(ctx, append(in, '\n')); ctx.Err() != nil {
		return // it may have been cut short
	} else if err != nil {
		wait := min(maxHookRetry, minHookRetry<<min(h.failures, 10))
		h.done, h.retry, h.failures = "", now.Add(wait), h.failures+1
		h.log.Error("the command failed; trying again", "err", err, "after", wait)
		return
	}
	h.done, h.failures = key, 0
	h.log.Info("the command has put addresses into DNS", "a", s.A, "aaaa", s.AAAA, "kept", s.Kept)
}

// dnsKey returns what of s is for DNS.
func dnsKey(s postern.DNSState) string { return fmt.Sprint(s.Names, s.TTL, s.A, s.AAAA) }

// runHook runs a program without arguments, for hookTimeout at most.
func runHook(ctx context.Context, program string, in []byte, stdout, stderr io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it may be in the middle of something
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("it did not end within %v: %w", hookTimeout, err)
	}
	return err
}
