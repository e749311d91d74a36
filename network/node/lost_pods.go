package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// recordsDir is the directory in which loden-cni keeps the records of the network of our
// conflist: the plugin's default directory, and the network's name.
const recordsDir = "/var/lib/cni/loden/loden"

// collectEvery is the time between two looks at the records.
const collectEvery = 30 * time.Second

// lostPods detaches the pods that their runtime has lost. A runtime that forgets a pod, because
// its files were deleted or the machine lost power, never calls DEL for it, and containerd (2.4)
// does not call GC: the pod's address and the rules of its ports stay, until the subnet is full.
// Such a pod is known by its network namespace, which is gone. The DEL that the runtime owes is
// run here; a DEL may come twice (CNI specification, "DEL").
type lostPods struct {
	records string // directory of loden-cni's records
	binDir  string // of the plugins
	conf    conflist
	log     zerolog.Logger

	// exec runs a plugin with variables and with a configuration as its input.
	exec func(ctx context.Context, plugin string, variables []string, input []byte) error

	// suspects is the attachments whose namespace was gone at the last look: the runtime has
	// the time between two looks for a DEL of its own.
	suspects map[string]bool
}

// newLostPods looks after the pods that the conflist of c attaches.
func newLostPods(c cniInstall, log zerolog.Logger) *lostPods {
	return &lostPods{records: recordsDir, binDir: c.binDir, conf: c.conf, log: log, exec: execPlugin}
}

// Run looks at the records now and with each tick, until ctx ends. It returns nil.
func (l *lostPods) Run(ctx context.Context, ticks <-chan time.Time) error {
	for {
		if err := l.collect(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn().Err(err).Msg("lost pods not detached; their addresses stay in use")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
	}
}

// collect detaches the attachments that were lost at the last look and still are.
func (l *lostPods) collect(ctx context.Context) error {
	files, err := os.ReadDir(l.records)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list records of pods: %w", err)
	}
	suspects := map[string]bool{}
	var errs []error
	for _, f := range files {
		container, ifname, ok := strings.Cut(f.Name(), "@")
		if !ok || strings.HasPrefix(f.Name(), ".") || !lost(filepath.Join(l.records, f.Name())) {
			continue
		}
		suspects[f.Name()] = true
		if !l.suspects[f.Name()] {
			continue
		}
		if err := l.detach(ctx, container, ifname); err != nil {
			errs = append(errs, fmt.Errorf("detach pod %s: %w", container, err))
			continue
		}
		l.log.Info().Str("object", container).Str("interface", ifname).Msg("pod detached that its runtime had lost")
	}
	l.suspects = suspects
	return errors.Join(errs...)
}

// lost reports whether the network namespace of a record is gone. It is gone only when its
// directory is there: a daemon in a container may not see the directory at all. A path below
// /proc tells nothing, since another process may have the number by now.
func lost(record string) bool {
	data, err := os.ReadFile(record)
	if err != nil {
		return false // a DEL has just removed it
	}
	var r struct {
		NetNS string `json:"netns"`
	}
	if json.Unmarshal(data, &r) != nil || !filepath.IsAbs(r.NetNS) || strings.HasPrefix(r.NetNS, "/proc/") {
		return false
	}
	if dir, err := os.Stat(filepath.Dir(r.NetNS)); err != nil || !dir.IsDir() {
		return false
	}
	_, err = os.Lstat(r.NetNS)
	return errors.Is(err, fs.ErrNotExist)
}

// detach runs DEL of each plugin of the conflist, the last plugin first, as the runtime would.
func (l *lostPods) detach(ctx context.Context, container, ifname string) error {
	data, err := l.conf.bytes()
	if err != nil {
		return err
	}
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	variables := []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=" + container, "CNI_NETNS=", "CNI_IFNAME=" + ifname, "CNI_PATH=" + l.binDir}
	var errs []error
	// portmap (v1.10.0) deletes the rules of a container by its name, and does nothing for a
	// container without a port: any port does.
	anyPort := map[string]any{"portMappings": []map[string]any{{"hostPort": 1, "containerPort": 1, "protocol": "tcp"}}}
	for _, plugin := range slices.Backward(list.Plugins) {
		if plugin["capabilities"] != nil {
			plugin["runtimeConfig"] = anyPort
		}
		plugin["cniVersion"], plugin["name"] = list.CNIVersion, list.Name
		input, err := json.Marshal(plugin)
		if err == nil {
			err = l.exec(ctx, filepath.Join(l.binDir, fmt.Sprint(plugin["type"])), variables, input)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// execPlugin runs a CNI plugin. A plugin says on its standard output what went wrong.
func execPlugin(ctx context.Context, plugin string, variables []string, input []byte) error {
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Env = append(os.Environ(), variables...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.Output(); err != nil {
		return fmt.Errorf("%s DEL: %w: %s", filepath.Base(plugin), err, bytes.TrimSpace(out))
	}
	return nil
}
