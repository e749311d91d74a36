package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
)

// RecordPath returns the path of the record of the settings with which the node runs.
func RecordPath(runDir string) string { return filepath.Join(runDir, "settings.json") }

// Record returns the Settings.Record of the node that runs with this run directory, or that
// ran with it last and was not removed by Down since. It is nil when there was no such node.
func Record(runDir string) ([]byte, error) {
	data, err := os.ReadFile(RecordPath(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings of the daemon: %w", err)
	}
	return data, nil
}

// keepRecord writes the record, or removes an old record when the settings have no record.
func keepRecord(s Settings) error {
	if s.Record == nil {
		return dropRecord(s.RunDir)
	}
	return config.WriteFile(RecordPath(s.RunDir), s.Record, 0o600, 0o755)
}

// dropRecord removes the record.
func dropRecord(runDir string) error {
	if err := os.Remove(RecordPath(runDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the settings of the daemon: %w", err)
	}
	return nil
}

// sweep removes the temporary files that a SIGKILL in the middle of a write left beside this
// node's files. They may hold the network document and its pre-shared key. The caller holds
// the lock, so no other daemon of this node is writing.
func sweep(s Settings) {
	files := []string{
		savedPath(s.StateDir), backend.KeyPath(s.StateDir), RecordPath(s.RunDir), filepath.Join(s.RunDir, "sysctls-found.json"),
		backend.EndpointPath(s.RunDir, s.Interface), s.SubnetFile,
	}
	if s.CNI.ConfDir != "" {
		files = append(files, filepath.Join(s.CNI.ConfDir, conflistName))
	}
	if s.CNI.BinDir != "" {
		files = append(files, filepath.Join(s.CNI.BinDir, manifestName))
		for _, name := range plugins() {
			files = append(files, filepath.Join(s.CNI.BinDir, name))
		}
	}
	for _, path := range files {
		if err := config.Sweep(path); err != nil {
			s.Log.Warn().Err(err).Msg("temporary files of an earlier run stay")
		}
	}
}
