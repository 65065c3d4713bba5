package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"postern"
	"postern/internal/connect"
)

// FileName is what a File is called in the data directory.
const FileName = "postern.yaml"

// A File is a node's configuration in YAML. The paths in it are relative to the
// folder that it lies in.
type File struct {
	// Name is the node's wish, for when it joins. If empty, the machine's.
	Name string `json:"name,omitempty"`

	// Keepalive is as in Config.
	Keepalive time.Duration `json:"keepalive,omitempty"`

	// Proxy is as in Config. It is read when the node starts, and not again.
	Proxy string `json:"proxy,omitempty"`

	// SignIn is as in Config.
	SignIn SignIn `json:"sign_in,omitzero"`

	// Authorities are as in Config.
	Authorities []Authority `json:"acme,omitempty"`

	// Services are all that the node publishes. To publish nothing, the list is
	// there and empty.
	Services []Service `json:"services"`
}

// A FileError is what is wrong with a File, and where.
type FileError struct {
	Path         string
	Line, Column int    // from 1; zero: the whole file
	Source       string // the lines around it, with a caret; empty if the whole file
	Err          error  // one line
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.Path, e.Line, e.Column, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// maxFile bounds a File, in bytes.
const maxFile = 4 << 20

// ReadFile reads and checks the File at path, and what it names on disk. What is
// wrong with its content is a *FileError.
func ReadFile(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	if info.Size() > maxFile {
		return File{}, &FileError{Path: path, Err: fmt.Errorf("it has %d bytes, more than the %d that are read", info.Size(), maxFile)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return File{}, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return File{}, err
	}
	f, tree, err := parseFile(data)
	if err == nil {
		for i := range f.Services {
			f.Services[i].resolve(dir)
		}
		if f.SignIn.Issuer != nil {
			f.SignIn.Issuer.resolve(dir)
		}
		for i := range f.Authorities {
			resolvePaths(dir, &f.Authorities[i].Root, &f.Authorities[i].HMACFile)
		}
		err = f.check()
	}
	if err != nil {
		return File{}, inFile(path, tree, err)
	}
	return f, nil
}

// parseFile reads the YAML of a File. Nothing in it is checked but its form.
func parseFile(data []byte) (f File, tree *ast.File, err error) {
	defer func() {
		// The decoder panics for some tags, such as a lone ! before a list's value.
		if r := recover(); r != nil {
			f, tree, err = File{}, nil, fmt.Errorf("it cannot be read as YAML (%v); is there a ! that starts no tag?", r)
		}
	}()
	if tree, err = parser.ParseBytes(data, 0); err != nil {
		return f, nil, err
	}
	if len(tree.Docs) > 1 {
		return f, nil, errors.New("it holds more than one document")
	}
	if err := yaml.UnmarshalWithOptions(data, &f, yaml.Strict()); err != nil {
		var placed yaml.Error
		if !errors.As(err, &placed) { // durations alone are not parsed by the decoder itself
			err = &postern.FieldError{Field: badDuration(tree), Err: errors.New("want a duration such as 25s here")}
		}
		return f, tree, err
	}
	// An editor may be seen between emptying a file and filling it.
	if f.Services == nil {
		return f, nil, errors.New("it has no services; `services: []` publishes nothing")
	}
	return f, tree, nil
}

// badDuration returns which of a File's durations is none.
func badDuration(tree *ast.File) string {
	for _, field := range []string{"keepalive", "sign_in.idle", "sign_in.max"} {
		path, err := yaml.PathString("$." + field)
		if err != nil {
			continue
		}
		var text string
		if path.Read(tree, &text) == nil {
			if _, err := time.ParseDuration(text); err != nil {
				return field
			}
		}
	}
	return ""
}

// check reports what is wrong with f.
func (f File) check() error {
	if f.Name != "" {
		if err := postern.CheckLabel("node", f.Name); err != nil {
			return &postern.FieldError{Field: "name", Err: err}
		}
	}
	if f.Keepalive != 0 {
		if err := checkKeepalive(f.Keepalive); err != nil {
			return &postern.FieldError{Field: "keepalive", Err: err}
		}
	}
	if _, err := connect.ParseProxy(f.Proxy); err != nil {
		return &postern.FieldError{Field: "proxy", Err: err}
	}
	if err := f.SignIn.check(); err != nil {
		return err
	}
	if _, err := readAuthorities(f.Authorities); err != nil {
		return err
	}
	if _, err := newPublished(f.Services, nil, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	return checkRequired(f.Services, f.SignIn.Issuer != nil)
}

func checkKeepalive(d time.Duration) error {
	if d < time.Second || d > math.MaxUint16*time.Second || d%time.Second != 0 {
		return fmt.Errorf("keepalive %v is not within 1 to %d whole seconds", d, math.MaxUint16)
	}
	return nil
}

// resolve makes the paths in s absolute, as seen from dir.
func (s *Service) resolve(dir string) {
	resolvePaths(dir, &s.CertFile, &s.KeyFile, &s.UpstreamCA)
	for i := range s.Hosts {
		resolvePaths(dir, &s.Hosts[i].CertFile, &s.Hosts[i].KeyFile)
	}
	if isFolder(s.Upstream) && !filepath.IsAbs(s.Upstream) {
		s.Upstream = filepath.Join(dir, s.Upstream)
	}
}

func resolvePaths(dir string, paths ...*string) {
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// inFile says where in the file at path, whose parsed content is tree, err lies.
func inFile(path string, tree *ast.File, err error) error {
	var at yaml.Error
	var field *postern.FieldError
	switch {
	case errors.As(err, &at):
	case errors.As(err, &field) && tree != nil:
		at = &yaml.SyntaxError{Message: err.Error(), Token: find(tree, field.Field)}
	default:
		return &FileError{Path: path, Err: err}
	}
	fe := &FileError{Path: path, Err: plainError{plain(at), err}}
	if t := at.GetToken(); t != nil {
		fe.Line, fe.Column = t.Position.Line, t.Position.Column
		_, fe.Source, _ = strings.Cut(yaml.FormatError(at, false, true), "\n")
	}
	return fe
}

// A plainError is an error in other words.
type plainError struct {
	text string
	error
}

func (e plainError) Error() string { return e.text }
func (e plainError) Unwrap() error { return e.error }

// plain returns the message of err, in one line and without Go's words.
func plain(err yaml.Error) string {
	var wrong *yaml.TypeError
	var odd *yaml.UnexpectedNodeTypeError
	switch {
	case errors.As(err, &wrong):
		return "want " + kindOf(wrong.DstType) + " here"
	case errors.As(err, &odd) && odd.Expected == ast.SequenceType:
		return "want a list here"
	case errors.As(err, &odd) && odd.Expected == ast.MappingType:
		return "want names with values here"
	case strings.Contains(err.GetMessage(), "'\t'"):
		return "a tab stands where YAML takes spaces only"
	}
	return strings.Join(strings.Fields(err.GetMessage()), " ")
}

// kindOf describes the values that t is made from, to a person.
func kindOf(t reflect.Type) string {
	if t == reflect.TypeFor[time.Duration]() {
		return "a duration such as 25s"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "names with values"
	}
	return "a text"
}

// find returns the first token of the value at field, or of the nearest value
// around it that is there.
func find(tree *ast.File, field string) *token.Token {
	for {
		if path, err := yaml.PathString("$." + field); err == nil {
			if value, err := path.FilterFile(tree); err == nil && value != nil {
				return first(value)
			}
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			return nil
		}
		field = field[:cut]
	}
}

// first returns the token that value starts with, as a person would say.
func first(value ast.Node) *token.Token {
	switch v := value.(type) {
	case *ast.MappingNode:
		if len(v.Values) > 0 {
			return first(v.Values[0])
		}
	case *ast.MappingValueNode:
		return v.Key.GetToken()
	}
	return value.GetToken()
}

const fileInterval = 500 * time.Millisecond // between looks at a File

// A stamp tells one version of a file from the next. The zero stamp is no file's.
type stamp struct {
	time time.Time
	size int64
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size()}
}

// followFile works the configuration file in whenever it changed, until ctx is
// done. It waits for a file to stay as it is from one look to the next: it may be
// in the middle of being written.
func (n *Node) followFile(ctx context.Context) error {
	if n.cfg.File == "" {
		return nil
	}
	tick := time.NewTicker(fileInterval)
	defer tick.Stop()
	taken, seen := n.fileStamp, n.fileStamp
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := stampOf(n.cfg.File)
		if now == seen && now != taken {
			taken = now
			n.takeFile()
		}
		seen = now
	}
}

// takeFile works the configuration file in, or says why not and goes on with
// what was there before.
func (n *Node) takeFile() {
	f, err := ReadFile(n.cfg.File)
	if err == nil { // the services may require what it says of signing in
		err = n.setSignIn(f.SignIn)
	}
	if err == nil {
		err = n.SetServices(f.Services)
	}
	n.fileErr.Store(&err)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			n.log.Error("the configuration file cannot be read; going on with what it said before", "err", err)
		} else {
			n.log.Error("the configuration file is of no use; going on with what it said before", "err", err)
		}
		return
	}
	n.setKeepalive(f.Keepalive)
	n.setAuthorities(f.Authorities)
	n.log.Info("configuration file worked in", "services", len(f.Services))
}

// setKeepalive has the tunnels kept open every d, or as often as is the default
// if d is zero.
func (n *Node) setKeepalive(d time.Duration) {
	if d == 0 {
		d = defaultKeepalive
	}
	if n.keepalive.Swap(int64(d)) != int64(d) {
		wake(n.changed)
	}
}
