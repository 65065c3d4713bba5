package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"

	"postern/scripts/bench/process"
)

// benchHost is the server name that clients ask for.
const benchHost = "bench.postern.localhost"

// startPostern has clients connect to a gateway, which passes TLS through the
// tunnel to a node, where it ends: the node asks the origin in plain HTTP.
func startPostern(ctx context.Context, c *process.Children, s site) (*setup, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	control, https, udp := ports[0], ports[1], ports[2]
	_, port, err := net.SplitHostPort(https)
	if err != nil {
		return nil, err
	}
	p := posternProgram{program: s.postern, Children: c}
	if _, err := p.run("coordinator", "--domain", "postern.localhost", "--listen", control, "--https-port", port); err != nil {
		return nil, err
	}
	if err := p.join(ctx, "gateway", []string{"--gateway"}, []string{"--coordinator", "https://" + control}); err != nil {
		return nil, err
	}
	// One client stands for many, so that no limit per source or tenant applies.
	gateway, err := p.run("gateway", "--listen", https, "--http", "", "--udp", udp[len("127.0.0.1"):], "--advertise", udp,
		"--public", https, "--source-rate", "-1", "--source-conns", "-1", "--tenant-rate", "-1", "--tenant-conns", "-1")
	if err != nil {
		return nil, err
	}
	if _, err := p.admin(ctx, "tenants", "add", "bench", "--no-token"); err != nil {
		return nil, err
	}
	if err := p.join(ctx, "node", []string{"--tenant", "bench"},
		[]string{"--no-run", "--publish", "http://" + s.origin.plain, "--access", "public"}); err != nil {
		return nil, err
	}
	node, err := p.run("node")
	if err != nil {
		return nil, err
	}
	return &setup{addr: https, cloud: []int{gateway}, office: []int{node}, origin: s.origin.pid}, nil
}

// A posternProgram runs Postern's roles, each with a data directory of its name.
type posternProgram struct {
	program string
	*process.Children
}

// run starts a role.
func (p posternProgram) run(role string, args ...string) (pid int, err error) {
	return p.Start(role, exec.Command(p.program, append([]string{role, "run", "--data", p.Path(role)}, args...)...))
}

// join has role join with a token of the given kind, as soon as that succeeds.
func (p posternProgram) join(ctx context.Context, role string, kind, more []string) error {
	args := append([]string{role, "join", "--data", p.Path(role), "--token-file", "-"}, more...)
	return process.Poll(ctx, func() error {
		var created struct{ Secret string }
		out, err := p.admin(ctx, append([]string{"tokens", "create"}, kind...)...)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &created); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, p.program, args...)
		cmd.Stdin = strings.NewReader(created.Secret)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s join: %w\n%s", role, err, out)
		}
		return nil
	})
}

// admin runs a command at the coordinator and returns its JSON.
func (p posternProgram) admin(ctx context.Context, args ...string) ([]byte, error) {
	args = append([]string{"--data", p.Path("coordinator")}, append(args, "--json")...)
	return process.Output(ctx, exec.Command(p.program, args...))
}
