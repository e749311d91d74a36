package shape_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxIndefinite is how many indefinite words 1,000 words of Go comments may have. An indefinite
// word (see indefinite) stands where a noun would tell the reader which object is meant. The
// comments of wireguard-go, etcd's raft, corerad and tailscale have 2 to 4, nebula's 6
// (counted on 27 November 2026). The count points at sentences to rewrite; a synonym in place
// of the word does not help the reader.
const maxIndefinite = 10

var (
	word       = regexp.MustCompile(`[a-z]+`)
	indefinite = regexp.MustCompile(`\b(one|ones|who|what|whatever|nothing|others|such|that\s+of)\b`)
)

// density is the count of words and of indefinite words in a text.
type density struct {
	file       string
	words, bad int
}

// perThousand returns the indefinite words per 1,000 words; zero for an empty text.
func (d density) perThousand() float64 { return 1000 * float64(d.bad) / float64(max(d.words, 1)) }

// add counts the words of a text.
func (d *density) add(text string) {
	text = strings.ToLower(text)
	d.words += len(word.FindAllString(text, -1))
	d.bad += len(indefinite.FindAllString(text, -1))
}

// comments counts the words of a Go file's comments without directives, for example //go:build.
func comments(t *testing.T, path string) density {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	d := density{file: path}
	for _, group := range f.Comments {
		d.add(group.Text())
	}
	return d
}

func TestSentencesNameTheirNouns(t *testing.T) {
	var all density
	var files []density
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "bin" || e.Name() == ".git"):
			return fs.SkipDir
		case e.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		d := comments(t, path)
		files, all.words, all.bad = append(files, d), all.words+d.words, all.bad+d.bad
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f indefinite words per 1,000 of %d words of comments", all.perThousand(), all.words)
	if all.perThousand() <= maxIndefinite {
		return
	}
	t.Errorf("comments have %.1f indefinite words per 1,000, more than %d; most of them are in:", all.perThousand(), maxIndefinite)
	slices.SortFunc(files, func(a, b density) int { return b.bad - a.bad })
	for _, d := range files[:min(20, len(files))] {
		t.Errorf("%4d of %5d words: %s", d.bad, d.words, strings.TrimPrefix(d.file, "../../"))
	}
}

func TestIndefiniteWordsAreCounted(t *testing.T) {
	var d density
	d.add("One that is there keeps what it was made with; the key is\nthat of the others, a phone is not.")
	if d.words != 21 || d.bad != 4 {
		t.Errorf("counted %d indefinite of %d words, want 4 of 21", d.bad, d.words)
	}
}
