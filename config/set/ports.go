package set

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Ports is a set of ports. It is comparable with ==; the zero value is empty.
type Ports struct{ text string } // sorted, distinct, joined by ","

// NewPorts returns the set of ports. It leaves out port 0.
func NewPorts(ports ...uint16) Ports {
	sorted := slices.Sorted(slices.Values(ports))
	var words []string
	for _, p := range slices.Compact(sorted) {
		if p != 0 {
			words = append(words, strconv.Itoa(int(p)))
		}
	}
	return Ports{text: strings.Join(words, ",")}
}

// ParsePorts reads decimal ports of 1 to 65535, joined by commas. The empty text is the empty set.
func ParsePorts(text string) (Ports, error) {
	var ports []uint16
	for word := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(text) == "" {
			break
		}
		p, err := strconv.ParseUint(strings.TrimSpace(word), 10, 16)
		if err != nil || p == 0 {
			return Ports{}, fmt.Errorf("%q is no port: give ports from 1 to 65535, joined by commas", word)
		}
		ports = append(ports, uint16(p))
	}
	return NewPorts(ports...), nil
}

// All yields the ports in rising order.
func (s Ports) All() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		if s.text == "" {
			return
		}
		for word := range strings.SplitSeq(s.text, ",") {
			p, _ := strconv.ParseUint(word, 10, 16) // written by NewPorts
			if !yield(uint16(p)) {
				return
			}
		}
	}
}

// String returns the ports joined by commas, as ParsePorts reads them.
func (s Ports) String() string { return s.text }

// IsZero reports whether the set is empty.
func (s Ports) IsZero() bool { return s.text == "" }
