package node

import (
	"sync"
	"time"
)

// maxSpent bounds how many states of a spent are told apart.
const maxSpent = 10000

// A spent remembers the sign-ins whose code was sent to be redeemed. A browser that
// repeats a request which it got no answer to must not have the portal believe that
// the code was stolen: it takes back all that came of a code that is used twice (RFC
// 6749, section 4.1.2). The zero value is ready. Its methods are safe for concurrent use.
type spent struct {
	mu    sync.Mutex
	until map[string]time.Time // by id of the state: when that is of no use any more
}

// first reports whether st comes to be redeemed for the first time.
func (s *spent) first(st signInState, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.until[st.ID]; again {
		return false
	}
	if s.until == nil || len(s.until) >= maxSpent {
		kept := map[string]time.Time{}
		for id, until := range s.until {
			if now.Before(until) && len(kept) < maxSpent/2 {
				kept[id] = until
			}
		}
		s.until = kept
	}
	s.until[st.ID] = st.Expires
	return true
}
