package main

import (
	"bufio"
	"strings"
	"testing"
)

func TestHeader(t *testing.T) {
	for _, test := range []struct {
		name, in string
		want     int64 // -1 if it is to be refused
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 12},
		{"lower case, among others", "HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length:0\r\nServer: y\r\n\r\n", 0},
		{"another status", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", -1},
		{"no length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", -1},
		{"no number", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", -1},
		{"cut off", "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n", -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &client{in: bufio.NewReader(strings.NewReader(test.in + "rest"))}
			got, err := c.header()
			if err != nil {
				got = -1
			}
			if got != test.want {
				t.Fatalf("got %d, %v, want %d", got, err, test.want)
			}
			if err != nil {
				return
			}
			if rest, err := c.in.ReadString(0); rest != "rest" {
				t.Errorf("left %q (%v), want the body", rest, err)
			}
		})
	}
}
