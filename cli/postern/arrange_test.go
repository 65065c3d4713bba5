package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	commands := newApp(io.Discard, io.Discard).Commands
	tests := []struct {
		name, args, want string
	}{
		{"nothing", "", ""},
		{"options behind operands", "tenants add acme --title T", "tenants add --title T -- acme"},
		{"options around operands", "tenants add --json acme -o json", "tenants add --json -o json -- acme"},
		{"value with equals sign", "tenants add acme --title=T", "tenants add --title=T -- acme"},
		{"switch takes no value", "tenants remove --yes acme", "tenants remove --yes -- acme"},
		{"options in front", "--data D tenants list", "tenants list --data D"},
		{"switch in front", "--json status", "status --json"},
		{"alias", "tenant rm acme --yes", "tenant rm --yes -- acme"},
		{"single dash is an operand", "nodes show -", "nodes show -- -"},
		{"single dash is a value", "node join --token-file - --name n", "node join --token-file - --name n"},
		{"double dash ends options", "nodes show -- --data", "nodes show -- --data"},
		{"value missing", "nodes list -o", "nodes list -o"},
		{"value missing in front", "--data", "--data"},
		{"unknown option", "nodes show x --quick", "nodes show --quick -- x"},
		{"unknown command", "nodes lst --json", "nodes lst --json"},
		{"help", "help tenants add", "tenants add --help"},
		{"help alone", "help", "--help"},
		{"completion is left alone", "tenants add acme --title --generate-bash-completion", "tenants add acme --title --generate-bash-completion"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"postern"}, strings.Fields(tt.args)...)
			before := slices.Clone(args)
			got := arrange(commands, args)
			want := append([]string{"postern"}, strings.Fields(tt.want)...)
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if !slices.Equal(args, before) {
				t.Errorf("the arguments became %q", args)
			}
		})
	}
}
