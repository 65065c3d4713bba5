package portal

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxRates is how many keys are remembered; beyond it all start afresh.
const maxRates = 8192

// rates bound how often something happens, by key.
type rates struct {
	every time.Duration
	burst int

	mu sync.Mutex
	of map[string]*rate.Limiter
}

func newRates(every time.Duration, burst int) *rates { return &rates{every: every, burst: burst} }

func (s *rates) allow(key string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || len(s.of) >= maxRates {
		s.of = make(map[string]*rate.Limiter)
	}
	l := s.of[key]
	if l == nil {
		l = rate.NewLimiter(rate.Every(s.every), s.burst)
		s.of[key] = l
	}
	return l.AllowN(now, 1)
}
