package member

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern"
	"postern/internal/datadir"
)

// leased returns the lease in dir of a member that holds a map with one of a day.
func leased(dir *datadir.Dir, now time.Time) *lease {
	l := openLease(dir, slog.New(slog.DiscardHandler), now)
	l.grant(postern.Map{Sections: map[string]postern.Section{"": {Deployment: &postern.Deployment{Lease: 24 * 60 * 60}}}})
	return l
}

const day = 24 * time.Hour

func (l *lease) want(t *testing.T, now time.Time, want time.Duration) {
	t.Helper()
	if left, ok := l.left(now); !ok || left.Round(time.Second) != want {
		t.Errorf("%v is left (%t), want %v", left, ok, want)
	}
}

// What counts, over restarts of the member and under clocks that are set.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := openDir(t)
		l := leased(dir, time.Now())
		l.want(t, time.Now(), day)
		<-time.After(10 * time.Hour)
		l.want(t, time.Now(), 14*time.Hour)
		l.heard(time.Now())
		l.want(t, time.Now(), day)
		<-time.After(10 * time.Hour)
		l.save(time.Now())

		// It was off for an hour.
		<-time.After(time.Hour)
		l = leased(dir, time.Now())
		l.want(t, time.Now(), 13*time.Hour)

		// The clock on the wall was set back by a year while it was off: no time off
		// counts, and all that it ran does.
		year := time.Now().AddDate(-1, 0, 0)
		l = leased(dir, year)
		l.want(t, year, 14*time.Hour)
		// And ahead: it may have been off for as long.
		year = time.Now().AddDate(1, 0, 0)
		l = leased(dir, year)
		l.want(t, year, 0)
		// There is news, and the disk is told at once.
		l.heard(year)
		l.save(year)
		l.want(t, year, day)
		leased(dir, year).want(t, year, day)
		// One that is for ever is.
		l.grant(postern.Map{Sections: map[string]postern.Section{"": {Deployment: &postern.Deployment{}}}})
		if _, ok := l.left(year.Add(1000 * day)); ok {
			t.Error("a lease without end ends")
		}
	})
}

// A member that is killed again and again, on a machine whose clock is set back each time,
// does not go on for ever.
func TestLeaseOfWhoIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := openDir(t)
		boot := time.Now()
		ran := time.Duration(0)
		for ran < 3*day {
			l := leased(dir, boot)
			if left, _ := l.left(boot); left == 0 {
				break
			}
			for up := time.Duration(0); up < 20*time.Minute; up += time.Minute {
				l.save(boot.Add(up))
			}
			ran += 20 * time.Minute
		}
		if ran < day || ran > 2*day {
			t.Errorf("it ran for %v by a lease of %v", ran, day)
		}
	})
}

// The disk is told seldom.
func TestLeaseIsSavedSeldom(t *testing.T) {
	dir := openDir(t)
	now := time.Now()
	l := leased(dir, now)
	writes, last := 0, time.Time{}
	for range 24 * 60 {
		now = now.Add(time.Minute)
		l.heard(now)
		l.save(now)
		if info, err := os.Stat(dir.Path(leaseFile)); err == nil && l.at != last {
			writes, last = writes+1, l.at
			_ = info
		}
	}
	if writes > 150 || writes == 0 {
		t.Errorf("%d writes in a day", writes)
	}
}

// The member is told when its lease lapses and when it is renewed, and heartbeats renew it.
func TestFollowLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := openDir(t)
		c := &Client{dir: dir, log: slog.New(slog.DiscardHandler), lease: leased(dir, time.Now())}
		c.lease.grant(postern.Map{Sections: map[string]postern.Section{"": {Deployment: &postern.Deployment{Lease: 60 * 60}}}})
		var mu sync.Mutex
		var told []bool
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() {
			c.FollowLease(ctx, func() { mu.Lock(); told = append(told, c.Lapsed()); mu.Unlock() })
		})
		check := func(want ...bool) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(told) != len(want) || len(told) > 0 && told[len(told)-1] != want[len(want)-1] {
				t.Errorf("told %v, want %v", told, want)
			}
		}
		beat := func() {
			s := &stream{client: c, synced: true}
			if err := s.take([]byte(`{"version":1}`)); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			<-time.After(time.Hour - time.Minute)
			beat()
		}
		check()
		<-time.After(time.Hour + 2*leaseTick)
		check(true)
		<-time.After(time.Hour)
		check(true)
		beat()
		<-time.After(2 * leaseTick)
		check(true, false)
		cancel()
		following.Wait()
	})
}

// A stream that is not whole yet is no news, and what a map says of the lease counts.
func TestFollowGrantsLease(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	f.streams(func(_ io.Writer, send func(postern.MapMessage)) *postern.Problem {
		s := section("", 1)
		s.Deployment.Lease = 3600
		send(postern.MapMessage{Version: 1, Section: s, Synced: true})
		return nil
	})
	applied, _, c := follow(t, f, dir)
	<-applied
	if left, ok := c.Lease(); !ok || left > time.Hour || left < 59*time.Minute {
		t.Errorf("%v is left, %t", left, ok)
	}
}
