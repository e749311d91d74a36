package config_test

import (
	"testing"

	"github.com/loden-net/loden/config"
)

func TestInterfaceNameIsOneThatTheKernelTakesAsItIs(t *testing.T) {
	for _, name := range []string{"loden0", "wg0", "fifteen-chars-x", "a", "wg.1", "...", "all0", "ü"} {
		if err := config.CheckInterfaceName(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
	for _, name := range []string{"", "sixteen-chars-xy", "wg%d", "a/b", ".", "..", "wg 0", "wg\n", "wg:1", "all", "default", "\x00", "à", "a\x7f"} {
		if config.CheckInterfaceName(name) == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	want := `interface name "wg%d": give 1 to 15 characters without spaces, '/', ':' and '%', as in loden0; "all" and "default" are reserved`
	if err := config.CheckInterfaceName("wg%d"); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
