package gateway

import (
	"bufio"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/internal/proxyproto"
	"postern/netstack"
)

// TestMain is the tests, or in a process of its own the gateway of BenchmarkIdle.
func TestMain(m *testing.M) {
	if node, ok := os.LookupEnv(idleNodeVariable); ok {
		if err := serveIdle(netip.MustParseAddrPort(node)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// BenchmarkIdle reports what an idle connection costs a gateway process, of
// resident memory, its share of the netstack included, after it has moved some
// bytes both ways: as it comes, with what is garbage collected, and what each of as
// many further ones adds to that, which use the gaps that the garbage of the first
// left.
func BenchmarkIdle(b *testing.B) {
	const conns = 1000
	p := startIdle(b)
	for b.Loop() {
		p.hangUp(p.open(conns)) // pools and tables have grown by now
		before := p.rss(0)
		open := p.open(conns)
		raw := p.rss(-1)
		collected := p.rss(conns)
		open = append(open, p.open(conns)...)
		full := p.rss(2 * conns)
		b.ReportMetric(float64(raw-before)/conns, "raw-B/conn")
		b.ReportMetric(float64(collected-before)/conns, "B/conn")
		b.ReportMetric(float64(full-collected)/conns, "further-B/conn")
		p.hangUp(open)
	}
}

// idleNodeVariable says where the node's WireGuard listens.
const idleNodeVariable = "POSTERN_BENCHMARK_NODE"

// The two hosts of BenchmarkIdle. Their keys are nobody's secret.
var (
	idleGateway = netstack.Config{PrivateKey: [32]byte{0: 8, 31: 64}, Address: netip.MustParseAddr("fd00::9")}
	idleNode    = netstack.Config{PrivateKey: [32]byte{0: 16, 31: 64}, Address: netip.MustParseAddr("fd00::1")}
)

// idlePeer returns cfg's host as a peer whose WireGuard listens on port of loopback.
func idlePeer(cfg netstack.Config, port uint16) netstack.Peer {
	k, err := ecdh.X25519().NewPrivateKey(cfg.PrivateKey[:])
	if err != nil {
		panic(err)
	}
	return netstack.Peer{
		PublicKey: netstack.Key(k.PublicKey().Bytes()), Address: cfg.Address,
		Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
	}
}

// serveIdle is a gateway that says where it listens, on stdout. For each number
// on stdin it waits until so many connections are open, collects its garbage and
// says so. It ends with stdin.
func serveIdle(node netip.AddrPort) error {
	host, err := netstack.New(idleGateway)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := host.SetPeers([]netstack.Peer{idlePeer(idleNode, node.Port())}); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	g := New(Config{Limits: unlimited, Dial: host.DialContext})
	g.SetRoutes(NewTable(mapOf(section("acme", "a.example", idleNode.Address.String()))))
	fmt.Println(ln.Addr(), host.Port())
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer g.Close()
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			var open int64
			fmt.Sscan(in.Text(), &open)
			for tick := time.Tick(time.Millisecond); g.Stats().Open != open; {
				<-tick
			}
			for range 5 { // stacks shrink by half each time
				debug.FreeOSMemory()
			}
			fmt.Println("ready")
		}
	})
	return g.Serve(context.Background(), ln)
}

// An idleProcess is a process of serveIdle and the node behind it.
type idleProcess struct {
	b    *testing.B
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Reader
	addr string        // for clients
	node chan net.Conn // on which a client's header came
}

func startIdle(b *testing.B) *idleProcess {
	host, err := netstack.New(idleNode)
	if err != nil {
		b.Fatal(err)
	}
	p := &idleProcess{b: b, node: make(chan net.Conn)}
	ln, err := host.Listen(443)
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.admit(c) })
		}
	})
	b.Cleanup(func() { host.Close(); wg.Wait() })
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=127.0.0.1:%d", idleNodeVariable, host.Port()))
	p.cmd.Stderr = os.Stderr
	stdin, inErr := p.cmd.StdinPipe()
	stdout, outErr := p.cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, p.cmd.Start()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); p.cmd.Wait() })
	p.in, p.out = stdin, bufio.NewReader(stdout)
	var port uint16
	if _, err := fmt.Fscanln(p.out, &p.addr, &port); err != nil {
		b.Fatal(err)
	}
	if err := host.SetPeers([]netstack.Peer{idlePeer(idleGateway, port)}); err != nil {
		b.Fatal(err)
	}
	return p
}

// admit hands c to open, unless it was a spare that no client had.
func (p *idleProcess) admit(c net.Conn) {
	if _, err := proxyproto.Read(c); err != nil {
		c.Close()
		return
	}
	p.node <- c
}

// open opens connections and moves some bytes. It returns all of their ends.
func (p *idleProcess) open(conns int) (ends []net.Conn) {
	for range conns {
		client := dialHello(p.b, p.addr)
		node := <-p.node
		p.pass(nil, node, len(benchHello))
		p.pass(node, client, 5000)
		p.pass(client, node, 2000)
		ends = append(ends, client, node)
	}
	return ends
}

// pass moves n bytes, which were sent if from is nil.
func (p *idleProcess) pass(from, to net.Conn, n int) {
	buf := make([]byte, n)
	if from != nil {
		if _, err := from.Write(buf); err != nil {
			p.b.Fatal(err)
		}
	}
	if _, err := io.ReadFull(to, buf); err != nil {
		p.b.Fatal(err)
	}
}

// hangUp closes what open opened, the node's end first: TIME_WAIT is there.
func (p *idleProcess) hangUp(ends []net.Conn) {
	for i := 0; i < len(ends); i += 2 {
		client, node := ends[i], ends[i+1]
		node.Close()
		io.Copy(io.Discard, client)
		client.Close()
	}
}

// rss returns the process's resident memory, in bytes: once so many connections
// are open and garbage is collected, or as it is if open is negative.
func (p *idleProcess) rss(open int) (n int64) {
	if open >= 0 {
		fmt.Fprintln(p.in, open)
		if _, err := p.out.ReadString('\n'); err != nil {
			p.b.Fatal(err)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.b.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(line, &n); err != nil {
		p.b.Fatal(err)
	}
	return n << 10
}
