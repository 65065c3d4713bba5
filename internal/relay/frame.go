package relay

import (
	"encoding/binary"
	"errors"
)

const (
	lengthSize = 2 // bytes before each datagram in a message

	// maxDatagram is the longest that a length can tell of.
	maxDatagram = 1<<16 - 1
	// maxMessage bounds a message, in bytes: one longest datagram.
	maxMessage = lengthSize + maxDatagram
	// fullMessage is what a message with more than one datagram has at most: a TLS
	// record (RFC 8446, section 5.1), so that nobody waits for half of one.
	fullMessage = 16<<10 - 64
)

// errFrame says that a message is not made of whole datagrams.
var errFrame = errors.New("a message that is not made of whole datagrams")

// split appends the datagrams of message to datagrams, without copying them. A message
// has at least one, and none is empty.
func split(datagrams [][]byte, message []byte) ([][]byte, error) {
	if len(message) == 0 {
		return datagrams, errFrame
	}
	for len(message) > 0 {
		if len(message) < lengthSize {
			return datagrams, errFrame
		}
		n := lengthSize + int(binary.BigEndian.Uint16(message))
		if n == lengthSize || n > len(message) {
			return datagrams, errFrame
		}
		datagrams = append(datagrams, message[lengthSize:n])
		message = message[n:]
	}
	return datagrams, nil
}

// join appends a datagram to message.
func join(message, datagram []byte) []byte {
	message = binary.BigEndian.AppendUint16(message, uint16(len(datagram)))
	return append(message, datagram...)
}
