//go:build linux

package main

import (
	"context"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// grain is how late a packet may arrive, so that one wake-up does for
	// several.
	grain = 100 * time.Microsecond

	// burst is how many packets are read before those that arrived are given.
	burst = 64
)

// carryBoth moves packets between the ends until ctx is done.
func carryBoth(ctx context.Context, near, far *space, there, back *pipe) error {
	stop, wake, err := os.Pipe()
	if err != nil {
		return err
	}
	defer stop.Close()
	both, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { wake.Close() })()
	both.Go(func() error { return carry(ctx, near.tun, far.tun, int(stop.Fd()), there) })
	both.Go(func() error { return carry(ctx, far.tun, near.tun, int(stop.Fd()), back) })
	return both.Wait()
}

// carry moves packets from one device through p to the other. It sleeps when
// none arrives at either end of p, and looks at ctx when stop becomes readable.
func carry(ctx context.Context, from, to, stop int, p *pipe) error {
	buf := make([]byte, mtu)
	write := func(packet []byte) error {
		_, err := unix.Write(to, packet)
		return os.NewSyscallError("write to tun", err)
	}
	for ctx.Err() == nil {
		empty, err := read(from, buf, p)
		if err != nil {
			return err
		}
		now := time.Now()
		if err := p.give(now, write); err != nil {
			return err
		}
		if !empty {
			continue
		}
		var timeout *unix.Timespec
		if next, ok := p.next(); ok {
			t := unix.NsecToTimespec(int64(max(next.Sub(now), grain)))
			timeout = &t
		}
		wait := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Ppoll(wait, timeout, nil); err != nil && err != unix.EINTR {
			return os.NewSyscallError("ppoll", err)
		}
	}
	return nil
}

// read puts up to burst packets from a device into p, and reports whether it
// left none there.
func read(from int, buf []byte, p *pipe) (empty bool, err error) {
	now := time.Now()
	for range burst {
		n, err := unix.Read(from, buf)
		switch err {
		case nil:
			p.take(now, buf[:n])
		case unix.EAGAIN:
			return true, nil
		case unix.EINTR:
		default:
			return false, os.NewSyscallError("read from tun", err)
		}
	}
	return false, nil
}
