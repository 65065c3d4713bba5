package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	atOnce    = 4                // orders at the same time
	longest   = 10 * time.Minute // sleep: a machine may have been suspended
	maxSpread = 30 * time.Minute // of renewals that are late at the start
)

// Run gets and renews certificates until ctx is done, and returns when all that it
// started has. It is called once.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for ctx.Err() == nil {
		m.load()
		timer := time.NewTimer(m.start(ctx, &wg))
		select {
		case <-ctx.Done():
		case <-m.poke:
		case <-timer.C:
		}
		timer.Stop()
	}
	wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.authorities {
		a.mu.Lock()
		a.close()
		a.mu.Unlock()
	}
	return nil
}

// load reads the certificates that are on disk and not yet in memory.
func (m *Manager) load() {
	m.mu.Lock()
	var names []string
	for name, h := range m.hosts {
		if !h.loaded && h.bad == nil {
			names = append(names, name)
		}
	}
	m.mu.Unlock()
	changed := false
	for _, name := range names {
		cert, from := m.store.load(name)
		m.mu.Lock()
		if h := m.hosts[name]; h != nil && !h.loaded {
			h.loaded = true
			if cert != nil {
				m.adopt(h, cert, from)
				changed = true
			}
		}
		m.mu.Unlock()
	}
	if changed {
		m.cfg.Changed()
	}
}

// adopt shows what was on disk. If it is late, its renewal is put off a little, so that
// a thousand are not renewed in the same minute. m is locked.
func (m *Manager) adopt(h *host, cert *tls.Certificate, from origin) {
	now := m.cfg.clock()
	h.cert, h.from, h.renewal, h.next = cert, from, third(cert.Leaf), now
	left := cert.Leaf.NotAfter.Sub(now)
	if now.After(h.renewal) && left > 0 && dates(cert.Leaf, now) == nil {
		h.next = now.Add(rand.N(min(left/10, maxSpread) + 1))
	}
}

// start begins what is due, and returns how long nothing else will be.
func (m *Manager) start(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, sleep := m.cfg.clock(), longest
	soon := func(at time.Time) { sleep = min(sleep, max(at.Sub(now), 0)) }

	if len(m.hosts) == 0 || len(m.issuers) == 0 {
		return sleep
	}
	for _, is := range m.issuers {
		a := m.authorities[is.Directory]
		switch at, ok := a.due(); {
		case !ok || m.running[a.url] != nil: // no host name is a URL
		case at.After(now):
			soon(at)
		default:
			m.begin(ctx, wg, a.url, func(ctx context.Context) { m.introduce(ctx, a) })
		}
	}
	var due []*host
	for _, h := range m.hosts {
		switch {
		case h.bad != nil || !h.loaded || m.running[h.name] != nil:
		case h.next.After(now):
			soon(h.next)
		default:
			due = append(due, h)
		}
	}
	slices.SortFunc(due, func(a, b *host) int { return a.next.Compare(b.next) })
	busy := 0
	for name := range m.running {
		if m.authorities[name] == nil {
			busy++
		}
	}
	for _, h := range due[:min(len(due), max(atOnce-busy, 0))] {
		m.begin(ctx, wg, h.name, func(ctx context.Context) { m.attend(ctx, h) })
	}
	return sleep
}

// begin runs do in a goroutine, known as name while it runs. m is locked.
func (m *Manager) begin(ctx context.Context, wg *sync.WaitGroup, name string, do func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	m.running[name] = cancel
	wg.Go(func() {
		defer cancel()
		do(ctx)
		m.mu.Lock()
		delete(m.running, name)
		m.mu.Unlock()
		m.wake()
	})
}

// introduce registers our account at a before anything is ordered there.
func (m *Manager) introduce(ctx context.Context, a *authority) {
	if _, _, err := a.account(ctx); err != nil {
		if ctx.Err() == nil {
			m.cfg.Logger.Warn("register at an authority; trying again", "authority", a.name, "err", err)
		}
		return
	}
	m.cfg.Changed()
}

// attend brings h's certificate up to date.
func (m *Manager) attend(ctx context.Context, h *host) {
	m.mu.Lock()
	cert, from, info, forced := h.cert, h.from, h.ari, h.forced
	issuers := slices.Clone(m.issuers)
	m.mu.Unlock()

	now := m.cfg.clock()
	if cert != nil && !forced {
		info = m.ask(ctx, cert, from, info, issuers, now)
		due := info.due(cert.Leaf, m.cfg.timing.urgent)
		m.mu.Lock()
		h.ari, h.renewal = info, due
		if now.Before(due) {
			h.next = due
			if !info.next.IsZero() && info.next.Before(due) {
				h.next = info.next
			}
			if h.forced {
				h.next = now // somebody asked for it in the meantime
			}
			h.err, h.tries = nil, nil
			m.mu.Unlock()
			m.cfg.Changed()
			return
		}
		m.mu.Unlock()
	}
	early := cert != nil && !forced && info.early(cert.Leaf, now)
	fresh, giver, err := m.obtain(ctx, h, issuers, func(is Issuer) *order {
		return &order{
			m: m, host: h.name, issuer: is, authority: m.authority(is),
			held: cert, from: from, early: early && is.Directory == from.Directory,
		}
	})
	if ctx.Err() != nil && err != nil {
		m.step(h.name, "")
		return // the end, or nobody wants it any more; it stays due
	}
	m.keep(h, fresh, giver, err, early)
}

