package rpc

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/crowdcompute/crowd"
)

// sink is a backend that takes content and does nothing else.
type sink struct {
	Backend
	data []byte
	err  error
}

func (s *sink) AddFile(_ context.Context, r io.Reader) (crowd.CID, error) {
	var err error
	s.data, err = io.ReadAll(r)
	return "cid", errors.Join(err, s.err)
}

func (s *sink) AddFolder(_ context.Context, dir fs.FS) (crowd.CID, error) {
	return "cid", fs.WalkDir(dir, ".", func(_ string, _ fs.DirEntry, err error) error { return err })
}

func newUploads(t testing.TB, b UploadBounds) (*uploads, *sink) {
	t.Helper()
	s := &sink{}
	us, err := openUploads(filepath.Join(t.TempDir(), "uploads"), b.withDefaults(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(us.close)
	return us, s
}

func (us *uploads) mustBegin(t testing.TB, kind string) string {
	t.Helper()
	id, err := us.begin(kind)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestUpload_Bounds(t *testing.T) {
	us, _ := newUploads(t, UploadBounds{Open: 3, Size: 2 * MaxChunk, Total: 3 * MaxChunk, Entries: 4})
	file, folder := us.mustBegin(t, KindFile), us.mustBegin(t, KindFolder)
	full := make([]byte, MaxChunk)
	for _, tt := range []struct {
		name string
		do   func() error
		want Kind
	}{
		{"unknown kind", func() error { _, err := us.begin("link"); return err }, BadRequest},
		{"unknown upload", func() error { return us.write("x", "", 0, nil) }, NotFound},
		{"chunk too large", func() error { return us.write(file, "", 0, make([]byte, MaxChunk+1)) }, TooLarge},
		{"path for a file", func() error { return us.write(file, "a", 0, nil) }, BadRequest},
		{"hole", func() error { return us.write(file, "", 1, []byte("x")) }, Conflict},
		{"negative offset", func() error { return us.write(file, "", -1, []byte("x")) }, Conflict},
		{"first", func() error { return us.write(file, "", 0, full) }, ""},
		{"the same again", func() error { return us.write(file, "", 0, full) }, Conflict},
		{"second", func() error { return us.write(file, "", MaxChunk, full) }, ""},
		{"larger than one may be", func() error { return us.write(file, "", 2*MaxChunk, []byte("x")) }, TooLarge},
		{"no path", func() error { return us.write(folder, "", 0, nil) }, BadRequest},
		{"up", func() error { return us.write(folder, "../x", 0, nil) }, BadRequest},
		{"absolute", func() error { return us.write(folder, "/etc/passwd", 0, nil) }, BadRequest},
		{"root", func() error { return us.write(folder, "./", 0, nil) }, BadRequest},
		{"zero byte", func() error { return us.write(folder, "a\x00b", 0, nil) }, BadRequest},
		{"backslash", func() error { return us.write(folder, `a\b`, 0, nil) }, BadRequest},
		{"long", func() error { return us.write(folder, strings.Repeat("a/", 600)+"b", 0, nil) }, BadRequest},
		{"deep", func() error { return us.write(folder, strings.Repeat("a/", 40)+"b", 0, nil) }, BadRequest},
		{"nested", func() error { return us.write(folder, "d/a", 0, full) }, ""},
		{"all together too large", func() error { return us.write(folder, "d/a", MaxChunk, []byte("x")) }, Unavailable},
		{"file as folder", func() error { return us.write(folder, "d/a/b", 0, nil) }, BadRequest},
		{"folder as file", func() error { return us.write(folder, "d", 0, nil) }, BadRequest},
		{"data for a folder", func() error { return us.write(folder, "e/", 0, []byte("x")) }, BadRequest},
		{"folder", func() error { return us.write(folder, "e/", 0, nil) }, ""},
		{"folder again", func() error { return us.write(folder, "e/", 0, nil) }, ""},
		{"last entry", func() error { return us.write(folder, "f", 0, nil) }, ""},
		{"one entry too many", func() error { return us.write(folder, "g", 0, nil) }, TooLarge},
		{"one folder too many", func() error { return us.write(folder, "g/", 0, nil) }, TooLarge},
		{"third upload", func() error { _, err := us.begin(KindFile); return err }, ""},
		{"one upload too many", func() error { _, err := us.begin(KindFile); return err }, Unavailable},
		{"abort", func() error { return us.abort(file) }, ""},
		{"abort again", func() error { return us.abort(file) }, NotFound},
		{"room again", func() error { return us.write(folder, "d/a", MaxChunk, []byte("x")) }, ""},
		{"finish", func() error { _, err := us.finish(t.Context(), folder); return err }, ""},
		{"finish again", func() error { _, err := us.finish(t.Context(), folder); return err }, NotFound},
	} {
		if got := KindOf(tt.do()); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if us.total != 0 {
		t.Errorf("got %d bytes reserved, want 0", us.total)
	}
}

func TestUpload_EmptyFileAndFolder(t *testing.T) {
	us, _ := newUploads(t, UploadBounds{})
	for _, kind := range []string{KindFile, KindFolder} {
		if _, err := us.finish(t.Context(), us.mustBegin(t, kind)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestUpload_IsOverWhenTheBackendRefuses(t *testing.T) {
	us, s := newUploads(t, UploadBounds{})
	s.err = Errorf(Unavailable, "disk full")
	id := us.mustBegin(t, KindFile)
	if err := us.write(id, "", 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := us.finish(t.Context(), id); KindOf(err) != Unavailable {
		t.Errorf("got %v, want the backend's error", err)
	}
	left, _ := os.ReadDir(us.dir)
	if len(left) != 0 || us.total != 0 {
		t.Errorf("got %d folders and %d bytes left, want none", len(left), us.total)
	}
}

func TestUpload_Expires(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		us, err := openUploads(filepath.Join(dir, "u"), UploadBounds{Expiry: time.Minute}.withDefaults(), &sink{})
		if err != nil {
			t.Fatal(err)
		}
		defer us.close()
		id := us.mustBegin(t, KindFile)
		time.Sleep(59 * time.Second) // on the bubble's clock
		if err := us.write(id, "", 0, []byte("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if err := us.write(id, "", 1, []byte("y")); err != nil {
			t.Errorf("a write does not prolong: %v", err)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if err := us.write(id, "", 2, []byte("z")); KindOf(err) != NotFound {
			t.Errorf("got %v, want it expired", err)
		}
		if us.total != 0 {
			t.Errorf("got %d bytes reserved, want 0", us.total)
		}
	})
}
