package page_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/loden-net/loden/network/node/page"
)

// get asks the page's handler.
func get(t *testing.T, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	mux := http.NewServeMux()
	page.Register(mux)
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func TestThePageHasAStrictPolicy(t *testing.T) {
	files, err := os.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"/"}
	for _, f := range files {
		paths = append(paths, "/assets/"+f.Name())
	}
	for _, p := range paths {
		got := get(t, p)
		if got.Code != http.StatusOK {
			t.Errorf("%s: %d", p, got.Code)
		}
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(got.Header().Get("Content-Security-Policy"), part) {
				t.Errorf("%s has no %s", p, part)
			}
		}
		if got.Header().Get("X-Content-Type-Options") != "nosniff" || got.Header().Get("Content-Type") == "" {
			t.Errorf("%s: %v", p, got.Header())
		}
	}
}

// A page that loads from elsewhere would fail where it is needed most: without a network.
func TestThePageNeedsNoOtherOrigin(t *testing.T) {
	files, err := os.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	foreign := regexp.MustCompile(`https?://[^\s"')]+`)
	inline := regexp.MustCompile(`(?i)<script>|<style|\son[a-z]+=|\sstyle=|innerHTML|insertAdjacentHTML|eval\(`)
	for _, f := range files {
		data, err := os.ReadFile("assets/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, url := range foreign.FindAllString(string(data), -1) {
			if url != "http://www.w3.org/2000/svg" { // the name of SVG's elements, which is not loaded
				t.Errorf("%s names %s", f.Name(), url)
			}
		}
		if found := inline.FindString(string(data)); found != "" {
			t.Errorf("%s has %q, which the policy forbids", f.Name(), found)
		}
	}
}

func TestABrowserKeepsAFileUntilTheProgramChanges(t *testing.T) {
	first := get(t, "/")
	tag := first.Header().Get("ETag")
	if again := get(t, "/", "If-None-Match", tag); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("with %s: %d, %d bytes", tag, again.Code, again.Body.Len())
	}
	if other := get(t, "/", "If-None-Match", `"0"`); other.Code != http.StatusOK {
		t.Errorf("with another tag: %d", other.Code)
	}
}

func TestOnlyFilesOfThePageAreServed(t *testing.T) {
	for _, p := range []string{"/assets/", "/assets/none.js", "/assets/..%2fpage.go", "/other"} {
		if got := get(t, p); got.Code != http.StatusNotFound {
			t.Errorf("%s: %d", p, got.Code)
		}
	}
}
