package coordinator_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"sync"
	"testing"

	"postern"
)

// rekey asks for key in place of m's WireGuard key, proven by prover's. Spoil, if not nil,
// may change what is sent.
func (m *member) rekey(req postern.KeyRequest, prover postern.WireGuardPrivate, spoil func(*http.Request)) error {
	client := m.d.clientFor(m.certificate())
	resp, err := client.Get(m.d.url(postern.PathKey))
	if err != nil {
		return err
	}
	var challenge postern.Challenge
	err = json.NewDecoder(resp.Body).Decode(&challenge)
	resp.Body.Close()
	if err != nil {
		return err
	}
	binding, err := resp.TLS.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		return err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	shared, err := prover.Shared(challenge.WireGuard)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write(postern.KeyMessage(binding, body))
	r, err := http.NewRequest("POST", m.d.url(postern.PathKey), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set(postern.HeaderWireGuardProof, base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	if spoil != nil {
		spoil(r)
	}
	return do(client, r, nil)
}

// keyOf returns the key that m has, as a map says.
func keyOf(m postern.Map, tenant, id string) (key postern.WireGuardPublic) {
	for _, n := range m.Sections[tenant].Nodes {
		if n.ID == id {
			key = n.WireGuard
		}
	}
	return key
}

// A node has another key once the gateways have it, and asking again is as good.
func TestKey(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	n, g := d.node("acme", "office"), d.gateway("door")
	nw, gw := n.watch(), g.watch()
	nw.sync()
	gw.sync()
	next := postern.NewWireGuardPrivate()
	req := postern.KeyRequest{WireGuard: next.Public()}
	done := make(chan error, 1)
	go func() { done <- n.rekey(req, next, nil) }()
	gw.until("the new key", func(m postern.Map) bool { return keyOf(m, "acme", n.ID) == next.Public() })
	select {
	case err := <-done:
		t.Fatalf("it was answered before the gateway acts on it: %v", err)
	default:
	}
	must(t, g.call("POST", postern.PathStatus, postern.Status{Map: gw.m.Version}, nil))
	must(t, <-done)
	nw.until("its own new key", func(m postern.Map) bool { return keyOf(m, "acme", n.ID) == next.Public() })

	version := d.mapVersion()
	must(t, n.rekey(req, next, nil))
	if got := d.mapVersion(); got != version {
		t.Errorf("the same key again made version %d of %d", got, version)
	}
	// Still the same member, and after a restart, too.
	gw.cancel()
	nw.cancel()
	d.stop()
	d.start()
	n.client = d.clientFor(n.certificate())
	nw = n.watch()
	nw.sync()
	if got := keyOf(nw.m, "acme", n.ID); got != next.Public() {
		t.Errorf("after a restart: key %v, want %v", got, next.Public())
	}
}

// Nodes are told of a gateway's new key.
func TestKeyOfGateway(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	n, g := d.node("acme", "office"), d.gateway("door")
	w := n.watch()
	w.sync()
	next := postern.NewWireGuardPrivate()
	must(t, g.rekey(postern.KeyRequest{WireGuard: next.Public()}, next, nil))
	w.until("the new key", func(m postern.Map) bool { return m.Deployment().Gateways[0].WireGuard == next.Public() })
}

func TestKeyRefused(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	d.addTenant("rival")
	n, other := d.node("acme", "office"), d.node("rival", "office")
	next := postern.NewWireGuardPrivate()
	req := postern.KeyRequest{WireGuard: next.Public()}
	version := d.mapVersion()

	// Who could take another's key would take its tunnel.
	wantProblem(t, n.rekey(req, postern.NewWireGuardPrivate(), nil), 401, postern.CodeProof)
	wantProblem(t, n.rekey(postern.KeyRequest{WireGuard: other.wireguard.Public()}, next, nil), 401, postern.CodeProof)
	wantProblem(t, n.rekey(postern.KeyRequest{WireGuard: other.wireguard.Public()}, other.wireguard, nil), 409, postern.CodeTaken)
	wantProblem(t, n.rekey(req, next, func(r *http.Request) { r.Header.Del(postern.HeaderWireGuardProof) }), 422, postern.CodeInvalid)
	wantProblem(t, n.rekey(postern.KeyRequest{}, next, nil), 422, postern.CodeInvalid)
	wantProblem(t, call(d.clientFor(nil), "POST", d.url(postern.PathKey), req, nil), 401, postern.CodeUnauthorized)
	if got := d.mapVersion(); got != version {
		t.Errorf("what was refused made version %d of %d", got, version)
	}

	// A gateway that is away would go on with the old key.
	g := d.gateway("door")
	wantProblem(t, n.rekey(req, next, nil), 503, postern.CodeUnavailable)
	must(t, n.rekey(postern.KeyRequest{WireGuard: next.Public(), Now: true}, next, nil))
	w := g.watch()
	w.sync()
	if got := keyOf(w.m, "acme", n.ID); got != next.Public() {
		t.Errorf("got key %v, want %v", got, next.Public())
	}
}

// Of two that want the same key at the same time, one gets it.
func TestKeyRace(t *testing.T) {
	d := deploy(t)
	d.addTenant("acme")
	next := postern.NewWireGuardPrivate()
	req := postern.KeyRequest{WireGuard: next.Public()}
	errs := make([]error, 8)
	var asking sync.WaitGroup
	for i := range errs {
		n := d.node("acme", "")
		asking.Go(func() { errs[i] = n.rekey(req, next, nil) })
	}
	asking.Wait()
	granted := 0
	for _, err := range errs {
		if err == nil {
			granted++
		} else {
			wantProblem(t, err, 409, postern.CodeTaken)
		}
	}
	if granted != 1 {
		t.Errorf("%d got it", granted)
	}
}
