package portal

import (
	"fmt"
	"net/http"
	"strings"

	"postern"
	"postern/coordinator"
)

// A devicePage is what the page of who lets a program in is made from. Without a
// Device it asks for the code that the program shows.
type devicePage struct {
	Device  *device
	Tile    tile   // what it wants to speak to
	Done    string // what was answered: "allow" or "deny"
	Problem *postern.Problem
}

// parseUserCode returns s, as people type it, as a UserCode, "" if it is none.
func parseUserCode(s string) string {
	if len(s) > 64 {
		return ""
	}
	letters := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return -1
	}, s)
	if len(letters) != 8 {
		return ""
	}
	return letters[:4] + "-" + letters[4:]
}

func (v *provider) devicePage(w http.ResponseWriter, r *http.Request, _ coordinator.Session, u coordinator.User) {
	if code := r.URL.Query().Get("user_code"); code != "" {
		v.showDevice(w, r, u, code)
		return
	}
	v.p.render(w, r, http.StatusOK, "device", devicePage{})
}

// showDevice asks u whether the program with that user code is to be let in.
func (v *provider) showDevice(w http.ResponseWriter, r *http.Request, u coordinator.User, typed string) {
	d, t, problem := v.deviceOf(r, u, typed)
	if problem != nil {
		v.p.render(w, r, problem.Status, "device", devicePage{Problem: problem})
		return
	}
	v.p.render(w, r, http.StatusOK, "device", devicePage{Device: &d, Tile: newTile(t)})
}

// deviceOf returns the program that waits with that user code, and what it wants to
// speak to, which u may open. Guesses are few: RFC 8628, section 5.1.
func (v *provider) deviceOf(r *http.Request, u coordinator.User, typed string) (device, coordinator.Tile, *postern.Problem) {
	if !v.guesses.allow(u.ID, v.p.cfg.Now()) {
		v.noteDevice(r, u, "", "", "too many codes were tried")
		return device{}, coordinator.Tile{}, postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
			"too many codes were tried in a short time", "wait a minute and try again")
	}
	d, ok := v.devices.find(parseUserCode(typed))
	if !ok {
		v.noteDevice(r, u, "", "", fmt.Sprintf("no program waits with code %.20q", typed))
		return device{}, coordinator.Tile{}, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			"no program waits with this code", "look at the code once more; after 10 minutes the program has to ask for another")
	}
	t, err := v.p.c.MayOpen(r.Context(), u.ID, d.Host)
	if err != nil {
		problem := v.p.c.Problem(r.Context(), err)
		v.noteDevice(r, u, v.p.c.TenantAt(d.Host), d.Host, "a program: "+problem.Detail)
		return device{}, coordinator.Tile{}, problem
	}
	return d, t, nil
}

// answerDevice takes a code that was typed, or what the user said to it.
func (v *provider) answerDevice(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	typed, said := r.PostFormValue("user_code"), r.PostFormValue("answer")
	answers := map[string]deviceAnswer{"allow": deviceAllowed, "deny": deviceDenied}
	answer, ok := answers[said]
	if !ok {
		v.showDevice(w, r, u, typed)
		return
	}
	d, t, problem := v.deviceOf(r, u, typed)
	if problem == nil && !v.devices.settle(d.UserCode, answer, s) {
		problem = postern.NewProblem(http.StatusConflict, postern.CodeInvalid,
			"somebody answered this code already, or it expired a moment ago", "have the program ask for another")
	}
	if problem != nil {
		v.p.render(w, r, problem.Status, "device", devicePage{Problem: problem})
		return
	}
	if answer == deviceDenied {
		v.noteDevice(r, u, t.Tenant, d.Host, fmt.Sprintf("a program from %v, by the user", d.Remote))
	}
	v.p.render(w, r, http.StatusOK, "device", devicePage{Device: &d, Tile: newTile(t), Done: said})
}

// noteDevice records that a program was not let in.
func (v *provider) noteDevice(r *http.Request, u coordinator.User, tenant, target, why string) {
	v.p.c.Note(r.Context(), coordinator.ActorUser(u.ID), "authorize.refused", tenant, target, fmt.Sprintf("%v: %s", remoteOf(r), why))
}
