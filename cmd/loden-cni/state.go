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

// attachment is one interface of one container on the network: the unit of ADD and DEL.
type attachment = types.GCAttachment

// note is what is kept of an attachment, from before the delegate is asked to ADD until
// its DEL has succeeded, so that a DEL, a retry of it, or GC undoes what was done even when
// the node's subnet or the configuration has changed meanwhile.
type note struct {
	Plugin string          `json:"plugin"`
	NetNS  string          `json:"netns"`
	Config json.RawMessage `json:"config"`
}

// notebook is the directory of a network's notes: one file for each container and
// interface.
type notebook struct {
	dir string
}

// open returns the notes of one network. Nothing is made until the first write.
func open(dataDir, network string) notebook {
	return notebook{dir: filepath.Join(dataDir, network)}
}

// path of a note. A container ID has no "@" in it (parseCall checks that, and that
// neither part is a path), so the name can be taken apart again.
func (n notebook) path(a attachment) string {
	return filepath.Join(n.dir, a.ContainerID+"@"+a.IfName)
}

// read returns the note of an attachment; fs.ErrNotExist when there is none.
func (n notebook) read(a attachment) (note, error) {
	data, err := os.ReadFile(n.path(a))
	if err != nil {
		return note{}, err
	}
	var got note
	if err := json.Unmarshal(data, &got); err != nil {
		return note{}, fmt.Errorf("read note %s: %w", n.path(a), err)
	}
	return got, nil
}

// write keeps a note in one step: a crash leaves the old one or the new one whole. It does
// not wait for the disk (that would be a tenth of an ADD): after a power cut no container
// is left that the note could be about, and a lost note is made up for by DEL and GC.
func (n notebook) write(a attachment, what note) (err error) {
	data, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	tmp, err := os.CreateTemp(n.dir, ".note*")
	if err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), n.path(a))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write note: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}

// remove forgets an attachment; one that is not known is no error.
func (n notebook) remove(a attachment) error {
	if err := os.Remove(n.path(a)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove note: %w", err)
	}
	return nil
}

// list returns every attachment that has a note. Half-written files of a killed process
// are removed on the way: only GC lists, and no ADD runs beside it (CNI specification,
// "Lifecycle & Ordering").
func (n notebook) list() ([]attachment, error) {
	files, err := os.ReadDir(n.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list notes: %w", err)
	}
	var all []attachment
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			if err := os.Remove(filepath.Join(n.dir, f.Name())); err != nil {
				return nil, fmt.Errorf("remove half a note: %w", err)
			}
			continue
		}
		if id, ifname, ok := strings.Cut(f.Name(), "@"); ok {
			all = append(all, attachment{ContainerID: id, IfName: ifname})
		}
	}
	return all, nil
}
