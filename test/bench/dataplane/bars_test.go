package main

import "testing"

// filled is the result of three rounds: loden is twice as fast as wireguard-go.
func filled() *results {
	r := newResults()
	for round, rate := range []float64{1, 2, 3} {
		r.add(round, "wireguard-go", "tcp1", values{"Gbit/s": rate, "CPU s/GB": 8})
		r.add(round, "loden", "tcp1", values{"Gbit/s": 2 * rate, "CPU s/GB": 5})
	}
	r.add(0, "loden", "tcp1.v6", values{"Gbit/s": 3.7})
	return r
}

func TestBarComparesMediansOfOneRun(t *testing.T) {
	for _, c := range []struct {
		name  string
		bar   bar
		other string
		ratio float64
		words string
	}{
		{"reached", bar{test: "tcp1", quantity: "Gbit/s", limit: 1.6}, "wireguard-go", 2, "reached"},
		{"too little", bar{test: "tcp1", quantity: "Gbit/s", limit: 4}, "wireguard-go", 2, "MISSED: 50 % too little"},
		{"too much", bar{test: "tcp1", quantity: "CPU s/GB", limit: 0.5, atMost: true}, "wireguard-go", 0.625, "MISSED: 25 % too much"},
		{"only told", bar{test: "tcp1", quantity: "Gbit/s"}, "wireguard-go", 2, ""},
		{"its own other test", bar{test: "tcp1.v6", quantity: "Gbit/s", toTest: "tcp1", limit: 0.9}, "loden", 0.925, "reached"},
		{"not measured", bar{test: "tcp4", quantity: "Gbit/s", limit: 1}, "wireguard-go", 0, "not measured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := c.bar.judge(filled(), "loden", c.other)
			if v.ratio != c.ratio || v.words != c.words {
				t.Errorf("got %v %q, want %v %q", v.ratio, v.words, c.ratio, c.words)
			}
		})
	}
}

func TestMissingRoundsAreRunAgain(t *testing.T) {
	tests, err := parseTests("tcp1,tcp1.v6,bound")
	if err != nil {
		t.Fatal(err)
	}
	all := []contender{{"wireguard-go", rolePlain, ""}, {"loden", roleLoden, ""}}
	r := filled()
	if todo := missing(r, all, tests, 3); len(todo) != 1 || todo[0].name != "loden" || todo[0].test.name != "tcp1.v6" {
		t.Errorf("got %v, want tcp1.v6 of loden", todo)
	}
	if todo := missing(r, all, tests, 4); len(todo) != 3 {
		t.Errorf("got %v, want three jobs", todo)
	}
}

func TestUnknownTestsAreRefused(t *testing.T) {
	for _, text := range []string{"", "tcp2", "tcp1.v7", "tcp1,"} {
		if _, err := parseTests(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
