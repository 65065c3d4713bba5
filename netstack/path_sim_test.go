// One goroutine has nothing to race with, and takes ten times as long to be watched.

//go:build !race

package netstack

import (
	"testing"
	"time"
)

// mbit is a rate in bytes a second.
const mbit = 1e6 / 8

// newLine returns a line of a queue of bdps bandwidth-delay products.
func newLine(rate float64, rtt time.Duration, bdps, loss float64) simLine {
	return simLine{rate: rate, delay: rtt / 2, queue: int(bdps * rate * rtt.Seconds()), loss: loss}
}

// share runs the world from one time to another and returns which part of the line
// each sender had meanwhile. What the queue drops is counted anew.
func (s *sim) share(from, to time.Duration, senders ...simSender) []float64 {
	s.run(from)
	s.line.sent, s.line.dropped = 0, 0
	shares := make([]float64, len(senders))
	for i, x := range senders {
		shares[i] = -float64(x.goodput())
	}
	s.run(to)
	for i, x := range senders {
		shares[i] = (shares[i] + float64(x.goodput())) / (s.line.rate * (to - from).Seconds())
	}
	return shares
}

// Over a line that loses by chance, a path carries what the line does, where Reno
// has a few percent of it.
func TestPathHidesRandomLoss(t *testing.T) {
	for _, tt := range []struct {
		name string
		line simLine
		want float64 // part of the line
	}{
		{"1 %, 500 Mbit/s, 40 ms", newLine(500*mbit, 40*time.Millisecond, 1, 0.01), 0.75},
		{"0.1 %, 500 Mbit/s, 40 ms", newLine(500*mbit, 40*time.Millisecond, 1, 0.001), 0.75},
		{"1 %, 100 Mbit/s, 40 ms, short queue", newLine(100*mbit, 40*time.Millisecond, 0.3, 0.01), 0.75},
		{"3 %, 100 Mbit/s, 40 ms", newLine(100*mbit, 40*time.Millisecond, 1, 0.03), 0.6},
		{"0.5 %, 100 Mbit/s, 160 ms", newLine(100*mbit, 160*time.Millisecond, 1, 0.005), 0.75},
	} {
		for flows, name := range map[int]string{1: ", 1 flow", 8: ", 8 flows"} {
			t.Run(tt.name+name, func(t *testing.T) {
				t.Parallel()
				s := newSim(tt.line)
				got := s.share(3*time.Second, 6*time.Second, s.newPath(t, flows))[0]
				r := newSim(tt.line)
				reno := r.share(3*time.Second, 6*time.Second, r.newRival(false))[0]
				t.Logf("path %.2f, Reno %.3f", got, reno)
				if got < tt.want || got < 4*reno {
					t.Errorf("got %.2f of the line, want %.2f; Reno has %.3f", got, tt.want, reno)
				}
			})
		}
	}
}

// Alone on a line without random loss, a path fills it, and a short queue drops
// little of it.
func TestPathAlone(t *testing.T) {
	for _, tt := range []struct {
		name string
		line simLine
		want float64 // part of the line
	}{
		{"queue of 1 BDP", newLine(50*mbit, 40*time.Millisecond, 1, 0), 0.85},
		{"queue of 0.3 BDP", newLine(50*mbit, 40*time.Millisecond, 0.3, 0), 0.85},
		{"queue of 0.1 BDP", newLine(50*mbit, 40*time.Millisecond, 0.1, 0), 0.7},
		{"queue of 4 BDP", newLine(50*mbit, 40*time.Millisecond, 4, 0), 0.85},
		{"slow", newLine(2*mbit, 60*time.Millisecond, 2, 0), 0.7},
		{"long", newLine(50*mbit, 250*time.Millisecond, 1, 0), 0.6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSim(tt.line)
			got := s.share(4*time.Second, 14*time.Second, s.newPath(t, 1))[0]
			drops := float64(s.line.dropped) / float64(s.line.sent)
			t.Logf("%.2f of the line, %.2f %% dropped", got, 100*drops)
			if got < tt.want || drops > 0.02 {
				t.Errorf("got %.2f of the line and %.2f %% dropped, want %.2f and at most 2 %%", got, 100*drops, tt.want)
			}
		})
	}
}

