package main

import (
	"context"
	"fmt"
	"os/exec"

	"postern/scripts/bench/process"
)

// haproxyConfig relays TLS by its server name, as Debian's haproxy does unless told
// otherwise: two threads on two cores, no limit that is met here. It wants where to
// listen, the server name and the origin.
const haproxyConfig = `global
	maxconn 8000
defaults
	mode tcp
	timeout connect 5s
	timeout client 5m
	timeout server 5m
frontend cloud
	bind %s
	tcp-request inspect-delay 5s
	tcp-request content accept if { req_ssl_hello_type 1 }
	use_backend office if { req_ssl_sni -i %s }
backend office
	server origin %s
`

// startHAProxy has clients connect to haproxy, which passes TLS on to the origin.
func startHAProxy(_ context.Context, c *process.Children, s site) (*setup, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	config, err := c.Write("haproxy.cfg", fmt.Sprintf(haproxyConfig, ports[0], benchHost, s.origin.secure))
	if err != nil {
		return nil, err
	}
	pid, err := c.Start("haproxy", haproxyCommand(config))
	return &setup{addr: ports[0], cloud: []int{pid}, origin: s.origin.pid}, err
}

// haproxyCommand stays one process, in the foreground.
func haproxyCommand(config string) *exec.Cmd { return command("haproxy", "-db", "-f", config) }
