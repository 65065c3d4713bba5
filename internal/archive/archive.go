// Package archive packs files into one that can be verified, and unpacks it.
//
// An archive is a gzipped tar file: first manifest.json, then the files in the manifest's
// order. The manifest has each file's size and SHA-256, so that damage shows. Who can
// write an archive can write another manifest, too: against that there is the passphrase,
// under which all of it is encrypted and authenticated (age-encryption.org/v1).
package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
)

// workFactor is what a passphrase costs to try, as a logarithm: about a second. It is
// age's own; tests have less.
var workFactor = 18

// What may be wrong with an archive.
var (
	ErrForeign    = errors.New("it is no archive of Postern's")
	ErrDamaged    = errors.New("the archive is damaged")
	ErrNewer      = errors.New("the archive was written by a newer Postern")
	ErrEncrypted  = errors.New("the archive is encrypted, and there is no passphrase")
	ErrPassphrase = errors.New("the passphrase is wrong, or the archive is damaged")
)

const (
	format       = 1
	manifestName = "manifest.json"
	maxManifest  = 1 << 20  // bytes
	maxFile      = 64 << 30 // bytes; more than any registry has
	ageMagic     = "age-encryption.org/v1\n"
)

// A Manifest says what is in an archive.
type Manifest struct {
	Format  int       `json:"format"` // 1 is the first
	Created time.Time `json:"created"`
	Program string    `json:"program"` // version that wrote it
	Domain  string    `json:"domain"`  // of the deployment
	Schema  int64     `json:"schema"`  // of the registry
	Files   []File    `json:"files"`
}

// A File is one of an archive's.
type File struct {
	Name   string `json:"name"` // with slashes
	Mode   string `json:"mode"` // permissions, in octal
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// A Source is a file that is to be packed: Data, or, if that is nil, what is at Path.
type Source struct {
	Name string // in the archive, with slashes
	Mode fs.FileMode
	Data []byte
	Path string
}

func (s Source) open() (io.ReadCloser, error) {
	if s.Data != nil {
		return io.NopCloser(bytes.NewReader(s.Data)), nil
	}
	return os.Open(s.Path)
}

// Pack writes an archive of sources to w, encrypted under passphrase if that is not
// empty. It fills in m's Format and Files, and returns it.
func Pack(w io.Writer, m Manifest, sources []Source, passphrase string) (Manifest, error) {
	m.Format, m.Files = format, []File{}
	for _, s := range sources {
		f, err := s.file()
		if err != nil {
			return m, err
		}
		m.Files = append(m.Files, f)
	}
	closers := []io.Closer{}
	if passphrase != "" {
		to, err := age.NewScryptRecipient(passphrase)
		if err != nil {
			return m, err
		}
		to.SetWorkFactor(workFactor)
		sealed, err := age.Encrypt(w, to)
		if err != nil {
			return m, err
		}
		w, closers = sealed, append(closers, sealed)
	}
	zw := gzip.NewWriter(w)
	tw := tar.NewWriter(zw)
	closers = append(closers, zw, tw)
	if err := m.write(tw, sources); err != nil {
		return m, err
	}
	for i := len(closers) - 1; i >= 0; i-- {
		if err := closers[i].Close(); err != nil {
			return m, err
		}
	}
	return m, nil
}

// file returns what the manifest says of s.
func (s Source) file() (File, error) {
	if !fs.ValidPath(s.Name) || s.Name == "." || s.Name == manifestName {
		return File{}, fmt.Errorf("no file in an archive can be called %q", s.Name)
	}
	r, err := s.open()
	if err != nil {
		return File{}, err
	}
	defer r.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, r)
	if err != nil {
		return File{}, err
	}
	return File{
		Name: s.Name, Mode: fmt.Sprintf("%04o", s.Mode.Perm()), Size: n, SHA256: hex.EncodeToString(sum.Sum(nil)),
	}, nil
}

