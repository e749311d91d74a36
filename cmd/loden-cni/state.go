package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// attachment is an interface of a container on the network: the unit of ADD and DEL.
type attachment = types.GCAttachment

// record is the delegation of an attachment on disk. It exists from before the delegate's ADD
// until the delegate's DEL has succeeded, so that a DEL, its retry, or GC undoes the ADD even
// when the node's subnet or the configuration has changed meanwhile.
type record struct {
	Plugin string `json:"plugin"`
	NetNS  string `json:"netns"`
	Config object `json:"config"`
}

// records is the directory of a network's records: a file for each container and interface.
type records struct {
	dir string
}

// openRecords returns the records of a network. The first write makes the directory.
func openRecords(dataDir, network string) records {
	return records{dir: filepath.Join(dataDir, network)}
}

// path returns the file of a record. A container ID has no "@" in it (parseCall checks that, and that
// neither part is a path), so the name can be taken apart again.
func (r records) path(a attachment) string {
	return filepath.Join(r.dir, a.ContainerID+"@"+a.IfName)
}

// read returns the record of an attachment, or fs.ErrNotExist.
func (r records) read(a attachment) (record, error) {
	data, err := os.ReadFile(r.path(a))
	if err != nil {
		return record{}, err
	}
	var got record
	if err := json.Unmarshal(data, &got); err != nil {
		return record{}, fmt.Errorf("read record %s: %w", r.path(a), err)
	}
	return got, nil
}

// write replaces a record in one step: a crash leaves either the old or the new record whole. It
// does not wait for the disk, which would take a tenth of an ADD: after a power cut the container
// of the record is gone as well, and DEL and GC work without a record.
func (r records) write(a attachment, rec record) (err error) {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	tmp, err := os.CreateTemp(r.dir, ".record*")
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), r.path(a))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write record: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}

// remove removes the record of an attachment; a missing record is no error.
func (r records) remove(a attachment) error {
	if err := os.Remove(r.path(a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}

// list returns every attachment with a record. Half-written files of a killed process
// are removed on the way: only GC lists, and no ADD runs beside it (CNI specification,
// "Lifecycle & Ordering").
func (r records) list() ([]attachment, error) {
	files, err := os.ReadDir(r.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var all []attachment
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			if err := os.Remove(filepath.Join(r.dir, f.Name())); err != nil {
				return nil, fmt.Errorf("remove half-written record: %w", err)
			}
			continue
		}
		if id, ifname, ok := strings.Cut(f.Name(), "@"); ok {
			all = append(all, attachment{ContainerID: id, IfName: ifname})
		}
	}
	return all, nil
}
