package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"postern"
)

// What a ClientHello may be at most. All of it is far above what clients send,
// and each bounds what a stranger can make us hold or do.
const (
	maxRecord     = 1 << 14                         // bytes of a record's content, RFC 8446, section 5.1
	maxRecords    = 64                              // that one hello spans
	maxHello      = 16 << 10                        // bytes of the handshake message, its header included
	maxRaw        = maxHello + maxRecords*recordLen // bytes of all its records
	maxExtensions = 64
)

const (
	recordLen    = 5 // bytes of a record's header
	handshakeLen = 4 // bytes of a handshake message's header

	recordAlert     = 21
	recordHandshake = 22

	typeClientHello = 1

	extensionServerName = 0
	nameTypeHost        = 0

	extensionALPN = 16 // RFC 7301, section 3.1
)

// A hello is what the gateway reads of a ClientHello.
type hello struct {
	name string // server name
	acme bool   // it offers acme-tls/1 and no other protocol, as RFC 8737 has it

	// relay: it offers postern.RelayProtocol and no other. It alone may have no name:
	// a gateway's public address may be a bare one.
	relay bool
}

// errMore says that the bytes so far are the beginning of what may become a hello.
var errMore = errors.New("the hello is not whole yet")

func refuseHello(a alert, format string, args ...any) refusal {
	return refusal{reason: BadHello, alert: a, detail: fmt.Sprintf(format, args...)}
}

var errGarbage = refusal{reason: Garbage}

// parseHello reads the ClientHello at the start of b (RFC 8446, sections 4.1.2 and
// 5.1), and reports how many bytes its records span. What comes after those is not
// looked at. The server name (RFC 6066, section 3) is lower case and such that
// postern.CheckHost accepts it.
//
// If b is a mere beginning the error is errMore: parse again from the start with
// more bytes. Otherwise it is a refusal. It accepts well-formed hellos only, so
// that no other TLS implementation reads another name in the same bytes; it does
// not look into extensions other than server_name and ALPN.
func parseHello(b []byte) (h hello, size int, err error) {
	if err := checkStart(b); err != nil {
		return hello{}, 0, err
	}
	msg, size, err := handshakeMessage(b)
	if err != nil {
		return hello{}, 0, err
	}
	h, err = parseClientHello(msg[handshakeLen:])
	return h, size, err
}

// checkStart tells TLS from what else strangers send, by the first bytes.
func checkStart(b []byte) error {
	switch {
	case len(b) == 0:
		return errMore
	case b[0] == recordHandshake && (len(b) < 2 || b[1] == 3):
		return nil // the record's minor version "MUST be ignored for all purposes"
	case b[0] == 0x80:
		return refuseHello(alertProtocolVersion, "SSL 2.0")
	}
	return checkHTTP(b)
}

var httpMethods = []string{
	"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE ", "PRI ",
}

// checkHTTP tells HTTP without TLS from garbage.
func checkHTTP(b []byte) error {
	var err error = errGarbage
	for _, m := range httpMethods {
		switch {
		case bytes.HasPrefix(b, []byte(m)):
			return refusal{reason: PlainHTTP}
		case strings.HasPrefix(m, string(b[:min(len(b), len(m))])):
			err = errMore
		}
	}
	return err
}

// handshakeMessage returns the ClientHello message at the start of b, out of as
// many records as it spans, and how many bytes those are. It copies only what
// spans several, and only once all are there.
func handshakeMessage(b []byte) (msg []byte, size int, err error) {
	var headBuf [handshakeLen]byte
	head := headBuf[:0] // the message's header, which may itself span records
	content := 0        // bytes of the message in the records so far
	for range maxRecords {
		n, fragment, err := record(b[size:])
		if err != nil {
			return nil, 0, err
		}
		content += n
		head = append(head, fragment[:min(len(fragment), handshakeLen-len(head))]...)
		want, err := messageLen(head)
		switch {
		case err != nil:
			return nil, 0, err
		case want >= 0 && content > want:
			// "All handshake messages immediately preceding a key change MUST
			// align with a record boundary", and a ClientHello can precede one.
			return nil, 0, refuseHello(alertUnexpectedMessage, "the hello ends inside a record")
		case len(fragment) < n:
			return nil, 0, errMore
		}
		size += recordLen + n
		if content == want {
			return join(b[:size], content), size, nil
		}
	}
	return nil, 0, refuseHello(alertDecodeError, "more than %d records", maxRecords)
}

// record returns the length that the record at the start of b says its content
// has, and as much of the content as is there.
func record(b []byte) (n int, fragment []byte, err error) {
	switch {
	case len(b) > 0 && b[0] != recordHandshake:
		return 0, nil, refuseHello(alertUnexpectedMessage, "record of type %d inside the hello", b[0])
	case len(b) > 1 && b[1] != 3:
		return 0, nil, refuseHello(alertDecodeError, "record of version %#x inside the hello", b[1])
	case len(b) < recordLen:
		return 0, nil, errMore
	}
	switch n = int(binary.BigEndian.Uint16(b[3:])); {
	case n == 0:
		// "Implementations MUST NOT send zero-length fragments of Handshake types"
		return 0, nil, refuseHello(alertUnexpectedMessage, "empty record")
	case n > maxRecord:
		return 0, nil, refuseHello(alertRecordOverflow, "record of %d bytes", n)
	}
	return n, b[recordLen:min(recordLen+n, len(b))], nil
}

