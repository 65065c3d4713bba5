package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"

	"postern"
	"postern/internal/monitor"
)

// Published is what a node publishes, in the local API.
type Published struct {
	Services []Service `json:"services"`
}

// localAPI returns the handler of the socket; see Socket.
func (n *Node) localAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathStatus, func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, n.Status())
	})
	mux.Handle("GET "+monitor.PathMetrics, metricsHandler(n.Status))
	mux.Handle("GET "+monitor.PathProfiles, monitor.Profiles())
	mux.HandleFunc("GET "+pathRelays, monitor.Slow(n.getRelays))
	mux.HandleFunc("GET "+pathServices, func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, Published{n.Services()})
	})
	mux.HandleFunc("PUT "+pathServices, n.putServices)
	mux.HandleFunc("POST "+pathCertificates+"/{host}/renew", n.renewCertificate)
	mux.HandleFunc("POST "+pathKey, monitor.Slow(n.replaceKey))
	mux.HandleFunc("GET "+pathPasskeys, n.getPasskeys)
	mux.HandleFunc("POST "+pathPasskeyInvitations, n.invitePasskey)
	mux.HandleFunc("DELETE "+pathPasskeys+"/{id}", n.removePasskey)
	mux.HandleFunc("GET "+pathLocalTokens, n.getTokens)
	mux.HandleFunc("DELETE "+pathLocalTokens+"/{id}", n.revokeToken)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			fmt.Sprintf("there is no %s %q here", r.Method, r.URL.Path), ""))
	})
	return mux
}

func refuse(w http.ResponseWriter, p *postern.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

func (n *Node) putServices(w http.ResponseWriter, r *http.Request) {
	switch {
	case n.cfg.File != "":
		refuse(w, postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
			"what this node publishes is said in "+n.cfg.File, "change the file; it is read again at once"))
		return
	case !n.cfg.Remember:
		refuse(w, postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
			"what this node publishes is said by the program that it is a part of", ""))
		return
	}
	services, err := readServices(http.MaxBytesReader(w, r.Body, maxFile))
	if err != nil {
		refuse(w, postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid, err.Error(), ""))
		return
	}
	if err = checkAbsolute(services); err == nil {
		err = n.setServices(services, func() error { return n.cfg.Dir.Remember(services) })
	}
	var wrong *postern.FieldError
	switch {
	case errors.As(err, &wrong):
		refuse(w, postern.NewProblem(http.StatusUnprocessableEntity, postern.CodeInvalid, wrong.Field+": "+err.Error(), ""))
	case err != nil:
		n.log.Error("remember what is published", "err", err)
		refuse(w, postern.NewProblem(http.StatusInternalServerError, postern.CodeInternal, err.Error(), "nothing was changed"))
	default:
		n.log.Info("services changed by the local API", "services", len(services))
		writeJSON(w, http.StatusOK, Published{n.Services()})
	}
}

// readServices reads a Published and nothing else.
func readServices(r io.Reader) ([]Service, error) {
	var p Published
	in := json.NewDecoder(r)
	in.DisallowUnknownFields()
	if err := in.Decode(&p); err != nil {
		return nil, fmt.Errorf("decode the request: %w", err)
	}
	if _, err := in.Token(); err != io.EOF {
		return nil, errors.New("decode the request: something follows the document")
	}
	if p.Services == nil {
		return nil, errors.New(`"services" is missing; an empty list publishes nothing`)
	}
	return p.Services, nil
}

// checkAbsolute reports a relative path in services. It would depend on where the
// node was started.
func checkAbsolute(services []Service) error {
	for i, s := range services {
		paths := []struct{ field, path string }{
			{"cert_file", s.CertFile}, {"key_file", s.KeyFile}, {"upstream_ca", s.UpstreamCA},
		}
		for j, h := range s.Hosts {
			paths = append(paths,
				struct{ field, path string }{fmt.Sprintf("hosts[%d].cert_file", j), h.CertFile},
				struct{ field, path string }{fmt.Sprintf("hosts[%d].key_file", j), h.KeyFile})
		}
		for _, p := range paths {
			if p.path != "" && !filepath.IsAbs(p.path) {
				return &postern.FieldError{Field: fmt.Sprintf("services[%d].%s", i, p.field), Err: fmt.Errorf("path %q is not absolute", p.path)}
			}
		}
		if isFolder(s.Upstream) && !filepath.IsAbs(s.Upstream) {
			return &postern.FieldError{Field: fmt.Sprintf("services[%d].upstream", i), Err: fmt.Errorf("path %q is not absolute", s.Upstream)}
		}
	}
	return nil
}
