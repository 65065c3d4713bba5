package longline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"postern/scripts/bench/process"
)

// Ways from the cloud to the origin in the office.
const (
	Direct    = "direct"     // the kernel's TCP by CUBIC
	DirectBBR = "direct+bbr" // the kernel's TCP by BBR
	RelayBBR  = "relay+bbr"  // TCP that ends in the cloud, and TLS over the kernel's TCP by BBR to the office
	Postern   = "postern"
)

// Config says what a lab is made of.
type Config struct {
	Line    string   // the program that is the line
	Args    []string // its arguments, such as --loss 1%
	Postern string   // the program that is coordinator, gateway and node
}

// Ports in the namespaces, where nobody else is.
const (
	portControl = "8443"
	portGateway = "443"
	portTunnel  = "51820"
	portPlain   = "8000"
	portSecure  = "8001"
	portRelay   = "8002"
)

// host is the name at which the node is reached.
const host = "bench.postern.localhost"

// A Lab is a line with all ways over it. Its owner closes it.
type Lab struct {
	children      *process.Children
	config        Config
	cloud, office end
	ended         error // of the line
}

// Open makes the line and starts everything. It returns once each way leads to
// the origin.
func Open(ctx context.Context, c Config) (l *Lab, err error) {
	children, err := process.New()
	if err != nil {
		return nil, err
	}
	l = &Lab{children: children, config: c}
	defer func() {
		if err != nil {
			err = errors.Join(l.children.Explain(err), l.Close())
		}
	}()
	if err := l.openLine(); err != nil {
		return nil, fmt.Errorf("open the line: %w", err)
	}
	for name, place := range map[string]struct {
		at end
		job
	}{
		"origin":       {l.office, job{Origin: &origin{Plain: "127.0.0.1:" + portPlain, Secure: ":" + portSecure}}},
		"relay-office": {l.office, job{Relay: &relay{Listen: ":" + portRelay, ListenTLS: true, Dial: "127.0.0.1:" + portSecure}}},
		"relay-cloud":  {l.cloud, job{Relay: &relay{Listen: ":" + portRelay, Dial: net.JoinHostPort(l.office.bbr, portRelay), DialTLS: true}}},
	} {
		cmd, err := place.at.child(place.job)
		if err != nil {
			return nil, err
		}
		if _, err := l.children.Start(name, cmd); err != nil {
			return nil, err
		}
	}
	if err := l.startPostern(ctx); err != nil {
		return nil, err
	}
	for _, way := range []string{Direct, DirectBBR, RelayBBR, Postern} {
		if err := process.Poll(ctx, func() error { _, err := l.Measure(ctx, way, 0); return err }); err != nil {
			return nil, fmt.Errorf("%s: %w", way, err)
		}
	}
	return l, nil
}

// openLine starts the line and learns where its ends are.
func (l *Lab) openLine() error {
	cmd := exec.Command(l.config.Line, l.config.Args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	log, err := os.Create(l.children.Path("line.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	process.Bind(cmd, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return err
	}
	l.children.OnClose(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		l.ended = cmd.Wait()
	})
	for _, e := range []*end{&l.cloud, &l.office} {
		if _, err := fmt.Fscanln(out, &e.namespace, &e.cubic, &e.bbr); err != nil {
			return err
		}
	}
	return nil
}

// Measure takes turns on one way: all that is wanted, each for about span. With
// nothing wanted it asks for one small answer.
func (l *Lab) Measure(ctx context.Context, way string, span time.Duration, wanted ...string) (Figures, error) {
	v := visit{URL: "https://localhost", Wanted: wanted, Span: span}
	switch way {
	case Direct:
		v.Addr = net.JoinHostPort(l.office.cubic, portSecure)
	case DirectBBR:
		v.Addr = net.JoinHostPort(l.office.bbr, portSecure)
	case RelayBBR:
		v.Addr = "127.0.0.1:" + portRelay
	case Postern:
		v.URL, v.Addr = "https://"+host, "127.0.0.1:"+portGateway
	}
	cmd, err := l.cloud.child(job{Visit: &v})
	if err != nil {
		return nil, err
	}
	out, err := process.Output(ctx, cmd)
	if err != nil {
		return nil, err
	}
	var f Figures
	return f, json.Unmarshal(out, &f)
}

// Close ends everything, the line last, and removes all state.
func (l *Lab) Close() error {
	l.children.Close()
	return l.ended
}
