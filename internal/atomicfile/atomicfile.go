// Package atomicfile replaces files so that a crash or a power cut leaves the old contents or the new ones, and never a part
// or nothing. It takes no locks: two writers of one file at a time each replace it whole. Call Write.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path, or makes it. When it returns nil, the new contents are on disk under that name.
// perm is the new file's, whatever the process's mask says. The folder must be there: see Folder.
func Write(path string, data []byte, perm fs.FileMode) error {
	if err := write(osFolder(filepath.Dir(path)), filepath.Base(path), data, perm); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Folder makes a folder and those above it that are missing, and is durable when it returns: what Write puts into a folder
// is lost with the folder, if only the folder's own entry is not on disk.
func Folder(dir string, perm fs.FileMode) error {
	dir = filepath.Clean(dir)
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := Folder(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if info, err := os.Stat(dir); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("make folder %s: a file of that name is there", dir)
	}
	return osFolder(parent).sync()
}

// folder is a folder of a disk that may lose power at any moment.
type folder interface {
	create() (file, error) // a new file with a name of its own, for its owner alone
	rename(from, to string) error
	remove(name string) error
	sync() error // names that were given and taken away are on disk
}

type file interface {
	io.WriteCloser
	name() string
	chmod(fs.FileMode) error
	sync() error // contents are on disk
}

// write in order: a file's contents must be on disk before its name is, or a crash between them leaves a name with nothing.
func write(d folder, name string, data []byte, perm fs.FileMode) (err error) {
	f, err := d.create()
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.chmod(perm)
	}
	if err == nil {
		err = f.sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.rename(f.name(), name)
	}
	if err != nil {
		return errors.Join(err, d.remove(f.name()))
	}
	return d.sync()
}

type osFolder string

type osFile struct{ *os.File }

func (d osFolder) create() (file, error) {
	f, err := os.CreateTemp(string(d), ".new-*") // mode 0600
	return osFile{f}, err
}

func (d osFolder) rename(from, to string) error {
	return os.Rename(filepath.Join(string(d), from), filepath.Join(string(d), to))
}

func (d osFolder) remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

func (d osFolder) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (f osFile) name() string                 { return filepath.Base(f.Name()) }
func (f osFile) chmod(perm fs.FileMode) error { return f.Chmod(perm) }
func (f osFile) sync() error                  { return f.Sync() }
