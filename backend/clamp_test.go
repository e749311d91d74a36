package backend

import (
	"strings"
	"testing"
)

// WireGuard fixes some bits of a key that it is given. A key that was not fixed before
// would differ from the one read back, and be set again at every look.
func TestKeyHasTheBitsThatWireGuardFixes(t *testing.T) {
	for _, text := range []string{strings.Repeat("/", 43) + "=", "AQ" + strings.Repeat("A", 41) + "="} {
		key, ok := parseKey(text)
		raw := key.bytes()
		if !ok || raw[0]&7 != 0 || raw[31]&128 != 0 || raw[31]&64 == 0 {
			t.Errorf("%s: %t, ends %08b … %08b", text, ok, raw[0], raw[31])
		}
	}
}
