package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"postern"
)

// A testHello is what a ClientHello is made of; zero fields are made up.
type testHello struct {
	typ         byte   // handshake message type
	suites      []byte // two each
	compression []byte
	extensions  []testExtension
	noExtension bool // not even an empty list
	tail        []byte
}

type testExtension struct {
	typ  uint16
	data []byte
}

// sni returns the server_name extension with these host names.
func sni(names ...string) testExtension {
	var list []testName
	for _, n := range names {
		list = append(list, testName{nameTypeHost, n})
	}
	return sniOf(list...)
}

type testName struct {
	typ  byte
	name string
}

func sniOf(names ...testName) testExtension {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, n := range names {
			b.AddUint8(n.typ)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(n.name)) })
		}
	})
	return testExtension{extensionServerName, b.BytesOrPanic()}
}

// message returns the handshake message.
func (h testHello) message() []byte {
	var b cryptobyte.Builder
	if h.typ == 0 {
		h.typ = typeClientHello
	}
	b.AddUint8(h.typ)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(0x0303)
		b.AddBytes(bytes.Repeat([]byte{0x5a}, 32))
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {})
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			if h.suites == nil {
				h.suites = []byte{0x0a, 0x0a, 0xc0, 0x2f} // the first is GREASE (RFC 8701)
			}
			b.AddBytes(h.suites)
		})
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {
			if h.compression == nil {
				h.compression = []byte{0}
			}
			b.AddBytes(h.compression)
		})
		if !h.noExtension {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, e := range h.extensions {
					b.AddUint16(e.typ)
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.data) })
				}
			})
		}
		b.AddBytes(h.tail)
	})
	return b.BytesOrPanic()
}

// bytes returns the hello in one record, or in several if cuts say where.
func (h testHello) bytes(cuts ...int) []byte { return records(h.message(), cuts...) }

// records puts a handshake message into records, cut at the given offsets.
func records(msg []byte, cuts ...int) []byte {
	var b []byte
	from := 0
	for _, to := range append(cuts, len(msg)) {
		b = append(b, recordHandshake, 3, 1, byte((to-from)>>8), byte(to-from))
		b = append(b, msg[from:to]...)
		from = to
	}
	return b
}

// alpn returns the ALPN extension with these protocols.
func alpn(protocols ...string) testExtension {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, p := range protocols {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(p)) })
		}
	})
	return testExtension{extensionALPN, b.BytesOrPanic()}
}

// offering returns a hello for a.example that offers these protocols.
func offering(protocols ...string) []byte {
	return testHello{extensions: []testExtension{sni("a.example"), alpn(protocols...)}}.bytes()
}

// helloFor returns a plain hello for a name.
func helloFor(name string) []byte { return testHello{extensions: []testExtension{sni(name)}}.bytes() }

