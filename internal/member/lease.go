package member

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"postern"
	"postern/internal/datadir"
)

const leaseFile = "lease.json"

const (
	leaseTick = time.Second

	// maxUnsaved is how much of a lease is used up at most that the disk has not been
	// told; see saveEvery.
	maxUnsaved = time.Hour
)

// A lease is how long a member goes on by the map that it holds without news of the
// coordinator (postern.Deployment.Lease), so that one that was removed while it could not
// be told, or that a thief keeps offline, does not go on for ever.
//
// The time without news is what this process has run since the last one, by the clock that
// only runs, and for what was before that, what lies on disk. To that counts the time
// between two runs, by the clock on the wall. So a clock that is set, by whomever and
// however far, changes nothing while the process runs. Between two runs one that was set
// back hides the time that the machine was off, and none of the time it ran but for the
// last maxUnsaved; one that was set ahead counts as having been off for as long. Sleep
// does not count where the running clock stops for it.
type lease struct {
	dir *datadir.Dir
	log *slog.Logger

	mu     sync.Mutex
	length time.Duration // zero: for ever
	spent  time.Duration // without news, until since
	since  time.Time     // of this run
	saved  time.Duration // of what the disk says
	at     time.Time     // when it was told so
}

// leaseOnDisk is what leaseFile has.
type leaseOnDisk struct {
	Spent float64   `json:"spent_seconds"` // without news
	Time  time.Time `json:"time"`          // as of then, by the clock on the wall
}

// openLease returns the lease of the member in dir. What cannot be read counts as if there
// had been news now.
func openLease(dir *datadir.Dir, log *slog.Logger, now time.Time) *lease {
	l := &lease{dir: dir, log: log, since: now, at: now}
	var disk leaseOnDisk
	switch err := dir.ReadJSON(leaseFile, &disk); {
	case err == nil:
		l.spent = time.Duration(disk.Spent*float64(time.Second)) + max(now.Round(0).Sub(disk.Time), 0)
		l.saved = l.spent
	case !errors.Is(err, fs.ErrNotExist):
		log.Error("read how long the coordinator has been away; counting from now", "err", err)
	}
	return l
}

// grant says how long the lease is, as m says.
func (l *lease) grant(m postern.Map) {
	d := m.Deployment()
	if d == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.length = time.Duration(d.Lease) * time.Second
}

// heard notes news of the coordinator.
func (l *lease) heard(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spent, l.since = 0, now
}

// left returns how much of the lease is left at now; ok is false if it is for ever.
func (l *lease) left(now time.Time) (left time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.length-l.away(now), 0), l.length > 0
}

// away is the time without news. The lock is held.
func (l *lease) away(now time.Time) time.Duration { return l.spent + now.Sub(l.since) }

// save tells the disk how much of the lease is used up, if what that says is too old, or
// there was news since.
func (l *lease) save(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	every := saveEvery(l.length)
	away := l.away(now)
	if now.Sub(l.at) < every && !(away < every && l.saved > every) {
		return
	}
	if err := l.dir.WriteJSON(leaseFile, leaseOnDisk{away.Seconds(), now.Round(0)}); err != nil {
		l.log.Warn("keep how long the coordinator has been away", "err", err)
	}
	l.saved, l.at = away, now // or it would be tried every second
}

// saveEvery is how often the disk is told: a hundredth of the lease may go by meanwhile.
func saveEvery(length time.Duration) time.Duration {
	if length <= 0 {
		return maxUnsaved
	}
	return min(max(length/100, leaseTick), maxUnsaved)
}

// Lease returns for how long this member may go on without news of the coordinator; ok is
// false if that is for ever, or no map has said it yet. Zero: it may not, and is to serve
// nobody until there is news.
func (c *Client) Lease() (left time.Duration, ok bool) { return c.lease.left(time.Now()) }

// Lapsed reports whether this member may not go on with the map that it holds.
func (c *Client) Lapsed() bool {
	left, ok := c.Lease()
	return ok && left == 0
}

// FollowLease calls changed whenever the lease has lapsed, or was renewed after that, until
// ctx is done, and then returns nil.
func (c *Client) FollowLease(ctx context.Context, changed func()) error {
	tick := time.NewTicker(leaseTick)
	defer tick.Stop()
	for lapsed := false; ; {
		if now := c.Lapsed(); now != lapsed {
			lapsed = now
			if lapsed {
				c.log.Error("the lease has lapsed: the coordinator has been away for too long, and nobody is served until it is back")
			} else {
				c.log.Info("the lease is renewed")
			}
			changed()
		}
		c.lease.save(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
