// Package proxyproto encodes and decodes the PROXY protocol's version 2 header
// (haproxy's doc/proxy-protocol.txt): the first bytes of a forwarded
// connection, which say where it really came from.
package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
)

// A Header says whose bytes follow it.
type Header struct {
	Local     bool           // the sender's own connection, such as a health check: no Src, no Dst
	Src       netip.AddrPort // the client, without zone
	Dst       netip.AddrPort // what the client dialed; IPv4 iff Src is
	Authority string         // server name as routed, at most 255 bytes; empty: absent
	UniqueID  string         // of the connection, at most 128 bytes; empty: absent
}

// MaxSize bounds a header that Read accepts, in bytes.
const MaxSize = 536

// ErrHeader is what every error of this package wraps.
var ErrHeader = errors.New("bad PROXY v2 header")

const (
	fixedSize    = 16
	maxAuthority = 255
	maxUniqueID  = 128
)

// The fixed part: signature, version and command, family and transport, length.
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"

	versionCommandLocal = 0x20
	versionCommandProxy = 0x21

	familyUnspec = 0x00
	familyTCP4   = 0x11
	familyTCP6   = 0x21
)

// Types of TLVs, section 2.2 of the specification.
const (
	typeAuthority = 0x02
	typeCRC32C    = 0x03
	typeUniqueID  = 0x05
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendBinary appends h's encoding to b, with a CRC32C. IPv4-mapped addresses
// are written as IPv4, zones are left out. It fails if Src and Dst are not of
// one family, if a Local header has them, or if a string is too long.
func (h Header) AppendBinary(b []byte) ([]byte, error) {
	if len(h.Authority) > maxAuthority || len(h.UniqueID) > maxUniqueID {
		return nil, fmt.Errorf("%w: authority of %d bytes, unique id of %d", ErrHeader, len(h.Authority), len(h.UniqueID))
	}
	src, dst := plain(h.Src), plain(h.Dst)
	start := len(b)
	b = append(b, signature...)
	switch {
	case h.Local && !src.IsValid() && !dst.IsValid():
		b = append(b, versionCommandLocal, familyUnspec, 0, 0)
	case h.Local:
		return nil, fmt.Errorf("%w: a local connection with addresses %v, %v", ErrHeader, src, dst)
	case src.Addr().Is4() && dst.Addr().Is4():
		b = append(b, versionCommandProxy, familyTCP4, 0, 0)
	case src.Addr().Is6() && dst.Addr().Is6():
		b = append(b, versionCommandProxy, familyTCP6, 0, 0)
	default:
		return nil, fmt.Errorf("%w: addresses %v, %v are not of one family", ErrHeader, src, dst)
	}
	if !h.Local {
		b = append(b, src.Addr().AsSlice()...)
		b = append(b, dst.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, src.Port())
		b = binary.BigEndian.AppendUint16(b, dst.Port())
	}
	b = appendTLV(b, typeAuthority, h.Authority)
	b = appendTLV(b, typeUniqueID, h.UniqueID)
	b = appendTLV(b, typeCRC32C, "\x00\x00\x00\x00")

	header := b[start:]
	binary.BigEndian.PutUint16(header[14:], uint16(len(header)-fixedSize))
	binary.BigEndian.PutUint32(header[len(header)-4:], crc32.Checksum(header, castagnoli))
	return b, nil
}

func appendTLV(b []byte, typ byte, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, typ, byte(len(value)>>8), byte(len(value)))
	return append(b, value...)
}

func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// Read reads one header from r, all of it and not a byte more. A header without
// a right CRC32C, longer than MaxSize, of another transport than TCP, or with a
// TLV of a known type twice is an error. TLVs of other types are passed over.
func Read(r io.Reader) (Header, error) {
	return read(r, true)
}

// ReadForeign is Read for headers of other makers' proxies, most of which send
// no CRC32C: it is checked where there is one.
func ReadForeign(r io.Reader) (Header, error) {
	return read(r, false)
}

