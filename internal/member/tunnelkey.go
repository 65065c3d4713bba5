package member

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"postern"
)

// How a member's WireGuard key is replaced, and what lies on its disk meanwhile:
//
//	key      a new one is made
//	key next it is on disk, and then shown to the coordinator, with proof
//	key next gateways, or nodes, have it in place of the old one; the answer may be lost
//	next     the answer came, or the map says that next is this member's key: it is used
//
// A member that is killed on the way comes up with both, and the map says which counts.
const (
	// keyLife is how long a key is used before another is made, give or take a tenth, so
	// that members who joined together do not ask together.
	keyLife    = 30 * 24 * time.Hour
	minKeyLife = keyLife * 9 / 10

	keyTick    = time.Second
	keyRetry   = 10 * time.Second // after a failure
	keyRefused = 10 * time.Minute // after a refusal

	// strangeFor is how long the map has to say another key than those that are held
	// until the coordinator is told which it is: an old backup has come back.
	strangeFor = 15 * time.Second

	// minForced is how long the next key is not made by force after one was, which
	// doubles each time, up to maxForced: who is to blame may be another.
	minForced = 10 * time.Minute
	maxForced = 24 * time.Hour
)

// A TunnelKey replaces a member's WireGuard key: when it is old, when somebody asks, and
// when tunnels are stuck with it. Its methods are safe for concurrent use.
type TunnelKey struct {
	client *Client
	use    func(postern.WireGuardPrivate) error
	stuck  func() string
	log    *slog.Logger

	told  chan postern.Map // holds the newest that Told was given
	asked chan chan<- error

	// What tests stand in for.
	offer func(ctx context.Context, key postern.WireGuardPrivate, now bool) error
	up    func() bool
	now   func() time.Time // by the coordinator's clock
	tick  time.Duration

	// Owned by Run.
	latest  postern.Map
	strange time.Time // since when the map has said a strange key; zero: it does not
	retry   time.Time // not before
	forced  time.Time // the last time; zero: never
	wait    time.Duration
}

// NewTunnelKey returns the key of c's member. Use is to use a key from now on: it is
// called from Run's goroutine. Stuck returns why no tunnel can come up with the present
// key although others hear of us, "" if that is not so; if it is nil, it never is.
func NewTunnelKey(c *Client, use func(postern.WireGuardPrivate) error, stuck func() string) *TunnelKey {
	if stuck == nil {
		stuck = func() string { return "" }
	}
	return &TunnelKey{
		client: c, use: use, stuck: stuck, log: c.log,
		told: make(chan postern.Map, 1), asked: make(chan chan<- error),
		offer: c.offerKey, up: func() bool { return c.Link().Up }, now: c.Now, tick: keyTick,
	}
}

// Told has the key used that m says is this member's, if it is held. It does not wait.
func (k *TunnelKey) Told(m postern.Map) {
	for {
		select {
		case k.told <- m:
			return
		default:
		}
		select {
		case <-k.told:
		default:
		}
	}
}

// Replace makes another key and returns when it is used.
func (k *TunnelKey) Replace(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case k.asked <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run replaces the key whenever there is a reason, until ctx is done, and then returns
// nil.
func (k *TunnelKey) Run(ctx context.Context) error {
	tick := time.NewTicker(k.tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case done := <-k.asked:
			done <- k.replace(ctx, "somebody asked for it", false)
		case k.latest = <-k.told:
			k.settle()
		case <-tick.C:
			k.look(ctx, time.Now())
		}
	}
}

// settle uses the next key if the map says that it counts.
func (k *TunnelKey) settle() {
	id := k.client.identity()
	switch told := ownKey(k.latest, &id); {
	case told.IsZero() || told == id.WireGuard.Public():
		k.strange = time.Time{}
	case id.Next != postern.WireGuardPrivate{} && told == id.Next.Public():
		k.strange = time.Time{}
		k.take(id.Next, "the coordinator has it since before")
	case k.strange.IsZero():
		k.strange = time.Now()
	}
}

// ownKey returns the key that m says is that of id, zero if it says nothing.
func ownKey(m postern.Map, id *Identity) postern.WireGuardPublic {
	if d := m.Deployment(); d != nil && id.Role == postern.RoleGateway {
		for _, g := range d.Gateways {
			if g.ID == id.Enrollment.ID {
				return g.WireGuard
			}
		}
	}
	for _, n := range m.Sections[id.Enrollment.Tenant].Nodes {
		if n.ID == id.Enrollment.ID && id.Role == postern.RoleNode {
			return n.WireGuard
		}
	}
	return postern.WireGuardPublic{}
}

