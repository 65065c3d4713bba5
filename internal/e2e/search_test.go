//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A search looks for a word in whatever it is shown, also when the word is
// written in hex or in base64, at any of the three alignments that base64 has.
type search struct {
	needles map[string][]byte // by what they are
	longest int

	bytes int64          // searched so far
	found map[string]int // by needle
	kinds map[string]int // by what follows the word and a hyphen, up to the next
}

func newSearch(word string) *search {
	s := &search{needles: map[string][]byte{
		"plain": []byte(word),
		"hex":   []byte(hex.EncodeToString([]byte(word))),
		"HEX":   []byte(strings.ToUpper(hex.EncodeToString([]byte(word)))),
	}, found: map[string]int{}, kinds: map[string]int{}}
	for shift := range 3 {
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + word))
			// What mixes with the neighbours' bits is left out.
			text = text[(shift*8+5)/6 : (shift+len(word))*8/6]
			s.needles[fmt.Sprintf("%s+%d", name, shift)] = []byte(text)
		}
	}
	for _, n := range s.needles {
		s.longest = max(s.longest, len(n))
	}
	return s
}

// hits is how many times the word was found.
func (s *search) hits() int {
	n := 0
	for _, times := range s.found {
		n += times
	}
	return n
}

// in searches b.
func (s *search) in(b []byte) {
	s.bytes += int64(len(b))
	for name, needle := range s.needles {
		for rest := b; ; {
			at := bytes.Index(rest, needle)
			if at < 0 {
				break
			}
			rest = rest[at+len(needle):]
			s.found[name]++
			if name == "plain" && len(rest) > 1 && rest[0] == '-' {
				if kind, _, ok := strings.Cut(string(rest[1:min(len(rest), 32)]), "-"); ok {
					s.kinds[kind]++
				}
			}
		}
	}
}

// memory searches all that the process pid can read of its own memory: heap,
// stacks, globals and what is mapped. The process stands still meanwhile, so
// that nothing moves past the search.
func (s *search) memory(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("stop process %d: %v", pid, err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var access string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &access); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		// The kernel's own page for the clock cannot be read from outside.
		if access[0] != 'r' || strings.Contains(lines.Text(), "[vvar") || strings.Contains(lines.Text(), "[vsyscall]") {
			continue
		}
		if err := s.mapping(mem, from, to); err != nil {
			t.Fatalf("read %s: %v", lines.Text(), err)
		}
	}
}

// mapping searches one mapping, piece by piece, with an overlap as long as the
// longest needle, less one.
func (s *search) mapping(mem io.ReaderAt, from, to uint64) error {
	const piece = 4 << 20
	buf := make([]byte, piece)
	for at := from; at < to; {
		n, err := mem.ReadAt(buf[:min(piece, to-at)], int64(at))
		if n == 0 {
			return fmt.Errorf("at %x: %w", at, err)
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EIO) {
			return fmt.Errorf("at %x: %w", at, err)
		}
		s.in(buf[:n])
		at += uint64(n)
		if at < to && n > s.longest {
			back := uint64(s.longest - 1)
			at -= back
			s.bytes -= int64(back)
		}
	}
	return nil
}

func TestCipherSearch(t *testing.T) {
	const word = "postern-word-to-find"
	text := "left of it " + word + "-kind-17 right of it"
	for shift := range 3 {
		pad := strings.Repeat("x", shift)
		for name, written := range map[string]string{
			"plain":     pad + text,
			"hex":       hex.EncodeToString([]byte(pad + text)),
			"HEX":       strings.ToUpper(hex.EncodeToString([]byte(pad + text))),
			"base64":    base64.StdEncoding.EncodeToString([]byte(pad + text)),
			"base64url": base64.URLEncoding.EncodeToString([]byte(pad + text)),
		} {
			s := newSearch(word)
			s.in([]byte(written))
			if s.hits() == 0 {
				t.Errorf("%s, shifted by %d: not found in %q", name, shift, written)
			}
			if name == "plain" && s.kinds["kind"] != 1 {
				t.Errorf("kinds: got %v", s.kinds)
			}
		}
	}
	s := newSearch(word)
	s.in([]byte(text[:20] + "|" + text[20:]))
	if s.hits() > 0 {
		t.Errorf("found %v where it is not", s.found)
	}
}
