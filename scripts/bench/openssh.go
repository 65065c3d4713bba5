package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"

	"postern/scripts/bench/process"
)

const sshdConfig = `ListenAddress %s
HostKey %s
AuthorizedKeysFile %s.pub
AllowTcpForwarding remote
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
`

// startOpenSSH has clients connect to a port that sshd, in the cloud, forwards to
// ssh, in the office, which connects to the origin (ssh -R). Ciphers are as they
// are by default.
func startOpenSSH(ctx context.Context, c *process.Children, s site) (*setup, error) {
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	forwarded, server := ports[0], ports[1]
	host, key := c.Path("host"), c.Path("key")
	for _, file := range []string{host, key} {
		if _, err := process.Output(ctx, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file)); err != nil {
			return nil, err
		}
	}
	if me.Uid == "0" { // sshd wants it there, and only its service makes it
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, err
		}
	}
	config, err := c.Write("sshd_config", fmt.Sprintf(sshdConfig, server, host, key))
	if err != nil {
		return nil, err
	}
	public, err := os.ReadFile(host + ".pub")
	if err != nil {
		return nil, err
	}
	known, err := c.Write("known_hosts", fmt.Sprintf("cloud %s\n", bytes.TrimSpace(public)))
	if err != nil {
		return nil, err
	}
	cloud, err := c.Start("sshd", command("sshd", "-D", "-e", "-f", config))
	if err != nil {
		return nil, err
	}
	if err := process.Poll(ctx, func() error { return answers(ctx, server) }); err != nil {
		return nil, fmt.Errorf("sshd: %w", err)
	}
	serverHost, port, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	office, err := c.Start("ssh", command("ssh", "-F", "none", "-N", "-T", "-i", key, "-p", port,
		"-o", "UserKnownHostsFile="+known, "-o", "HostKeyAlias=cloud", "-o", "StrictHostKeyChecking=yes",
		"-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ExitOnForwardFailure=yes",
		"-R", forwarded+":"+s.origin.secure, me.Username+"@"+serverHost))
	return &setup{addr: forwarded, cloud: []int{cloud}, office: []int{office}, origin: s.origin.pid}, err
}

// answers tells whether somebody listens at addr.
func answers(ctx context.Context, addr string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}
