package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	workFactor = 10
	goleak.VerifyTestMain(m)
}

var sources = []Source{
	{Name: "coordinator/postern.json", Mode: 0o600, Data: []byte("{}")},
	{Name: "coordinator/authority/root.key", Mode: 0o600, Data: bytes.Repeat([]byte("secret "), 100)},
	{Name: "coordinator/authority/ca.pem", Mode: 0o666, Data: []byte("for all to see")},
	{Name: "coordinator/empty", Mode: 0o600, Data: []byte{}},
}

func pack(t *testing.T, passphrase string, sources ...Source) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Pack(&b, Manifest{Created: time.Unix(1_800_000_000, 0).UTC(), Domain: "apps.example.com"}, sources, passphrase); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is packed comes out again, whole, with and without a passphrase.
func TestRoundTrip(t *testing.T) {
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789"), 100_000), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, passphrase := range []string{"", "correct horse"} {
		data := pack(t, passphrase, append(slices.Clone(sources), Source{Name: "coordinator/postern.db", Mode: 0o600, Path: big})...)
		if sealed := passphrase != ""; sealed != bytes.HasPrefix(data, []byte(ageMagic)) {
			t.Errorf("sealed with %q: %v", passphrase, !sealed)
		}
		dir := t.TempDir()
		m, err := Unpack(bytes.NewReader(data), dir, passphrase)
		if err != nil {
			t.Fatal(err)
		}
		if m.Format != 1 || m.Domain != "apps.example.com" || len(m.Files) != 5 {
			t.Errorf("got manifest %+v", m)
		}
		for _, s := range sources {
			path := filepath.Join(dir, s.Name)
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, s.Data) {
				t.Errorf("%s: got %q, %v", s.Name, got, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != s.Mode&^0o022 {
				t.Errorf("%s: mode %v, %v", s.Name, info.Mode(), err)
			}
		}
		if got, err := os.ReadFile(filepath.Join(dir, "coordinator/postern.db")); err != nil || len(got) != 1_000_000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, err := Unpack(bytes.NewReader(data), "", passphrase); err != nil {
			t.Errorf("verified: %v", err)
		}
	}
}

// An archive that ends anywhere before its end is damaged, and so is one with any byte
// changed or with something behind it, encrypted or not.
func TestDamage(t *testing.T) {
	data := pack(t, "", sources...)
	whole, err := Unpack(bytes.NewReader(data), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if _, err := Unpack(bytes.NewReader(data[:n]), "", ""); !isWrong(err) {
			t.Fatalf("%d of %d bytes: got %v", n, len(data), err)
		}
		bad := slices.Clone(data)
		bad[n] ^= 0x20
		m, err := Unpack(bytes.NewReader(bad), "", "")
		// Some bits mean nothing (RFC 1951, section 3.2.3; RFC 1952, section 2.3.1).
		if err == nil && !reflect.DeepEqual(m, whole) {
			t.Fatalf("byte %d changed: it was taken, with %+v", n, m)
		}
	}
	if _, err := Unpack(bytes.NewReader(append(slices.Clone(data), "more"...)), "", ""); !isWrong(err) {
		t.Errorf("something behind: got %v", err)
	}
	sealed := pack(t, "correct horse", sources...)
	for _, n := range []int{len(sealed) - 1, len(sealed) / 2} {
		if _, err := Unpack(bytes.NewReader(sealed[:n]), "", "correct horse"); !isWrong(err) {
			t.Errorf("sealed, %d of %d bytes: got %v", n, len(sealed), err)
		}
		bad := slices.Clone(sealed)
		bad[n] ^= 1
		if _, err := Unpack(bytes.NewReader(bad), "", "correct horse"); !isWrong(err) {
			t.Errorf("sealed, byte %d changed: got %v", n, err)
		}
	}
	if _, err := Unpack(bytes.NewReader(sealed), "", ""); !errors.Is(err, ErrEncrypted) {
		t.Errorf("no passphrase: got %v", err)
	}
	if _, err := Unpack(bytes.NewReader(sealed), "", "battery staple"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("another passphrase: got %v", err)
	}
}

