package accept_test

import (
	"net/http"
	"testing"

	"postern/internal/accept"
)

func TestHTML(t *testing.T) {
	tests := []struct {
		name   string
		accept []string // lines of the header
		want   bool
	}{
		{"browser", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}, true},
		{"curl", []string{"*/*"}, false},
		{"empty", []string{""}, false},
		{"nothing", nil, false},
		{"API", []string{"application/json"}, false},
		{"API, pages if need be", []string{"application/json, text/html;q=0.1"}, false},
		{"problems, pages if need be", []string{"application/problem+json", "text/html"}, false},
		{"pages, JSON if need be", []string{"TEXT/HTML ; q=1, application/json"}, true},
		{"on a second line", []string{"image/avif", "application/xhtml+xml"}, true},
		{"image", []string{"image/avif,image/webp,*/*;q=0.8"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &http.Request{Header: http.Header{"Accept": tt.accept}}
			if got := accept.HTML(r); got != tt.want {
				t.Errorf("HTML of %q = %v, want %v", tt.accept, got, tt.want)
			}
		})
	}
}
