// Command sbom writes the image's bill of materials, SPDX 2.3 in JSON: the Go modules that
// the programs say they were linked from, and the Debian packages that a list names. It
// reads files only and asks nobody.
//
//	sbom -name loden -version v1 -packages FILE PROGRAM... >sbom.spdx.json
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	name := flag.String("name", "loden", "what the document is about")
	version := flag.String("version", "dev", "its version")
	packages := flag.String("packages", "", "file of Debian packages: name, version, architecture on each line")
	flag.Parse()
	if err := write(os.Stdout, *name, *version, *packages, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// ours is the module that the image is of.
const ours = "github.com/loden-net/loden"

// part is a component of the image, by its package URL.
type part struct{ name, version, purl string }

// write collects the parts and prints the document.
func write(w io.Writer, name, version, packages string, programs []string) error {
	seen := map[part]bool{}
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return fmt.Errorf("read %s: %w", program, err)
		}
		seen[part{"stdlib", info.GoVersion, "pkg:golang/stdlib@" + strings.TrimPrefix(info.GoVersion, "go")}] = true
		if info.Main.Path != ours { // a program of another module: that is a part too
			info.Deps = append(info.Deps, &info.Main)
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			seen[part{m.Path, m.Version, "pkg:golang/" + m.Path + "@" + m.Version}] = true
		}
	}
	if packages != "" {
		data, err := os.ReadFile(packages)
		if err != nil {
			return err
		}
		for _, p := range debian(data) {
			seen[p] = true
		}
	}
	parts := make([]part, 0, len(seen))
	for p := range seen {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(a.purl, b.purl) })
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(document(name, version, parts))
}

// debian reads the list of packages; it ignores a line that does not have three words.
func debian(data []byte) []part {
	var all []part
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 {
			all = append(all, part{f[0], f[1], "pkg:deb/debian/" + f[0] + "@" + f[1] + "?arch=" + f[2]})
		}
	}
	return all
}

// object is a JSON object; its members are printed in the order of their names.
type object map[string]any

// document makes the SPDX document. Equal parts give equal bytes.
func document(name, version string, parts []part) object {
	hash := sha256.New()
	packages := []object{spdxPackage("SPDXRef-image", part{name: name, version: version})}
	relations := []object{relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")}
	for i, p := range parts {
		id := fmt.Sprintf("SPDXRef-%d", i)
		packages = append(packages, spdxPackage(id, p))
		relations = append(relations, relation("SPDXRef-image", "CONTAINS", id))
		fmt.Fprintln(hash, p.purl)
	}
	return object{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
		"name":              name + "-" + version,
		"documentNamespace": fmt.Sprintf("https://spdx.org/spdxdocs/%s-%s-%x", name, version, hash.Sum(nil)[:8]),
		"creationInfo":      object{"created": created().Format(time.RFC3339), "creators": []string{"Tool: loden-sbom"}},
		"packages":          packages,
		"relationships":     relations,
	}
}

func spdxPackage(id string, p part) object {
	o := object{"SPDXID": id, "name": p.name, "versionInfo": p.version, "downloadLocation": "NOASSERTION", "filesAnalyzed": false}
	if p.purl != "" {
		o["externalRefs"] = []object{{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": p.purl}}
	}
	return o
}

func relation(from, kind, to string) object {
	return object{"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to}
}

// created is SOURCE_DATE_EPOCH, so that equal sources give equal images; the start of
// 1970 where it is not set.
func created() time.Time {
	seconds, _ := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64) // 0 when it is not a number
	return time.Unix(seconds, 0).UTC()
}