func isWrong(err error) bool {
	return errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeign) || errors.Is(err, ErrPassphrase)
}

// rewrite returns data with its manifest and files as change has them.
func rewrite(t *testing.T, data []byte, change func(m *Manifest, files map[string]string)) []byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	var order []string
	files := map[string]string{}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		body, rerr := io.ReadAll(tr)
		if err != nil || rerr != nil {
			t.Fatal(err, rerr)
		}
		if h.Name == manifestName {
			if err := json.Unmarshal(body, &m); err != nil {
				t.Fatal(err)
			}
			continue
		}
		files[h.Name], order = string(body), append(order, h.Name)
	}
	change(&m, files)
	head, _ := json.Marshal(m)
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	put := func(name, body string) {
		tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(body))})
		io.WriteString(tw, body)
	}
	put(manifestName, string(head))
	for _, name := range append(order, slices.Sorted(maps.Keys(files))...) {
		if body, ok := files[name]; ok {
			put(name, body)
			delete(files, name)
		}
	}
	tw.Close()
	zw.Close()
	return b.Bytes()
}

// Archives that somebody made by hand: nothing is written outside dir, and what the
// manifest does not say is not taken.
func TestForged(t *testing.T) {
	data := pack(t, "", sources...)
	for _, tt := range []struct {
		name   string
		change func(m *Manifest, files map[string]string)
		want   error
	}{
		{"a newer format", func(m *Manifest, _ map[string]string) { m.Format = 99 }, ErrNewer},
		{"another content", func(_ *Manifest, f map[string]string) { f["coordinator/postern.json"] = "[]" }, ErrDamaged},
		{"another size", func(_ *Manifest, f map[string]string) { f["coordinator/postern.json"] = "{ }" }, ErrDamaged},
		{"a file less", func(_ *Manifest, f map[string]string) { delete(f, "coordinator/empty") }, ErrDamaged},
		{"a file more", func(_ *Manifest, f map[string]string) { f["more"] = "x" }, ErrDamaged},
		{"up and out", func(m *Manifest, _ map[string]string) { m.Files[0].Name = "../evil" }, ErrDamaged},
		{"absolute", func(m *Manifest, _ map[string]string) { m.Files[0].Name = "/evil" }, ErrDamaged},
		{"as Windows has it", func(m *Manifest, _ map[string]string) { m.Files[0].Name = `..\evil` }, ErrDamaged},
		{"twice", func(m *Manifest, _ map[string]string) { m.Files[1] = m.Files[0] }, ErrDamaged},
		{"less than nothing", func(m *Manifest, _ map[string]string) { m.Files[0].Size = -1 }, ErrDamaged},
		{"no permissions", func(m *Manifest, _ map[string]string) { m.Files[0].Mode = "rwx" }, ErrDamaged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			if _, err := Unpack(bytes.NewReader(rewrite(t, data, tt.change)), dir, ""); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "..", "*vil*")); left != nil {
				t.Errorf("left outside: %v", left)
			}
		})
	}
	if _, err := Unpack(strings.NewReader("postern backup"), "", ""); !errors.Is(err, ErrForeign) {
		t.Errorf("a letter: got %v", err)
	}
}

func TestPackRefuses(t *testing.T) {
	for _, name := range []string{"", ".", "../x", "/x", manifestName} {
		if _, err := Pack(io.Discard, Manifest{}, []Source{{Name: name, Data: []byte{}}}, ""); err == nil {
			t.Errorf("a file called %q was taken", name)
		}
	}
}

// An archive is read from wherever it comes: whatever is in it, there is no panic and no
// file outside.
func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	if _, err := Pack(&b, Manifest{}, sources, ""); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(ageMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Unpack(bytes.NewReader(data), "", "")
		if err == nil && m.Format > format {
			t.Errorf("taken: %+v", m)
		}
	})
}
