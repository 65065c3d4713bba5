package gateway

import (
	"cmp"
	"container/list"
	"math"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"postern/internal/fair"
	"postern/internal/splice"
)

// Limits bound what strangers can make a Gateway do. A source is an IPv4
// address or an IPv6 /64; an IPv6 /48 may do eight times what a source may. In
// every field zero means the default and a negative number no limit. The
// coordinator, through which all tenants' nodes are told of changes, may have
// eight times what a tenant may.
type Limits struct {
	SourceRate   int // new connections a second from one source. If zero, 20.
	SourceBurst  int // new connections at once from one source. If zero, 100.
	SourceConns  int // open connections of one source. If zero, 200.
	SourceHellos int // connections of one source that have yet to send their hello. If zero, 64.
	Hellos       int // connections of all that have yet to send their hello. If zero, 20000.

	TenantRate  int // new connections a second to one tenant. If zero, 100.
	TenantBurst int // new connections at once to one tenant. If zero, TenantRate.
	TenantConns int // open connections to one tenant. If zero, 2000.
	TenantDials int // connections waiting for a node of one tenant. If zero, 64.

	// Bandwidth is how many bytes a second are moved in all, up and down together: each
	// comes in by the gateway's line and leaves by it. When they would be more, tenants
	// that want more than their part get equal parts. If zero or negative, any.
	Bandwidth int64

	// TenantBandwidth is how many of them may be one tenant's. If zero or negative, any.
	TenantBandwidth int64

	// Conns is how many connections may be open in all; more stay in the
	// kernel's queue. There is always such a limit: if zero or negative, 50000,
	// or as many as find room in half of the Go runtime's memory limit, if that
	// is less.
	Conns int
}

// connBytes is set aside for a connection: several times what an idle one costs,
// its share of the netstack included (see BenchmarkIdle), since some are busy.
const connBytes = 96 << 10

func (l Limits) withDefaults() Limits {
	set := func(field *int, def int) {
		if *field = cmp.Or(*field, def); *field < 0 {
			*field = math.MaxInt
		}
	}
	set(&l.SourceRate, 20)
	set(&l.SourceBurst, 100)
	set(&l.SourceConns, 200)
	set(&l.SourceHellos, 64)
	set(&l.Hellos, 20000)
	set(&l.TenantRate, 100)
	set(&l.TenantBurst, l.TenantRate)
	set(&l.TenantConns, 2000)
	set(&l.TenantDials, 64)
	l.Bandwidth, l.TenantBandwidth = max(l.Bandwidth, 0), max(l.TenantBandwidth, 0)
	l.Conns = max(l.Conns, 0)
	set(&l.Conns, int(max(1, min(50000, debug.SetMemoryLimit(-1)/2/connBytes))))
	return l
}

// A limiter counts connections against Limits. It is safe for concurrent use.
type limiter struct {
	limits Limits     // all fields are positive, but those of the bandwidth may be zero
	line   *fair.Line // nil: bandwidth has no limits

	mu       sync.Mutex
	sources  map[netip.Prefix]*source
	forgetAt int // sources, see forget
	tenants  map[string]*tenant
	hellos   hellos // of all
}

// A source is a network that connections come from.
type source struct {
	factor int // how many times the limits of one source it has
	rate   *rate.Limiter
	conns  int
	hellos hellos
}

// A tenant is one that connections go to; the empty name's is the coordinator.
type tenant struct {
	factor int // how many times the limits of one tenant it has
	rate   *rate.Limiter
	share  *fair.Share // of the line; nil: it has no limits
	conns  int
	dials  int
}

// Hellos are the visits that have yet to send theirs, the oldest first.
type hellos = list.List

// A visit is one connection as a limiter counts it.
type visit struct {
	conn net.Conn
	shed atomic.Uint32 // HelloShed or SourceHellos: its hello took longest when there were too many; zero: not

	// Guarded by limiter.mu.
	sources [2]*source // the second is nil for IPv4
	pending [3]*list.Element
	tenant  *tenant
	dialing bool
}

// maxSources is about how many sources a limiter remembers, unless more than
// that have open connections.
const maxSources = 1 << 16

func newLimiter(l Limits, behind func() bool) *limiter {
	out := &limiter{
		limits:   l.withDefaults(),
		sources:  map[netip.Prefix]*source{},
		forgetAt: maxSources,
		tenants:  map[string]*tenant{},
	}
	if l := out.limits; l.Bandwidth > 0 || l.TenantBandwidth > 0 || behind != nil {
		out.line = fair.NewLine(l.Bandwidth, l.TenantBandwidth, behind)
	}
	return out
}

// enter counts a new connection from addr, or refuses it. Who enters leaves.
func (l *limiter) enter(now time.Time, c net.Conn, addr netip.Addr) (*visit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sources) >= l.forgetAt {
		l.forget(now)
	}
	v := &visit{conn: c}
	for i, key := range sourceKeys(addr) {
		if key.IsValid() {
			v.sources[i] = l.source(key)
		}
	}
	for _, s := range v.sources {
		if s != nil && s.conns/s.factor >= l.limits.SourceConns {
			return nil, refusal{reason: SourceConns}
		}
	}
	for _, s := range v.sources {
		if s != nil && !s.rate.AllowN(now, 1) {
			return nil, refusal{reason: SourceRate}
		}
	}
	for _, s := range v.sources {
		if s != nil {
			s.conns++
		}
	}
	return v, nil
}

