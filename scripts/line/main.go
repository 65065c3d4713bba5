//go:build linux

// Command line is a long and lossy line between two network namespaces of this
// machine: a TUN device in each, and this process between them. It needs root,
// and nothing of the kernel's own emulation (netem).
//
//	line --delay 20ms --rate 500mbit --loss 1%
//	line --delay 20ms --rate 500mbit -- sh -c 'ip netns exec $LINE_NEAR ping -c 3 $LINE_FAR_ADDRESS'
//
// It prints the names of the namespaces and the addresses of the line's ends,
// near and far, and carries packets until it is interrupted or the command ends.
// Then both namespaces are gone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	c := conditions{delay: 20 * time.Millisecond, rate: 500e6}
	queue := 0
	flag.DurationVar(&c.delay, "delay", c.delay, "how long a packet takes, one way")
	flag.Var((*rate)(&c.rate), "rate", "bits a second each way, such as 500mbit")
	flag.IntVar(&queue, "queue", 0, "packets of 1500 bytes that may wait, each way (default: what a round trip holds)")
	flag.Var((*share)(&c.loss), "loss", "part of the packets that is lost, each way, such as 1%")
	flag.Var((*share)(&c.reorder), "reorder", "part of the packets that arrives 1 ms late, after others")
	flag.Var((*share)(&c.duplicate), "duplicate", "part of the packets that arrives twice")
	flag.Uint64Var(&c.seed, "seed", 1, "of chance: the same loses the same packets")
	flag.Parse()
	if queue == 0 {
		queue = max(1, int(2*c.delay.Seconds()*float64(c.rate)/8/mtu))
	}
	c.queue = queue * mtu

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := hold(ctx, c, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "line:", err)
		os.Exit(1)
	}
}

// hold makes the line and keeps it until ctx is done or command has ended.
func hold(ctx context.Context, c conditions, command []string) (err error) {
	near, err := newSpace(fmt.Sprintf("line-%d-near", os.Getpid()), pairs...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.remove()) }()
	far, err := newSpace(fmt.Sprintf("line-%d-far", os.Getpid()), pairs[0].turned(), pairs[1].turned())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.remove()) }()
	there, back := newPipe(c, 0), newPipe(c, 1)

	// A wire does not get slower when the machine is busy.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		return os.NewSyscallError("setpriority", err)
	}
	fmt.Println(near.name, pairs[0].near, pairs[1].near)
	fmt.Println(far.name, pairs[0].far, pairs[1].far)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	carried := make(chan error, 1)
	go func() { carried <- carryBoth(ctx, near, far, there, back) }()
	var failed error
	if len(command) > 0 {
		failed = execute(ctx, command, near, far)
		cancel()
	}
	err = <-carried
	there.report(os.Stderr, "there")
	back.report(os.Stderr, "back")
	return errors.Join(err, failed)
}

// execute runs command, which finds the line in its environment.
func execute(ctx context.Context, command []string, near, far *space) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "LINE_NEAR="+near.name, "LINE_FAR="+far.name,
		"LINE_NEAR_ADDRESS="+pairs[0].near, "LINE_FAR_ADDRESS="+pairs[0].far)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	return nil
}

// report says what became of the packets.
func (p *pipe) report(w *os.File, direction string) {
	fmt.Fprintf(w, "line: %s: %d packets carried, %d lost, %d dropped from a full queue\n", direction, p.carried, p.lost, p.dropped)
}

// A rate is a flag: bits a second, such as 500mbit.
type rate int64

func (r *rate) String() string { return fmt.Sprintf("%gmbit", float64(*r)/1e6) }

func (r *rate) Set(s string) error {
	for unit, size := range map[string]float64{"gbit": 1e9, "mbit": 1e6, "kbit": 1e3} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			v, err := strconv.ParseFloat(number, 64)
			if err != nil || !(v*size >= 1 && v*size <= 1e12) {
				return fmt.Errorf("%q is no rate", s)
			}
			*r = rate(v * size)
			return nil
		}
	}
	return fmt.Errorf("%q has no unit: kbit, mbit or gbit", s)
}

// A share is a flag: a part of all, such as 1% or 0.01.
type share float64

func (p *share) String() string { return fmt.Sprintf("%g%%", float64(*p)*100) }

func (p *share) Set(s string) error {
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return fmt.Errorf("%q is no part of 100%%", s)
	}
	*p = share(v)
	return nil
}
