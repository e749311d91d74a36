//go:build k8s

package k8s

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

const (
	// imagesEnv names the directory with the images and their contents, which are made
	// before the sandbox is entered: their build needs the network.
	imagesEnv = "LODEN_TEST_K8S_IMAGES"
	podImage  = "localhost/loden-test-pod:1"
)

func TestMain(m *testing.M) {
	if os.Getenv(imagesEnv) == "" {
		dir, err := build()
		if err == nil {
			err = os.Setenv(imagesEnv, dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "build images:", err)
			os.Exit(1)
		}
	}
	sandboxtest.Main(m)
}

// build makes three archives: Loden's image, etcd's, and the pods', which has our program and
// busybox for its ping.
func build() (string, error) {
	dir, err := filepath.Abs("../../.cache/test/k8s")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("sh", "-euc", `
mkdir -p "$1"
rm -f "$1"/*.tar
../../deploy/image/build.sh localhost/loden:k8s
buildah push -q localhost/loden:k8s docker-archive:"$1/loden.tar":localhost/loden:1
CGO_ENABLED=0 go build -trimpath -o "$1/pod" ./pod
c=$(buildah from scratch)
e=$(buildah from scratch)
trap 'buildah rm "$c" "$e" >/dev/null' EXIT
buildah add -q "$c" "$1/pod" /bin/pod >/dev/null
buildah add -q "$c" /bin/busybox /bin/ping >/dev/null
buildah config --entrypoint '["/bin/pod"]' --cmd pause --env PATH=/bin "$c"
buildah commit -q "$c" docker-archive:"$1/pod.tar":`+podImage+` >/dev/null
buildah add -q "$e" "$2" /bin/etcd >/dev/null
buildah config --env PATH=/bin "$e"
buildah commit -q "$e" docker-archive:"$1/etcd.tar":localhost/loden-test-etcd:1 >/dev/null`, "sh", dir, program("etcd"))
	cmd.Env = append(os.Environ(), "LODEN_OFFLINE=1", "STORAGE_DRIVER=overlay")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return dir, cmd.Run()
}

// program returns the path of something that make built.
func program(name string) string { return repository("bin/k8s/" + name) }

// image returns the path of something that build made.
func image(name string) string { return filepath.Join(os.Getenv(imagesEnv), name) }

// repository returns the absolute path of something in the repository.
func repository(path string) string {
	abs, err := filepath.Abs(filepath.Join("../..", path))
	if err != nil {
		return path // without a working directory the test cannot work at all
	}
	return abs
}
