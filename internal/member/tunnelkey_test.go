package member

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

// An issuer is a coordinator as a TunnelKey sees it, under a fake clock.
type issuer struct {
	mu      sync.Mutex
	counts  postern.WireGuardPublic // the key that it has
	offers  []bool                  // each, whether it was by force
	err     error                   // its answer
	lose    bool                    // the answer
	up      bool
	stuck   string
	used    []postern.WireGuardPublic
	key     *TunnelKey
	client  *Client
	version uint64
	tick    time.Duration // how often the member looks
}

func (i *issuer) set(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

// tell has the member told which key counts.
func (i *issuer) tell() {
	i.mu.Lock()
	i.version++
	m := postern.Map{Version: i.version, Sections: map[string]postern.Section{"acme": {
		Tenant: "acme", Nodes: []postern.Node{{ID: "n1", Address: netip.MustParseAddr("fd00::1"), WireGuard: i.counts}},
	}}}
	i.mu.Unlock()
	i.key.Told(m)
	synctest.Wait()
}

// newIssuer returns the issuer of a member that runs until the test is over.
func newIssuer(t *testing.T, tick time.Duration) *issuer {
	dir := openDir(t)
	id := Identity{Role: postern.RoleNode, WireGuard: postern.NewWireGuardPrivate(), WireGuardSince: time.Now()}
	id.Enrollment.ID, id.Enrollment.Tenant = "n1", "acme"
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	i := &issuer{counts: id.WireGuard.Public(), up: true, tick: tick}
	i.client = &Client{dir: dir, log: slog.New(slog.DiscardHandler), id: id}
	i.run(t)
	return i
}

// run starts the member, also once more with what is on its disk. The func kills it.
func (i *issuer) run(t *testing.T) (kill func()) {
	i.key = NewTunnelKey(i.client, func(key postern.WireGuardPrivate) error {
		i.set(func() { i.used = append(i.used, key.Public()) })
		return nil
	}, func() string { i.mu.Lock(); defer i.mu.Unlock(); return i.stuck })
	i.key.up = func() bool { i.mu.Lock(); defer i.mu.Unlock(); return i.up }
	i.key.now, i.key.tick = time.Now, i.tick
	i.key.offer = func(_ context.Context, key postern.WireGuardPrivate, now bool) error {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.offers = append(i.offers, now)
		if i.err != nil {
			return i.err
		}
		i.counts = key.Public()
		if i.lose {
			return errors.New("the answer was lost")
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { i.key.Run(ctx) })
	kill = func() { cancel(); running.Wait() }
	t.Cleanup(kill)
	return kill
}

// holds checks that the member uses the key that counts, and has it on disk.
func (i *issuer) holds(t *testing.T, offers int) {
	t.Helper()
	synctest.Wait()
	i.mu.Lock()
	defer i.mu.Unlock()
	id := i.client.identity()
	disk, err := loadIdentity(i.client.dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := id.WireGuard.Public(); got != i.counts || disk.WireGuard.Public() != i.counts || len(i.used) > 0 && i.used[len(i.used)-1] != i.counts {
		t.Errorf("key %v, on disk %v, used %v, want %v", got, disk.WireGuard.Public(), i.used, i.counts)
	}
	if len(i.offers) != offers {
		t.Errorf("%d keys were offered, want %d: %v", len(i.offers), offers, i.offers)
	}
}

// A key that is old is replaced, once, and by force only when it is very old: a gateway
// that is away would not learn of it.
func TestTunnelKeyByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, time.Hour)
		<-time.After(keyLife * 8 / 10)
		i.set(func() {
			i.err = postern.NewProblem(503, postern.CodeUnavailable, "a gateway is away", "")
			if n := len(i.offers); n != 0 {
				t.Errorf("%d keys were offered before their time", n)
			}
		})
		<-time.After(keyLife * 4 / 10)
		i.set(func() {
			if n := len(i.offers); n == 0 || i.offers[n-1] || n > int(keyLife/2/keyRefused) {
				t.Errorf("%d keys were offered, the last by force: %t", n, i.offers[n-1])
			}
		})
		<-time.After(keyLife)
		i.set(func() {
			if n := len(i.offers); !i.offers[n-1] {
				t.Error("a key that is very old is not replaced by force")
			}
			i.err, i.offers = nil, nil
		})
		<-time.After(2 * time.Hour)
		i.tell()
		i.holds(t, 1)
	})
}

