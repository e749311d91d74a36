package shape_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryFaultOfFlannelHasATestThatExists checks docs/flannel-faults.md: a row for each fault,
// and each test that a row names is in the tree.
func TestEveryFaultOfFlannelHasATestThatExists(t *testing.T) {
	checkTestNames(t, "docs/flannel-faults.md")
	text := read(t, "docs/flannel-faults.md")
	for i := 1; i <= 31; i++ {
		if !strings.Contains(text, fmt.Sprintf("\n| R%d | ", i)) {
			t.Errorf("docs/flannel-faults.md has no row for R%d", i)
		}
	}
}

// TestEveryTestOfTheThreatModelExists checks the names of tests in docs/security.md.
func TestEveryTestOfTheThreatModelExists(t *testing.T) { checkTestNames(t, "docs/security.md") }

// checkTestNames fails for every test that a document names and the tree does not have.
func checkTestNames(t *testing.T, document string) {
	t.Helper()
	have := testNames(t)
	for _, name := range regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(read(t, document), -1) {
		if !have[name[1]] {
			t.Errorf("%s names %s, which does not exist", document, name[1])
		}
	}
}

// A reader of the documents follows their links.
func TestLinksOfTheDocumentsLeadToFiles(t *testing.T) {
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, document := range append(documents, "../../README.md", "../../CONTRIBUTING.md", "../../SECURITY.md") {
		data, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(data, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), string(m[1]))); err != nil {
				t.Errorf("%s links to %s, which does not exist", filepath.Base(document), m[1])
			}
		}
	}
}

// read returns a file of the tree.
func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// testNames returns the names of all tests and fuzz targets.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, p := range list(t, "./...") {
		for _, file := range append(p.TestGoFiles, p.XTestGoFiles...) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					names[fn.Name.Name] = true
				}
			}
		}
	}
	return names
}

// R30: lease data must never reach a shell, so the product starts none.
func TestProductStartsNoShell(t *testing.T) {
	shell := regexp.MustCompile(`exec\.Command(Context)?\([^)]*"(/bin/)?(ba|da|a)?sh"`)
	for _, p := range list(t, "./...") {
		if layer(p.short()) == 4 && !strings.HasPrefix(p.short(), "cmd/loden") {
			continue
		}
		for _, file := range p.GoFiles {
			data, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if shell.Match(data) && !strings.HasPrefix(p.short(), "cmd/loden-lab") {
				t.Errorf("%s/%s starts a shell", p.short(), file)
			}
		}
	}
}
