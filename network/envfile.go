package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// envFile is the part of the reconciler that owns subnet.env. It comes after everything
// else: the file says that the data path is in place.
type envFile struct{ path string }

// changes compares the file's bytes: an equal meaning in other bytes is written anew, so
// that the file always holds exactly the result of Bytes.
func (e envFile) changes(_ context.Context, want opt.Option[config.Env]) ([]diff.Change, error) {
	have, err := os.ReadFile(e.path)
	exists := !errors.Is(err, fs.ErrNotExist)
	if err != nil && exists {
		return nil, fmt.Errorf("read subnet file: %w", err)
	}
	env, ok := want.Get()
	switch {
	case ok && (!exists || !bytes.Equal(have, env.Bytes())):
		return []diff.Change{{Part: envPart, Verb: "write", Object: e.path, Run: func(context.Context) error {
			return config.WriteFile(e.path, env.Bytes(), 0o644, 0o755)
		}}}, nil
	case !ok && exists:
		return []diff.Change{{Part: envPart, Verb: "delete", Object: e.path, Run: func(context.Context) error {
			return os.Remove(e.path)
		}}}, nil
	}
	return nil, nil
}
