//go:build e2e

package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// A recorder appends every byte that crosses the conns that it was given to one
// file, in frames: the number of a stream (8 bytes, big endian), the length of
// what follows (4 bytes), and that. A stream is one direction of one conn, what
// was read and what was written. Its methods are safe for concurrent use.
type recorder struct {
	streams atomic.Uint64

	mu   sync.Mutex
	file *os.File
}

func newRecorder(path string) (*recorder, error) {
	f, err := os.Create(path)
	return &recorder{file: f}, err
}

// keep appends a frame. What cannot be recorded must not pass, so it panics.
func (r *recorder) keep(stream uint64, b []byte) {
	frame := binary.BigEndian.AppendUint64(make([]byte, 0, 12+len(b)), stream)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(b)))
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.file.Write(append(frame, b...)); err != nil {
		panic("e2e: record: " + err.Error())
	}
}

// conn returns c with everything that is read and written on record.
func (r *recorder) conn(c net.Conn) net.Conn {
	last := r.streams.Add(2)
	return &recordedConn{Conn: c, recorder: r, read: last - 1, written: last}
}

// dialed is conn for what a dial returned.
func (r *recorder) dialed(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return r.conn(c), nil
}

type recordedConn struct {
	net.Conn
	recorder      *recorder
	read, written uint64 // streams
}

func (c *recordedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.recorder.keep(c.read, b[:n])
	}
	return n, err
}

func (c *recordedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if n > 0 {
		c.recorder.keep(c.written, b[:n])
	}
	return n, err
}

// CloseWrite half-closes the conn, or closes it if it can only do that.
func (c *recordedConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// recordedListener hands out recorded conns.
type recordedListener struct {
	net.Listener
	recorder *recorder
}

func (l recordedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.recorder.conn(c), nil
}

// readRecording returns the streams that a recorder has kept at path.
func readRecording(path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var streams [][]byte
	for {
		var head [12]byte
		if _, err := io.ReadFull(f, head[:]); errors.Is(err, io.EOF) {
			return streams, nil
		} else if err != nil {
			return nil, fmt.Errorf("frame of %s: %w", path, err)
		}
		stream, size := binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint32(head[8:])
		for uint64(len(streams)) <= stream {
			streams = append(streams, nil)
		}
		was := len(streams[stream])
		streams[stream] = append(streams[stream], make([]byte, size)...)
		if _, err := io.ReadFull(f, streams[stream][was:]); err != nil {
			return nil, fmt.Errorf("frame of %s: %w", path, err)
		}
	}
}
