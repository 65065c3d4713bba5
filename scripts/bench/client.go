package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"time"
)

// patience is how long a client's connection may last.
const patience = 5 * time.Minute

// A client is one TLS 1.3 connection to the origin that speaks just enough
// HTTP/1.1: it shares the machine with what is measured, so its own work is little.
type client struct {
	conn *tls.Conn
	in   *bufio.Reader
	stop func() bool
}

// The bench does not verify certificates: it is no client of anybody's data. The
// server name is the same on all ways, and so is the work of each handshake.
var clientTLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, ServerName: benchHost}

var smallRequest = []byte("GET /small HTTP/1.1\r\nHost: " + benchHost + "\r\n\r\n")

// dial connects a client to addr. Its owner closes it; when ctx is done it fails.
func dial(ctx context.Context, addr string) (*client, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(patience))
	conn := tls.Client(raw, clientTLS)
	c := &client{conn: conn, in: bufio.NewReader(conn), stop: context.AfterFunc(ctx, func() { raw.Close() })}
	if err := conn.Handshake(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// dialAll connects n clients, each of which has had one answer.
func dialAll(ctx context.Context, addr string, n int) (clients []*client, err error) {
	defer func() {
		if err != nil {
			closeAll(clients)
		}
	}()
	for range n {
		c, err := dial(ctx, addr)
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
		if err := c.small(); err != nil {
			return clients, err
		}
	}
	return clients, nil
}

func closeAll(clients []*client) {
	for _, c := range clients {
		c.close()
	}
}

func (c *client) close() {
	c.stop()
	c.conn.Close()
}

// small asks for a few bytes.
func (c *client) small() error {
	if _, err := c.conn.Write(smallRequest); err != nil {
		return err
	}
	length, err := c.header()
	if err != nil {
		return err
	}
	_, err = c.in.Discard(int(length))
	return err
}

// download asks for size bytes. It makes use of buf, of any size.
func (c *client) download(size int64, buf []byte) error {
	if _, err := fmt.Fprintf(c.conn, "GET /bulk?size=%d HTTP/1.1\r\nHost: %s\r\n\r\n", size, benchHost); err != nil {
		return err
	}
	length, err := c.header()
	if err != nil {
		return err
	}
	if length != size {
		return fmt.Errorf("asked for %d bytes and was promised %d", size, length)
	}
	for length > 0 {
		n, err := c.in.Read(buf[:min(length, int64(len(buf)))])
		if err != nil {
			return err
		}
		length -= int64(n)
	}
	return nil
}

// upload sends size bytes, by the contents of buf, and waits for the answer.
func (c *client) upload(size int64, buf []byte) error {
	if _, err := fmt.Fprintf(c.conn, "POST /bulk HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", benchHost, size); err != nil {
		return err
	}
	for size > 0 {
		n, err := c.conn.Write(buf[:min(size, int64(len(buf)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	length, err := c.header()
	if err != nil {
		return err
	}
	_, err = c.in.Discard(int(length))
	return err
}

// header reads the head of an answer, which must be a 200 of known length.
func (c *client) header() (length int64, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answered %q", line)
	}
	length = -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, fmt.Errorf("answered %q", line)
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("answered without Content-Length")
	}
	return length, nil
}
