// Package connect opens TCP connections, through an HTTP proxy where there has to be one
// (CONNECT; RFC 9110, section 9.3.6).
package connect

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"postern"
)

// Direct is the setting that says to use no proxy, whatever the environment says.
const Direct = "direct"

// A Proxy says by which proxy an address (host:port) is reached; nil: by none. A nil
// Proxy is that of the environment.
type Proxy func(addr string) (*url.URL, error)

// Environment follows HTTPS_PROXY and NO_PROXY, in upper or lower case.
func Environment() Proxy { return of(httpproxy.FromEnvironment()) }

// ParseProxy reads a proxy setting: the URL of a proxy, http or https, with user and
// password where it asks for them; Direct; or nothing, for Environment. What NO_PROXY in
// the environment exempts, and this machine itself, is reached directly. Its errors do not
// quote the setting, which may hold a password.
func ParseProxy(setting string) (Proxy, error) {
	switch setting {
	case "":
		return Environment(), nil
	case Direct:
		return func(string) (*url.URL, error) { return nil, nil }, nil
	}
	u, err := url.Parse(setting)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the proxy is no URL such as http://USER:PASSWORD@proxy.example.com:3128, nor direct")
	}
	cfg := httpproxy.FromEnvironment()
	cfg.HTTPSProxy = setting
	return of(cfg), nil
}

func of(cfg *httpproxy.Config) Proxy {
	choose := cfg.ProxyFunc()
	return func(addr string) (*url.URL, error) {
		if host, _, err := net.SplitHostPort(addr); err == nil && postern.IsLocalhost(host) {
			return nil, nil
		}
		u, err := choose(&url.URL{Scheme: "https", Host: addr})
		if err != nil {
			return nil, errors.New("the proxy of the environment is no URL")
		}
		return u, nil
	}
}

// Dial connects to addr (host:port) over TCP, through the proxy if there is one. The
// caller closes the connection.
func (p Proxy) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if p == nil {
		p = Environment()
	}
	proxy, err := p(addr)
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return dialTCP(ctx, addr)
	}
	c, err := through(ctx, proxy, addr)
	if err != nil {
		return nil, fmt.Errorf("through the proxy %s: %w", proxy.Host, err)
	}
	return c, nil
}

const dialTimeout = 10 * time.Second

// dialTCP connects to addr itself. Names under .localhost are loopback (RFC 6761,
// section 6.3): browsers and curl know, the system's resolver may not.
func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", addr, err)
	}
	if postern.IsLocalhost(host) {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	return d.DialContext(ctx, "tcp", addr)
}

// maxAnswer bounds the header of a proxy's answer, in bytes.
const maxAnswer = 16 << 10

// through has proxy connect to addr.
func through(ctx context.Context, proxy *url.URL, addr string) (_ net.Conn, err error) {
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	}
	if port == "" {
		return nil, fmt.Errorf("want a proxy of http or https, not of %q", proxy.Scheme)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := dialTCP(ctx, net.JoinHostPort(proxy.Hostname(), port))
	if err != nil {
		return nil, err
	}
	raw := c
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			raw.Close()
		}
	}()
	if proxy.Scheme == "https" {
		t := tls.Client(c, &tls.Config{ServerName: proxy.Hostname(), NextProtos: []string{"http/1.1"}})
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		c = t
	}
	return c, ask(c, proxy.User, addr)
}

// ask asks the proxy behind c to connect to addr, and reads its answer and nothing more.
func ask(c net.Conn, user *url.Userinfo, addr string) error {
	req := "CONNECT " + addr + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if user != nil {
		password, _ := user.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(user.Username() + ":" + password))
		req += "Proxy-Authorization: Basic " + basic + "\r\n" // RFC 7617
	}
	if _, err := c.Write([]byte(req + "\r\n")); err != nil {
		return err
	}
	var head []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); {
		if len(head) == maxAnswer {
			return fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
		}
		if _, err := c.Read(one); err != nil {
			return fmt.Errorf("read its answer: %w", err)
		}
		head = append(head, one[0])
	}
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(head))), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 { // any 2xx says that it did
		return fmt.Errorf("it answers %q to CONNECT %s", resp.Status, addr)
	}
	return nil
}
