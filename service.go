package postern

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Publication is the whole of what a node publishes; what is missing from it
// is published no longer.
type Publication struct {
	Services []Service `json:"services"`
}

// Published is the answer to a Publication.
type Published struct {
	Routes []Route `json:"routes"` // of this node, all of them
}

// A Service is what a node publishes, as the coordinator needs to know it.
type Service struct {
	Name        string  `json:"name"`                  // label; DefaultService for the tenant's own name
	Title       string  `json:"title,omitempty"`       // for people; empty: the name
	Description string  `json:"description,omitempty"` // a sentence for people; empty: none
	Icon        string  `json:"icon,omitempty"`        // one of Icons; empty: none
	Entries     []Entry `json:"entries,omitempty"`     // in the order to show them; empty: the service alone

	Access                 // who may open it
	Exceptions []Exception `json:"exceptions,omitempty"` // parts that others may open
	Require    string      `json:"require,omitempty"`    // RequireXxx; empty: signing in at the portal is enough
}

// An Entry is a place inside a service that people look for: a company, a year,
// a report.
type Entry struct {
	Name  string `json:"name"`            // label, unique in its service
	Title string `json:"title,omitempty"` // for people; empty: the name
	Path  string `json:"path"`            // on the service's own host: /PATH, with query and fragment
	Note  string `json:"note,omitempty"`  // a few words beside the title; empty: none
}

// Limits of what a node publishes. Texts are counted in characters.
const (
	MaxServices    = 64      // of a node
	MaxEntries     = 500     // of a service
	MaxPublication = 1 << 20 // bytes in JSON
	MaxTitle       = 100
	MaxDescription = 500
	MaxNote        = 200
	MaxPath        = 1024 // bytes
)

// Icons are the pictures that a service may have, named for what they show.
var Icons = []string{
	"archive", "book", "building", "calendar", "cart", "chart", "chat", "clock", "cloud", "code",
	"database", "document", "folder", "globe", "image", "key", "mail", "money", "people",
	"phone", "printer", "server", "settings", "tools", "truck", "video", "window",
}

// A FieldError is what is wrong with one field of something structured.
type FieldError struct {
	Field string // its path in JSON, such as "entries[3].path"; empty: the whole
	Err   error  // names its operand, and not the field's path
}

