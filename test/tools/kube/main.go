// Command kube renders our Kubernetes manifests and checks them: every object must decode
// strictly into the API's own type, so that a misspelt field is an error here and not a
// field that the API server drops. It asks no cluster and no network.
//
//	kube kustomize DIR            # as `kubectl apply -k` would read it
//	kube chart DIR [VALUES.yaml]  # as `helm template` would
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	sigsyaml "sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
}

func run(args []string, w io.Writer) error {
	if len(args) < 2 {
		return errors.New("usage: kube kustomize DIR | kube chart DIR [VALUES.yaml]")
	}
	render := kustomize
	if args[0] == "chart" {
		render = chart
	}
	text, err := render(args[1:])
	if err != nil {
		return err
	}
	if err := check(text); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// kustomize builds a directory as `kubectl kustomize` does.
func kustomize(args []string) ([]byte, error) {
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), args[0])
	if err != nil {
		return nil, err
	}
	return result.AsYaml()
}

// chart renders a chart with its own values and those of a file.
func chart(args []string) ([]byte, error) {
	c, err := loader.Load(args[0])
	if err != nil {
		return nil, err
	}
	values := chartutil.Values{}
	if len(args) > 1 {
		if values, err = chartutil.ReadValuesFile(args[1]); err != nil {
			return nil, err
		}
	}
	release := chartutil.ReleaseOptions{Name: "loden", Namespace: "loden-system", IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(files))
	for name := range files {
		if strings.HasSuffix(name, ".yaml") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out bytes.Buffer
	for _, name := range names {
		fmt.Fprintf(&out, "---\n# %s\n%s\n", name, strings.TrimSpace(files[name]))
	}
	return out.Bytes(), nil
}

// check decodes every object strictly.
func check(text []byte) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer documents.Close()
	buffer := make([]byte, len(text)+1)
	objects := 0
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !bytes.Contains(buffer[:n], []byte("kind:")) {
			continue // a template that renders to an empty text
		}
		if bytes.Contains(buffer[:n], []byte("kind: PodMonitor")) {
			if err := sigsyaml.UnmarshalStrict(buffer[:n], &podMonitor{}); err != nil {
				return fmt.Errorf("PodMonitor: %w in\n%s", err, buffer[:n])
			}
		} else if _, kind, err := decoder.Decode(buffer[:n], nil, nil); err != nil {
			return fmt.Errorf("%v: %w in\n%s", kind, err, buffer[:n])
		}
		objects++
	}
	if objects == 0 {
		return errors.New("nothing was rendered")
	}
	fmt.Fprintf(os.Stderr, "kube: %d objects\n", objects)
	return nil
}
