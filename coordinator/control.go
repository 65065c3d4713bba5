package coordinator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"postern"
	"postern/internal/identity"
)

const (
	// maxMemberBody bounds what a member sends, in bytes of a body.
	maxMemberBody = postern.MaxPublication

	// maxGatewayStatus bounds what a gateway says of its tunnels, which may be as many as
	// a map can name: some 300 bytes each.
	maxGatewayStatus = postern.MaxMapLine
)

// controlHandler returns the members' API and, below PathAdmin, the operators'.
// Without a site nobody redeems anything.
func (c *Coordinator) controlHandler(site Site) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+postern.PathEnroll, c.answer(c.getEnroll))
	mux.HandleFunc("POST "+postern.PathEnroll, c.answer(c.postEnroll))
	mux.HandleFunc("GET "+postern.PathMap, c.getMap)
	mux.HandleFunc("POST "+postern.PathRenew, c.answer(c.member("", c.postRenew)))
	mux.HandleFunc("GET "+postern.PathKey, c.answer(c.member("", c.getKey)))
	mux.HandleFunc("POST "+postern.PathKey, c.answer(c.member("", c.postKey)))
	mux.HandleFunc("PUT "+postern.PathServices, c.answer(c.member(postern.RoleNode, c.putServices)))
	mux.HandleFunc("POST "+postern.PathCertificates, c.answer(c.member(postern.RoleNode, c.postCertificates)))
	mux.HandleFunc("POST "+postern.PathChallenges, c.answer(c.member(postern.RoleNode, c.postChallenges)))
	mux.HandleFunc("PUT "+postern.PathGateway, c.answer(c.member(postern.RoleGateway, c.putGateway)))
	mux.HandleFunc("POST "+postern.PathStatus, c.answerUpTo(maxGatewayStatus, c.member("", c.postStatus)))
	if site != nil {
		mux.HandleFunc("POST "+postern.PathToken, c.postToken(site))
	}
	mux.Handle(postern.PathAdmin+"/", c.bearer(c.adminHandler()))
	mux.HandleFunc("/", nothingHere)
	return mux
}

func nothingHere(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
		fmt.Sprintf("there is no %s %q here", r.Method, r.URL.Path), ""))
}

// answer writes what fn returns: a value as JSON, an error as a Problem.
func (c *Coordinator) answer(fn func(*http.Request) (any, error)) http.HandlerFunc {
	return c.answerUpTo(maxMemberBody, fn)
}

// answerUpTo is answer for requests whose body may have so many bytes.
func (c *Coordinator) answerUpTo(size int64, fn func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, size)
		v, err := fn(r)
		if err != nil {
			writeProblem(w, c.Problem(r.Context(), err))
			return
		}
		writeJSON(w, v)
	}
}

// member lets only members of role, or any for "", ask fn, and not too often.
func (c *Coordinator) member(role postern.Role, fn func(*http.Request, *Member) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		m, err := c.authenticate(r)
		if err != nil {
			return nil, err
		}
		if role != "" && m.Role != role {
			return nil, forbidden(fmt.Sprintf("that is for %ss only", role), "")
		}
		if !c.limits.member.allow(m.ID) || m.Role == postern.RoleNode && !c.limits.bytes.allowN(m.ID, bodySize(r)) {
			return nil, tooMany()
		}
		return fn(r, m)
	}
}

// bodySize returns how many bytes r's body has at most.
func bodySize(r *http.Request) int {
	if n := r.ContentLength; n >= 0 && n < maxMemberBody {
		return int(n)
	}
	return maxMemberBody
}

// authenticate returns the member that r's connection is proven to be.
func (c *Coordinator) authenticate(r *http.Request) (*Member, error) {
	const hint = "join again with a new token, in an empty data directory"
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, unauthorized("a member's certificate is needed", "join first")
	}
	name, key, err := identity.VerifyMember(r.TLS.PeerCertificates, c.roots)
	if err != nil {
		return nil, unauthorized(err.Error(), hint)
	}
	m := c.snapshot.Load().members[key]
	if m != nil && m.ID == name.ID && m.Role == name.Role {
		visitorOf(r).known(actorMember(m))
		return m, nil
	}
	err = c.cfg.Store.View(r.Context(), func(tx Tx) error {
		_, err := tx.Removed().Get(key)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil, unauthorized("this deployment knows no such member", hint)
	}
	if err != nil {
		return nil, err
	}
	return nil, postern.NewProblem(http.StatusForbidden, postern.CodeRevoked, "this member was removed", hint)
}

