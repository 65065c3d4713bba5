package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"

	"postern"
)

// published is what the node publishes at one moment. It does not change.
type published struct {
	order  []*service // as configured
	byName map[string]*service
}

// newPublished checks services and what they name on disk. Whoever answers for
// one in held that did not change goes on answering.
func newPublished(services []Service, held *published, log *slog.Logger) (*published, error) {
	p := &published{byName: make(map[string]*service, len(services))}
	for i, s := range services {
		svc, err := held.reuse(s)
		if svc == nil && err == nil {
			svc, err = newService(s, log)
		}
		if err == nil && p.byName[svc.Name] != nil {
			err = &postern.FieldError{Field: "name", Err: fmt.Errorf("service %q is there twice", svc.Name)}
		}
		if err != nil {
			return nil, atService(i, err)
		}
		p.byName[svc.Name] = svc
		p.order = append(p.order, svc)
	}
	return p, p.publication().Check()
}

// atService says of an error about a service's field which service it was.
func atService(i int, err error) error {
	at := fmt.Sprintf("services[%d]", i)
	var fe *postern.FieldError
	if errors.As(err, &fe) && fe.Field != "" {
		at += "." + fe.Field
	}
	return &postern.FieldError{Field: at, Err: err}
}

// reuse returns the service of p that answers as s is to, told apart from it by
// the words for people, and by who may open it, at most. It returns nil if there is none.
func (p *published) reuse(s Service) (*service, error) {
	if p == nil || s.Handler != nil {
		return nil, nil
	}
	s.setDefaults()
	old := p.byName[s.Name]
	if old == nil || !sameBackend(old.Service, s) {
		return nil, nil
	}
	if reflect.DeepEqual(old.Service, s) {
		return old, nil
	}
	return old.relabel(s), nil
}

// sameBackend reports whether a and b, neither of which is a Handler's, answer
// alike.
func sameBackend(a, b Service) bool {
	return a.Handler == nil && a.Upstream == b.Upstream &&
		a.Certificate == b.Certificate && a.CertFile == b.CertFile && a.KeyFile == b.KeyFile && slices.Equal(a.Hosts, b.Hosts) &&
		a.UpstreamCA == b.UpstreamCA && a.UpstreamInsecure == b.UpstreamInsecure
}

// publication is what the coordinator is to know of p.
func (p *published) publication() postern.Publication {
	out := postern.Publication{Services: []postern.Service{}}
	for _, s := range p.order {
		out.Services = append(out.Services, s.policy)
	}
	return out
}

// services returns p as it was configured.
func (p *published) services() []Service {
	list := []Service{}
	for _, s := range p.order {
		list = append(list, s.Service)
	}
	return list
}

// SetServices replaces all that the node publishes, at once, and has the
// coordinator told. If anything is wrong with services, or with what they name on
// disk, it changes nothing and fails with a *postern.FieldError.
//
// What did not change goes on undisturbed. Where the upstream changed, requests
// under way end at the old one. Where a service is gone, they are cut off.
func (n *Node) SetServices(services []Service) error {
	return n.setServices(services, func() error { return nil })
}

// setServices is SetServices, with keep called once services are known to be
// good. If it fails, nothing changes.
func (n *Node) setServices(services []Service, keep func() error) error {
	n.setting.Lock()
	defer n.setting.Unlock()
	held := n.published.Load()
	next, err := newPublished(services, held, n.log)
	if err == nil {
		err = checkRequired(services, n.server.proofs.pinned.Load() != nil)
	}
	if err == nil {
		err = keep()
	}
	if err != nil {
		return err
	}
	n.published.Store(next)
	n.retable()
	wake(n.probed)
	for _, old := range held.order {
		now := next.byName[old.Name]
		if now == nil {
			old.requests.end()
		}
		if old.transport != nil && (now == nil || now.transport != old.transport) {
			old.transport.CloseIdleConnections()
		}
	}
	return nil
}

// Services returns what the node publishes.
func (n *Node) Services() []Service { return n.published.Load().services() }

// requests are those under way at one service, also after its upstream changed
// or while it waits for a new one's table. Its methods are safe for concurrent
// use.
type requests struct {
	mu    sync.Mutex
	open  map[*context.CancelCauseFunc]struct{}
	ended bool
}

// begin returns a context that ends with ctx or with the service, and what to
// call when the request is over. It reports false if the service has ended.
func (r *requests) begin(ctx context.Context) (_ context.Context, done func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return ctx, func() {}, false
	}
	ctx, cancel := context.WithCancelCause(ctx)
	if r.open == nil {
		r.open = map[*context.CancelCauseFunc]struct{}{}
	}
	r.open[&cancel] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		delete(r.open, &cancel)
		r.mu.Unlock()
		cancel(nil)
	}, true
}

// end ends all, and begins no more.
func (r *requests) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for cancel := range r.open {
		(*cancel)(errCutOff)
	}
}
