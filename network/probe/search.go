package probe

import "time"

// search finds the largest IP packet that comes back. It asks with the size of the tunnel's
// MTU from time to time; when packets of this size are lost and small packets pass, it bisects.
//
//	0 ... good ... bad ... full
type search struct {
	full int // bytes of the tunnel's MTU; 0 asks no large question

	good  int       // largest size that came back; 0: none
	bad   int       // smallest size that is lost; 0: none
	at    time.Time // of the last large question
	size  int       // of the last large question
	open  int       // small answers that are missing until the last large question counts as lost; 0: it does not wait
	tries int       // large questions of this size that were lost in a row, proven by small answers
	lost  int       // large questions of the full size that were lost since the search ended
}

const (
	largeTries = 2 // lost large questions after which a size counts as bad
	smallRuns  = 3 // small questions that must come back after each of them
	searchTo   = 8 // bytes: how exact the search is
	checkGood  = 6 // of so many large questions after a search one has the good size, the others the full size
)

// reset starts anew, for a tunnel's MTU or after a change of the path.
func (s *search) reset(full int) { *s = search{full: full} }

// broken reports whether packets of the tunnel's MTU are lost.
func (s *search) broken() bool { return s.bad != 0 }

// busy reports whether another large question should follow soon.
func (s *search) busy() bool {
	return s.full != 0 && (s.at.IsZero() || s.open > 0 || s.tries > 0 || s.bad != 0 && s.bad-s.good > searchTo)
}

// next returns the size of a question that is due, or 0 for a small question.
func (s *search) next(now time.Time, every time.Duration) int {
	switch {
	case s.full == 0 || s.open > 0:
		return 0
	case s.tries > 0:
		return s.size
	case s.bad != 0 && s.bad-s.good > searchTo:
		return (s.good + s.bad) / 2 &^ 3
	case s.at.IsZero() || now.Sub(s.at) >= every:
		if s.bad != 0 && s.lost%checkGood == checkGood-1 {
			return s.good
		}
		return s.full
	}
	return 0
}

// ask notes a large question.
func (s *search) ask(now time.Time, size int) { s.at, s.size, s.open = now, size, smallRuns }

// back notes that a large question came back.
func (s *search) back(size int) {
	s.good = max(s.good, size)
	if s.bad != 0 && size >= s.bad {
		s.bad = 0
	}
	if size == s.size {
		s.open, s.tries = 0, 0
	}
	if s.lost%checkGood == checkGood-1 {
		s.lost++
	}
}

// small notes that a small question came back: a large question that was asked before and
// has no answer is lost.
func (s *search) small() {
	if s.open--; s.open != 0 {
		s.open = max(s.open, 0)
		return
	}
	if s.bad != 0 && s.size >= s.bad { // the full size, asked again
		s.lost++
		return
	}
	if s.tries++; s.tries < largeTries {
		return
	}
	s.tries = 0
	if s.size <= s.good { // what passed passes no longer
		s.good = 0
	}
	s.bad, s.lost = s.size, 0
}
