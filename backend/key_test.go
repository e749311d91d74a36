package backend_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend"
)

func TestKeyIsMadeOnceForRootAloneAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	key, created, err := backend.OpenKey(dir)
	if err != nil || !created {
		t.Fatalf("created %t, %v", created, err)
	}
	info, err := os.Stat(backend.KeyPath(dir))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	again, created, err := backend.OpenKey(dir)
	if err != nil || created || !again.Equal(key) || again.Public() != key.Public() {
		t.Fatalf("second open: created %t, same %t, %v", created, again.Equal(key), err)
	}
	if again.Equal(backend.PrivateKey{}) {
		t.Error("the key equals no key")
	}
}

func TestGarbledKeyFileIsReportedAndLeftAlone(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "truncated": "aGVsbG8", "not base64": "not a key\n", "zeros": base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"too long": base64.StdEncoding.EncodeToString(make([]byte, 33)), "binary": "\x00\xff\x00",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(backend.KeyPath(dir), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, created, err := backend.OpenKey(dir)
			want := "read private key: " + backend.KeyPath(dir) + " holds no WireGuard private key: " +
				"put it back from a backup, or remove the file to give this node a new identity"
			if created || err == nil || err.Error() != want {
				t.Errorf("got %v", err)
			}
			if got, _ := os.ReadFile(backend.KeyPath(dir)); string(got) != text {
				t.Errorf("the file is now %q", got)
			}
		})
	}
}

func TestUnreadableKeyFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(backend.KeyPath(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, created, err := backend.OpenKey(dir); err == nil || created {
		t.Errorf("created %t, %v", created, err)
	}
}

func TestReadKeyMakesNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := backend.ReadKey(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestKeyFileThatOthersMayReadIsClosed(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := backend.OpenKey(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(backend.KeyPath(dir), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.ReadKey(dir); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(backend.KeyPath(dir)); info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestKeyReadBackIsWhatWireGuardMakesOfIt(t *testing.T) {
	dir := t.TempDir()
	raw := strings.Repeat("\xff", 32) // X25519 clears and sets some bits of it; `wg pubkey` says what comes of it
	if err := os.WriteFile(backend.KeyPath(dir), []byte(base64.StdEncoding.EncodeToString([]byte(raw))), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := backend.ReadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if key.Public().String() != "hHwNLDdSNPNl5mCVUYejc1oPdhPRYJ06ak2MU66qWiI=" {
		t.Errorf("public key %v", key.Public())
	}
}

func TestPrivateKeyNeverPrints(t *testing.T) {
	dir := t.TempDir()
	key, _, err := backend.OpenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(backend.KeyPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	nested := struct{ inner backend.PrivateKey }{key}
	inJSON, err := json.Marshal(map[string]any{"key": key, "list": []backend.PrivateKey{key}})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	logger := zerolog.New(&log)
	logger.Info().Interface("key", key).Any("nested", nested).Stringer("again", stringer{key}).Msg("")
	said := string(inJSON) + log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%c", "%U", "%t", "%p"} {
		said += fmt.Sprintf(verb+verb+verb, key, &key, nested)
	}
	for _, form := range []string{
		strings.TrimSpace(string(text)), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("%d", secret)[1:60],
		fmt.Sprintf("%#v", secret)[7:60], fmt.Sprintf("%b", secret)[1:60], string(secret),
	} {
		if strings.Contains(said, form) {
			t.Errorf("%q is in what was printed", form)
		}
	}
}

type stringer struct{ key backend.PrivateKey }

func (s stringer) String() string { return fmt.Sprint(s.key) }

func FuzzKeyFile(f *testing.F) {
	for _, seed := range []string{"", "\n", "AAAA", "not a key", strings.Repeat("A", 43) + "=", strings.Repeat("/", 43) + "=\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(backend.KeyPath(dir), text, 0o600); err != nil {
			t.Fatal(err)
		}
		key, created, err := backend.OpenKey(dir)
		if created {
			t.Fatal("a file that is there was replaced")
		}
		if err == nil && key.Equal(backend.PrivateKey{}) {
			t.Fatal("no key and no error")
		}
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), string(text)) {
			t.Fatalf("the error quotes the file: %v", err)
		}
	})
}
