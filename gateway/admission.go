package gateway

import (
	"net/netip"
	"slices"
	"time"

	"postern"
)

// An admission says from where a tenant is reached that is not open to all, see
// postern.Admission. It is immutable.
type admission struct {
	allowed []netip.Prefix
	portal  bool                       // mode admission
	sources map[netip.Prefix]time.Time // until when; iff portal
}

func newAdmission(a *postern.Admission) *admission {
	// A mode that is not known is like the strictest.
	out := &admission{allowed: a.Allowed, portal: a.Mode == postern.AdmissionPortal}
	if out.portal {
		out.sources = make(map[netip.Prefix]time.Time, len(a.Sources))
		for _, s := range a.Sources {
			out.sources[s.Prefix] = s.Until
		}
	}
	return out
}

// A source's window is open until the map says that it closes. A connection that
// came through it keeps it open at this gateway: for as long as it lives and
// postern.AdmissionWindow after, but no longer than windowMax after the map last
// had the source. Who works on at a node need not go back to the portal, then.
// A source that leaves the map before its time was taken back: its window closes.

const (
	// windowMax is how long a window stays open without the map.
	windowMax = 12 * time.Hour

	// windowSlack is how much too early a source may leave the map that leaves it
	// because its time is over.
	windowSlack = time.Minute

	// maxWindows bounds the windows that are remembered. Sources beyond are
	// admitted for as long as the map says.
	maxWindows = 1 << 16
)

// A windowKey names a window.
type windowKey struct {
	tenant string
	source netip.Prefix // as sourceKeys makes it
}

// A window is one that a connection came through.
type window struct {
	conns  int       // that keep it open
	until  time.Time // it is open, if there are none
	told   time.Time // until when the map said that it is
	listed time.Time // when the map last had it
}

func (w *window) open(now time.Time) bool {
	return now.Before(w.listed.Add(windowMax)) && (w.conns > 0 || now.Before(w.until))
}

// admits reports whether t lets f through to its tenant now. The challenge of a
// certificate authority (RFC 8737) passes everywhere: it comes from where nobody
// can know. The lock is held.
func (fs *flows) admits(t *Table, f *flow, now time.Time) bool {
	a := t.admissions[f.tenant]
	switch {
	case a == nil || f.acme || a.allows(f.src):
		return true
	case !a.portal:
		return false
	}
	key := f.windowKey()
	w := fs.windows[key]
	return now.Before(a.sources[key.source]) || w != nil && w.open(now)
}

// allows reports whether addr is always let through.
func (a *admission) allows(addr netip.Addr) bool {
	return slices.ContainsFunc(a.allowed, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func (f *flow) windowKey() windowKey { return windowKey{f.tenant, sourceKeys(f.src)[0]} }

// hold has f, which t admits, keep its window open, if it came through one. The
// lock is held.
func (fs *flows) hold(t *Table, f *flow, now time.Time) {
	a, key := t.admissions[f.tenant], f.windowKey()
	if a == nil || !a.portal || f.acme || a.allows(f.src) {
		return
	}
	w := fs.windows[key]
	if w != nil && w == f.window {
		return
	}
	if w == nil {
		if len(fs.windows) >= maxWindows {
			return
		}
		if fs.windows == nil {
			fs.windows = map[windowKey]*window{}
		}
		w = &window{told: a.sources[key.source], listed: now}
		fs.windows[key] = w
	}
	w.conns++
	f.window = w
}

// release ends what hold began. The lock is held.
func (fs *flows) release(f *flow, now time.Time) {
	if f.window == nil {
		return
	}
	f.window.conns--
	f.window.until = now.Add(postern.AdmissionWindow)
	f.window = nil
}

// settleWindows brings the windows up to date with t. The lock is held.
func (fs *flows) settleWindows(t *Table, now time.Time) {
	for key, w := range fs.windows {
		a := t.admissions[key.tenant]
		if a == nil {
			delete(fs.windows, key)
			continue
		}
		if until := a.sources[key.source]; now.Before(until) {
			w.told, w.listed = until, now
		} else if w.told.After(now.Add(windowSlack)) || !w.open(now) {
			delete(fs.windows, key)
		}
	}
}