// sourceKeys returns the networks that a client at addr is counted in.
func sourceKeys(addr netip.Addr) (keys [2]netip.Prefix) {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		keys[0] = netip.PrefixFrom(addr, 32)
		return keys
	}
	keys[0], _ = addr.Prefix(64)
	keys[1], _ = addr.Prefix(48)
	return keys
}

// source returns the source of a key.
func (l *limiter) source(key netip.Prefix) *source {
	if s, ok := l.sources[key]; ok {
		return s
	}
	factor := 1
	if key.Bits() == 48 {
		factor = 8
	}
	s := &source{factor: factor, rate: newRate(l.limits.SourceRate, l.limits.SourceBurst, factor)}
	l.sources[key] = s
	return s
}

// forget drops the sources that have no connection: those whose rate is as good
// as new, then any, until a quarter of the room is free. It is called again
// after as many new sources as that, however an attacker picks their addresses.
func (l *limiter) forget(now time.Time) {
	for key, s := range l.sources {
		if s.conns == 0 && s.rate.TokensAt(now) >= float64(s.rate.Burst()) {
			delete(l.sources, key)
		}
	}
	for key, s := range l.sources {
		if len(l.sources) <= maxSources*3/4 {
			break
		}
		if s.conns == 0 {
			delete(l.sources, key)
		}
	}
	l.forgetAt = max(maxSources, len(l.sources)*5/4)
}

func newRate(perSecond, burst, factor int) *rate.Limiter {
	if perSecond == math.MaxInt || burst > math.MaxInt/factor {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond*factor), burst*factor)
}

// beginHello counts v among those that have yet to send their hello. Where that
// makes too many, the oldest are shed: they are reset.
func (l *limiter) beginHello(v *visit) {
	l.mu.Lock()
	shed := map[*visit]Reason{}
	for i, q := range l.queues(v) {
		if q != nil {
			v.pending[i] = q.PushBack(v)
		}
	}
	for i, q := range l.queues(v) {
		if q == nil {
			continue
		}
		most, factor, reason := l.limits.Hellos, 1, HelloShed
		if i > 0 {
			most, factor, reason = l.limits.SourceHellos, v.sources[i-1].factor, SourceHellos
		}
		if (q.Len()-1)/factor >= most {
			oldest := q.Front().Value.(*visit)
			l.dequeue(oldest)
			shed[oldest] = reason
		}
	}
	l.mu.Unlock()
	for v, reason := range shed {
		v.shed.Store(uint32(reason))
		reset(v.conn)
	}
}

// endHello ends what beginHello began.
func (l *limiter) endHello(v *visit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dequeue(v)
}

// queues returns the queues that v waits in: that of all, then its sources'.
func (l *limiter) queues(v *visit) (qs [3]*hellos) {
	qs[0] = &l.hellos
	for i, s := range v.sources {
		if s != nil {
			qs[i+1] = &s.hellos
		}
	}
	return qs
}

func (l *limiter) dequeue(v *visit) {
	for i, q := range l.queues(v) {
		if v.pending[i] != nil {
			q.Remove(v.pending[i])
			v.pending[i] = nil
		}
	}
}

// beginDial counts v among the connections to a tenant, and among those that
// wait for one of its nodes, or refuses it.
func (l *limiter) beginDial(now time.Time, v *visit, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.tenants[name]
	if !ok {
		factor := 1
		if name == "" {
			factor = 8
		}
		t = &tenant{factor: factor, rate: newRate(l.limits.TenantRate, l.limits.TenantBurst, factor)}
		if l.line != nil {
			t.share = l.line.Share(factor)
		}
		l.tenants[name] = t
	}
	reason := reasons
	switch {
	case t.conns/t.factor >= l.limits.TenantConns:
		reason = TenantConns
	case t.dials/t.factor >= l.limits.TenantDials:
		reason = TenantDials
	case !t.rate.AllowN(now, 1):
		reason = TenantRate
	default:
		v.tenant, v.dialing = t, true
		t.conns++
		t.dials++
		return nil
	}
	return refusal{reason: reason, alert: alertInternalError}
}

// pace returns what says when bytes of v, which began to dial, may be moved; nil: at any
// time.
func (l *limiter) pace(v *visit) splice.Pacer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.tenant.share == nil {
		return nil
	}
	return v.tenant.share
}

// waits returns how often bytes had to wait for their tenant's turn.
func (l *limiter) waits() fair.Waits {
	if l.line == nil {
		return fair.Waits{}
	}
	return l.line.Waits()
}

// endDial ends v's waiting for a node.
func (l *limiter) endDial(v *visit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopDialing(v)
}

func (l *limiter) stopDialing(v *visit) {
	if v.dialing {
		v.dialing = false
		v.tenant.dials--
	}
}

// leave forgets v, whatever it was counted among.
func (l *limiter) leave(v *visit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dequeue(v)
	l.stopDialing(v)
	if v.tenant != nil {
		v.tenant.conns--
		v.tenant = nil
	}
	for i, s := range v.sources {
		if s != nil {
			s.conns--
			v.sources[i] = nil
		}
	}
}

// retain forgets the tenants that keep does not report, once they have no
// connections.
func (l *limiter) retain(keep func(tenant string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, t := range l.tenants {
		if t.conns == 0 && !keep(name) {
			delete(l.tenants, name)
		}
	}
}