func (e *FieldError) Error() string { return e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// Check reports the first thing that is wrong with p, as a *FieldError.
func (p Publication) Check() error {
	if n := len(p.Services); n > MaxServices {
		return fieldError(fmt.Sprintf("services[%d]", MaxServices), "%d services are more than the %d that a node may publish", n, MaxServices)
	}
	seen := unique{}
	for i, s := range p.Services {
		at := fmt.Sprintf("services[%d]", i)
		if err := s.check(at + "."); err != nil {
			return err
		}
		if err := seen.add("service", s.Name); err != nil {
			return &FieldError{Field: at + ".name", Err: err}
		}
	}
	if data, err := json.Marshal(p); err != nil || len(data) > MaxPublication {
		return fieldError("services", "what is published has %d bytes, more than the %d that a node may publish", len(data), MaxPublication)
	}
	return nil
}

// check reports what is wrong with s; within stands before its fields' paths.
func (s Service) check(within string) error {
	if err := CheckLabel("service", s.Name); err != nil {
		return &FieldError{Field: within + "name", Err: err}
	}
	if err := checkLine(s.Title, MaxTitle); err != nil {
		return fieldError(within+"title", "the title of service %q %w", s.Name, err)
	}
	if err := checkLine(s.Description, MaxDescription); err != nil {
		return fieldError(within+"description", "the description of service %q %w", s.Name, err)
	}
	if s.Icon != "" && !slices.Contains(Icons, s.Icon) {
		return fieldError(within+"icon", "there is no icon %q; choose one of %s", s.Icon, strings.Join(Icons, ", "))
	}
	if n := len(s.Entries); n > MaxEntries {
		return fieldError(fmt.Sprintf("%sentries[%d]", within, MaxEntries), "service %q has %d entries, more than the %d that there may be", s.Name, n, MaxEntries)
	}
	seen := unique{}
	for i, e := range s.Entries {
		at := fmt.Sprintf("%sentries[%d].", within, i)
		if err := e.check(at); err != nil {
			return err
		}
		if err := seen.add("entry", e.Name); err != nil {
			return &FieldError{Field: at + "name", Err: err}
		}
	}
	return s.checkAccess(within)
}

func (s Service) checkAccess(within string) error {
	if err := s.Access.check(within); err != nil {
		return err
	}
	if n := len(s.Exceptions); n > MaxExceptions {
		return fieldError(fmt.Sprintf("%sexceptions[%d]", within, MaxExceptions), "service %q has %d exceptions, more than the %d that there may be", s.Name, n, MaxExceptions)
	}
	seen := unique{}
	for i, e := range s.Exceptions {
		at := fmt.Sprintf("%sexceptions[%d].", within, i)
		if err := e.check(at); err != nil {
			return err
		}
		if err := seen.add("exception", e.Path); err != nil {
			return &FieldError{Field: at + "path", Err: err}
		}
	}
	switch s.Require {
	case "", RequireIssuer, RequirePasskey:
		return nil
	}
	return fieldError(within+"require", "nothing called %q can be required; choose one of %s and %s", s.Require, RequireIssuer, RequirePasskey)
}

func (e Entry) check(within string) error {
	if err := CheckLabel("entry", e.Name); err != nil {
		return &FieldError{Field: within + "name", Err: err}
	}
	if err := checkLine(e.Title, MaxTitle); err != nil {
		return fieldError(within+"title", "the title of entry %q %w", e.Name, err)
	}
	if e.Path == "" {
		return fieldError(within+"path", "entry %q has no path", e.Name)
	}
	if err := CheckPath(e.Path); err != nil {
		return &FieldError{Field: within + "path", Err: err}
	}
	if err := checkLine(e.Note, MaxNote); err != nil {
		return fieldError(within+"note", "the note of entry %q %w", e.Name, err)
	}
	return nil
}

// Equal reports whether s and t are the same to whoever is told of them.
func (s Service) Equal(t Service) bool {
	return s.Name == t.Name && s.Title == t.Title && s.Description == t.Description && s.Icon == t.Icon &&
		slices.Equal(s.Entries, t.Entries) && s.Access.Equal(t.Access) && s.Require == t.Require &&
		slices.EqualFunc(s.Exceptions, t.Exceptions, func(a, b Exception) bool { return a.Path == b.Path && a.Access.Equal(b.Access) })
}

// checkLine reports why s is not one line of at most limit characters. Characters
// that would change the direction of the text around them are none.
func checkLine(s string, limit int) error {
	switch {
	case !utf8.ValidString(s):
		return fmt.Errorf("is not UTF-8")
	case utf8.RuneCountInString(s) > limit:
		return fmt.Errorf("has %d characters; at most %d are shown", utf8.RuneCountInString(s), limit)
	case strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
	}):
		return fmt.Errorf("has a line break or another control character")
	}
	return nil
}

// CheckPath reports why s is not a path of its own origin, with query and fragment or
// without, as browsers read one: they take \ for /, leave out tabs and line breaks,
// and find a host behind // (WHATWG URL, section 4.4).
func CheckPath(s string) error {
	switch {
	case len(s) > MaxPath:
		return fmt.Errorf("path %.40q… has %d bytes; at most %d are taken", s, len(s), MaxPath)
	case !strings.HasPrefix(s, "/"), strings.HasPrefix(s, "//"):
		return fmt.Errorf("path %q does not start with one /", s)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("path %q has a space, a backslash or a control character", s)
	}
	if _, err := url.Parse(s); err != nil {
		return fmt.Errorf("path %q: %w", s, err.(*url.Error).Err)
	}
	return nil
}
