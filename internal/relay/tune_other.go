//go:build !linux

package relay

import "net"

// tune does nothing here: Go turns TCP_NODELAY on by itself.
func tune(net.Conn) {}
