package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"postern"
)

// A Service is what a node publishes: what answers behind one or more of the
// tenant's host names. Either Upstream or Handler is set.
type Service struct {
	Name        string `json:"name,omitempty"`        // DNS label; if empty, postern.DefaultService
	Title       string `json:"title,omitempty"`       // for people; if empty, the name
	Description string `json:"description,omitempty"` // a sentence for people; if empty, none
	Icon        string `json:"icon,omitempty"`        // one of postern.Icons; if empty, none

	// Upstream is http://HOST:PORT[/PATH], https://HOST:PORT[/PATH], unix:/PATH
	// (HTTP over a unix socket), or a folder: an absolute path, ./PATH, ../PATH
	// or file:///PATH. User and password in a URL are sent to the application
	// as Basic authentication.
	Upstream string `json:"upstream,omitempty"`

	// Handler serves in place of an upstream, for Go applications. It sees the
	// browser's address as RemoteAddr.
	Handler http.Handler `json:"-"`

	// Certificate says from where its certificates come: SourceACME, SourceCA or
	// SourceFile. If empty, from CertFile if there is one, else from public
	// authorities if the deployment or the node names some, else from the
	// deployment's private CA.
	Certificate string `json:"certificate,omitempty"`

	// CertFile and KeyFile are PEM files, chain leaf first. A change on disk is seen
	// within seconds.
	CertFile string `json:"cert_file,omitempty"`
	KeyFile  string `json:"key_file,omitempty"`

	// Hosts are those of the service's host names whose certificates come from
	// elsewhere than the rest's.
	Hosts []HostCertificate `json:"hosts,omitempty"`

	// UpstreamCA is a PEM file of what an https upstream's certificate may lead
	// to. If empty, the system's roots.
	UpstreamCA string `json:"upstream_ca,omitempty"`

	// UpstreamInsecure takes any certificate of an https upstream.
	UpstreamInsecure bool `json:"upstream_insecure,omitempty"`

	// Entries are the places inside the service that people look for.
	Entries []postern.Entry `json:"entries,omitempty"`

	// Access says who may open the service: postern.AccessPublic, AccessMembers or
	// AccessGroups. If empty, AccessMembers.
	Access string `json:"access,omitempty"`

	// Groups are of whom one has to be in one, iff Access is AccessGroups.
	Groups []string `json:"groups,omitempty"`

	// Exceptions are parts of the service that others may open than the rest.
	Exceptions []Exception `json:"exceptions,omitempty"`

	// Require is postern.RequireIssuer or RequirePasskey, for what takes more than
	// to have signed in at the portal. If empty, that is enough.
	Require string `json:"require,omitempty"`
}

// A HostCertificate says from where one host name's certificate comes. Certificate,
// CertFile and KeyFile are as in Service.
type HostCertificate struct {
	Host        string `json:"host"`
	Certificate string `json:"certificate,omitempty"`
	CertFile    string `json:"cert_file,omitempty"`
	KeyFile     string `json:"key_file,omitempty"`
}