// Tunnels that are stuck have their key replaced at once, and not again and again if that
// does not help.
func TestTunnelKeyWhenStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, 10*time.Second)
		<-time.After(time.Minute)
		i.set(func() { i.up, i.stuck = false, "no tunnel comes up" })
		<-time.After(time.Minute)
		i.holds(t, 0) // nobody is there to ask
		i.set(func() { i.up, i.err = true, errors.New("connection reset") })
		<-time.After(i.tick + time.Millisecond)
		i.set(func() { i.err = nil })
		<-time.After(keyRetry + i.tick)
		i.holds(t, 2)
		<-time.After(24 * time.Hour)
		i.set(func() {
			if n := len(i.offers); n > 10 {
				t.Errorf("%d keys in a day", n)
			}
			i.stuck = ""
		})
		<-time.After(3 * 24 * time.Hour)
		i.set(func() { i.offers, i.stuck = nil, "again" })
		<-time.After(2 * i.tick)
		i.holds(t, 1)
	})
}

// Whenever a member is killed, and whatever it then hears first, it ends up with the key
// that counts.
func TestTunnelKeyLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, keyTick)
		old := i.counts
		i.set(func() { i.lose = true })
		if err := i.key.Replace(t.Context()); err == nil {
			t.Fatal("a lost answer is an answer")
		}
		if got := i.client.identity(); got.WireGuard.Public() != old || got.Next.Public() != i.counts {
			t.Errorf("uses %v, next %v, want %v and %v", got.WireGuard.Public(), got.Next.Public(), old, i.counts)
		}
		i.tell() // the map has what the answer would have said
		i.holds(t, 1)

		// The same, and it is killed in between: it comes up with both.
		if err := i.key.Replace(t.Context()); err == nil {
			t.Fatal("a lost answer is an answer")
		}
		disk, err := loadIdentity(i.client.dir)
		if err != nil {
			t.Fatal(err)
		}
		i.client = &Client{dir: i.client.dir, log: i.client.log, id: *disk}
		i.run(t)
		i.tell()
		i.holds(t, 2)

		// The same, and the same key is asked for again before the map came.
		if err := i.key.Replace(t.Context()); err == nil {
			t.Fatal("a lost answer is an answer")
		}
		wanted := i.counts
		i.set(func() { i.lose = false })
		if err := i.key.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i.counts != wanted {
			t.Error("another key was made")
		}
		i.holds(t, 4)
	})
}

// A coordinator that came back from an old backup is told which key it is.
func TestTunnelKeyOfABackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, keyTick)
		i.set(func() { i.counts = postern.NewWireGuardPrivate().Public() })
		i.tell()
		<-time.After(strangeFor + 2*keyTick)
		i.holds(t, 1)
		i.tell()
		<-time.After(time.Hour)
		i.holds(t, 1)
		if len(i.used) != 0 {
			t.Errorf("used %v", i.used)
		}
	})
}

// The proof is over the connection that it is given on.
func TestOfferKey(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	id, err := join(t, f, dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(dir, id, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key := postern.NewWireGuardPrivate()
	if err := c.offerKey(t.Context(), key, true); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if want := (postern.KeyRequest{WireGuard: key.Public(), Now: true}); f.key != want {
		t.Errorf("offered %+v, want %+v", f.key, want)
	}
}

// Keys of those who joined together are not replaced together.
func TestKeyLife(t *testing.T) {
	lives := map[time.Duration]bool{}
	for range 200 {
		life := lifeOf(postern.NewWireGuardPrivate().Public())
		if life < keyLife*9/10 || life > keyLife*11/10 {
			t.Fatalf("life %v", life)
		}
		lives[life] = true
	}
	if len(lives) < 50 {
		t.Errorf("200 keys have %d lives", len(lives))
	}
}
