package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// maxSACKs is how many SACK blocks fit into TCP's options (RFC 2018, section 3).
const maxSACKs = 4

// hideSACK appends the SACK blocks in options to spans, and makes their option
// padding. TCP then neither counts an acknowledgement as a duplicate nor sends
// anything again for it (RFC 6675, section 2). It stops where options are malformed.
func hideSACK(options []byte, spans []span) []span {
	for len(options) > 0 {
		switch options[0] {
		case header.TCPOptionEOL:
			return spans
		case header.TCPOptionNOP:
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return spans
		}
		option := options[:options[1]]
		options = options[len(option):]
		if option[0] != header.TCPOptionSACK {
			continue
		}
		for b := option[2:]; len(b) >= 8; b = b[8:] {
			spans = append(spans, span{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])})
		}
		for i := range option {
			option[i] = header.TCPOptionNOP
		}
	}
	return spans
}
