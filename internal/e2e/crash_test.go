//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"postern"
	"postern/internal/datadir"
	"postern/internal/member"
)

// crashRounds is how many processes TestCrash kills.
const crashRounds = 30

// seedEnv repeats a run of TestCrash: its seed is in the log.
const seedEnv = "POSTERN_CRASH_SEED"

// TestCrash kills the coordinator, the gateway or a node as kill -9 does, at any
// moment, while an operator works, machines join and browsers ask. What was
// acknowledged is still there afterwards, what was not can be done again, and
// both tenants serve.
func TestCrash(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", seedEnv, seed)
	r := newRoad(t)
	o := &operator{road: r, rand: rand.New(rand.NewPCG(seed, 1)), tokens: map[postern.TokenID]string{}, nodes: map[string]string{}}
	moments := rand.New(rand.NewPCG(seed, 2))
	first := map[string][]time.Duration{} // from a start to the first answers of both tenants, by victim
	var slowest time.Duration
	for round := range crashRounds {
		stop := make(chan struct{})
		var working sync.WaitGroup
		working.Go(func() { o.work(stop) })
		moment := time.Duration(moments.IntN(600)) * time.Millisecond
		<-time.After(moment)
		// Each has its turn, in an order that nobody knows.
		victim := []string{"coordinator", "gateway", "acme-office"}[moments.IntN(3)]
		r.process(victim).kill()
		close(stop)
		working.Wait()
		t.Logf("round %d: killed %s after %v, with %d acknowledged", round, victim, moment, o.acknowledged)
		o.checkFiles(victim)
		begin := time.Now()
		r.restart(victim)
		r.serves("acme", time.Minute)
		r.serves("globex", time.Minute)
		first[victim] = append(first[victim], time.Since(begin))
		o.finish()
		o.checkRegistry()
		slowest = max(slowest, time.Since(begin))
		if t.Failed() {
			return
		}
	}
	for victim, took := range first {
		noteFigure(t, "crash", "kills of "+victim, float64(len(took)), "")
		noteFigure(t, "crash", "longest from the start of "+victim+" to the first answers", slices.Max(took).Seconds(), "s")
	}
	noteFigure(t, "crash", "acknowledged and kept", float64(o.acknowledged), "")
	noteFigure(t, "crash", "joins cut off and repeated", float64(o.repeated), "")
	noteFigure(t, "crash", "answered requests", float64(o.answered), "")
	noteFigure(t, "crash", "slowest round's restart and checks", slowest.Seconds(), "s")
}

// process returns the process that has a data directory.
func (r *road) process(name string) *process {
	switch name {
	case "coordinator":
		return r.coordinator
	case "gateway":
		return r.gateway
	case "acme-office":
		return r.acmeNode
	}
	panic("no process " + name)
}

// restart starts a process again after its end.
func (r *road) restart(name string) {
	r.t.Helper()
	switch name {
	case "coordinator":
		r.startCoordinator()
	case "gateway":
		r.startGateway()
	case "acme-office":
		r.acmeNode = r.runNode(name)
	}
}

// An operator changes the deployment all the time and remembers what was
// acknowledged, which is what must never be lost. One goroutine has it at a time.
type operator struct {
	*road
	rand *rand.Rand

	tenants []string
	tokens  map[postern.TokenID]string // state, as the list must tell it
	nodes   map[string]string          // id, by tenant/name
	cutOff  []joining

	version uint64 // of the gateway's map, at the last look
	named   int    // names given out, so that none comes twice

	acknowledged, repeated, answered int
}

// A joining is a node's way in.
type joining struct {
	tenant, name, file string // file holds the token
	token              postern.TokenID
}

// work does one thing after the other until stop is closed. That something fails
// is no news here: what it talks to is killed.
func (o *operator) work(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		switch o.rand.IntN(6) {
		case 0:
			o.addTenant()
		case 1:
			o.createToken()
		case 2:
			o.revokeToken()
		case 3:
			o.joinNode()
		default:
			o.browse("acme")
			o.browse("globex")
		}
	}
}