// A machine that wakes the path late does not make it slow: what could not be sent
// meanwhile is sent afterwards.
func TestPathOnBusyMachine(t *testing.T) {
	for _, lag := range []time.Duration{2 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond} {
		t.Run(lag.String(), func(t *testing.T) {
			t.Parallel()
			s := newSim(newLine(100*mbit, 40*time.Millisecond, 1, 0))
			s.lag = lag
			got := s.share(4*time.Second, 14*time.Second, s.newPath(t, 1))[0]
			t.Logf("%.2f of the line", got)
			if got < 0.7 {
				t.Errorf("got %.2f of the line, want 0.7", got)
			}
		})
	}
}

// A path and another's TCP, or two paths, share a line: neither starves.
func TestPathIsFair(t *testing.T) {
	ms := time.Millisecond
	for _, line := range []struct {
		name  string
		line  simLine
		least float64 // part of the line
	}{
		{"queue of 1 BDP", newLine(50*mbit, 40*ms, 1, 0), 0.25},
		{"queue of 0.3 BDP", newLine(50*mbit, 40*ms, 0.3, 0), 0.2},
		{"20 Mbit/s, 100 ms", newLine(20*mbit, 100*ms, 1, 0), 0.2},
		// Who fills a long queue has most of it, as beside BBR.
		{"queue of 4 BDP", newLine(50*mbit, 40*ms, 4, 0), 0.04},
	} {
		for _, rival := range []struct {
			name string
			make func(t *testing.T, s *sim) simSender
		}{
			{"CUBIC", func(t *testing.T, s *sim) simSender { return s.newRival(true) }},
			{"Reno", func(t *testing.T, s *sim) simSender { return s.newRival(false) }},
			{"a path", func(t *testing.T, s *sim) simSender { return s.newPath(t, 1) }},
			{"a path of 8 flows", func(t *testing.T, s *sim) simSender { return s.newPath(t, 8) }},
		} {
			t.Run(line.name+", beside "+rival.name, func(t *testing.T) {
				t.Parallel()
				s := newSim(line.line)
				ours := s.newPath(t, 1)
				var other simSender
				s.after(time.Second, func() { other = rival.make(t, s) })
				s.run(time.Second)
				shares := s.share(8*time.Second, 24*time.Second, ours, other)
				drops := float64(s.line.dropped) / float64(s.line.sent)
				t.Logf("%.2f and %.2f of the line, %.2f %% dropped", shares[0], shares[1], 100*drops)
				if shares[0] < line.least || shares[1] < line.least || drops > 0.02 {
					t.Errorf("got %.2f and %.2f of the line, %.2f %% dropped, want %.2f each and at most 2 %%", shares[0], shares[1], 100*drops, line.least)
				}
			})
		}
	}
}

// What befalls a line is got over.
func TestPathRecovers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		befall func(*simLine) // after 4 s
		over   func(*simLine) // after 6 s
	}{
		{"outage", func(l *simLine) { l.loss = 1 }, func(l *simLine) { l.loss = 0 }},
		{"heavy loss", func(l *simLine) { l.loss = 0.3 }, func(l *simLine) { l.loss = 0 }},
		{"a longer way", func(l *simLine) { l.delay *= 4 }, func(l *simLine) {}},
		{"a shorter way", func(l *simLine) { l.delay /= 4 }, func(l *simLine) {}},
		{"a narrower one", func(l *simLine) { l.rate /= 5 }, func(l *simLine) {}},
		{"a wider one", func(l *simLine) { l.rate *= 3 }, func(l *simLine) {}},
		{"reordering", func(l *simLine) { l.late = 0.02 }, func(l *simLine) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSim(newLine(50*mbit, 40*time.Millisecond, 1, 0))
			p := s.newPath(t, 2)
			s.run(4 * time.Second)
			tt.befall(&s.line)
			s.run(6 * time.Second)
			tt.over(&s.line)
			if got := s.share(30*time.Second, 35*time.Second, p)[0]; got < 0.6 {
				t.Errorf("got %.2f of the line, want 0.6", got)
			}
		})
	}
}
