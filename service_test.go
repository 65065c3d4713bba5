package postern_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"postern"
)

func entries(n int) []postern.Entry {
	list := make([]postern.Entry, n)
	for i := range list {
		list[i] = postern.Entry{Name: "e" + strings.Repeat("x", i/26) + string(rune('a'+i%26)), Path: "/"}
	}
	return list
}

func TestPublicationCheck(t *testing.T) {
	one := func(s postern.Service) []postern.Service { return []postern.Service{{Name: "first"}, s} }
	entry := func(e postern.Entry) []postern.Service {
		return one(postern.Service{Name: "books", Entries: []postern.Entry{{Name: "ok", Path: "/"}, e}})
	}
	tests := []struct {
		name     string
		services []postern.Service
		field    string // of the error; empty: there is none
		want     string // a part of it
	}{
		{"nothing", nil, "", ""},
		{"all fields", one(postern.Service{
			Name: "books", Title: "Bücher", Description: "Double entry.", Icon: "book",
			Entries: []postern.Entry{{Name: "y2026", Title: "2026", Path: "/y/2026?open=1#top", Note: "open"}},
		}), "", ""},
		{"as many entries as there may be", one(postern.Service{Name: "a", Entries: entries(postern.MaxEntries)}), "", ""},
		{"as long as may be", one(postern.Service{Name: "a", Title: strings.Repeat("ü", postern.MaxTitle)}), "", ""},

		{"too many services", make([]postern.Service, postern.MaxServices+1), "services[64]", "65 services"},
		{"no label", one(postern.Service{Name: "a.b"}), "services[1].name", `service name "a.b" is no DNS label`},
		{"a service twice", one(postern.Service{Name: "first"}), "services[1].name", `service "first" is there twice`},
		{"long title", one(postern.Service{Name: "a", Title: strings.Repeat("ü", 101)}), "services[1].title", "has 101 characters"},
		{"two lines", one(postern.Service{Name: "a", Title: "a\nb"}), "services[1].title", "line break"},
		{"not UTF-8", one(postern.Service{Name: "a", Title: "\xff"}), "services[1].title", "is not UTF-8"},
		{"text turned round", one(postern.Service{Name: "a", Title: "a\u202eb"}), "services[1].title", "control character"},
		{"long description", one(postern.Service{Name: "a", Description: strings.Repeat("x", 501)}), "services[1].description", "501 characters"},
		{"no such icon", one(postern.Service{Name: "a", Icon: "skull"}), "services[1].icon", `no icon "skull"; choose one of archive, `},
		{"too many entries", one(postern.Service{Name: "a", Entries: entries(501)}), "services[1].entries[500]", "501 entries"},
		{"entry without name", entry(postern.Entry{Path: "/"}), "services[1].entries[1].name", "entry name is empty"},
		{"an entry twice", entry(postern.Entry{Name: "ok", Path: "/"}), "services[1].entries[1].name", `entry "ok" is there twice`},
		{"entry with long note", entry(postern.Entry{Name: "a", Path: "/", Note: strings.Repeat("x", 201)}), "services[1].entries[1].note", "201 characters"},
		{"no path", entry(postern.Entry{Name: "a"}), "services[1].entries[1].path", `entry "a" has no path`},
		{"another site", entry(postern.Entry{Name: "a", Path: "https://evil.example/"}), "services[1].entries[1].path", "does not start with one /"},
		{"a host", entry(postern.Entry{Name: "a", Path: "//evil.example/"}), "services[1].entries[1].path", "does not start with one /"},
		{"a host for browsers", entry(postern.Entry{Name: "a", Path: `/\evil.example/`}), "services[1].entries[1].path", "backslash"},
		{"a host behind a tab", entry(postern.Entry{Name: "a", Path: "/\t/evil.example/"}), "services[1].entries[1].path", "control character"},
		{"a space", entry(postern.Entry{Name: "a", Path: "/a b"}), "services[1].entries[1].path", "space"},
		{"half an escape", entry(postern.Entry{Name: "a", Path: "/%2"}), "services[1].entries[1].path", "invalid URL escape"},
		{"long path", entry(postern.Entry{Name: "a", Path: "/" + strings.Repeat("x", 1024)}), "services[1].entries[1].path", "1025 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := postern.Publication{Services: tt.services}.Check()
			if tt.field == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var fe *postern.FieldError
			if !errors.As(err, &fe) || fe.Field != tt.field || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %#v: %v, want %q in %s", err, err, tt.want, tt.field)
			}
		})
	}
}

func TestPublicationTooLarge(t *testing.T) {
	var p postern.Publication
	for _, name := range []string{"a", "b", "c", "d"} {
		s := postern.Service{Name: name, Entries: entries(400)}
		for i := range s.Entries {
			s.Entries[i].Path = "/" + strings.Repeat("x", 1000)
		}
		p.Services = append(p.Services, s)
	}
	if err := p.Check(); err == nil || !strings.Contains(err.Error(), "more than the 1048576") {
		t.Errorf("got %v", err)
	}
}

// FuzzEntryPath asserts that what is taken stays on its host, also for who reads
// URLs as browsers do.
func FuzzEntryPath(f *testing.F) {
	for _, seed := range []string{"/", "/a?b#c", "//x", `/\x`, "/\t/x", "/%2e%2e//x", "/:80", "/@x", "/a//b"} {
		f.Add(seed)
	}
	base, _ := url.Parse("https://acme.test/")
	f.Fuzz(func(t *testing.T, path string) {
		s := postern.Service{Name: "a", Entries: []postern.Entry{{Name: "a", Path: path}}}
		if (postern.Publication{Services: []postern.Service{s}}).Check() != nil {
			return
		}
		browsers := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(path)
		for _, read := range []string{path, browsers} {
			u, err := base.Parse(read)
			if err != nil || u.Scheme != "https" || u.Host != "acme.test" || u.User != nil {
				t.Errorf("%q leads to %v, %v", path, u, err)
			}
		}
	})
}
