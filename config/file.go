package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// WriteFile replaces the file at path by data in a single step: a reader, or a crash at any
// moment, sees the old content whole or the new content whole. The new file has exactly
// mode, independent of the umask; missing parent directories are made with dirMode. It
// writes a temporary file beside path, syncs it, renames it and syncs the directory. A
// process that is killed meanwhile leaves the temporary file: Sweep removes it.
func WriteFile(path string, data []byte, mode, dirMode os.FileMode) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(dir, temporary(path)+"*") // with mode 0600, so a secret is never readable by others
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// temporary returns the start of the names of the files that WriteFile makes beside path. A
// decimal number follows.
func temporary(path string) string { return "." + filepath.Base(path) + "." }

// Sweep removes the temporary files that WriteFile left beside path when its process was
// killed. The caller makes sure that no other process writes path at the same time. A
// directory that does not exist is no error.
func Sweep(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), temporary(path))
		if _, err := strconv.ParseUint(number, 10, 64); !ok || err != nil || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("sweep: %w", err))
		}
	}
	return errors.Join(errs...)
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
