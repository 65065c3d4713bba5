package coordinator

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern"
)

// A Config is what a Coordinator is made from. Store, Authority and Base are required.
type Config struct {
	Store     Store
	Authority *Authority
	Base      string   // base domain of the tenants' names, as Authority's
	Port      uint16   // public HTTPS port. If zero, 443.
	Names     []string // own names that gateways pass through, besides PortalHost. If nil, control.BASE.
	URLs      []string // control URLs in tokens. If nil, https://control.BASE[:PORT].
	Version   string   // of the program, for people. If empty, it is not said.

	// ACME says where nodes get certificates that public authorities sign, unless they
	// were told otherwise. If nil, the private CA signs for them.
	ACME *postern.ACME

	PortalHost string // where people sign in. If empty, portal.BASE.
	// PEM files for PortalHost alone, read anew when they change. If empty,
	// PortalACME says what browsers are shown.
	PortalCert, PortalKey string
	// PortalACME gets the portal's certificate from a public authority. If nil, and
	// until it has one, the private CA signs for PortalHost.
	PortalACME PortalCertificates

	// Resolver asks DNS whose custom domains are. If nil, none can be proven.
	Resolver Resolver

	// Reserve is room that is given away when the disk is full. If nil, there is none.
	Reserve Reserve

	// Lease is for how long members go on with what they know while this coordinator is
	// away, at least MinLease. If zero, 7 days; if negative, for ever.
	Lease time.Duration

	Logger *slog.Logger     // If nil, logs are discarded.
	Now    func() time.Time // If nil, time.Now.
}

const (
	defaultLease = 7 * 24 * time.Hour

	// MinLease is the shortest lease: two heartbeats of the map stream.
	MinLease = 2 * heartbeat
)

// A Coordinator serves one registry. Its methods are safe for concurrent use.
type Coordinator struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	roots   *x509.CertPool
	names   map[string]bool // Config.Names
	portal  portalSources
	secret  [32]byte // challenges follow from it and their connection

	writing  sync.Mutex // held from a transaction's start until its snapshot is published
	snapshot atomic.Pointer[snapshot]

	presence   presence
	changed    bell          // rings when the snapshot changed, or what presence tells of members
	claimed    chan struct{} // wakes who looks for proofs
	limits     limits
	crowd      *crowd
	passwords  *passwords
	renewals   renewals
	waits      challengeWaits
	refusals   *refusals
	fit        atomic.Pointer[[]string]          // see fitBefore
	lookups    atomic.Pointer[map[string]lookup] // by public name of a gateway; nil before the first
	fitUnsaved atomic.Bool                       // what fit says
	full       atomic.Int64                      // changes that the disk had no room for
	tight      atomic.Bool                       // there is only what was the Reserve
}