// decode reads r's whole body, JSON, into v. Unknown fields are ignored.
func decode(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read the request's body: %w", err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return invalid(fmt.Errorf("the request's body is not what it should be: %w", err), "")
	}
	return nil
}

// remoteOf returns the address that r came from, the zero one on a unix socket.
func remoteOf(r *http.Request) netip.Addr {
	return addrOf(r.RemoteAddr)
}

// addrOf returns the address in IP:PORT, the zero one if that is something else.
func addrOf(s string) netip.Addr {
	a, _ := netip.ParseAddrPort(s)
	return a.Addr().Unmap()
}

func binding(r *http.Request) ([]byte, error) {
	return r.TLS.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
}

func (c *Coordinator) getMap(w http.ResponseWriter, r *http.Request) {
	m, err := c.authenticate(r)
	if err == nil && !c.limits.member.allow(m.ID) {
		err = tooMany()
	}
	if err != nil {
		writeProblem(w, c.Problem(r.Context(), err))
		return
	}
	c.serveMap(w, r, m)
}

func (c *Coordinator) postRenew(r *http.Request, m *Member) (any, error) {
	if !c.limits.record.allow(m.ID) {
		return nil, tooMany()
	}
	err := c.update(r.Context(), actorMember(m), func(ch *change) error {
		return ch.audit(string(m.Role)+".renew", m.Tenant, m.ID, m.Name)
	})
	if err != nil {
		return nil, err
	}
	return c.enrolled(m)
}

func (c *Coordinator) putServices(r *http.Request, m *Member) (any, error) {
	var p postern.Publication
	if err := decode(r, &p); err != nil {
		return nil, err
	}
	if err := c.checkServices(m.Tenant, p.Services); err != nil {
		return nil, invalid(err, "")
	}
	err := c.updateMember(r, m, func(ch *change, now *Member) error {
		if slices.EqualFunc(now.Services, p.Services, postern.Service.Equal) {
			return nil
		}
		if !c.limits.record.allow(now.ID) {
			return tooMany()
		}
		now.Services = p.Services
		ch.touch(now.Tenant)
		return errors.Join(ch.Members().Put(*now),
			ch.audit("node.publish", now.Tenant, now.ID, fmt.Sprintf("%s publishes %s", now.Name, serviceNames(p.Services))))
	})
	if err != nil {
		return nil, err
	}
	snap := c.snapshot.Load()
	if snap.members[m.Identity] == nil {
		return c.authenticate(r) // removed in the meantime: it fails, and says so
	}
	return postern.Published{Routes: snap.tenants[m.Tenant].routesOf(m)}, nil
}

// checkServices puts services in order and reports what is wrong with them.
func (c *Coordinator) checkServices(tenant string, services []postern.Service) error {
	if err := (postern.Publication{Services: services}).Check(); err != nil {
		return err
	}
	slices.SortFunc(services, func(a, b postern.Service) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range services {
		if err := postern.CheckHost(postern.ServiceHost(s.Name, tenant, c.cfg.Base)); err != nil {
			return err
		}
	}
	return nil
}

func serviceNames(services []postern.Service) []string {
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = s.Name
	}
	return names
}

func (c *Coordinator) postCertificates(r *http.Request, m *Member) (any, error) {
	var req postern.CertificateRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	host, _, err := requestedHost(req.CSR)
	if err != nil {
		return nil, invalid(fmt.Errorf("certificate request: %w", err), "")
	}
	if err := c.snapshot.Load().tenants[m.Tenant].checkRouted(m, host); err != nil {
		return nil, err
	}
	if !c.limits.record.allow(m.ID) {
		return nil, tooMany()
	}
	chain, err := c.cfg.Authority.IssueHost(req.CSR, host)
	if err != nil {
		return nil, invalid(err, "use a certificate of your own for names outside the base domain")
	}
	err = c.update(r.Context(), actorMember(m), func(ch *change) error {
		return ch.audit("certificate.issue", m.Tenant, host, "private CA")
	})
	return postern.Certificate{Chain: chain}, err
}