// An Exception is a part of a service that others may open than the rest. Access and
// Groups are as in Service.
type Exception struct {
	// Path is /PATH; with a / at its end, all below it.
	Path   string   `json:"path"`
	Access string   `json:"access,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// described returns s as the coordinator is told of it.
func (s Service) described() postern.Service {
	out := postern.Service{
		Name: s.Name, Title: s.Title, Description: s.Description, Icon: s.Icon, Entries: s.Entries,
		Access: postern.Access{Who: s.Access, Groups: s.Groups}, Require: s.Require,
	}
	for _, e := range s.Exceptions {
		out.Exceptions = append(out.Exceptions, postern.Exception{Path: e.Path, Access: postern.Access{Who: e.Access, Groups: e.Groups}})
	}
	return out
}

// allPublic reports whether everybody may open all of s.
func (s Service) allPublic() bool {
	d := s.described()
	return d.Access.Public() && !slices.ContainsFunc(d.Exceptions, func(e postern.Exception) bool { return !e.Public() })
}

// setDefaults fills in what is empty and has a meaning then.
func (s *Service) setDefaults() {
	if s.Name == "" {
		s.Name = postern.DefaultService
	}
	if s.Title == "" {
		s.Title = s.Name
	}
	if s.Access == "" {
		s.Access = postern.AccessMembers
	}
}

// ErrUpstream is wrapped by errors about an upstream that cannot be one.
var ErrUpstream = errors.New("want http://…, https://…, unix:/path or a folder (/path, ./path or file:///path)")

// ParseService reads "[NAME=]UPSTREAM", as the command line takes it. A relative
// folder becomes an absolute one; a folder must be there.
func ParseService(spec string) (Service, error) {
	s := Service{Name: postern.DefaultService, Upstream: spec}
	// What stands before the first = is a name unless it already looks like the
	// upstream: http://host/?a=b, ./a=b.
	if name, rest, ok := strings.Cut(spec, "="); ok && !strings.ContainsAny(name, `/\:`) {
		s.Name, s.Upstream = name, rest
	}
	if err := postern.CheckLabel("service", s.Name); err != nil {
		return Service{}, err
	}
	up, err := parseUpstream(s.Upstream)
	if err != nil {
		return Service{}, err
	}
	if up.folder != "" {
		info, err := os.Stat(up.folder)
		if err != nil {
			return Service{}, fmt.Errorf("upstream %q: %w", s.Upstream, err)
		}
		if !info.IsDir() {
			return Service{}, fmt.Errorf("upstream %q: it is a file, want a folder: %w", s.Upstream, fs.ErrInvalid)
		}
		s.Upstream = up.folder
	}
	return s, nil
}

// An upstream is a parsed Service.Upstream. Exactly one field is set.
type upstream struct {
	url    *url.URL // http or https
	socket string   // absolute path
	folder string   // absolute path
}

func parseUpstream(s string) (upstream, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = "/" + strings.TrimLeft(path, "/")
		if path == "/" || strings.HasSuffix(s, "/") || strings.HasPrefix(s, "unix:.") {
			return upstream{}, fmt.Errorf("upstream %q: the socket's path must be absolute, as in unix:/run/app.sock: %w", s, ErrUpstream)
		}
		return upstream{socket: path}, nil
	}
	if isFolder(s) {
		path, err := filepath.Abs(s)
		if err != nil {
			return upstream{}, fmt.Errorf("upstream %q: %w", s, err)
		}
		return upstream{folder: path}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return upstream{}, fmt.Errorf("upstream: %w: %w", redactURLError(err), ErrUpstream)
	}
	shown := u.Redacted()
	switch {
	case u.Scheme == "file" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return upstream{folder: localFolder(u.Path)}, nil
	case u.Scheme != "http" && u.Scheme != "https":
		return upstream{}, fmt.Errorf("upstream %q: %w", shown, ErrUpstream)
	case u.Hostname() == "":
		return upstream{}, fmt.Errorf("upstream %q has no host: %w", shown, ErrUpstream)
	case u.RawQuery != "" || u.Fragment != "":
		return upstream{}, fmt.Errorf("upstream %q has a query or fragment: %w", shown, ErrUpstream)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return upstream{}, fmt.Errorf("upstream %q: port %s is not one of 1 to 65535: %w", shown, p, ErrUpstream)
		}
	}
	return upstream{url: u}, nil
}

// isFolder reports whether s is spelled as the path of a folder, on Windows with either
// slash, and with or without a drive.
func isFolder(s string) bool {
	if s == "." || s == ".." || filepath.IsAbs(s) {
		return true
	}
	s = filepath.ToSlash(s)
	return strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") || strings.HasPrefix(s, "/")
}

// localFolder returns what the path of a file URL is called here: /C:/docs is C:\docs on
// Windows (RFC 8089, appendix E.2).
func localFolder(path string) string {
	if drive := strings.TrimPrefix(path, "/"); filepath.VolumeName(drive) != "" {
		path = drive
	}
	return filepath.FromSlash(path)
}

// redactURLError leaves out the URL, which may hold a password.
func redactURLError(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// String shows the upstream without its user and password.
func (u upstream) String() string {
	switch {
	case u.socket != "":
		return "unix:" + u.socket
	case u.folder != "":
		return u.folder
	}
	plain := *u.url
	plain.User = nil
	return plain.String()
}

// address returns host:port of an http or https upstream.
func (u upstream) address() string {
	if u.url == nil {
		return ""
	}
	port := u.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.url.Scheme]
	}
	return net.JoinHostPort(u.url.Hostname(), port)
}

// A service is a Service that is ready to serve.
type service struct {
	Service
	upstream  upstream // zero if there is a Handler
	handler   http.Handler
	tls       *tls.Config     // iff the upstream is https
	transport *http.Transport // nil for folders and Handlers
	files     *pemFiles       // nil: certificates come from elsewhere
	hosts     map[string]hostFiles
	policy    postern.Service // who may open it
	health    *health
	requests  *requests
	log       *slog.Logger
}

// newService checks s and what it names on disk.
func newService(s Service, log *slog.Logger) (*service, error) {
	s.setDefaults()
	if err := postern.CheckLabel("service", s.Name); err != nil {
		return nil, &postern.FieldError{Field: "name", Err: err}
	}
	log = log.With("service", s.Name)
	svc := &service{Service: s, policy: s.described(), health: newHealth(log), requests: new(requests), log: log}
	if field, err := svc.open(); err != nil {
		return nil, &postern.FieldError{Field: field, Err: fmt.Errorf("service %q: %w", s.Name, err)}
	}
	return svc, nil
}

// open makes ready what s is served with. It says in which field an error lies.
func (s *service) open() (field string, err error) {
	switch {
	case (s.Handler != nil) == (s.Upstream != ""):
		return "upstream", errors.New("want either an upstream or a handler")
	}
	if field, err := s.openCertificates(); err != nil {
		return field, err
	}
	if s.Handler != nil {
		s.handler = s.Handler
		s.health.state = UpstreamUp
		return "", nil
	}
	if s.upstream, err = parseUpstream(s.Upstream); err != nil {
		return "upstream", err
	}
	if s.tls, err = upstreamTLS(s.upstream, s.Service); err != nil {
		return "upstream_ca", err
	}
	if s.upstream.folder == "" {
		s.transport = newTransport(s.upstream, s.tls)
	}
	s.handle()
	return "", nil
}

// handle makes the handler of a service that has an upstream.
func (s *service) handle() {
	if s.upstream.folder != "" {
		s.handler = folder{s}
	} else {
		s.handler = newProxy(s, s.log)
	}
}

// relabel returns s under other words for people, and for others. It shares all else
// with s.
func (s *service) relabel(words Service) *service {
	next := *s
	next.Service, next.policy = words, words.described()
	next.handle()
	return &next
}

// status returns how the service does.
func (s *service) status() ServiceState {
	state, since, err := s.health.get()
	st := ServiceState{
		Name: s.Name, Title: s.Title, Upstream: "handler", State: state, Since: since,
		Access: s.Access, Groups: s.Groups, Exceptions: s.Exceptions, Require: s.Require,
	}
	if s.Handler == nil {
		st.Upstream = s.upstream.String()
	}
	if err != nil {
		st.Error = err.Error()
	}
	return st
}

// serve answers r, which passed the gate, for as long as the service is published.
func (s *service) serve(w http.ResponseWriter, r *http.Request) { s.serveWith(s.handler, w, r) }

// serveWith is serve with another handler than the service's own.
func (s *service) serveWith(h http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx, done, ok := s.requests.begin(r.Context())
	if !ok {
		writePage(w, r, notPublished)
		return
	}
	defer done()
	defer severWith(ctx, w, connOf(r))()
	h.ServeHTTP(w, r.WithContext(ctx))
}
