package longline

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
)

// A relay ends TCP at Listen and goes on from there to Dial, one connection for
// each. Two of them, with TLS between them, are what a tunnel over the kernel's
// TCP could do.
type relay struct {
	Listen, Dial       string
	ListenTLS, DialTLS bool
}

func (r relay) run() error {
	ln, err := net.Listen("tcp", r.Listen)
	if err != nil {
		return err
	}
	if r.ListenTLS {
		config, err := selfSigned()
		if err != nil {
			return err
		}
		ln = tls.NewListener(ln, config)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		wg.Go(func() { r.pass(c) })
	}
}

// pass copies both ways until either is done.
func (r relay) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", r.Dial)
	if err != nil {
		return
	}
	if r.DialTLS {
		out = tls.Client(out, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	}
	defer out.Close()
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(in, out)
		in.Close()
	})
	io.Copy(out, in)
	out.Close()
	back.Wait()
}
