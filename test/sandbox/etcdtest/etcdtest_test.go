package etcdtest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/sandbox/etcdtest"
)

func TestServerIsHealthyWhenStartReturns(t *testing.T) {
	resp, err := http.Get(etcdtest.Start(t) + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), `"health":"true"`) {
		t.Errorf("/health: %s, %v, want health true", body, err)
	}
}
