package shape_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The sizes that keep a file readable.
const (
	maxFileLines     = 400
	maxFunctionLines = 70
	maxReadmeLines   = 40
)

// parse reads the package's files except generated files.
func parse(t *testing.T, set *token.FileSet, p pkg) []*ast.File {
	t.Helper()
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if !ast.IsGenerated(f) {
			files = append(files, f)
		}
	}
	return files
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	for _, p := range list(t, "./...") {
		documented := len(p.GoFiles) == 0 // only tests
		for _, f := range parse(t, token.NewFileSet(), p) {
			documented = documented || f.Doc != nil
		}
		if !documented {
			t.Errorf("%s has no package comment", p.short())
		}
	}
}

func TestEveryExportedNameIsExplained(t *testing.T) {
	for _, p := range list(t, "./...") {
		set := token.NewFileSet()
		for _, f := range parse(t, set, p) {
			for _, d := range f.Decls {
				for _, name := range unexplained(d) {
					t.Errorf("%s: exported %s has no comment", set.Position(name.Pos()), name.Name)
				}
			}
		}
	}
}

// unexplained returns the exported names of a declaration that have no comment.
func unexplained(d ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && receiverExported(d) && !wellKnown(d) {
			return []*ast.Ident{d.Name}
		}
	case *ast.GenDecl:
		var out []*ast.Ident
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					out = append(out, s.Name)
				}
			case *ast.ValueSpec:
				if d.Doc == nil && s.Doc == nil && s.Comment == nil && s.Names[0].IsExported() {
					out = append(out, s.Names[0])
				}
			}
		}
		return out
	}
	return nil
}

// wellKnown reports whether every reader knows the meaning of a method.
func wellKnown(d *ast.FuncDecl) bool {
	return d.Recv != nil && (d.Name.Name == "String" || d.Name.Name == "Error" || d.Name.Name == "Unwrap")
}

// receiverExported reports whether a function has no receiver, or an exported type as receiver.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

func TestFilesAndFunctionsFitAScreen(t *testing.T) {
	for _, p := range list(t, "./...") {
		set := token.NewFileSet()
		for _, f := range parse(t, set, p) {
			if lines := set.File(f.Pos()).LineCount(); lines > maxFileLines {
				t.Errorf("%s has %d lines, more than %d", set.Position(f.Package).Filename, lines, maxFileLines)
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				lines := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1
				if lines > maxFunctionLines {
					t.Errorf("%s: %s has %d lines, more than %d", set.Position(fn.Pos()), fn.Name.Name, lines, maxFunctionLines)
				}
				if fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: an init function", set.Position(fn.Pos()))
				}
			}
		}
	}
}

// TestNoTestIsSkippedForWhatMakeTestInstalls looks at every skip in the tree: what is missing
// on a machine must fail the run, so a skip needs a reason that is not about the machine.
func TestNoTestIsSkippedForWhatMakeTestInstalls(t *testing.T) {
	allowed := map[string]string{
		"backend/engine/wg/protocol_test.go": "one side of the pair is another implementation",
		"backend/engine/wg/kernel_test.go":   "ethtool is in test/tools/packages.sh; a driver may refuse",
	}
	for _, p := range list(t, "./...") {
		for _, name := range append(p.TestGoFiles, p.XTestGoFiles...) {
			file := filepath.Join(p.short(), name)
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.SelectorExpr)
				if ok && strings.HasPrefix(call.Sel.Name, "Skip") && allowed[file] == "" && isTester(call.X) {
					t.Errorf("%s skips a test", file)
				}
				return true
			})
		}
	}
}

// isTester reports whether an expression is the usual name of a testing.TB.
func isTester(x ast.Expr) bool {
	name, ok := x.(*ast.Ident)
	return ok && (name.Name == "t" || name.Name == "b" || name.Name == "tb")
}

func TestEveryTopFolderHasAShortReadme(t *testing.T) {
	for _, dir := range []string{"cmd", "config", "subnet", "backend", "network", "test", "deploy"} {
		text, err := os.ReadFile(filepath.Join("../..", dir, "README.md"))
		if err != nil {
			t.Error(err)
			continue
		}
		if lines := bytes.Count(text, []byte("\n")); lines > maxReadmeLines {
			t.Errorf("%s/README.md has %d lines, more than %d", dir, lines, maxReadmeLines)
		}
		for line := range strings.Lines(string(text)) {
			if file := fileIn(line); file != "" {
				if _, err := os.Stat(filepath.Join("../..", dir, file)); err != nil {
					t.Errorf("%s/README.md names %s, which is not there", dir, file)
				}
			}
		}
	}
}

// fileIn returns the target of a line's first relative link.
func fileIn(line string) string {
	_, rest, ok := strings.Cut(line, "](")
	target, _, closed := strings.Cut(rest, ")")
	if !ok || !closed || strings.Contains(target, "://") {
		return ""
	}
	target, _, _ = strings.Cut(target, "#")
	return target
}
