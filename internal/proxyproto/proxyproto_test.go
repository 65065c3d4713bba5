package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	pires "github.com/pires/go-proxyproto"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var headers = []struct {
	name string
	h    Header
	size int
}{
	{"local", Header{Local: true}, 16 + 7},
	{"local with id", Header{Local: true, UniqueID: "7"}, 16 + 4 + 7},
	{"IPv4", Header{
		Src: netip.MustParseAddrPort("192.0.2.1:40000"), Dst: netip.MustParseAddrPort("198.51.100.2:443"),
		Authority: "acme.apps.example.com", UniqueID: "0123456789abcdef",
	}, 16 + 12 + 24 + 19 + 7},
	{"IPv6", Header{
		Src: netip.MustParseAddrPort("[2001:db8::1]:1"), Dst: netip.MustParseAddrPort("[2001:db8::2]:65535"),
		Authority: "acme.apps.example.com", UniqueID: "0123456789abcdef",
	}, 16 + 36 + 24 + 19 + 7},
	{"no TLVs but the CRC", Header{
		Src: netip.MustParseAddrPort("192.0.2.1:40000"), Dst: netip.MustParseAddrPort("198.51.100.2:443"),
	}, 16 + 12 + 7},
	{"longest", Header{
		Src: netip.MustParseAddrPort("[2001:db8::1]:1"), Dst: netip.MustParseAddrPort("[2001:db8::2]:65535"),
		Authority: strings.Repeat("a", 255), UniqueID: strings.Repeat("b", 128),
	}, 16 + 36 + 258 + 131 + 7},
}

func TestRoundTrip(t *testing.T) {
	for _, tt := range headers {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.h.AppendBinary([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			b, ok := bytes.CutPrefix(b, []byte("before"))
			if !ok || len(b) != tt.size || len(b) > MaxSize {
				t.Fatalf("got %d bytes %q, want %d", len(b), b, tt.size)
			}
			r := bytes.NewReader(append(b, "after"...))
			got, err := Read(iotest.OneByteReader(r))
			if err != nil || got != tt.h {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.h)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "after" {
				t.Errorf("left %q, want %q", rest, "after")
			}
		})
	}
}

func TestAppendBinaryNormalises(t *testing.T) {
	h := Header{
		Src: netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"),
		Dst: netip.MustParseAddrPort("192.0.2.2:2"),
	}
	b, err := h.AppendBinary(nil)
	if err != nil || b[13] != familyTCP4 {
		t.Fatalf("got %x, %v; want family TCP4", b, err)
	}
	h.Src, h.Dst = netip.MustParseAddrPort("[fe80::1%eth0]:1"), netip.MustParseAddrPort("[fe80::2%eth0]:2")
	if b, err = h.AppendBinary(nil); err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(b))
	if want := netip.MustParseAddrPort("[fe80::1]:1"); err != nil || got.Src != want {
		t.Errorf("got %v, %v; want %v", got.Src, err, want)
	}
}

func TestAppendBinaryRefuses(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1")
	for _, tt := range []struct {
		name string
		h    Header
	}{
		{"zero", Header{}},
		{"no destination", Header{Src: v4}},
		{"two families", Header{Src: v4, Dst: v6}},
		{"local with addresses", Header{Local: true, Src: v4, Dst: v4}},
		{"authority too long", Header{Src: v4, Dst: v4, Authority: strings.Repeat("a", 256)}},
		{"unique id too long", Header{Src: v4, Dst: v4, UniqueID: strings.Repeat("a", 129)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if b, err := tt.h.AppendBinary(nil); !errors.Is(err, ErrHeader) {
				t.Errorf("got %x, %v; want ErrHeader", b, err)
			}
		})
	}
}

