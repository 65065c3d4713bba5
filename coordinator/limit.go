package coordinator

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"postern"
)

// limits keep one asker from taking what is everybody's.
type limits struct {
	source    *limiter[netip.Prefix]    // enrolments and wrong credentials, by /32 or /64
	token     *limiter[postern.TokenID] // enrolments
	member    *limiter[string]          // members' requests, by id
	bytes     *limiter[string]          // bytes of nodes' requests, by id
	redeem    *limiter[string]          // sign-ins that nodes redeem, by their ids
	challenge *limiter[string]          // authorities that nodes await, by their ids
	alarm     *limiter[string]          // alarms of certificates, by node id
	record    *limiter[string]          // what is recorded of members' and users' doing for ever, by id or actor
	login     *limiter[string]          // attempts to sign in with a password, by login
	signIn    *limiter[netip.Prefix]    // the same, by /32 or /64
	admit     *limiter[string]          // sources that people come from anew, by user
	post      *limiter[netip.Prefix]    // what the portal is asked to do, by /32 or /64
	look      *limiter[string]          // questions to DNS, by tenant
	refused   *limiter[string]          // refusals in the audit log, by actor
	strangers *gate                     // strangers' refusals in the audit log
}

func newLimits(now func() time.Time) limits {
	return limits{
		source:    newLimiter[netip.Prefix](rate.Every(100*time.Millisecond), 120, now),
		token:     newLimiter[postern.TokenID](rate.Every(200*time.Millisecond), 120, now),
		member:    newLimiter[string](rate.Every(250*time.Millisecond), 60, now),
		bytes:     newLimiter[string](64<<10, 2*maxMemberBody, now),
		redeem:    newLimiter[string](rate.Every(20*time.Millisecond), 200, now), // a whole company in the morning
		challenge: newLimiter[string](rate.Every(5*time.Second), 128, now),       // all names at once
		alarm:     newLimiter[string](rate.Every(time.Minute), 60, now),
		record:    newLimiter[string](rate.Every(time.Minute), 256, now), // all services and certificates at once
		login:     newLimiter[string](rate.Every(12*time.Second), 5, now),
		signIn:    newLimiter[netip.Prefix](rate.Every(3*time.Second), 20, now),
		admit:     newLimiter[string](rate.Every(20*time.Second), 30, now),
		post:      newLimiter[netip.Prefix](rate.Every(250*time.Millisecond), 120, now),
		look:      newLimiter[string](rate.Every(2*time.Second), 30, now),
		refused:   newLimiter[string](rate.Every(time.Minute), 60, now),
		strangers: newGate(rate.Every(time.Minute), 60, now),
	}
}

// hits returns how often each limit was reached, by its name for operators.
func (l *limits) hits() map[string]int64 {
	return map[string]int64{
		"enroll_source": l.source.hits.Load(), "enroll_token": l.token.hits.Load(),
		"member_requests": l.member.hits.Load(), "member_bytes": l.bytes.hits.Load(),
		"member_redeem": l.redeem.hits.Load(), "member_challenges": l.challenge.hits.Load(),
		"member_alarms": l.alarm.hits.Load(), "records": l.record.hits.Load(),
		"signin_login": l.login.hits.Load(), "signin_source": l.signIn.hits.Load(),
		"admission": l.admit.hits.Load(), "portal_source": l.post.hits.Load(),
		"dns": l.look.hits.Load(), "audit": l.refused.hits.Load() + l.strangers.hits.Load(),
	}
}

// tellLimits logs the limits that were reached since before, one line each, and returns
// how often all were by now.
func (c *Coordinator) tellLimits(ctx context.Context, before map[string]int64) map[string]int64 {
	now := c.limits.hits()
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if n := now[name] - before[name]; n > 0 {
			c.log.WarnContext(ctx, "limit reached", "limit", name, "refused", n)
		}
	}
	return now
}

// limiterSize is how many keys one generation of a limiter holds.
const limiterSize = 8192

// A limiter is a token bucket for each key. It holds at most two generations of
// limiterSize keys; a key that was not asked for during a whole generation is
// forgotten, and starts again with a full bucket.
type limiter[K comparable] struct {
	every rate.Limit
	burst int
	now   func() time.Time
	hits  atomic.Int64 // refusals

	mu       sync.Mutex
	new, old map[K]*rate.Limiter
}

func newLimiter[K comparable](every rate.Limit, burst int, now func() time.Time) *limiter[K] {
	return &limiter[K]{every: every, burst: burst, now: now, new: make(map[K]*rate.Limiter)}
}

func (l *limiter[K]) allow(key K) bool { return l.allowN(key, 1) }

// allowN takes n tokens of key's, or none.
func (l *limiter[K]) allowN(key K, n int) bool {
	ok := l.take(key, n)
	if !ok {
		l.hits.Add(1)
	}
	return ok
}

func (l *limiter[K]) take(key K, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.new[key]
	if b == nil {
		if b = l.old[key]; b == nil {
			b = rate.NewLimiter(l.every, l.burst)
		}
		if len(l.new) >= limiterSize {
			l.old, l.new = l.new, make(map[K]*rate.Limiter)
		}
		l.new[key] = b
	}
	return b.AllowN(l.now(), n)
}

// A gate lets some through and counts the rest.
type gate struct {
	now  func() time.Time
	hits atomic.Int64 // refusals

	mu      sync.Mutex
	bucket  *rate.Limiter
	stopped int
}

func newGate(every rate.Limit, burst int, now func() time.Time) *gate {
	return &gate{now: now, bucket: rate.NewLimiter(every, burst)}
}

// pass reports whether the caller may pass, and how many were stopped before it
// since the last one that did.
func (g *gate) pass() (stopped int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.bucket.AllowN(g.now(), 1) {
		g.stopped++
		g.hits.Add(1)
		return 0, false
	}
	stopped, g.stopped = g.stopped, 0
	return stopped, true
}

// SourceOf returns what counts as one source of requests: an IPv4 address or an IPv6 /64.
func SourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero address has the zero prefix
	return p
}
