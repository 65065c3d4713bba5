package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// benchHost is the one host name of the road under test.
const benchHost = "bench.postern.localhost"

// A road is a coordinator, a gateway, a node and an origin, each a process on
// loopback, with all their state in one temporary directory.
type road struct {
	dir      string
	program  string
	children []*exec.Cmd

	direct, through target
}

// benchRoad measures the road beside requests straight to the origin.
func benchRoad(ctx context.Context, o options) ([]Result, error) {
	r, err := openRoad(ctx, o.postern)
	if err != nil {
		return nil, err
	}
	defer r.close()
	const other = "direct"
	all := measures(o.span, o.bulk)
	take := func(to target) func(ctx context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			f := figures{}
			for _, m := range all {
				v, err := m.run(ctx, to)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", m.name, err)
				}
				f[m.name] = v
			}
			return f, nil
		}
	}
	got, err := interleave(ctx, o.runs, way{other, take(r.direct)}, way{us, take(r.through)})
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, m := range all {
		results = append(results, got.compare(m.name, m.name, m.unit, m.better, us, other, 0))
	}
	return results, nil
}

// openRoad starts everything and returns once a request passes all the way.
func openRoad(ctx context.Context, program string) (r *road, err error) {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return nil, err
	}
	r = &road{dir: dir, program: program}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	plain, secure, err := r.startOrigin()
	if err != nil {
		return nil, fmt.Errorf("start the origin: %w", err)
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	control, https, udp := ports[0], ports[1], ports[2]
	_, port, err := net.SplitHostPort(https)
	if err != nil {
		return nil, err
	}
	coordinator := filepath.Join(dir, "coordinator")
	if err := r.start("coordinator", "run", "--data", coordinator, "--domain", "postern.localhost",
		"--listen", control, "--https-port", port); err != nil {
		return nil, err
	}
	if err := r.join(ctx, coordinator, "gateway", []string{"--gateway"}, []string{"--coordinator", "https://" + control}); err != nil {
		return nil, err
	}
	// One client stands for many, so that no limit per source or tenant applies.
	if err := r.start("gateway", "run", "--data", filepath.Join(dir, "gateway"), "--listen", https,
		"--http", "", "--udp", udp[len("127.0.0.1"):], "--advertise", udp, "--public", https,
		"--source-rate", "-1", "--source-conns", "-1", "--tenant-rate", "-1", "--tenant-conns", "-1"); err != nil {
		return nil, err
	}
	if _, err := r.admin(ctx, coordinator, "tenants", "add", "bench", "--no-token"); err != nil {
		return nil, err
	}
	if err := r.join(ctx, coordinator, "node", []string{"--tenant", "bench"},
		[]string{"--no-run", "--publish", "http://" + plain, "--access", "public"}); err != nil {
		return nil, err
	}
	if err := r.start("node", "run", "--data", filepath.Join(dir, "node")); err != nil {
		return nil, err
	}
	r.direct = newTarget("https://localhost", secure)
	r.through = newTarget("https://"+benchHost+":"+port, https)
	return r, poll(ctx, func() error { return small(ctx, r.through, r.through.client(false)) })
}

// newTarget dials addr whatever the host name. It does not verify certificates:
// the bench is no client of anybody's data.
func newTarget(url, addr string) target {
	client := func(keepAlive bool) *http.Client {
		return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, addr)
			},
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13},
			DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: 64,
			WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
		}}
	}
	return target{url: url, client: client}
}

func (r *road) startOrigin() (plain, secure string, err error) {
	cmd, err := roleCommand("origin")
	if err != nil {
		return "", "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", "", err
	}
	if err := cmd.Start(); err != nil {
		return "", "", err
	}
	r.children = append(r.children, cmd)
	_, err = fmt.Fscanln(out, &plain, &secure)
	return plain, secure, err
}

// start runs a role; what it logs goes to a file in the road's directory.
func (r *road) start(args ...string) error {
	log, err := os.Create(filepath.Join(r.dir, args[0]+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(r.program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	r.children = append(r.children, cmd)
	return nil
}

// join makes a token of the given kind and has role join with it, as soon as the
// coordinator answers.
func (r *road) join(ctx context.Context, coordinator, role string, kind, more []string) error {
	var created struct{ Secret string }
	err := poll(ctx, func() error {
		out, err := r.admin(ctx, coordinator, append([]string{"tokens", "create"}, kind...)...)
		if err != nil {
			return err
		}
		return json.Unmarshal(out, &created)
	})
	if err != nil {
		return err
	}
	args := append([]string{role, "join", "--data", filepath.Join(r.dir, role), "--token-file", "-"}, more...)
	cmd := exec.CommandContext(ctx, r.program, args...)
	cmd.Stdin = strings.NewReader(created.Secret)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s join: %w\n%s", role, err, out)
	}
	return nil
}

func (r *road) admin(ctx context.Context, coordinator string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, r.program, append([]string{"--data", coordinator}, append(args, "--json")...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}

// close ends all children, last started first, and removes their state.
func (r *road) close() {
	for i := len(r.children) - 1; i >= 0; i-- {
		r.children[i].Process.Signal(syscall.SIGKILL)
		r.children[i].Wait()
	}
	os.RemoveAll(r.dir)
}

// poll repeats try until it succeeds, for half a minute.
func poll(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("not ready in time"), err)
		case <-tick.C:
		}
	}
}

// freePorts returns n loopback addresses that were free a moment ago.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer ln.Close()
		addrs = append(addrs, "127.0.0.1:"+strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
	}
	return addrs, nil
}