func (c *Coordinator) putGateway(r *http.Request, m *Member) (any, error) {
	var g postern.Gateway
	if err := decode(r, &g); err != nil {
		return nil, err
	}
	endpoint, err := completeHostPort("endpoint", g.Endpoint, remoteOf(r))
	if err != nil {
		return nil, invalid(err, "")
	}
	public, err := completeHostPort("public address", g.Public, remoteOf(r))
	if err != nil {
		return nil, invalid(err, "")
	}
	return struct{}{}, c.updateMember(r, m, func(ch *change, now *Member) error {
		if now.Endpoint == endpoint && now.Public == public {
			return nil
		}
		if !c.limits.record.allow(now.ID) {
			return tooMany()
		}
		now.Endpoint, now.Public = endpoint, public
		ch.touch("")
		return errors.Join(ch.Members().Put(*now),
			ch.audit("gateway.address", "", now.ID, fmt.Sprintf("%s is at %s and %s", now.Name, endpoint, public)))
	})
}

// completeHostPort returns s, HOST:PORT, with remote for a host that is empty or
// unspecified. An empty s stays empty.
func completeHostPort(what, s string, remote netip.Addr) (string, error) {
	if s == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%s %q: want a port from 1 to 65535", what, s)
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = remote.String()
	} else if err != nil {
		if host, err = postern.ParseHost(host); err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
	}
	return net.JoinHostPort(host, port), nil
}

func (c *Coordinator) postStatus(r *http.Request, m *Member) (any, error) {
	if m.Role == postern.RoleNode {
		r.Body = http.MaxBytesReader(nil, r.Body, maxMemberBody)
	}
	var s postern.Status
	if err := decode(r, &s); err != nil {
		return nil, err
	}
	if err := errors.Join(checkText("version", s.Version), checkText("boot", s.Boot)); err != nil {
		return nil, invalid(err, "")
	}
	if m.Role == postern.RoleGateway {
		known, now := c.snapshot.Load().byID, c.cfg.Now()
		if s.Time.IsZero() {
			s.Time = now
		}
		peers := make(map[string]postern.PeerStatus, len(s.Peers))
		for _, p := range s.Peers {
			if _, err := netip.ParseAddrPort(p.Endpoint); err != nil {
				p.Endpoint = ""
			}
			if p.Path != postern.CarrierUDP && p.Path != postern.CarrierRelay {
				p.Path = ""
			}
			if !p.Handshake.IsZero() {
				p.Handshake = now.Add(-s.Time.Sub(p.Handshake)) // by our own clock
			}
			if p.Probe != nil {
				p.Probe.Error = words(p.Probe.Error)
				if !p.Probe.Time.IsZero() {
					p.Probe.Time = now.Add(-s.Time.Sub(p.Probe.Time))
				}
			}
			if known[p.ID] != nil {
				peers[p.ID] = p
			}
		}
		c.presence.report(m.ID, report{time: now, peers: peers, acts: s.Map, draining: s.Draining})
		c.tellMoved()
		c.keepFit(r.Context())
		if err := c.keepBoot(r, m, s.Boot); err != nil {
			return nil, err
		}
	} else {
		c.keepTold(r.Context(), m, &s)
	}
	if s.Version == "" || s.Version == m.Host.Version || !c.limits.record.allow(m.ID) {
		return struct{}{}, nil
	}
	return struct{}{}, c.updateMember(r, m, func(ch *change, now *Member) error {
		now.Host.Version = s.Version
		ch.touch(now.Tenant)
		return ch.Members().Put(*now)
	})
}

// updateMember runs fn on m as it is in the registry. A member that was removed
// in the meantime is told so.
func (c *Coordinator) updateMember(r *http.Request, m *Member, fn func(*change, *Member) error) error {
	err := c.update(r.Context(), actorMember(m), func(ch *change) error {
		now, err := ch.Members().Get(m.ID)
		if err != nil {
			return err
		}
		return fn(ch, &now)
	})
	if errors.Is(err, ErrNotFound) {
		if _, err := c.authenticate(r); err != nil {
			return err
		}
	}
	return err
}