// look replaces the key if there is a reason.
func (k *TunnelKey) look(ctx context.Context, now time.Time) {
	if !k.up() || now.Before(k.retry) {
		return
	}
	id := k.client.identity()
	if now.Sub(k.forced) > k.wait {
		if !k.strange.IsZero() && now.Sub(k.strange) > strangeFor {
			k.log.Warn("the coordinator has a WireGuard key of this member that it does not hold; telling it anew")
			k.force(now, k.offered(ctx, id.WireGuard, true))
			return
		}
		if why := k.stuck(); why != "" {
			k.force(now, k.replace(ctx, why, true))
			return
		}
	}
	if id.WireGuardSince.IsZero() {
		k.keep(func(id *Identity) { id.WireGuardSince = k.now() })
		return
	}
	age := k.now().Sub(id.WireGuardSince)
	if age < minKeyLife {
		return
	}
	if life := lifeOf(id.WireGuard.Public()); age > life {
		_ = k.replace(ctx, "it is old", age > 2*life)
	}
}

// lifeOf returns how long a key is used. It follows from the key, so that it does not
// change with a restart.
func lifeOf(key postern.WireGuardPublic) time.Duration {
	return minKeyLife + keyLife/5/256*time.Duration(key[0])
}

// force notes how it went to have a key count by force.
func (k *TunnelKey) force(now time.Time, err error) {
	if err != nil {
		return // it did not come to it
	}
	if now.Sub(k.forced) > 2*maxForced {
		k.wait = 0
	}
	k.forced, k.wait = now, min(max(2*k.wait, minForced), maxForced)
}

// replace makes another key, if there is not a next one already, and uses it once it
// counts. Now is as in postern.KeyRequest.
func (k *TunnelKey) replace(ctx context.Context, why string, now bool) error {
	next := k.client.identity().Next
	if next == (postern.WireGuardPrivate{}) {
		next = postern.NewWireGuardPrivate()
		if err := k.client.updateIdentity(func(id *Identity) { id.Next = next }); err != nil {
			k.client.updateIdentity(func(id *Identity) { id.Next = postern.WireGuardPrivate{} })
			return k.failed(ctx, fmt.Errorf("keep the next WireGuard key: %w", err))
		}
	}
	if err := k.offered(ctx, next, now); err != nil {
		return err
	}
	k.take(next, why)
	return nil
}

// offered has the coordinator take key for this member's.
func (k *TunnelKey) offered(ctx context.Context, key postern.WireGuardPrivate, now bool) error {
	if err := k.offer(ctx, key, now); err != nil {
		return k.failed(ctx, fmt.Errorf("replace the WireGuard key: %w", err))
	}
	return nil
}

// failed notes, tells and returns err.
func (k *TunnelKey) failed(ctx context.Context, err error) error {
	wait := keyRetry
	if p := new(postern.Problem); errors.As(err, &p) {
		wait = keyRefused
	}
	k.retry = time.Now().Add(wait)
	if ctx.Err() == nil {
		k.log.Warn("the WireGuard key stays as it is; trying again", "err", err, "retry", wait)
	}
	return err
}

// take uses next from now on.
func (k *TunnelKey) take(next postern.WireGuardPrivate, why string) {
	k.keep(func(id *Identity) {
		id.WireGuard, id.WireGuardSince, id.Next = next, k.now(), postern.WireGuardPrivate{}
	})
	if err := k.use(next); err != nil {
		k.log.Error("use another WireGuard key", "err", err)
		return
	}
	k.log.Info("another WireGuard key is in use", "reason", why)
}

// keep changes the membership here and on disk. What the disk does not take was there
// before, as the next key.
func (k *TunnelKey) keep(change func(*Identity)) {
	if err := k.client.updateIdentity(change); err != nil {
		k.log.Error("keep the WireGuard key on disk", "err", err)
	}
}

// offerKey shows the coordinator key, with proof, over a connection of its own: the proof
// is bound to that.
func (c *Client) offerKey(ctx context.Context, key postern.WireGuardPrivate, now bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	cfg := c.tls.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	base := c.base()
	conn, err := dialTLS(ctx, c.proxy, base, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		return fmt.Errorf("channel binding: %w", err)
	}
	hc := oneConn(conn)
	defer hc.CloseIdleConnections()

	var challenge postern.Challenge
	if err := call(ctx, hc, http.MethodGet, base+postern.PathKey, nil, nil, &challenge); err != nil {
		return err
	}
	body, err := json.Marshal(postern.KeyRequest{WireGuard: key.Public(), Now: now})
	if err != nil {
		return err
	}
	proof, err := proveKey(key, challenge, postern.KeyMessage(binding, body))
	if err != nil {
		return err
	}
	header := http.Header{}
	header.Set(postern.HeaderWireGuardProof, base64.StdEncoding.EncodeToString(proof))
	return call(ctx, hc, http.MethodPost, base+postern.PathKey, header, json.RawMessage(body), nil)
}

// proveKey returns the proof over message that its sender has key.
func proveKey(key postern.WireGuardPrivate, challenge postern.Challenge, message []byte) ([]byte, error) {
	shared, err := key.Shared(challenge.WireGuard)
	if err != nil {
		return nil, fmt.Errorf("the coordinator's challenge: %w", err)
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write(message)
	return mac.Sum(nil), nil
}