// raw makes a header of parts, with the length filled in and, if crc, a right CRC32C TLV at the end.
func raw(command, family byte, crc bool, parts ...string) []byte {
	b := append([]byte(signature), command, family, 0, 0)
	b = append(b, strings.Join(parts, "")...)
	if crc {
		b = append(b, typeCRC32C, 0, 4, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-fixedSize))
	if crc {
		binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, castagnoli))
	}
	return b
}

var (
	addrs4 = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x01\xbb"
	addrs6 = strings.Repeat("\x20\x01\x0d\xb8"+strings.Repeat("\x00", 12), 2) + "\x00\x01\x01\xbb"
	mapped = strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x01"
)

func TestReadStrange(t *testing.T) {
	for _, tt := range []struct {
		name    string
		b       []byte
		ok      bool // for Read
		foreign bool // for ReadForeign
	}{
		{"unknown TLV", raw(0x21, 0x11, true, addrs4, "\xee\x00\x03abc"), true, true},
		{"unknown TLV twice", raw(0x21, 0x11, true, addrs4, "\xee\x00\x00\xee\x00\x00"), true, true},
		{"local with addresses", raw(0x20, 0x21, true, addrs6), true, true},
		{"both mapped", raw(0x21, 0x21, true, mapped, mapped, "\x00\x01\x00\x02"), true, true},
		{"no CRC", raw(0x21, 0x11, false, addrs4), false, true},
		{"local without CRC", raw(0x20, 0x00, false), false, true},
		{"one mapped", raw(0x21, 0x21, true, mapped, addrs6[:16], "\x00\x01\x00\x02"), false, false},
		{"wrong CRC", raw(0x21, 0x11, false, addrs4, "\x03\x00\x04\x01\x02\x03\x04"), false, false},
		{"short CRC", raw(0x21, 0x11, false, addrs4, "\x03\x00\x03\x01\x02\x03"), false, false},
		{"CRC twice", raw(0x21, 0x11, true, addrs4, "\x03\x00\x04\x00\x00\x00\x00"), false, false},
		{"authority twice", raw(0x21, 0x11, true, addrs4, "\x02\x00\x01a\x02\x00\x01b"), false, false},
		{"unique id too long", raw(0x21, 0x11, true, addrs4, "\x05\x00\x81", strings.Repeat("a", 129)), false, false},
		{"TLV over the end", raw(0x21, 0x11, false, addrs4, "\x02\x00\x05abc"), false, false},
		{"TLV of two bytes", raw(0x21, 0x11, false, addrs4, "\x02\x00"), false, false},
		{"addresses short", raw(0x21, 0x21, true, addrs4), false, false},
		{"UDP", raw(0x21, 0x12, true, addrs4), false, false},
		{"unix", raw(0x21, 0x31, true, strings.Repeat("\x00", 216)), false, false},
		{"unspecified", raw(0x21, 0x00, true), false, false},
		{"version 1", []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"), false, false},
		{"version 3", raw(0x31, 0x11, true, addrs4), false, false},
		{"command 2", raw(0x22, 0x11, true, addrs4), false, false},
		{"537 bytes", raw(0x21, 0x11, true, addrs4, "\xee\x01\xf3", strings.Repeat("x", 499)), false, false},
		{"536 bytes", raw(0x21, 0x11, true, addrs4, "\xee\x01\xf2", strings.Repeat("x", 498)), true, true},
		{"cut", raw(0x21, 0x11, true, addrs4)[:20], false, false},
		{"empty", nil, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := Read(bytes.NewReader(tt.b))
			if tt.ok != (err == nil) || !tt.ok && !errors.Is(err, ErrHeader) {
				t.Errorf("Read: got %+v, %v; want ok %v", h, err, tt.ok)
			}
			h, err = ReadForeign(bytes.NewReader(tt.b))
			if tt.foreign != (err == nil) || !tt.foreign && !errors.Is(err, ErrHeader) {
				t.Errorf("ReadForeign: got %+v, %v; want ok %v", h, err, tt.foreign)
			}
		})
	}
}