func read(r io.Reader, wantCRC bool) (Header, error) {
	var buf [MaxSize]byte
	if _, err := io.ReadFull(r, buf[:fixedSize]); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	if string(buf[:12]) != signature {
		return Header{}, fmt.Errorf("%w: no signature", ErrHeader)
	}
	size := fixedSize + int(binary.BigEndian.Uint16(buf[14:]))
	if size > MaxSize {
		return Header{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrHeader, size, MaxSize)
	}
	if _, err := io.ReadFull(r, buf[fixedSize:size]); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	h, hasCRC, err := decode(buf[:size])
	if err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	if wantCRC && !hasCRC {
		return Header{}, fmt.Errorf("%w: no CRC32C", ErrHeader)
	}
	return h, nil
}

// decode decodes a whole header and may write to b.
func decode(b []byte) (h Header, hasCRC bool, err error) {
	tlvs := b[fixedSize:]
	switch command, family := b[12], b[13]; {
	case command == versionCommandLocal:
		// "the receiver must discard the protocol block including the family
		// which is ignored": of it, only its length matters here.
		h.Local = true
		n, ok := map[byte]int{0: 0, 1: 12, 2: 36}[family>>4]
		if !ok || len(tlvs) < n {
			return h, false, fmt.Errorf("local, family %#x, %d bytes", family, len(tlvs))
		}
		tlvs = tlvs[n:]
	case command == versionCommandProxy && family == familyTCP4 && len(tlvs) >= 12:
		h.Src, h.Dst = addrs(tlvs[:12])
		tlvs = tlvs[12:]
	case command == versionCommandProxy && family == familyTCP6 && len(tlvs) >= 36:
		h.Src, h.Dst = addrs(tlvs[:36])
		tlvs = tlvs[36:]
		if h.Src.Addr().Is4() != h.Dst.Addr().Is4() {
			return h, false, errors.New("one address is IPv4-mapped, the other is not")
		}
	default:
		return h, false, fmt.Errorf("version and command %#x, family %#x, %d bytes", command, family, len(tlvs))
	}
	hasCRC, err = h.decodeTLVs(b, tlvs)
	return h, hasCRC, err
}

// addrs splits source and destination address and their ports, of either family.
func addrs(b []byte) (src, dst netip.AddrPort) {
	n := (len(b) - 4) / 2
	s, _ := netip.AddrFromSlice(b[:n])
	d, _ := netip.AddrFromSlice(b[n : 2*n])
	return netip.AddrPortFrom(s.Unmap(), binary.BigEndian.Uint16(b[2*n:])),
		netip.AddrPortFrom(d.Unmap(), binary.BigEndian.Uint16(b[2*n+2:]))
}

// decodeTLVs works tlvs, the end of header, into h.
func (h *Header) decodeTLVs(header, tlvs []byte) (hasCRC bool, err error) {
	var seen [256]bool
	for len(tlvs) > 0 {
		if len(tlvs) < 3 || len(tlvs)-3 < int(binary.BigEndian.Uint16(tlvs[1:])) {
			return false, errors.New("a TLV runs over the end")
		}
		typ, value := tlvs[0], tlvs[3:3+int(binary.BigEndian.Uint16(tlvs[1:]))]
		tlvs = tlvs[3+len(value):]
		known := true
		switch typ {
		case typeAuthority:
			if len(value) > maxAuthority {
				return false, fmt.Errorf("authority of %d bytes", len(value))
			}
			h.Authority = string(value)
		case typeUniqueID:
			if len(value) > maxUniqueID {
				return false, fmt.Errorf("unique id of %d bytes", len(value))
			}
			h.UniqueID = string(value)
		case typeCRC32C:
			if len(value) != 4 {
				return false, fmt.Errorf("CRC32C of %d bytes", len(value))
			}
			want := binary.BigEndian.Uint32(value)
			copy(value, "\x00\x00\x00\x00")
			if got := crc32.Checksum(header, castagnoli); got != want {
				return false, fmt.Errorf("CRC32C is %08x, but says %08x", got, want)
			}
			hasCRC = true
		default:
			known = false
		}
		if known && seen[typ] {
			return false, fmt.Errorf("TLV %#x is there twice", typ)
		}
		seen[typ] = true
	}
	return hasCRC, nil
}