// New opens the registry in cfg.Store, and makes it if the store is new. It
// starts nothing and owns neither Store nor Authority.
func New(cfg Config) (*Coordinator, error) {
	if cfg.Port == 0 {
		cfg.Port = postern.HTTPSPort
	}
	if cfg.Names == nil {
		cfg.Names = []string{"control." + cfg.Base}
	}
	if cfg.PortalHost == "" {
		cfg.PortalHost = "portal." + cfg.Base
	}
	cfg.Names = append(slices.Clone(cfg.Names), cfg.PortalHost)
	if cfg.URLs == nil {
		cfg.URLs = []string{httpsURL("control."+cfg.Base, cfg.Port)}
	}
	if cfg.Lease == 0 {
		cfg.Lease = defaultLease
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	c := &Coordinator{
		cfg: cfg, log: cfg.Logger, started: cfg.Now(), roots: cfg.Authority.Roots(),
		names: make(map[string]bool), claimed: make(chan struct{}, 1), presence: newPresence(), limits: newLimits(cfg.Now),
		crowd: newCrowd(defaultCrowd), passwords: newPasswords(), refusals: newRefusals(),
		waits: challengeWaits{turn: 10 * time.Second, gateways: 5 * time.Second},
	}
	rand.Read(c.secret[:])
	for _, name := range cfg.Names {
		c.names[name] = true
	}
	var err error
	if c.portal, err = c.cfg.portalSources(); err != nil {
		return nil, fmt.Errorf("portal's certificate: %w", err)
	}
	// Opening reads what is on this machine's own disk; there is nothing to wait for.
	if err := c.open(context.Background()); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	c.keepReserve()
	return c, nil
}

func (cfg *Config) check() error {
	if cfg.Base != cfg.Authority.base {
		return fmt.Errorf("base domain %q is not the authority's %q", cfg.Base, cfg.Authority.base)
	}
	for _, name := range cfg.Names {
		if err := postern.CheckHost(name); err != nil {
			return fmt.Errorf("own name: %w", err)
		}
	}
	// A name deeper than that could be a tenant's service, and would be nobody's
	// to refuse.
	if below, ok := strings.CutSuffix(cfg.PortalHost, "."+cfg.Base); ok && strings.Contains(below, ".") {
		return fmt.Errorf("portal %q is not directly below the base domain %q", cfg.PortalHost, cfg.Base)
	}
	// Who asks for that name gets to the portal, and members would not get past it.
	control := slices.Index(cfg.Names, cfg.PortalHost) < len(cfg.Names)-1
	for _, s := range cfg.URLs {
		u, err := url.Parse(s)
		control = control || err == nil && u.Hostname() == cfg.PortalHost
	}
	if control {
		return fmt.Errorf("portal %q is where members reach the coordinator: choose another name for one of the two", cfg.PortalHost)
	}
	if (cfg.PortalCert == "") != (cfg.PortalKey == "") {
		return errors.New("the portal's certificate and its key belong together; one is missing")
	}
	if cfg.Lease > 0 && cfg.Lease < MinLease {
		return fmt.Errorf("a lease of %v is shorter than %v", cfg.Lease, MinLease)
	}
	if err := checkACME(cfg.ACME); err != nil {
		return err
	}
	if len(cfg.URLs) == 0 {
		return errors.New("no control URL for tokens")
	}
	// What a token cannot say is found here and not at the first join.
	if _, err := postern.ParseToken(cfg.newToken(postern.JoinToken).Secret()); err != nil {
		return fmt.Errorf("control URLs: %w", err)
	}
	return nil
}

// checkNames reports an own name that was a tenant's before.
func (cfg *Config) checkNames(tx Tx) error {
	for _, name := range cfg.Names {
		claim, err := tx.Claims().Proven(name)
		if err == nil {
			return fmt.Errorf("own name %q is routed to tenant %q: remove that route, or choose another name", name, claim.Tenant)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		label, below := strings.CutSuffix(name, "."+cfg.Base)
		if !below {
			continue
		}
		if _, err = tx.Tenants().Get(label); err == nil {
			return fmt.Errorf("own name %q is tenant %q's: choose another name", name, label)
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

func (cfg *Config) newToken(kind postern.TokenKind) postern.Token {
	return postern.NewToken(kind, cfg.Authority.Root(), cfg.URLs...)
}

// open makes the registry if need be and the first snapshot.
func (c *Coordinator) open(ctx context.Context) error {
	var first *snapshot
	err := c.cfg.Store.Update(ctx, func(tx Tx) error {
		d, err := tx.Deployment()
		if errors.Is(err, ErrNotFound) {
			d = Deployment{
				ID: c.cfg.Authority.Deployment(), Prefix: newPrefix(),
				NextTenant: firstTenant, NextGateway: 1, Created: c.cfg.Now(),
			}
			ch := &change{Tx: tx, cfg: &c.cfg, now: c.cfg.Now(), actor: actorLocal}
			err = errors.Join(tx.PutDeployment(d), ch.audit("deployment.create", "", d.ID, d.Prefix.String()))
		}
		if err != nil {
			return err
		}
		if id := c.cfg.Authority.Deployment(); d.ID != id {
			return fmt.Errorf("the registry is deployment %s's and the authority's keys are %s's: "+
				"bring back the two that belong together", d.ID, id)
		}
		if err := c.cfg.checkNames(tx); err != nil {
			return err
		}
		// Each start is a version, as it may come with other settings. That it is
		// also the time keeps a registry that was restored from a backup ahead of
		// what members were told by the one that was lost.
		d.MapVersion = max(d.MapVersion+1, uint64(c.cfg.Now().UnixMilli()))
		if err := tx.PutDeployment(d); err != nil {
			return err
		}
		c.fit.Store(&d.Fit)
		first, err = firstSnapshot(&c.cfg, tx, d)
		return err
	})
	if err != nil {
		return err
	}
	c.snapshot.Store(first)
	c.presence.resume(first.byID, c.started.Add(resumeTime))
	return nil
}

// update runs fn in one transaction and, when that is on disk, publishes the
// map that follows from it. Errors that are Problems are the asker's to read.
//
// When the disk is full, fn may run a second time, in another transaction.
func (c *Coordinator) update(ctx context.Context, actor string, fn func(*change) error) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	write := func() error { return c.write(ctx, actor, fn) }
	return c.retryFull(write(), write)
}

// updateWithRoom is update for what may not use up the reserve.
func (c *Coordinator) updateWithRoom(ctx context.Context, actor string, fn func(*change) error) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.tight.Load() {
		c.refill()
	}
	err := errTight
	if !c.tight.Load() {
		err = c.write(ctx, actor, fn)
	}
	c.countFull(err)
	return err
}

// write is one try of update. The caller holds writing.
func (c *Coordinator) write(ctx context.Context, actor string, fn func(*change) error) error {
	var next *snapshot
	var shown bool
	err := c.cfg.Store.Update(ctx, func(tx Tx) error {
		ch := &change{Tx: tx, cfg: &c.cfg, now: c.cfg.Now(), actor: actor, touched: make(map[string]bool), moved: make(map[string]bool)}
		if err := fn(ch); err != nil {
			return err
		}
		var err error
		next, err = ch.snapshot(c.snapshot.Load())
		shown = ch.shown
		return err
	})
	if err != nil {
		return err
	}
	if next == nil {
		if shown {
			c.changed.ring()
		}
		return nil
	}
	old := c.snapshot.Swap(next)
	close(old.superseded)
	c.changed.ring()
	if len(next.byID) < len(old.byID) {
		c.presence.keep(next.byID)
	}
	c.log.Debug("map changed", "map_version", next.version)
	return nil
}

// A change is one transaction of the registry, with who asked and when.
type change struct {
	Tx
	cfg     *Config
	now     time.Time
	actor   string
	touched map[string]bool // sections of the map: tenants' names, "" for the deployment's
	moved   map[string]bool // tenants whose admitted sources or challenges changed
	shown   bool            // somebody's pages at the portal may differ, though the map does not

	challenges map[string]map[string]challenge // by tenant and host; those that change
	keys       map[string]shownKeys            // by tenant; of nodes that tell anew
	boots      map[string]string               // by gateway id; of those that run anew
}

// Actors of audit entries; tokens, members and users are KIND:ID, issuers KIND:NAME.
const (
	actorLocal    = "local"
	actorSelf     = "coordinator" // what it does without being asked
	ActorStranger = "stranger"    // who is not known, or not yet
)

func actorToken(id postern.TokenID) string { return "token:" + id.String() }
func actorIssuer(name string) string       { return "issuer:" + name }
func actorMember(m *Member) string         { return string(m.Role) + ":" + m.ID }

// touch says that a section of the map changed.
func (ch *change) touch(tenant string) { ch.touched[tenant] = true }

// move says that the sources changed that a tenant admits, or who awaits an authority at
// its hosts. Only gateways are told.
func (ch *change) move(tenant string) { ch.moved[tenant] = true }

// ActorUser is the actor of a user.
func ActorUser(id string) string { return "user:" + id }

// maxDetail bounds the texts of an audit entry, in bytes.
const maxDetail = 512

// audit adds an entry to the log.
func (ch *change) audit(action, tenant, target, detail string) error {
	last, err := ch.LastAudit()
	if err != nil {
		return err
	}
	e := postern.AuditEntry{
		Seq: last.Seq + 1, Time: ch.now.UTC().Round(0), Actor: ch.actor,
		Action: action, Tenant: tenant, Target: cut(target), Detail: cut(detail),
	}
	return ch.AppendAudit(AuditRecord{AuditEntry: e, Hash: chain(last.Hash, e)})
}
