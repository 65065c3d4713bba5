//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
)

// survivePatience is what a switch may take here, where others use the same processor,
// beside what is promised for it.
const survivePatience = 15 * time.Second

const (
	promisedOut  = 6 * time.Second  // from UDP to the relay
	promisedBack = 60 * time.Second // and back
)

// blocked are the rules with which the router drops packets that it would forward.
const blocked = `
table inet block {
	chain forward {
		type filter hook forward priority -10
		%s
	}
}
`

// block has the router drop what rules say, until pass.
func (l *lab) block(rules string) {
	l.t.Helper()
	file := filepath.Join(l.d.dir, "block.nft")
	if err := os.WriteFile(file, fmt.Appendf(nil, blocked, rules), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.in(l.router, "nft", "-f", file)
}

// blockUDP has it drop all UDP, and count what is as long as an echo.
func (l *lab) blockUDP() {
	l.t.Helper()
	l.block("meta l4proto udp udp length > 1200 counter drop\n meta l4proto udp drop")
}

func (l *lab) pass() {
	l.t.Helper()
	l.in(l.router, "nft", "delete", "table", "inet", "block")
}

// lost returns how many long datagrams were dropped.
func (l *lab) lost() (n int) {
	l.t.Helper()
	_, text, _ := strings.Cut(l.in(l.router, "nft", "list", "table", "inet", "block"), "counter packets ")
	fmt.Sscan(text, &n)
	return n
}

// path returns the way that the node's tunnel goes, as the node says.
func (l *lab) path() string {
	l.t.Helper()
	tunnels := l.d.nodeStatus("office").Tunnels
	if len(tunnels) != 1 {
		return ""
	}
	return tunnels[0].Path
}

// switched waits until the node says that its tunnel goes by path, and returns how long
// that took.
func (l *lab) switched(path string, promised time.Duration) time.Duration {
	l.t.Helper()
	begin := time.Now()
	eventually(l.t, promised+survivePatience, func() error {
		if got := l.path(); got != path {
			return fmt.Errorf("the tunnel goes by %q and not by %q", got, path)
		}
		return nil
	})
	return time.Since(begin)
}

// listed waits until operators are told that the node's tunnel goes by path.
func (l *lab) listed(path string) {
	l.t.Helper()
	eventually(l.t, survivePatience, func() error {
		var nodes []postern.NodeState
		l.d.cli(&nodes, "nodes", "list")
		if len(nodes) != 1 || len(nodes[0].Tunnels) != 1 || nodes[0].Tunnels[0].Path != path {
			return fmt.Errorf("nodes are %+v, want one whose tunnel goes by %q", nodes, path)
		}
		return nil
	})
}

// switches returns how often the node logged a change of path.
func (l *lab) switches(p *process) int {
	return strings.Count(p.out.String(), "path to the gateway changed")
}

// bigFile has the node serve a file of so many bytes, and returns its digest.
func (l *lab) bigFile(size int64) string {
	l.t.Helper()
	f, err := os.Create(filepath.Join(l.d.data("site"), "big"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), stream(size), size); err != nil {
		l.t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// fetch downloads the big file from the world at so many bytes a second, until the end.
func (l *lab) fetch(rate string) *process {
	l.t.Helper()
	host := "acme." + natDomain
	return start(l.t, "curl", nil, "ip", "netns", "exec", l.world, "curl", "--silent", "--show-error", "--fail",
		"--limit-rate", rate, "--cacert", l.d.caFile(), "--output", filepath.Join(l.d.dir, "got"),
		"--resolve", host+":443:"+natGateway, "https://"+host+"/big")
}

// size returns how many bytes fetch has downloaded so far.
func (l *lab) size() int64 {
	info, err := os.Stat(filepath.Join(l.d.dir, "got"))
	if err != nil {
		return 0
	}
	return info.Size()
}

// reaches waits until fetch has downloaded so many bytes.
func (l *lab) reaches(bytes int64) {
	l.t.Helper()
	eventually(l.t, survivePatience, func() error {
		if got := l.size(); got < bytes {
			return fmt.Errorf("the download has come to %d bytes, want %d", got, bytes)
		}
		return nil
	})
}

// whole waits for a download to end, for as long at most, and holds it against what was
// sent.
func (l *lab) whole(curl *process, want string, patience time.Duration) {
	l.t.Helper()
	select {
	case <-curl.done:
	case <-time.After(patience):
		l.t.Fatal("the download does not end")
	}
	if code := curl.cmd.ProcessState.ExitCode(); code != 0 || l.got() != want {
		l.t.Errorf("the download ended with %d: %s; got %s, want %s", code, curl.out.tail(400), l.got(), want)
	}
}

// got returns the digest of what fetch downloaded.
func (l *lab) got() string {
	l.t.Helper()
	f, err := os.Open(filepath.Join(l.d.dir, "got"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		l.t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// UDP is blocked and let through again while a download goes on: the tunnel moves to
// the relay and back, and not a byte is lost (R10).
func TestSurviveBlockedUDP(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	want := l.bigFile(48 << 20)
	if got := l.path(); got != postern.CarrierUDP {
		t.Fatalf("the tunnel goes by %q to begin with", got)
	}
	l.listed(postern.CarrierUDP)
	curl := l.fetch("700K")
	l.reaches(1 << 20)
	l.blockUDP()
	out := l.switched(postern.CarrierRelay, promisedOut)
	recovered(t, "R10", "UDP is blocked: on the relay", promisedOut, survivePatience, out)
	lost := l.lost()
	begin := time.Now()
	l.request(20)
	noteFigure(t, "survive", "R10 first request after that took", time.Since(begin).Seconds(), "s")
	l.listed(postern.CarrierRelay)
	// The worst moment: just after the node has seen once more that UDP does not pass.
	eventually(t, 30*time.Second, func() error {
		if l.lost() == lost {
			return errors.New("the node has not tried UDP again")
		}
		return nil
	})
	l.pass()
	back := l.switched(postern.CarrierUDP, promisedBack)
	recovered(t, "R10", "UDP passes: in use again", promisedBack, survivePatience, back)
	l.request(10)
	l.listed(postern.CarrierUDP)
	l.whole(curl, want, 3*time.Minute)
	if got := l.switches(l.office); got != 2 {
		t.Errorf("%d changes of path were logged, want 2", got)
	}
}

// Nothing passes but what goes through a proxy that wants a password: the node joins and
// is reached all the same.
func TestSurviveProxyOnly(t *testing.T) {
	t.Parallel()
	l := bareLab(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l.block(`iifname "in" drop`)
	proxy := start(t, "proxy", []string{childEnv + "=proxy"}, "ip", "netns", "exec", l.router, self)
	eventually(t, survivePatience, func() error {
		if !strings.Contains(proxy.out.String(), "proxy up") {
			return errors.New("the proxy is not up")
		}
		return nil
	})
	l.nodeFlags = []string{"--proxy", "http://" + proxyUser + ":" + url.QueryEscape(proxyPassword) + "@" + proxyAddress}
	begin := time.Now()
	l.settle()
	noteFigure(t, "survive", "proxy only: from nothing to the first page", time.Since(begin).Seconds(), "s")
	if got := l.path(); got != postern.CarrierRelay {
		t.Errorf("the tunnel goes by %q", got)
	}
	l.listed(postern.CarrierRelay)
	const size = 64 << 20
	want := l.bigFile(size)
	begin = time.Now()
	curl := l.fetch("1G")
	select {
	case <-curl.done:
	case <-time.After(time.Minute):
		t.Fatal("the download does not end")
	}
	noteFigure(t, "survive", "proxy only: download by the relay", size/(1<<20)/time.Since(begin).Seconds(), "MiB/s")
	if l.got() != want {
		t.Errorf("the download is not what was sent: %s", curl.out.tail(400))
	}
	if strings.Contains(l.office.out.String(), proxyPassword) {
		t.Error("the node's log has the proxy's password")
	}
}
