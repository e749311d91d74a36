// Package shape_test owns the rules about the tree itself: who may import whom, that every
// package and exported name says what it is for, and that no pointer hides in the values
// that nodes are computed from. It knows the code as text and types, not what it does.
package shape_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the path that every package of ours starts with.
const module = "github.com/loden-net/loden/"

// pkg is a package as `go list` describes it.
type pkg struct {
	ImportPath   string
	Name         string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
}

// short returns the path inside the module.
func (p pkg) short() string { return strings.TrimPrefix(p.ImportPath, module) }

// list returns packages as `go list` sees them.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Name,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports"}, args...)...)
	cmd.Dir, cmd.Stderr = "../..", os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []pkg
	dec := json.NewDecoder(out)
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil || len(all) == 0 {
		t.Fatalf("go list %v: %v, %d packages", args, err, len(all))
	}
	return all
}

// layer returns how high a package is: imports go down only, so a package may import what
// is lower, and of its own layer only its own subtree's.
func layer(short string) int {
	top, _, _ := strings.Cut(short, "/")
	switch {
	case short == "config/opt" || short == "config/diff":
		return 0
	case top == "config":
		return 1
	case top == "backend" || top == "subnet":
		return 2
	case top == "network":
		return 3
	case top == "cmd" || top == "test":
		return 4
	}
	return -1
}

// toolbox is the package that tests of every layer use: it does not know Loden.
const toolbox = "test/sandbox"

// badImport returns the reason why from may not import to, or "".
func badImport(from, to string) string {
	if !strings.HasPrefix(to, module) {
		return badForeign(from, to)
	}
	to = strings.TrimPrefix(to, module)
	if strings.HasPrefix(from, toolbox) && !strings.HasPrefix(to, toolbox) {
		return "the sandbox knows nothing of Loden"
	}
	if strings.HasPrefix(to, toolbox) && !strings.HasPrefix(from, toolbox) && layer(from) < 4 {
		return "the sandbox is for tests and the lab"
	}
	fromTop, _, _ := strings.Cut(from, "/")
	toTop, _, _ := strings.Cut(to, "/")
	switch {
	case layer(from) < 0 || layer(to) < 0:
		return "a top folder that the design does not have"
	case layer(to) > layer(from):
		return "imports go down only"
	case layer(to) == layer(from) && fromTop != toTop && !(from == "cmd/loden-lab" && toTop == "test"):
		return "backend and subnet do not know each other, nor do programs and tests"
	case layer(from) == 0:
		return "opt and diff are leaves"
	case (fromTop == "network" || fromTop == "backend") && !within(from, "network/node") && within(to, "subnet/etcd"):
		return "the store is for the node and for cmd alone"
	case fromTop != "cmd" && fromTop != "test" && !within(from, "network/node") && within(to, "network/node"):
		return "the node is the top of what can be imported: only programs and tests build on it"
	case from == "subnet" && strings.HasPrefix(to, "subnet/etcd"):
		return "subnet is pure"
	case strings.HasPrefix(from, "cmd/loden-cni") && to != "config" && !strings.HasPrefix(to, "config/") && !strings.HasPrefix(to, "cmd/loden-cni"):
		return "the CNI plugin knows config only"
	}
	return ""
}

// within reports whether a package is root or lies below it.
func within(short, root string) bool { return short == root || strings.HasPrefix(short, root+"/") }

// badForeign returns the reason why a package may not import another module's, or "".
func badForeign(from, to string) string {
	etcd := strings.HasPrefix(to, "go.etcd.io/")
	switch {
	case etcd && strings.Contains(to, "/server/"):
		return "etcd's server is a program of its own, in test/tools/etcd"
	case etcd && !strings.HasPrefix(from, "subnet/etcd") && layer(from) < 4:
		return "only subnet/etcd speaks to etcd"
	case layer(from) == 0 && strings.Contains(strings.Split(to, "/")[0], "."):
		return "opt and diff use the standard library only"
	}
	return ""
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, to := range p.Imports {
			if why := badImport(p.short(), to); why != "" {
				t.Errorf("%s imports %s: %s", p.short(), strings.TrimPrefix(to, module), why)
			}
		}
	}
}

// TestRulesOfImportsBite keeps the table above from approving everything.
func TestRulesOfImportsBite(t *testing.T) {
	for _, c := range [][2]string{
		{"network", "go.etcd.io/etcd/client/v3"},
		{"network", module + "subnet/etcd"},
		{"network", module + "network/node"},
		{"network/firewall", module + "network/node"},
		{"network/node", "go.etcd.io/etcd/client/v3"},
		{"subnet", module + "backend"},
		{"config", module + "subnet"},
		{"config/opt", "github.com/rs/zerolog"},
		{"cmd/loden-cni", module + "network"},
		{"cmd/loden", "go.etcd.io/etcd/server/v3/embed"},
		{"backend", module + "test/sandbox"},
		{"helpers", module + "config"},
	} {
		if badImport(c[0], c[1]) == "" {
			t.Errorf("%s may import %s: nothing forbids it", c[0], c[1])
		}
	}
}

// TestProgramsLinkOnlyWhatTheyNeed looks at everything that ends up in a binary.
func TestProgramsLinkOnlyWhatTheyNeed(t *testing.T) {
	for program, banned := range map[string][]string{
		"./cmd/loden":     {"go.etcd.io/etcd/server"},
		"./cmd/loden-cni": {"go.etcd.io/", "golang.zx2c4.com/", module + "network", module + "subnet", module + "backend"},
	} {
		for _, dep := range list(t, "-deps", program) {
			at := slices.IndexFunc(banned, func(b string) bool { return strings.HasPrefix(dep.ImportPath, b) })
			if at >= 0 {
				t.Errorf("%s links %s", program, dep.ImportPath)
			}
		}
	}
}
