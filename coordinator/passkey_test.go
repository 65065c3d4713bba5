package coordinator_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
)

func passkey(u coordinator.User, id string) coordinator.Passkey {
	return coordinator.Passkey{ID: id, User: u.ID, Name: "Anna's key", Credential: []byte(`{}`)}
}

func TestPasskeys(t *testing.T) {
	r := openRegistry(t)
	u, other := r.user("anna", ""), r.user("ben", "")
	k := passkey(u, "k1")
	must(t, r.PutPasskey(t.Context(), coordinator.ActorUser(u.ID), k))
	k.Created = r.clock()
	r.wantLog("passkey.add", "user:"+u.ID, "Anna's key")
	got, owner, err := r.Passkey(t.Context(), "k1")
	if err != nil || !reflect.DeepEqual(got, k) || owner.ID != u.ID {
		t.Errorf("got %+v of %s, %v, want %+v of %s", got, owner.ID, err, k, u.ID)
	}

	r.wait(time.Minute)
	k.Used, k.Credential = r.clock(), []byte(`{"count":1}`)
	must(t, r.PutPasskey(t.Context(), coordinator.ActorUser(u.ID), k))
	if all, err := r.Passkeys(t.Context(), u.ID); err != nil || !reflect.DeepEqual(all, []coordinator.Passkey{k}) {
		t.Errorf("after its use: got %+v, %v, want %+v", all, err, k)
	}
	if n := len(r.log("passkey.add")); n != 1 {
		t.Errorf("%d entries in the audit log, want none for a use", n)
	}

	foreign := k
	foreign.User = other.ID
	wantProblem(t, r.PutPasskey(t.Context(), "local", foreign), 409, postern.CodeTaken)
	wantProblem(t, r.PutPasskey(t.Context(), "local", passkey(u, "k1")), 409, postern.CodeTaken)
	wantProblem(t, r.PutPasskey(t.Context(), "local", passkey(u, "")), 422, postern.CodeInvalid)
	wantProblem(t, r.RemovePasskey(t.Context(), "local", other.ID, "k1"), 404, postern.CodeNotFound)

	// Not the last way to sign in.
	wantProblem(t, r.RemovePasskey(t.Context(), "local", u.ID, "k1"), 409, postern.CodeForbidden)
	if _, _, err := r.Passkey(t.Context(), "k1"); err != nil {
		t.Errorf("refused, and gone all the same: %v", err)
	}
	must(t, r.PutPasskey(t.Context(), "local", passkey(u, "k2")))
	must(t, r.RemovePasskey(t.Context(), coordinator.ActorUser(u.ID), u.ID, "k1"))
	r.wantLog("passkey.remove", "user:"+u.ID, "Anna's key")
	must(t, r.SetPassword(t.Context(), "local", u.ID, goodPassword, ""))
	must(t, r.RemovePasskey(t.Context(), "local", u.ID, "k2"))

	// What was removed while it was being used stays away.
	wantProblem(t, r.PutPasskey(t.Context(), "local", k), 404, postern.CodeNotFound)
	if _, _, err := r.Passkey(t.Context(), "k1"); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	for n := range coordinator.MaxPasskeys {
		must(t, r.PutPasskey(t.Context(), "local", passkey(u, fmt.Sprintf("m%d", n))))
	}
	wantProblem(t, r.PutPasskey(t.Context(), "local", passkey(u, "one-more")), 422, postern.CodeInvalid)
	must(t, r.DisableUser(t.Context(), u.ID))
	if _, _, err := r.Passkey(t.Context(), "m0"); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("of a disabled user: got %v, want ErrNotFound", err)
	}
}
