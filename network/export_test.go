package network

import (
	"context"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// The parts that need nothing but the kernel, for tests that let each face it alone.

func RouteChanges(ctx context.Context, tunnel string, want []Route) ([]diff.Change, error) {
	return routes{tunnel: tunnel}.changes(ctx, want)
}

func SysctlChanges(ctx context.Context, before string, want []Sysctl) ([]diff.Change, error) {
	return sysctls{before: before}.changes(ctx, want)
}

func EnvChanges(ctx context.Context, path string, want opt.Option[config.Env]) ([]diff.Change, error) {
	return envFile{path: path}.changes(ctx, want)
}