func (m Manifest) write(tw *tar.Writer, sources []Source) error {
	head, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if len(head) > maxManifest {
		return fmt.Errorf("%d files are more than an archive takes", len(sources))
	}
	if err := tw.WriteHeader(&tar.Header{Name: manifestName, Mode: 0o600, Size: int64(len(head)), ModTime: m.Created}); err != nil {
		return err
	}
	if _, err := tw.Write(head); err != nil {
		return err
	}
	for i, s := range sources {
		if err := s.write(tw, m.Files[i], m.Created); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

func (s Source) write(tw *tar.Writer, f File, at time.Time) error {
	r, err := s.open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := tw.WriteHeader(&tar.Header{Name: f.Name, Mode: int64(s.Mode.Perm()), Size: f.Size, ModTime: at}); err != nil {
		return err
	}
	_, err = io.Copy(tw, r) // more or less than f.Size is an error of tw
	return err
}

// Unpack reads an archive from r and writes its files below dir, each on disk when it
// returns. If dir is empty they go nowhere, and are verified all the same. What it wrote
// before it failed stays there, for the caller to remove; dir has nothing to lose.
//
// The error wraps one of those above, if it is not one of reading or writing.
func Unpack(r io.Reader, dir, passphrase string) (Manifest, error) {
	in := bufio.NewReader(r)
	begin, err := in.Peek(len(ageMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return Manifest{}, err
	}
	r = in
	if string(begin) == ageMagic {
		if passphrase == "" {
			return Manifest{}, ErrEncrypted
		}
		if r, err = decrypt(in, passphrase); err != nil {
			return Manifest{}, fmt.Errorf("%w: %w", ErrPassphrase, err)
		}
	}
	zr, err := gzip.NewReader(r)
	if err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	tr := tar.NewReader(zr)
	m, err := readManifest(tr)
	if err != nil {
		return m, err
	}
	for _, f := range m.Files {
		if err := f.unpack(tr, dir); err != nil {
			return m, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if _, err := tr.Next(); err != io.EOF {
		return m, fmt.Errorf("%w: something follows the last file", damage(err))
	}
	// To the very end, where the checksums are.
	if n, err := io.Copy(io.Discard, zr); err != nil || n > 0 && !padding(n) {
		return m, damage(err)
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n > 0 {
		return m, fmt.Errorf("%w: something follows its end (%v)", ErrDamaged, err)
	}
	return m, nil
}

// padding reports whether n bytes are the rest of a tar file's last block (POSIX pax,
// "blocks"): zeroes in units of 512.
func padding(n int64) bool { return n%512 == 0 && n < 1<<20 }

func decrypt(r io.Reader, passphrase string) (io.Reader, error) {
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, err
	}
	return age.Decrypt(r, id)
}

// damage returns ErrDamaged with what is wrong.
func damage(err error) error {
	if err == nil {
		return ErrDamaged
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

func readManifest(tr *tar.Reader) (m Manifest, err error) {
	h, err := tr.Next()
	if err != nil || h.Name != manifestName || h.Size > maxManifest {
		return m, fmt.Errorf("%w: it does not begin with a manifest (%v)", ErrForeign, err)
	}
	data, err := io.ReadAll(tr)
	if err != nil {
		return m, damage(err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, damage(err)
	}
	if m.Format > format {
		return m, fmt.Errorf("%w: its format is %d and this program knows %d", ErrNewer, m.Format, format)
	}
	seen := map[string]bool{manifestName: true}
	for _, f := range m.Files {
		if !fs.ValidPath(f.Name) || !filepath.IsLocal(filepath.FromSlash(f.Name)) || strings.ContainsAny(f.Name, "\\:") || seen[f.Name] {
			return m, fmt.Errorf("%w: a file is called %q", ErrDamaged, f.Name)
		}
		if f.Size < 0 || f.Size > maxFile {
			return m, fmt.Errorf("%w: %s has %d bytes", ErrDamaged, f.Name, f.Size)
		}
		seen[f.Name] = true
	}
	return m, nil
}

// unpack reads the next of tr, which is to be f.
func (f File) unpack(tr *tar.Reader, dir string) error {
	h, err := tr.Next()
	if err != nil {
		return damage(err)
	}
	if h.Name != f.Name || h.Typeflag != tar.TypeReg || h.Size != f.Size {
		return fmt.Errorf("%w: %q comes in its place", ErrDamaged, h.Name)
	}
	mode, err := strconv.ParseUint(f.Mode, 8, 9)
	if err != nil {
		return damage(err)
	}
	if dir == "" {
		return f.copy(io.Discard, tr)
	}
	file := filepath.Join(dir, filepath.FromSlash(f.Name))
	if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(path.Dir(f.Name))), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.copy(out, tr)
	if err == nil {
		err = errors.Join(out.Chmod(fs.FileMode(mode)&^0o022), out.Sync())
	}
	return errors.Join(err, out.Close())
}

// copy copies what is f's from r to w, and checks it.
func (f File) copy(w io.Writer, r io.Reader) error {
	sum := sha256.New()
	n, err := io.Copy(w, io.TeeReader(readErrors{r}, sum))
	var reading *readError
	switch {
	case errors.As(err, &reading):
		return damage(reading.err)
	case err != nil:
		return err
	case n != f.Size || hex.EncodeToString(sum.Sum(nil)) != f.SHA256:
		return fmt.Errorf("%w: its SHA-256 is not the manifest's", ErrDamaged)
	}
	return nil
}

// readErrors tells errors of reading an archive from those of writing what is in it.
type readErrors struct{ r io.Reader }

type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

func (r readErrors) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}