func (o *operator) name(what string) string {
	o.named++
	return what + "-" + strconv.Itoa(o.named)
}

func (o *operator) addTenant() {
	name := o.name("tenant")
	if _, err := o.try("tenants", "add", name, "--no-token"); err == nil {
		o.tenants = append(o.tenants, name)
		o.acknowledged++
	}
}

// issue creates a token, if that works.
func (o *operator) issue(tenant string) (postern.CreatedToken, bool) {
	var token postern.CreatedToken
	out, err := o.try("tokens", "create", "--tenant", tenant, "--json")
	if err != nil || json.Unmarshal([]byte(out), &token) != nil {
		return token, false
	}
	o.tokens[token.ID] = "usable"
	o.acknowledged++
	return token, true
}

func (o *operator) createToken() { o.issue("acme") }

func (o *operator) revokeToken() {
	for id, state := range o.tokens { // any
		if state != "usable" {
			continue
		}
		if _, err := o.try("tokens", "revoke", id.String()); err == nil {
			o.tokens[id] = "revoked"
			o.acknowledged++
		} else {
			delete(o.tokens, id) // revoked or not: nobody was told
		}
		return
	}
}

func (o *operator) joinNode() {
	tenant := []string{"acme", "globex"}[o.rand.IntN(2)]
	token, ok := o.issue(tenant)
	if !ok {
		return
	}
	delete(o.tokens, token.ID) // its state is the joining's from here on
	j := joining{tenant, o.name("node"), o.secretFile(token.Secret), token.ID}
	if err := o.tryJoin(j); err != nil {
		o.cutOff = append(o.cutOff, j)
	}
}

// tryJoin joins a node that never runs, and notes its id.
func (o *operator) tryJoin(j joining) error {
	_, err := run(o.t, "", program("postern"), "node", "join", "--no-run", "--data", o.data(j.name), "--name", j.name, "--token-file", j.file)
	if err != nil {
		return err
	}
	id, err := loadIdentity(o.data(j.name), postern.RoleNode)
	if err != nil {
		o.t.Errorf("%s joined, but: %v", j.name, err)
		return nil
	}
	o.nodes[j.tenant+"/"+j.name] = id.Enrollment.ID
	o.tokens[j.token] = "used"
	o.acknowledged++
	return nil
}

func loadIdentity(path string, role postern.Role) (*member.Identity, error) {
	dir, err := datadir.Open(path, role)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if _, err := member.LoadMap(dir); err != nil {
		return nil, err
	}
	return member.LoadIdentity(dir)
}

// browse asks a tenant something. An answer, if there is one, is the tenant's own.
func (o *operator) browse(tenant string) {
	// Browsers come from everywhere, and stay below what a gateway takes from one address.
	c := o.clientFrom(fmt.Sprintf("127.0.2.%d", 1+o.rand.IntN(250)))
	defer c.CloseIdleConnections()
	c.Timeout = time.Second
	status, body, err := get(c, o.url(tenant, "/"))
	if err == nil && status == http.StatusOK {
		o.answered++
		if body != tenant {
			o.t.Errorf("%s was asked, %q answered", tenant, body)
		}
	}
}

// finish repeats the joins that were cut off. Each goes on as the member that it
// may have become already, although its token is good for one.
func (o *operator) finish() {
	for _, j := range o.cutOff {
		eventually(o.t, 30*time.Second, func() error {
			err := o.tryJoin(j)
			if err != nil {
				if id, lerr := loadIdentity(o.data(j.name), postern.RoleNode); lerr == nil {
					// It had joined, and was cut off when all was said.
					o.nodes[j.tenant+"/"+j.name], err = id.Enrollment.ID, nil
				}
			}
			return err
		})
		o.repeated++
	}
	o.cutOff = nil
}