// messageLen returns the length of the ClientHello message that begins with
// head, its header included, or -1 if head is too short to say.
func messageLen(head []byte) (int, error) {
	if len(head) > 0 && head[0] != typeClientHello {
		return 0, refuseHello(alertUnexpectedMessage, "handshake message of type %d", head[0])
	}
	if len(head) < handshakeLen {
		return -1, nil
	}
	n := handshakeLen + int(head[1])<<16 + int(head[2])<<8 + int(head[3])
	if n > maxHello {
		return 0, refuseHello(alertDecodeError, "hello of %d bytes", n)
	}
	return n, nil
}

// join returns the content, of n bytes in all, of the records that b consists of.
func join(b []byte, n int) []byte {
	if len(b) == recordLen+n {
		return b[recordLen:]
	}
	msg := make([]byte, 0, n)
	for len(b) > 0 {
		end := recordLen + int(binary.BigEndian.Uint16(b[3:]))
		msg = append(msg, b[recordLen:end]...)
		b = b[end:]
	}
	return msg
}

// parseClientHello reads a ClientHello's body.
func parseClientHello(body []byte) (h hello, err error) {
	s := cryptobyte.String(body)
	var session, suites, compression, extensions cryptobyte.String
	if !s.Skip(2+32) || // legacy_version, random
		!s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&suites) || len(suites) == 0 || len(suites)%2 != 0 ||
		!s.ReadUint8LengthPrefixed(&compression) || len(compression) == 0 {
		return hello{}, refuseHello(alertDecodeError, "malformed hello")
	}
	if !s.Empty() && (!s.ReadUint16LengthPrefixed(&extensions) || !s.Empty()) {
		return hello{}, refuseHello(alertDecodeError, "malformed extensions")
	}
	var seen [maxExtensions]uint16
	for n := 0; !extensions.Empty(); n++ {
		var typ uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&typ) || !extensions.ReadUint16LengthPrefixed(&data) {
			return hello{}, refuseHello(alertDecodeError, "malformed extension")
		}
		if n == maxExtensions {
			return hello{}, refuseHello(alertDecodeError, "more than %d extensions", maxExtensions)
		}
		if slices.Contains(seen[:n], typ) {
			return hello{}, refuseHello(alertDecodeError, "extension %d is there twice", typ)
		}
		seen[n] = typ
		switch typ {
		case extensionServerName:
			if h.name, err = parseServerName(data); err != nil {
				return hello{}, err
			}
		case extensionALPN:
			h.acme = offersOnly(data, postern.ACMEProtocol)
			h.relay = offersOnly(data, postern.RelayProtocol)
		}
	}
	if h.relay && h.name == "" {
		return h, nil
	}
	if h.name, err = wireName(h.name); err != nil {
		return hello{}, err
	}
	return h, nil
}

// offersOnly reports whether s, an ALPN extension, is well-formed and has protocol
// in its list and nothing else.
func offersOnly(s cryptobyte.String, protocol string) bool {
	var list, first cryptobyte.String
	return s.ReadUint16LengthPrefixed(&list) && s.Empty() &&
		list.ReadUint8LengthPrefixed(&first) && list.Empty() && string(first) == protocol
}

// parseServerName returns the one host_name in the list (RFC 6066, section 3),
// as it is there. Names of other types are passed over.
func parseServerName(s cryptobyte.String) (name string, err error) {
	var list cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return "", refuseHello(alertDecodeError, "malformed server name list")
	}
	for !list.Empty() {
		var typ uint8
		var value cryptobyte.String
		if !list.ReadUint8(&typ) || !list.ReadUint16LengthPrefixed(&value) || value.Empty() {
			return "", refuseHello(alertDecodeError, "malformed server name")
		}
		if typ != nameTypeHost {
			continue
		}
		if name != "" {
			// "MUST NOT contain more than one name of the same name_type"
			return "", refuseHello(alertDecodeError, "two server names")
		}
		name = string(value)
	}
	return name, nil
}

// wireName turns what a client sent into the form that routes have. A trailing
// dot is not forgiven: crypto/tls, which nodes run, refuses it as well.
func wireName(name string) (string, error) {
	if name == "" {
		return "", refusal{reason: UnknownName, alert: alertUnrecognizedName, detail: "no server name"}
	}
	name = lower(name)
	if err := postern.CheckHost(name); err != nil {
		return "", refusal{reason: UnknownName, alert: alertUnrecognizedName, detail: "no server name that could be routed"}
	}
	return name, nil
}

// lower maps A to Z to a to z and nothing else (RFC 4343, section 3).
func lower(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
