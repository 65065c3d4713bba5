package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"postern/scripts/bench/process"
)

// Each end of stunnel's tunnel knows the other by its certificate.
const stunnelConfig = `foreground = yes
pid =
debug = err
[bench]
client = %s
accept = %s
connect = %s
cert = %s
CAfile = %s
verifyPeer = yes
`

// startStunnel has clients connect to a stunnel in the cloud, which wraps each
// connection in TLS to a stunnel in the office, which passes it to the origin. It
// needs a port there that the cloud can reach.
func startStunnel(_ context.Context, c *process.Children, s site) (*setup, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	outer, inner := ports[0], ports[1]
	certs := map[string]string{}
	for _, end := range []string{"cloud", "office"} {
		if certs[end], err = writeCertificate(c, end+".pem"); err != nil {
			return nil, err
		}
	}
	start := func(end, config string) (int, error) {
		file, err := c.Write(end+".conf", config)
		if err != nil {
			return 0, err
		}
		return c.Start("stunnel-"+end, command("stunnel", file))
	}
	office, err := start("office", fmt.Sprintf(stunnelConfig, "no", inner, s.origin.secure, certs["office"], certs["cloud"]))
	if err != nil {
		return nil, err
	}
	cloud, err := start("cloud", fmt.Sprintf(stunnelConfig, "yes", outer, inner, certs["cloud"], certs["office"]))
	return &setup{addr: outer, cloud: []int{cloud}, office: []int{office}, origin: s.origin.pid}, err
}

// writeCertificate makes a certificate and its key in a file, and returns its path.
func writeCertificate(c *process.Children, name string) (string, error) {
	cert, err := selfSigned()
	if err != nil {
		return "", err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return "", err
	}
	return c.Write(name, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
}
