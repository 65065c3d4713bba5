package longline

import (
	"context"
	"encoding/json"
	"net"
	"os/exec"
	"strings"

	"postern/scripts/bench/process"
)

// startPostern starts coordinator and gateway in the cloud and the node in the
// office. They are ready some time later.
func (l *Lab) startPostern(ctx context.Context) error {
	control := net.JoinHostPort(l.cloud.cubic, portControl)
	public := "127.0.0.1:" + portGateway
	if _, err := l.children.Start("coordinator", l.role(l.cloud, "coordinator", "run", "--domain", "postern.localhost",
		"--listen", control, "--control-url", "https://"+control)); err != nil {
		return err
	}
	if err := l.join(ctx, l.cloud, "gateway", []string{"--gateway"}, nil); err != nil {
		return err
	}
	// One client stands for many, so that no limit per source or tenant applies.
	if _, err := l.children.Start("gateway", l.role(l.cloud, "gateway", "run", "--listen", public, "--http", "",
		"--udp", ":"+portTunnel, "--advertise", net.JoinHostPort(l.cloud.cubic, portTunnel), "--public", public,
		"--source-rate", "-1", "--source-conns", "-1", "--tenant-rate", "-1", "--tenant-conns", "-1")); err != nil {
		return err
	}
	if _, err := l.admin(ctx, "tenants", "add", "bench", "--no-token"); err != nil {
		return err
	}
	if err := l.join(ctx, l.office, "node", []string{"--tenant", "bench"},
		[]string{"--no-run", "--publish", "http://127.0.0.1:" + portPlain, "--access", "public"}); err != nil {
		return err
	}
	_, err := l.children.Start("node", l.role(l.office, "node", "run"))
	return err
}

// role returns the command that runs a role at an end, with its own data.
func (l *Lab) role(at end, role string, args ...string) *exec.Cmd {
	return at.command(l.config.Postern, append(append([]string{role}, args...), "--data", l.children.Path(role))...)
}

// join makes a token of the given kind and has a role join with it, as soon as the
// coordinator answers.
func (l *Lab) join(ctx context.Context, at end, role string, kind, more []string) error {
	var created struct{ Secret string }
	err := process.Poll(ctx, func() error {
		out, err := l.admin(ctx, append([]string{"tokens", "create"}, kind...)...)
		if err != nil {
			return err
		}
		return json.Unmarshal(out, &created)
	})
	if err != nil {
		return err
	}
	cmd := l.role(at, role, append([]string{"join", "--token-file", "-"}, more...)...)
	cmd.Stdin = strings.NewReader(created.Secret)
	_, err = process.Output(ctx, cmd)
	return err
}

// admin asks the coordinator, whose socket is in its data.
func (l *Lab) admin(ctx context.Context, args ...string) ([]byte, error) {
	args = append([]string{"--data", l.children.Path("coordinator")}, append(args, "--json")...)
	return process.Output(ctx, exec.Command(l.config.Postern, args...))
}