// TestOneBitWrong flips every bit of a header: the CRC32C finds each.
func TestOneBitWrong(t *testing.T) {
	b, err := headers[2].h.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if h, err := Read(bytes.NewReader(b)); err == nil {
			t.Errorf("bit %d: got %+v", i, h)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// FuzzRead: Read consumes what the header's length says, and what it accepts
// it can write, so that it and another implementation read the same again.
func FuzzRead(f *testing.F) {
	for _, tt := range headers {
		b, _ := tt.h.AppendBinary(nil)
		f.Add(b)
		f.Add(append(b, "GET / HTTP/1.1\r\n"...))
	}
	f.Add(raw(0x21, 0x11, true, addrs4, "\xee\x00\x03abc"))
	f.Add(raw(0x20, 0x21, true, addrs6))
	f.Add(raw(0x21, 0x21, true, mapped, mapped, "\x00\x01\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		r := bytes.NewReader(b)
		// Most mutations have a wrong CRC32C; those without one go deeper.
		h, err := ReadForeign(r)
		if strict, strictErr := Read(bytes.NewReader(b)); strictErr == nil && (err != nil || strict != h) {
			t.Fatalf("Read: %+v; ReadForeign: %+v, %v", strict, h, err)
		}
		if !bytes.Equal(b, in) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if !errors.Is(err, ErrHeader) {
				t.Fatalf("got %v, want ErrHeader", err)
			}
			return
		}
		size := fixedSize + int(binary.BigEndian.Uint16(b[14:]))
		if got := len(b) - r.Len(); got != size {
			t.Fatalf("consumed %d bytes, want %d", got, size)
		}
		again, err := h.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		if got, err := Read(bytes.NewReader(again)); err != nil || got != h {
			t.Fatalf("got %+v, %v; want %+v", got, err, h)
		}
		sameAsOracle(t, again, h)
	})
}

// sameAsOracle reads b with another implementation and compares with h.
func sameAsOracle(t *testing.T, b []byte, h Header) {
	t.Helper()
	got, err := pires.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		t.Fatalf("oracle: %v", err)
	}
	if got.Command.IsLocal() != h.Local {
		t.Errorf("oracle: local is %v, want %v", got.Command.IsLocal(), h.Local)
	}
	if src, dst, ok := got.TCPAddrs(); ok && (unmap(src) != h.Src || unmap(dst) != h.Dst) || ok == h.Local {
		t.Errorf("oracle: got %v, %v, %v; want %v, %v", src, dst, ok, h.Src, h.Dst)
	}
	tlvs, err := got.TLVs()
	if err != nil {
		t.Fatalf("oracle: %v", err)
	}
	values := map[pires.PP2Type]string{}
	for _, tlv := range tlvs {
		values[tlv.Type] = string(tlv.Value)
	}
	if a, id := values[pires.PP2_TYPE_AUTHORITY], values[pires.PP2_TYPE_UNIQUE_ID]; a != h.Authority || id != h.UniqueID {
		t.Errorf("oracle: got authority %q and id %q, want %q and %q", a, id, h.Authority, h.UniqueID)
	}
}

func unmap(a *net.TCPAddr) netip.AddrPort {
	return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), uint16(a.Port))
}

func TestOracle(t *testing.T) {
	for _, tt := range headers {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.h.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			sameAsOracle(t, b, tt.h)
		})
	}
}

// TestFromOracle reads what another implementation wrote.
func TestFromOracle(t *testing.T) {
	src, dst := netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("192.0.2.2:443")
	header := pires.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(src), net.TCPAddrFromAddrPort(dst))
	if err := header.SetTLVs([]pires.TLV{{Type: pires.PP2_TYPE_AUTHORITY, Value: []byte("a.example")}}); err != nil {
		t.Fatal(err)
	}
	b, err := header.Format()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadForeign(bytes.NewReader(b))
	if want := (Header{Src: src, Dst: dst, Authority: "a.example"}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}