// captured returns the hellos of real clients, by file name.
func captured(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/hellos/*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no hellos in testdata: %v", err)
	}
	hellos := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		hellos[strings.TrimSuffix(filepath.Base(f), ".bin")] = b
	}
	return hellos
}

// messageOf returns the handshake message inside whole records.
func messageOf(b []byte) (msg []byte) {
	for len(b) > 0 {
		n := recordLen + int(binary.BigEndian.Uint16(b[3:]))
		msg = append(msg, b[recordLen:n]...)
		b = b[n:]
	}
	return msg
}

// oracle is what crypto/tls reads in b, and whether b holds a hello that it accepts.
func oracle(b []byte) (h hello, ok bool) {
	stop := errors.New("seen")
	tls.Server(readConn{bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			h, ok = hello{i.ServerName, slices.Equal(i.SupportedProtos, []string{"acme-tls/1"}), slices.Equal(i.SupportedProtos, []string{postern.RelayProtocol})}, true
			return nil, stop
		},
	}).Handshake()
	return h, ok
}

// A readConn can be read and swallows what is written.
type readConn struct{ r io.Reader }

func (c readConn) Read(b []byte) (int, error)       { return c.r.Read(b) }
func (readConn) Write(b []byte) (int, error)        { return len(b), nil }
func (readConn) Close() error                       { return nil }
func (readConn) LocalAddr() net.Addr                { return nil }
func (readConn) RemoteAddr() net.Addr               { return nil }
func (readConn) SetDeadline(t time.Time) error      { return nil }
func (readConn) SetReadDeadline(t time.Time) error  { return nil }
func (readConn) SetWriteDeadline(t time.Time) error { return nil }

// capturedName is the server name in all captured hellos that have one.
const capturedName = "acme.apps.example.com"

func TestCapturedHellos(t *testing.T) {
	for name, b := range captured(t) {
		t.Run(name, func(t *testing.T) {
			want, _ := oracle(b)
			got, size, err := parseHello(b)
			if name == "openssl-nosni-1" {
				if err != (refusal{UnknownName, alertUnrecognizedName, "no server name"}) || want.name != "" {
					t.Fatalf("got %+v, %v; oracle %+v", got, err, want)
				}
				return
			}
			if got != want || got != (hello{name: capturedName, acme: name == "openssl-acme-1"}) || size != len(b) || err != nil {
				t.Fatalf("got %+v, %d, %v; want %+v, %d", got, size, err, want, len(b))
			}
			for i := range b {
				if got, _, err := parseHello(b[:i]); err != errMore {
					t.Fatalf("first %d bytes: got %+v, %v; want errMore", i, got, err)
				}
			}
			msg := messageOf(b)
			for i := 1; i < len(msg); i++ {
				cut := records(msg, i)
				got, size, err := parseHello(append(cut, "0-RTT"...))
				if got != want || size != len(cut) || err != nil {
					t.Fatalf("records cut at %d: got %+v, %d, %v; want %+v, %d", i, got, size, err, want, len(cut))
				}
				if i%16 == 0 { // the oracle is slow
					if got, ok := oracle(cut); got != want || !ok {
						t.Fatalf("records cut at %d: oracle %+v, %v; want %+v", i, got, ok, want)
					}
				}
				if _, _, err := parseHello(cut[:len(cut)-1]); err != errMore {
					t.Fatalf("records cut at %d, last byte missing: got %v, want errMore", i, err)
				}
			}
		})
	}
}

func cutsEvery(n, length int) (cuts []int) {
	for i := n; i < length; i += n {
		cuts = append(cuts, i)
	}
	return cuts
}

// helloCases is what strangers send, and what becomes of it: a server name, or
// a reason and an alert.
var helloCases = []struct {
	name   string
	in     []byte
	want   string
	acme   bool
	worse  bool // crypto/tls refuses it
	reason Reason
	alert  alert
	more   bool // as far as it goes it could become a hello
}{
	{name: "plain", in: helloFor("a.example"), want: "a.example"},
	{name: "upper case", in: helloFor("A.ExAmPlE"), want: "a.example"},
	{name: "A-label", in: helloFor("xn--bcher-kva.example"), want: "xn--bcher-kva.example"},
	{name: "253 characters", in: helloFor(strings.Repeat("a.", 126) + "a"), want: strings.Repeat("a.", 126) + "a"},
	{name: "GREASE extensions", in: testHello{extensions: []testExtension{
		{0x0a0a, nil}, sni("a.example"), {0xfafa, []byte{0}}}}.bytes(), want: "a.example"},
	{name: "name of another type before", in: testHello{extensions: []testExtension{
		sniOf(testName{7, "b.example"}, testName{0, "a.example"})}}.bytes(), want: "a.example"},
	{name: "name of another type after", in: testHello{extensions: []testExtension{
		sniOf(testName{0, "a.example"}, testName{255, "b.example"})}}.bytes(), want: "a.example"},
	{name: "in 64 records", in: testHello{extensions: []testExtension{sni("a.example"), {21, make([]byte, 1000)}}}.
		bytes(cutsEvery(1, 64)...), want: "a.example"},
	{name: "64 extensions", in: testHello{extensions: append(manyExtensions(63), sni("a.example"))}.bytes(), want: "a.example"},
	{name: "of 16 KiB", in: testHello{extensions: []testExtension{sni("a.example"), {21, make([]byte, maxHello-71)}}}.bytes(), want: "a.example"},
	{name: "acme-tls/1", in: offering("acme-tls/1"), want: "a.example", acme: true},
	{name: "acme-tls/1 first", in: offering("acme-tls/1", "http/1.1"), want: "a.example"},
	{name: "acme-tls/1 last", in: offering("h2", "http/1.1", "acme-tls/1"), want: "a.example"},
	{name: "acme-tls/1 twice", in: offering("acme-tls/1", "acme-tls/1"), want: "a.example"},
	{name: "acme-tls/10", in: offering("acme-tls/10"), want: "a.example"},
	{name: "ACME-TLS/1", in: offering("ACME-TLS/1"), want: "a.example"},
	{name: "h2", in: offering("h2"), want: "a.example"},
	{name: "acme-tls/1 and an empty protocol", in: offering("acme-tls/1", ""), want: "a.example", worse: true},
	{name: "no protocols", in: offering(), want: "a.example", worse: true},
	{name: "empty ALPN", in: testHello{extensions: []testExtension{sni("a.example"), {16, nil}}}.bytes(), want: "a.example", worse: true},
	{name: "bytes after the protocols", in: testHello{extensions: []testExtension{sni("a.example"),
		{16, append(alpn("acme-tls/1").data, 0)}}}.bytes(), want: "a.example", worse: true},
	{name: "acme-tls/1 without a name", in: testHello{extensions: []testExtension{alpn("acme-tls/1")}}.bytes(),
		reason: UnknownName, alert: alertUnrecognizedName},
	{name: "followed by other records", in: append(helloFor("a.example"), 20, 3, 3, 0, 1, 1, 23, 3, 3), want: "a.example"},

	{name: "of 16 KiB and a byte", in: testHello{extensions: []testExtension{sni("a.example"), {21, make([]byte, maxHello-70)}}}.bytes(maxRecord),
		reason: BadHello, alert: alertDecodeError},
	{name: "in 65 records", in: testHello{extensions: []testExtension{sni("a.example"), {21, make([]byte, 1000)}}}.
		bytes(cutsEvery(1, 65)...), reason: BadHello, alert: alertDecodeError},
	{name: "record of 2^14+1", in: []byte{22, 3, 1, 0x40, 1}, reason: BadHello, alert: alertRecordOverflow},
	{name: "record of 2^14", in: []byte{22, 3, 1, 0x40, 0}, more: true},
	{name: "65 extensions", in: testHello{extensions: append(manyExtensions(64), sni("a.example"))}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "extension twice", in: testHello{extensions: []testExtension{{21, nil}, sni("a.example"), {21, nil}}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "server_name twice", in: testHello{extensions: []testExtension{sni("a.example"), sni("b.example")}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "two host names", in: testHello{extensions: []testExtension{sni("a.example", "b.example")}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "empty host name", in: helloFor(""), reason: BadHello, alert: alertDecodeError},
	{name: "empty name list", in: testHello{extensions: []testExtension{sni()}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "empty server_name", in: testHello{extensions: []testExtension{{0, nil}}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "bytes after the name list", in: testHello{extensions: []testExtension{{0, append(sni("a.example").data, 0)}}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "bytes after the extensions", in: testHello{extensions: []testExtension{sni("a.example")}, tail: []byte{0}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "no suites", in: testHello{suites: []byte{}, extensions: []testExtension{sni("a.example")}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "half a suite", in: testHello{suites: []byte{1, 2, 3}, extensions: []testExtension{sni("a.example")}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "no compression", in: testHello{compression: []byte{}, extensions: []testExtension{sni("a.example")}}.bytes(), reason: BadHello, alert: alertDecodeError},
	{name: "empty record", in: []byte{22, 3, 1, 0, 0}, reason: BadHello, alert: alertUnexpectedMessage},
	{name: "empty record inside", in: append(firstRecordOf(10), 22, 3, 1, 0, 0), reason: BadHello, alert: alertUnexpectedMessage},
	{name: "another record inside", in: append(firstRecordOf(10), 20, 3, 1, 0, 1, 1), reason: BadHello, alert: alertUnexpectedMessage},
	{name: "an alert inside", in: append(firstRecordOf(10), 21, 3, 1, 0, 2, 1, 0), reason: BadHello, alert: alertUnexpectedMessage},
	{name: "another version inside", in: append(firstRecordOf(10), 22, 2, 1), reason: BadHello, alert: alertDecodeError},
	{name: "ends inside a record", in: records(append(testHello{extensions: []testExtension{sni("a.example")}}.message(), 1)), reason: BadHello, alert: alertUnexpectedMessage},
	{name: "server hello", in: testHello{typ: 2, extensions: []testExtension{sni("a.example")}}.bytes(), reason: BadHello, alert: alertUnexpectedMessage},
	{name: "SSL 2.0", in: []byte{0x80, 0x2e, 1, 0, 2}, reason: BadHello, alert: alertProtocolVersion},

	{name: "no server name", in: testHello{}.bytes(), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "no extensions", in: testHello{noExtension: true}.bytes(), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "only names of other types", in: testHello{extensions: []testExtension{sniOf(testName{1, "a.example"})}}.bytes(), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "trailing dot", in: helloFor("a.example."), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "IPv4 address", in: helloFor("192.0.2.1"), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "IPv6 address", in: helloFor("2001:db8::1"), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "underscore", in: helloFor("a_b.example"), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "U-label", in: helloFor("bücher.example"), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "Kelvin sign, which Unicode folds to k", in: helloFor("\u212a.example"), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "empty label", in: helloFor("a..example"), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "NUL", in: helloFor("a.example\x00.b.example"), reason: UnknownName, alert: alertUnrecognizedName},
	{name: "254 characters", in: helloFor(strings.Repeat("a.", 126) + "aa"), reason: UnknownName, alert: alertUnrecognizedName},

	{name: "HTTP", in: []byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), reason: PlainHTTP},
	{name: "HTTP/2 with prior knowledge", in: []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), reason: PlainHTTP},
	{name: "beginning of a method", in: []byte("OPTION"), more: true},
	{name: "no method", in: []byte("GETA / HTTP/1.1"), reason: Garbage},
	{name: "SSH", in: []byte("SSH-2.0-OpenSSH_9.2\r\n"), reason: Garbage},
	{name: "PROXY v1", in: []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"), reason: Garbage},
	{name: "PROXY v2", in: []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), reason: Garbage},
	{name: "alert record first", in: []byte{21, 3, 1, 0, 2, 2, 40}, reason: Garbage},
	{name: "record of SSL 2", in: []byte{22, 2, 0, 0, 5}, reason: Garbage},
	{name: "zeros", in: make([]byte, 100), reason: Garbage},
}

func manyExtensions(n int) (es []testExtension) {
	for i := range n {
		es = append(es, testExtension{typ: uint16(1000 + i)})
	}
	return es
}

// firstRecordOf is the first record of a hello that goes on in another.
func firstRecordOf(n int) []byte {
	return testHello{extensions: []testExtension{sni("a.example")}}.bytes(n)[:recordLen+n]
}

func TestParseHello(t *testing.T) {
	for _, tt := range helloCases {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := parseHello(tt.in)
			if got.name != tt.want || got.acme != tt.acme {
				t.Errorf("got %+v, want %q, %v", got, tt.want, tt.acme)
			}
			var r refusal
			switch {
			case tt.more:
				if err != errMore {
					t.Errorf("got %v, want errMore", err)
				}
			case tt.want != "":
				if err != nil {
					t.Errorf("got %v", err)
				}
			case !errors.As(err, &r) || r.reason != tt.reason || r.alert != tt.alert:
				t.Errorf("got %v, alert %d; want %v, alert %d", err, r.alert, tt.reason, tt.alert)
			}
			// However it is cut into segments, it comes to the same, and never
			// to anything else before.
			for i := range tt.in {
				_, _, early := parseHello(tt.in[:i])
				if early != errMore && !sameRefusal(early, err) && tt.want == "" {
					t.Fatalf("first %d bytes: got %v, want errMore or %v", i, early, err)
				}
				if tt.want != "" && early != errMore && early != nil {
					t.Fatalf("first %d bytes: got %v", i, early)
				}
			}
			if tt.want != "" {
				if h, ok := oracle(tt.in); ok == tt.worse || ok && (lower(h.name) != tt.want || h.acme != tt.acme) {
					t.Errorf("oracle: got %+v, %v; want %q, %v", h, ok, tt.want, tt.acme)
				}
			}
		})
	}
}

func sameRefusal(a, b error) bool {
	var r, s refusal
	return errors.As(a, &r) && errors.As(b, &s) && r.reason == s.reason && r.alert == s.alert
}

// FuzzParseHello: what is accepted, crypto/tls reads the same in or refuses;
// no beginning of it is judged otherwise; and what follows changes nothing.
func FuzzParseHello(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b, uint16(7))
	}
	for _, tt := range helloCases {
		f.Add(tt.in, uint16(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		if len(b) > 2*maxRaw {
			return
		}
		got, size, err := parseHello(b)
		i := int(cut) % (len(b) + 1)
		early, _, earlyErr := parseHello(b[:i])
		if err != nil {
			if got != (hello{}) {
				t.Fatalf("got %+v, %d with %v", got, size, err)
			}
			if earlyErr == nil {
				t.Fatalf("first %d bytes: %+v; all: %v", i, early, err)
			}
			if len(b) > maxRaw && err == errMore {
				t.Fatalf("%d bytes and no decision", len(b))
			}
			return
		}
		switch {
		case i >= size && (earlyErr != nil || early != got):
			t.Fatalf("first %d bytes of %d: got %+v, %v; want %+v", i, size, early, earlyErr, got)
		case i < size && earlyErr != errMore:
			t.Fatalf("first %d bytes of %d: got %v, want errMore", i, size, earlyErr)
		}
		if more, _, err := parseHello(append(b[:size:size], "more"...)); err != nil || more != got {
			t.Fatalf("with more behind: got %+v, %v; want %+v", more, err, got)
		}
		if want, ok := oracle(b); ok && (lower(want.name) != got.name || want.acme != got.acme) {
			t.Fatalf("got %+v, crypto/tls reads %+v", got, want)
		}
	})
}

func BenchmarkParseHello(b *testing.B) {
	hello := captured(b)["chromium156-1"]
	b.Run("parseHello", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(hello)))
		for b.Loop() {
			if _, _, err := parseHello(hello); err != nil {
				b.Fatal(err)
			}
		}
	})
	// The baseline: a handshake that stops once it has seen the hello.
	b.Run("crypto-tls", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(hello)))
		for b.Loop() {
			if _, ok := oracle(hello); !ok {
				b.Fatal("refused")
			}
		}
	})
}
