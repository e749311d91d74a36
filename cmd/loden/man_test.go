package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestEveryCommandHasAManualPage(t *testing.T) {
	pages := manPages(rootCommand())
	for _, name := range []string{"loden.8", "loden-run.8", "loden-status.8", "loden-why.8", "loden-doctor.8", "loden-lease-list.8", "loden-network-put.8"} {
		page := string(pages[name])
		for _, section := range []string{".TH LODEN", ".SH NAME", ".SH SYNOPSIS", ".SH SEE ALSO"} {
			if !strings.Contains(page, section) {
				t.Errorf("%s has no %s:\n%.300s", name, section, page)
			}
		}
	}
	request := regexp.MustCompile(`^\.(TH|SH|B|BR|TP|PP|nf|fi)\b`)
	for name, page := range pages {
		for line := range strings.Lines(string(page)) {
			if (strings.HasPrefix(line, ".") && !request.MatchString(line)) || strings.HasPrefix(line, "'") || strings.ContainsAny(line, "`") {
				t.Errorf("%s: the formatter misreads the line %q", name, line)
			}
		}
	}
}

func TestManualPagesAreWrittenToADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man8")
	if status, _, stderr := loden(t, "man", dir); status != 0 {
		t.Fatal(stderr)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) < 15 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestLinesThatBeginLikeRequestsAreEscaped(t *testing.T) {
	if got := paragraphs(".SH trap\n'tick\n\na-b \\n `x`"); got != "\\&.SH trap\n\\&'tick\n.PP\na\\-b \\en \\(gax\\(ga\n" {
		t.Errorf("%q", got)
	}
}
