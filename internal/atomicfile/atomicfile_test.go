package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// disk is a folder that loses power after so many operations. Of what was not synced by then anything may be on disk: of a file's
// contents any beginning, and of the names that were changed any number of the changes, in order. A kernel may write names
// before contents.
type disk struct {
	files   map[string]*content // as programs see the names
	old     []map[string]*content
	left    int // operations until the power goes
	fail    int // this operation fails, counted down; 0: none
	created int
}

type content struct {
	data, safe []byte // written; on disk
}

var errPower = errors.New("no power")

func newDisk(left int) *disk { return &disk{files: map[string]*content{}, left: left} }

func (d *disk) step() error {
	if d.left == 0 {
		return errPower
	}
	d.left--
	if d.fail > 0 {
		if d.fail--; d.fail == 0 {
			return errors.New("input/output error")
		}
	}
	return nil
}

// names changes the names; the old ones may come back if power goes before the next sync.
func (d *disk) names(f func()) {
	d.old = append(d.old, maps.Clone(d.files))
	f()
}

func (d *disk) create() (file, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	d.created++
	f := &diskFile{d: d, n: fmt.Sprintf("new-%d", d.created), c: &content{}}
	d.names(func() { d.files[f.n] = f.c })
	return f, nil
}

func (d *disk) rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.names(func() { d.files[to] = d.files[from]; delete(d.files, from) })
	return nil
}

func (d *disk) remove(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.names(func() { delete(d.files, name) })
	return nil
}

func (d *disk) sync() error {
	if err := d.step(); err != nil {
		return err
	}
	d.old = nil
	return nil
}

type diskFile struct {
	d *disk
	n string
	c *content
}

func (f *diskFile) name() string            { return f.n }
func (f *diskFile) chmod(fs.FileMode) error { return f.d.step() }
func (f *diskFile) Close() error            { return f.d.step() }

func (f *diskFile) Write(p []byte) (int, error) {
	if err := f.d.step(); err != nil {
		return 0, err
	}
	f.c.data = append(f.c.data, p...)
	return len(p), nil
}

func (f *diskFile) sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.c.safe = slices.Clone(f.c.data)
	return nil
}

// afterCrash is all that a file of that name may hold when the power is back; "-" if it may be missing.
func (d *disk) afterCrash(name string) (may []string) {
	for _, names := range append(d.old, d.files) {
		c, ok := names[name]
		if !ok {
			may = append(may, "-")
			continue
		}
		for n := len(c.safe); n <= len(c.data); n++ {
			may = append(may, string(c.data[:n]))
		}
	}
	slices.Sort(may)
	return slices.Compact(may)
}

// The power goes after each operation in turn: the key is the old one, or the new one, or, if there was none, missing. It is never
// empty or a part. Once Write has returned it is the new one.
func TestWrite_APowerCutLeavesTheOldOrTheNew(t *testing.T) {
	for _, old := range []string{"-", "old key"} {
		done := false
		for after := 0; !done; after++ {
			d := newDisk(-1)
			if old != "-" {
				if err := write(d, "key", []byte(old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d.left = after
			err := write(d, "key", []byte("new key"), 0o600)
			may := d.afterCrash("key")
			if done = err == nil; done {
				if !slices.Equal(may, []string{"new key"}) {
					t.Errorf("it was written, and after a power cut it may be %q", may)
				}
				continue
			}
			if !errors.Is(err, errPower) {
				t.Errorf("got %v", err)
			}
			for _, m := range may {
				if m != old && m != "new key" {
					t.Errorf("after %d operations on %q: the key may be %q", after, old, m)
				}
			}
			if after > 50 {
				t.Fatal("it does not end")
			}
		}
	}
}

// Any operation may fail: the old contents stay, unless they have been replaced already, and nothing is left beside them.
func TestWrite_AFailureLeavesTheOld(t *testing.T) {
	for at := 1; ; at++ {
		d := newDisk(-1)
		if err := write(d, "key", []byte("old key"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.fail = at
		err := write(d, "key", []byte("new key"), 0o600)
		if d.fail > 0 {
			if at == 1 {
				t.Fatal("nothing failed")
			}
			return
		}
		if err == nil {
			t.Errorf("operation %d failed, and it was not told", at)
		}
		if got := string(d.files["key"].data); got != "old key" && got != "new key" || len(d.files) != 1 {
			t.Errorf("operation %d failed: got %q among %d files", at, got, len(d.files))
		}
	}
}

func TestWrite_OnTheRealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "key")
	if err := Write(path, nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its folder: got %v", err)
	}
	for range 2 {
		if err := Folder(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i, perm := range []fs.FileMode{0o600, 0o644, 0o600} {
		want := fmt.Sprint("contents ", i)
		if err := Write(path, []byte(want), perm); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("got %q, %v want %q", got, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != perm {
			t.Errorf("got mode %v, %v want %v", info.Mode(), err, perm)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: got %v, %v", info.Mode(), err)
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 1 {
		t.Errorf("got %v, %v want the file alone", all, err)
	}
	if err := Folder(filepath.Join(path, "below"), 0o700); err == nil {
		t.Error("a folder below a file was made")
	}
	if err := Folder(path, 0o700); err == nil {
		t.Error("a file was taken for a folder")
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if all, _ := os.ReadDir(dir); len(all) != 2 {
		t.Errorf("a write that failed left %v", all)
	}
}