func (m *Manager) authority(is Issuer) *authority {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.authorities[is.Directory]
}

// ask asks the authority that gave cert when to renew it, if it is time to ask.
func (m *Manager) ask(ctx context.Context, cert *tls.Certificate, from origin, info ari, issuers []Issuer, now time.Time) ari {
	i := slices.IndexFunc(issuers, func(is Issuer) bool { return is.Directory == from.Directory })
	if i < 0 {
		return ari{acted: info.acted} // nobody says any more
	}
	if now.Before(info.next) {
		return info
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.timing.request)
	defer cancel()
	start, end, again, err := m.authority(issuers[i]).renewalInfo(ctx, cert.Leaf)
	switch {
	case err == nil:
		info.start, info.end = start, end
	case errors.Is(err, errNoARI):
		info.start, info.end = time.Time{}, time.Time{}
	default:
		// What was last said holds, as far as it was said.
		again = min(max(again, time.Hour), cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/24)
		m.cfg.Logger.Debug("ask when to renew", "server_name", cert.Leaf.DNSNames[0], "err", err)
	}
	info.next = now.Add(again + rand.N(again/10+1))
	return info
}

// obtain asks the issuers in turn. The error is that of all of them.
func (m *Manager) obtain(ctx context.Context, h *host, issuers []Issuer, order func(Issuer) *order) (*tls.Certificate, origin, error) {
	var errs []error
	for _, is := range issuers {
		m.mu.Lock()
		last := *h.try(is)
		m.mu.Unlock()
		if m.cfg.clock().Before(last.next) {
			errs = append(errs, last.err)
			continue
		}
		o := order(is)
		limited, cancel := context.WithTimeout(ctx, m.cfg.timing.attempt)
		cert, from, err := o.place(limited)
		if err != nil && limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%s did not come to an end in %s: %w", o.authority.name, m.cfg.timing.attempt, err)
		}
		cancel()
		if err == nil {
			return cert, from, nil
		}
		if ctx.Err() != nil {
			return nil, origin{}, err
		}
		m.fail(h, is, err)
		errs = append(errs, err)
		if len(issuers) > 1 {
			m.cfg.Logger.Info("an authority gave no certificate", "server_name", h.name, "authority", o.authority.name, "err", err)
		}
	}
	if len(errs) == 1 {
		return nil, origin{}, errs[0]
	}
	for i, err := range errs {
		errs[i] = fmt.Errorf("%s: %w", m.authority(issuers[i]).name, err)
	}
	return nil, origin{}, together(errs)
}

// together is errors.Join in one line.
type together []error

func (t together) Unwrap() []error { return t }
func (t together) Error() string {
	s := ""
	for i, err := range t {
		if i > 0 {
			s += "; "
		}
		s += err.Error()
	}
	return s
}

// fail notes that is did not give h a certificate, and when it may be asked again.
func (m *Manager) fail(h *host, is Issuer, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.cfg.clock()
	t := h.try(is)
	t.err, t.asked = err, false
	p, paused := errors.AsType[*pause](err)
	if paused && (p.idle || !p.asked) {
		t.next, t.asked = p.until, p.asked
		return
	}
	t.failures++
	limit := maxRefused
	if h.cert != nil {
		limit = maxRefusedHeld
		if left := h.cert.Leaf.NotAfter.Sub(now); left > 0 {
			limit = min(limit, max(left/10, m.cfg.timing.refused))
		}
	}
	t.next = now.Add(backoff(m.cfg.timing.refused, t.failures, limit))
	if paused && p.until.After(t.next) {
		t.next, t.asked = p.until, p.asked
	}
}

// keep notes the outcome of an attempt.
func (m *Manager) keep(h *host, cert *tls.Certificate, from origin, err error, early bool) {
	m.mu.Lock()
	now := m.cfg.clock()
	again := err != nil && h.err != nil && h.err.Error() == err.Error()
	h.err, h.step = err, ""
	if err == nil {
		h.cert, h.from, h.tries, h.forced = cert, from, nil, false
		h.ari = ari{acted: h.ari.acted}
		if early {
			h.ari.acted = now
		}
		h.renewal, h.next = third(cert.Leaf), now // to ask when
	} else {
		h.next = now.Add(maxAsked)
		for _, is := range m.issuers {
			if t := h.try(is); t.next.Before(h.next) {
				h.next = t.next
			}
		}
		if len(m.issuers) == 0 {
			h.next = now.Add(longest)
		}
	}
	m.mu.Unlock()

	switch {
	case err == nil:
		m.cfg.Logger.Info("certificate ready", "server_name", h.name, "authority", from.Directory, "not_after", cert.Leaf.NotAfter)
	case !again:
		m.cfg.Logger.Warn("get a certificate; trying again", "server_name", h.name, "err", err)
	}
	m.cfg.Changed()
}

// step says what an attempt waits for.
func (m *Manager) step(name, step string) {
	m.mu.Lock()
	if h := m.hosts[name]; h != nil {
		h.step = step
	}
	m.mu.Unlock()
	m.cfg.Changed()
}

// expect shows cert to authorities at host, until the function that it returns is
// called.
func (m *Manager) expect(host string, cert *tls.Certificate) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.challenges[host] = cert
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.challenges, host)
	}
}
