package node

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"postern"
)

// ownPath is where the node's own resource is, on every host name. It is never
// passed to an application.
const ownPath = "/.well-known/postern/"

func isOwn(path string) bool {
	return strings.HasPrefix(path, ownPath) || path == strings.TrimSuffix(ownPath, "/")
}

// ownHealth is the answer at health: 200 if the application answers too, 503
// otherwise.
type ownHealth struct {
	Status      string `json:"status"`      // ok or degraded
	Application string `json:"application"` // up, down or unknown
}

// ownVersion is the answer at version.
type ownVersion struct {
	Version string `json:"version"`
}

// ownWhoAmI is the answer at whoami: the client and its connection as the node
// sees them.
type ownWhoAmI struct {
	Address    string `json:"address"`
	Protocol   string `json:"protocol"` // such as HTTP/2.0
	TLS        string `json:"tls"`      // such as TLS 1.3
	Cipher     string `json:"cipher"`
	KeyShare   string `json:"key_share,omitempty"` // such as X25519MLKEM768
	ServerName string `json:"server_name"`
	Service    string `json:"service,omitempty"`
	Connection string `json:"connection"`     // id, as in the gateway's log
	User       *User  `json:"user,omitempty"` // nil: nobody is signed in
}

// ownResource returns the handler of all below ownPath.
func ownResource(s *server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ownPath+"health", func(w http.ResponseWriter, r *http.Request) {
		svc, _ := s.service(requestHost(r))
		status, answer := http.StatusOK, ownHealth{Status: "ok", Application: UpstreamUnknown}
		if svc != nil {
			answer.Application, _, _ = svc.health.get()
		}
		if svc == nil || answer.Application == UpstreamDown {
			status, answer.Status = http.StatusServiceUnavailable, "degraded"
		}
		writeJSON(w, status, answer)
	})
	mux.HandleFunc("GET "+ownPath+"version", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, ownVersion{s.version})
	})
	mux.HandleFunc("GET "+ownPath+"whoami", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, s.whoAmI(r))
	})
	mux.HandleFunc("GET "+ownPath+"jwks.json", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, s.gate.signer.keys)
	})
	mux.HandleFunc("GET "+pathLogin, s.gate.login)
	mux.HandleFunc("GET "+pathCallback, s.gate.portalCallback)
	mux.HandleFunc("POST "+pathLogout, s.gate.logout)
	s.proofs.handle(mux)
	mux.HandleFunc(ownPath, func(w http.ResponseWriter, r *http.Request) { writePage(w, r, noSuchResource) })

	// Applications at sibling names are of the same site, so that SameSite says
	// nothing of what they send here.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(s.gate.refuseForm))
	return protection.Handler(mux)
}

var notFromHere = page{
	status: http.StatusForbidden, code: postern.CodeForbidden,
	title: "Not from here",
	text:  "Another site sent this form in your name. Nothing came of it.",
}

// refuseForm answers what another site sent in somebody's name.
func (g *gate) refuseForm(w http.ResponseWriter, r *http.Request) {
	g.log.Log(r.Context(), g.refusal(r, slog.LevelWarn), "form of another site refused", "server_name", requestHost(r), "remote", r.RemoteAddr,
		"id", r.Header.Get(headerRequestID), "origin", fmt.Sprintf("%.100q", r.Header.Get("Origin")), "path", r.URL.Path)
	writePage(w, r, notFromHere)
}

func (s *server) whoAmI(r *http.Request) ownWhoAmI {
	c := connOf(r)
	me := ownWhoAmI{
		Address: c.header.Src.Addr().String(), Protocol: r.Proto,
		TLS: tls.VersionName(r.TLS.Version), Cipher: tls.CipherSuiteName(r.TLS.CipherSuite),
		ServerName: r.TLS.ServerName, Connection: c.id,
	}
	if r.TLS.CurveID != 0 {
		me.KeyShare = r.TLS.CurveID.String()
	}
	t := s.table.Load()
	svc := t.hosts[requestHost(r)]
	if svc == nil {
		return me
	}
	me.Service = svc.Name
	if p, proven := s.gate.who(t, svc, requestHost(r), presentedOf(r).cred); proven {
		u := userOf(p)
		me.User = &u
	}
	return me
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}
