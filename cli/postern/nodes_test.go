package main

import (
	"slices"
	"testing"

	"postern"
)

func TestAlone(t *testing.T) {
	office := serving("office", "default", "books")
	store, drained, away := serving("store", "books"), serving("store", "books"), serving("store", "books")
	drained.Draining, away.Reached = true, false
	tests := []struct {
		name  string
		nodes []postern.NodeState
		want  []string
	}{
		{"nobody else", []postern.NodeState{office}, []string{"default", "books"}},
		{"one of two", []postern.NodeState{office, store}, []string{"default"}},
		{"both", []postern.NodeState{office, store, serving("attic", "default")}, nil},
		{"one that drains", []postern.NodeState{office, drained}, []string{"default", "books"}},
		{"one that is not reached", []postern.NodeState{office, away}, []string{"default", "books"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := alone(office, tt.nodes); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// serving returns a node that browsers get through to.
func serving(id string, services ...string) postern.NodeState {
	n := postern.NodeState{ID: id, Reached: true}
	for _, s := range services {
		n.Services = append(n.Services, postern.Service{Name: s})
	}
	return n
}
