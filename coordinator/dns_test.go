package coordinator_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"postern"
	"postern/internal/dnscheck"
)

// A fakeDNS is a Resolver that knows what it was told. The zero one knows nothing.
type fakeDNS struct {
	mu    sync.Mutex
	txt   map[string][]string
	addrs map[string][]netip.Addr
	via   map[string][]string
	caa   dnscheck.CAASet
	err   error    // of every answer
	asked []string // names of TXT records
	block chan struct{}
	next  func() // runs once, while DNS is asked
}

func (f *fakeDNS) TXT(ctx context.Context, name string) ([]string, error) {
	f.mu.Lock()
	f.asked = append(f.asked, name)
	block, next := f.block, f.next
	f.next = nil
	f.mu.Unlock()
	if next != nil {
		next()
	}
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if texts := f.txt[name]; len(texts) > 0 {
		return texts, nil
	}
	return nil, fmt.Errorf("TXT %s: %w", name, dnscheck.ErrNone)
}

func (f *fakeDNS) Addresses(_ context.Context, name string) (dnscheck.Addresses, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return dnscheck.Addresses{}, f.err
	}
	if addrs := f.addrs[name]; len(addrs) > 0 {
		return dnscheck.Addresses{Addrs: addrs, Via: f.via[name]}, nil
	}
	return dnscheck.Addresses{}, fmt.Errorf("%s does not exist: %w", name, dnscheck.ErrNone)
}

func (f *fakeDNS) CAA(context.Context, string) (dnscheck.CAASet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.caa, f.err
}

// change changes f while it is asked.
func (f *fakeDNS) change(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// prove puts the proof in records into f.
func (f *fakeDNS) prove(records []postern.DNSRecord) {
	for _, r := range records {
		if r.Purpose == postern.PurposeProof {
			f.set(r.Name, strings.Trim(r.Value, `"`))
		}
	}
}

// set makes texts the TXT records of name.
func (f *fakeDNS) set(name string, texts ...string) {
	f.change(func() {
		if f.txt == nil {
			f.txt = make(map[string][]string)
		}
		f.txt[name] = texts
	})
}

// lead makes name lead to addrs.
func (f *fakeDNS) lead(name string, addrs ...string) {
	f.change(func() {
		if f.addrs == nil {
			f.addrs = make(map[string][]netip.Addr)
		}
		f.addrs[name] = nil
		for _, a := range addrs {
			f.addrs[name] = append(f.addrs[name], netip.MustParseAddr(a))
		}
	})
}

// questions returns how often the proof of host was asked for.
func (f *fakeDNS) questions(host string) (n int) {
	f.change(func() {
		for _, name := range f.asked {
			if name == "_postern-challenge."+host {
				n++
			}
		}
	})
	return n
}

// route makes a custom route: it adds and proves it.
func (d *deployment) route(req postern.RouteRequest) {
	d.t.Helper()
	must(d.t, d.tryRoute(req))
}

func (d *deployment) tryRoute(req postern.RouteRequest) error {
	var r postern.RouteState
	if err := d.operate("POST", "/routes", req, &r); err != nil {
		return err
	}
	d.dns.prove(r.Records)
	var check postern.RouteCheck
	if err := d.operate("POST", "/routes/"+r.Host+"/check?tenant="+r.Tenant, nil, &check); err != nil {
		return err
	}
	if check.Route.Proven.IsZero() {
		return fmt.Errorf("%s is not proven: %+v", r.Host, check.Findings)
	}
	return nil
}
