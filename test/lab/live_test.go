package lab

import (
	"slices"
	"testing"
	"time"
)

func TestPathIsDownAfterTwoEchoesWithoutAnswer(t *testing.T) {
	start := time.Now()
	p := LivePath{}.note(time.Millisecond, start)
	p = p.note(0, start.Add(time.Second))
	if p.Down() {
		t.Error("a single lost echo makes the path down")
	}
	p = p.note(0, start.Add(2*time.Second))
	if !p.Down() || p.Since != start.Add(time.Second) {
		t.Errorf("after two lost echoes: down %v since %v, want the time of the first", p.Down(), p.Since.Sub(start))
	}
	if p = p.note(time.Millisecond, start.Add(3*time.Second)); p.Down() || !p.Since.IsZero() {
		t.Errorf("after an answer the path is still down: %+v", p)
	}
}

func TestPathsTakeTurnsAndDoubtfulPathsComeFirst(t *testing.T) {
	paths := []LivePath{
		{asked: 3}, {asked: 1}, {asked: 2},
		{asked: 3, Silent: 1},  // a second echo decides
		{asked: 3, Silent: 40}, // known to be down: in turn
	}
	if got, want := due(paths, 3), []int{3, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("due: %v, want %v", got, want)
	}
	if got := due(paths, 10); len(got) != len(paths) {
		t.Errorf("due: %d paths, want all %d", len(got), len(paths))
	}
}
