package postern_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"postern"
)

var (
	public  = postern.Access{Who: postern.AccessPublic}
	members = postern.Access{Who: postern.AccessMembers}
)

func groups(names ...string) postern.Access {
	return postern.Access{Who: postern.AccessGroups, Groups: names}
}

func TestAllows(t *testing.T) {
	person := func(role string, services []string, groups ...string) *postern.Person {
		return &postern.Person{ID: "u1", Role: role, Services: services, Groups: groups}
	}
	tests := []struct {
		name   string
		access postern.Access
		person *postern.Person
		want   bool
	}{
		{"public, nobody", public, nil, true},
		{"public, somebody without role", public, person("", nil), true},
		{"members, nobody", members, nil, false},
		{"members, member", members, person("member", nil), true},
		{"members by default", postern.Access{}, person("member", nil), true},
		{"members by default, nobody", postern.Access{}, nil, false},
		{"members, of this service", members, person("member", []string{"docs", "books"}), true},
		{"members, of another service", members, person("member", []string{"docs"}), false},
		{"members, of no service", members, person("member", []string{}), false},
		{"members, owner of another service", members, person("owner", []string{"docs"}), true},
		{"members, no role", members, person("", nil), false},
		{"members, a role of tomorrow", members, person("guest", nil), false},
		{"groups, in one", groups("a", "b"), person("member", nil, "x", "b"), true},
		{"groups, in another", groups("a", "b"), person("member", nil, "x"), false},
		{"groups, in none", groups("a"), person("member", nil), false},
		{"groups, in one, of another service", groups("a"), person("member", []string{"docs"}, "a"), false},
		{"groups, admin", groups("a"), person("admin", nil), true},
		{"groups that are none", groups(), person("member", nil, "a"), false},
		{"an access of tomorrow, member", postern.Access{Who: "friends"}, person("member", nil), false},
		{"an access of tomorrow, nobody", postern.Access{Who: "friends"}, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.access.Allows(tt.person, "books"); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAccessAt(t *testing.T) {
	except := func(access postern.Access, path string, more ...postern.Exception) postern.Service {
		return postern.Service{Access: access, Exceptions: append([]postern.Exception{{Path: path, Access: public}}, more...)}
	}
	hooks := except(members, "/hooks/", postern.Exception{Path: "/hooks/admin/", Access: groups("a")}, postern.Exception{Path: "/status", Access: public})
	closed := postern.Service{Access: members, Exceptions: []postern.Exception{{Path: "/admin/", Access: groups("a")}}}
	relaxed := postern.Service{Access: groups("a"), Exceptions: []postern.Exception{{Path: "/wiki/", Access: members}}}
	mixed := postern.Service{Access: public, Exceptions: []postern.Exception{{Path: "/ADMIN/", Access: groups("a")}, {Path: "/admin/x", Access: public}}}
	cases := postern.Service{Access: members, Exceptions: []postern.Exception{{Path: "/a/", Access: public}, {Path: "/A/", Access: groups("a")}}}
	whole := postern.Service{Access: members, Exceptions: []postern.Exception{{Path: "/", Access: public}}}
	tests := []struct {
		name    string
		service postern.Service
		path    string
		want    []postern.Access // in any order
	}{
		{"no exceptions", postern.Service{Access: members}, "/x", []postern.Access{members}},
		{"no exceptions, odd path", postern.Service{Access: members}, "/x/../y", []postern.Access{members}},
		{"elsewhere", hooks, "/x", []postern.Access{members}},
		{"below", hooks, "/hooks/github", []postern.Access{public}},
		{"itself", hooks, "/hooks/", []postern.Access{public}},
		{"the longest path wins", hooks, "/hooks/admin/x", []postern.Access{groups("a")}},
		{"a longer name", hooks, "/hooksx", []postern.Access{members}},
		{"a path, itself", hooks, "/status", []postern.Access{public}},
		{"all of it", whole, "/any/thing", []postern.Access{public}},
		{"letters beyond ASCII", hooks, "/hooks/büro", []postern.Access{public}},

		// What opens does so at its very path.
		{"opened, without its slash", hooks, "/hooks", []postern.Access{members, public}},
		{"opened, other case", hooks, "/Hooks/x", []postern.Access{members, public}},
		{"opened path, below it", hooks, "/status/x", []postern.Access{members, public}},
		{"opened path, with a slash", hooks, "/status/", []postern.Access{members, public}},
		{"relaxed", relaxed, "/wiki/x", []postern.Access{members}},
		{"relaxed, other case", relaxed, "/WIKI/x", []postern.Access{groups("a"), members}},

		// What closes does so in every spelling.
		{"closed", closed, "/admin/x", []postern.Access{groups("a")}},
		{"closed, without its slash", closed, "/admin", []postern.Access{members, groups("a")}},
		{"closed, other case", closed, "/aDMIN/x", []postern.Access{members, groups("a")}},
		{"closed, a letter that folds to s", postern.Service{Exceptions: []postern.Exception{{Path: "/secret/", Access: groups("a")}}}, "/\u017fecret/", []postern.Access{{}, groups("a")}},
		{"closed by some reading between", mixed, "/admin/x/y", []postern.Access{public, groups("a")}},
		{"two spellings", cases, "/a/x", []postern.Access{public, groups("a")}},

		{"dots", hooks, "/hooks/../x", []postern.Access{members, public, groups("a"), public}},
		{"dots at the end", hooks, "/hooks/..", []postern.Access{members, public, groups("a"), public}},
		{"a dot", hooks, "/hooks/./x", []postern.Access{members, public, groups("a"), public}},
		{"two slashes", hooks, "/hooks//x", []postern.Access{members, public, groups("a"), public}},
		{"slashes first", hooks, "//hooks/x", []postern.Access{members, public, groups("a"), public}},
		{"a backslash", hooks, `/hooks/..\x`, []postern.Access{members, public, groups("a"), public}},
		{"parameters", hooks, "/hooks/..;/x", []postern.Access{members, public, groups("a"), public}},
		{"encoded twice", hooks, "/hooks/%2e%2e/x", []postern.Access{members, public, groups("a"), public}},
		{"a control character", hooks, "/hooks/\t../x", []postern.Access{members, public, groups("a"), public}},
		{"NUL", hooks, "/hooks/\x00", []postern.Access{members, public, groups("a"), public}},
		{"a slash of full width", hooks, "/hooks/..\uff0fx", []postern.Access{members, public, groups("a"), public}},
		{"a two dot leader", hooks, "/hooks/\u2025/x", []postern.Access{members, public, groups("a"), public}},
		{"an accent of its own", hooks, "/hooks/bu\u0308ro", []postern.Access{members, public, groups("a"), public}},
		{"not UTF-8", hooks, "/hooks/\xc0\xae\xc0\xae/x", []postern.Access{members, public, groups("a"), public}},
		{"Windows' dots", closed, "/admin./x", []postern.Access{members, groups("a")}},
		{"Windows' spaces", closed, "/admin /x", []postern.Access{members, groups("a")}},
		{"Windows' second name", closed, "/ADMIN~1/x", []postern.Access{members, groups("a")}},
		{"Windows' streams", closed, "/admin::$INDEX_ALLOCATION/x", []postern.Access{members, groups("a")}},
		{"nothing", hooks, "", []postern.Access{members, public, groups("a"), public}},
		{"no path", hooks, "*", []postern.Access{members, public, groups("a"), public}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.service.AccessAt(tt.path)
			same := len(got) == len(tt.want)
			for _, a := range tt.want {
				same = same && slices.ContainsFunc(got, a.Equal)
			}
			if !same {
				t.Errorf("AccessAt(%q) = %+v, want %+v", tt.path, got, tt.want)
			}
		})
	}
}

// An app is how some application reads paths, by the book of none.
type app struct {
	decode, backslash, params, collapse, dots, trim, fold, slash, below bool
}

func apps() (all []app) {
	for i := range 1 << 9 {
		bit := func(n int) bool { return i>>n&1 == 1 }
		all = append(all, app{bit(0), bit(1), bit(2), bit(3), bit(4), bit(5), bit(6), bit(7), bit(8)})
	}
	return all
}

// resource returns the names that the app finds in a path, and whether it takes it for
// a directory.
func (a app) resource(p string) (names []string, dir bool) {
	if a.decode {
		if q, err := url.PathUnescape(p); err == nil {
			p = q
		}
	}
	if a.backslash {
		p = strings.ReplaceAll(p, `\`, "/")
	}
	segments := strings.Split(p, "/")[1:]
	for i, s := range segments {
		last := i == len(segments)-1
		if a.params {
			s, _, _ = strings.Cut(s, ";")
		}
		if a.dots && (s == "." || s == "..") {
			if s == ".." && len(names) > 0 {
				names = names[:len(names)-1]
			}
			dir = dir || last
			continue
		}
		if a.trim {
			s = strings.TrimRight(s, ". ")
		}
		if a.fold {
			s = strings.ToLower(s)
		}
		if s == "" && (last || a.collapse) {
			dir = dir || last
			continue
		}
		names = append(names, s)
	}
	return names, dir
}

// access returns what the app's author, who knows how it reads paths, would have to
// allow a request for path of service.
func (a app) access(s postern.Service, path string) []postern.Access {
	names, dir := a.resource(path)
	best, length := []postern.Access{s.Access}, -1
	for _, e := range s.Exceptions {
		at, below := a.resource(e.Path)
		if len(at) > len(names) || !slices.Equal(at, names[:len(at)]) {
			continue
		}
		itself := len(at) == len(names) && (dir == below || a.slash)
		inside := below && (len(names) > len(at) || dir)
		if !itself && !inside && !(a.below && !below) {
			continue
		}
		if len(at) > length {
			best, length = nil, len(at)
		}
		if len(at) == length {
			best = append(best, e.Access)
		}
	}
	return best
}

func allows(all []postern.Access, p *postern.Person) bool {
	return !slices.ContainsFunc(all, func(a postern.Access) bool { return !a.Allows(p, "books") })
}

// strangers are people of all kinds.
var strangers = []*postern.Person{
	nil, {Role: "member"}, {Role: "member", Groups: []string{"a"}}, {Role: "member", Groups: []string{"b"}}, {Role: "admin"},
}

// checkStrict asserts that who gets through by AccessAt would get through by what each
// app's author asks for.
func checkStrict(t interface{ Errorf(string, ...any) }, s postern.Service, path string, apps []app) {
	for _, p := range strangers {
		if !allows(s.AccessAt(path), p) {
			continue
		}
		for _, a := range apps {
			if need := a.access(s, path); !allows(need, p) {
				t.Errorf("%q lets %+v in, and %+v wants %+v; the exceptions are %+v", path, p, a, need, s.Exceptions)
				return
			}
		}
	}
}

func TestAccessAtIsStrict(t *testing.T) {
	all := apps()
	accesses := []postern.Access{public, members, groups("a"), groups("b"), groups("a", "b")}
	path := func(t *rapid.T, segments []string) string {
		return "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(segments), 1, 3).Draw(t, "path"), "/")
	}
	rapid.Check(t, func(t *rapid.T) {
		s := postern.Service{Name: "books", Access: rapid.SampledFrom(accesses).Draw(t, "access")}
		for range rapid.IntRange(0, 4).Draw(t, "exceptions") {
			e := postern.Exception{Path: path(t, []string{"a", "A", "b"}), Access: rapid.SampledFrom(accesses).Draw(t, "access")}
			if rapid.Bool().Draw(t, "below") {
				e.Path += "/"
			}
			if !slices.ContainsFunc(s.Exceptions, func(f postern.Exception) bool { return f.Path == e.Path }) {
				s.Exceptions = append(s.Exceptions, e)
			}
		}
		if err := (postern.Publication{Services: []postern.Service{s}}).Check(); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		for range 20 {
			checkStrict(t, s, path(t, []string{"a", "A", "b", "B", ""}), all)
		}
		checkStrict(t, s, path(t, []string{"a", "b", "", ".", "..", "a;x", "..;", "a.", "a ", `..\a`, `a\b`, "%61", "%2e%2e"}), all)
	})
}

// FuzzAccessAt is TestAccessAtIsStrict for paths that nobody thought of.
func FuzzAccessAt(f *testing.F) {
	for _, seed := range []string{"/", "/hooks/", "/hooks/../admin/x", "/hooks/..;/admin", "/ADMIN/x", "/admin%2fx", `/hooks\..\admin`, "//admin", "/a/./admin", "/admin./", "/hooks"} {
		f.Add(seed)
	}
	s := postern.Service{Name: "books", Access: members, Exceptions: []postern.Exception{
		{Path: "/hooks/", Access: public}, {Path: "/admin/", Access: groups("a")}, {Path: "/hooks/in/", Access: groups("b")}, {Path: "/status", Access: public},
	}}
	all := apps()
	f.Fuzz(func(t *testing.T, path string) {
		if path == "" || path[0] != '/' {
			return
		}
		checkStrict(t, s, path, all)
	})
}

func TestAccessCheck(t *testing.T) {
	with := func(s postern.Service) []postern.Service { s.Name = "books"; return []postern.Service{s} }
	except := func(e postern.Exception) []postern.Service {
		return with(postern.Service{Exceptions: []postern.Exception{{Path: "/ok/", Access: public}, e}})
	}
	many := make([]postern.Exception, postern.MaxExceptions+1)
	tests := []struct {
		name     string
		services []postern.Service
		field    string // of the error; empty: there is none
		want     string // a part of it
	}{
		{"nothing", with(postern.Service{}), "", ""},
		{"public", with(postern.Service{Access: public}), "", ""},
		{"groups", with(postern.Service{Access: groups("a", "b"), Require: postern.RequirePasskey}), "", ""},
		{"exceptions", except(postern.Exception{Path: "/büro/a b"}), "services[0].exceptions[1].path", "space"},
		{"an exception", except(postern.Exception{Path: "/büro/x", Access: groups("a")}), "", ""},

		{"no such access", with(postern.Service{Access: postern.Access{Who: "all"}}), "services[0].access", `no access "all"`},
		{"groups without groups", with(postern.Service{Access: groups()}), "services[0].groups", "want 1 to 64 groups"},
		{"members with groups", with(postern.Service{Access: postern.Access{Groups: []string{"a"}}}), "services[0].groups", "groups are for access: groups"},
		{"a group that is no label", with(postern.Service{Access: groups("a", "B")}), "services[0].groups[1]", `"B" is no DNS label`},
		{"a group twice", with(postern.Service{Access: groups("a", "a")}), "services[0].groups[1]", "there twice"},
		{"no such requirement", with(postern.Service{Require: "luck"}), "services[0].require", `"luck"`},
		{"too many exceptions", with(postern.Service{Exceptions: many}), "services[0].exceptions[64]", "65 exceptions"},
		{"an exception twice", except(postern.Exception{Path: "/ok/"}), "services[0].exceptions[1].path", "there twice"},
		{"a bad access", except(postern.Exception{Path: "/x", Access: postern.Access{Who: "all"}}), "services[0].exceptions[1].access", `"all"`},
		{"a bad group", except(postern.Exception{Path: "/x", Access: groups("")}), "services[0].exceptions[1].groups[0]", "empty"},
		{"no path", except(postern.Exception{}), "services[0].exceptions[1].path", "does not start with one /"},
		{"a host", except(postern.Exception{Path: "//x/"}), "services[0].exceptions[1].path", "does not start with one /"},
		{"dots", except(postern.Exception{Path: "/a/../b"}), "services[0].exceptions[1].path", "names between slashes"},
		{"a query", except(postern.Exception{Path: "/a?b"}), "services[0].exceptions[1].path", "names between slashes"},
		{"an escape", except(postern.Exception{Path: "/a%20b"}), "services[0].exceptions[1].path", "names between slashes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := postern.Publication{Services: tt.services}.Check()
			if tt.field == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			fe, ok := err.(*postern.FieldError)
			if !ok || fe.Field != tt.field || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v at %+v, want %q at %q", err, fe, tt.want, tt.field)
			}
		})
	}
}

// Who may open no service at all must not become who may open all on the way.
func TestPersonOnTheWire(t *testing.T) {
	for _, services := range [][]string{nil, {}, {"books"}} {
		p := postern.Person{ID: "u1", Login: "ann", Role: postern.TenantMember, Services: services}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got postern.Person
		if err := json.Unmarshal(text, &got); err != nil || !got.Equal(p) {
			t.Errorf("%s became %+v, %v", text, got, err)
		}
	}
}
