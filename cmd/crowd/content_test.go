package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/rpc/rpctest"
)

// half is a node that gives the first half of a file and then breaks off, as a full disk would on this side.
type half struct{ *rpctest.Backend }

func (half) ListResult(_ context.Context, _ crowd.JobID, after string, _ int) ([]rpc.Entry, error) {
	if after != "" {
		return nil, nil
	}
	return []rpc.Entry{{Path: "stdout", Size: 10}}, nil
}

func (half) ReadResult(_ context.Context, _ crowd.JobID, _ string, at int64, _ int) (rpc.Chunk, error) {
	if at > 0 {
		return rpc.Chunk{}, rpc.Errorf(rpc.Unavailable, "it broke off")
	}
	return rpc.Chunk{Data: []byte("12345")}, nil
}

// TestDownload_LeavesNoTruncatedFile shows that a file has its name only when it is whole.
func TestDownload_LeavesNoTruncatedFile(t *testing.T) {
	c, dir := served(t, half{rpctest.New()})
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := download(t.Context(), c, crowd.JobID{}, out); err == nil {
		t.Error("got no error")
	}
	if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
		t.Errorf("got %v, %v; want an empty folder", left, err)
	}
}

func TestKept(t *testing.T) {
	full := fmt.Errorf("output: %w", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	for _, tt := range []struct {
		name string
		err  error
		want string // the hint; "": the error stays as it is
	}{
		{"none", nil, ""},
		{"the user left", context.Canceled, ""},
		{"a full disk", full, "free some space, then get it with: crowd job get 12"},
		{"something else", errors.New("broken"), "get it with: crowd job get 12"},
	} {
		err := kept(tt.err, "the result of job 12 is paid", "crowd job get 12")
		var e *rpc.Error
		errors.As(err, &e)
		ok := err == tt.err
		if tt.want != "" {
			ok = e != nil && e.Hint == tt.want && strings.Contains(err.Error(), "job 12 is paid and kept")
		}
		if !ok {
			t.Errorf("%s: got %v (%+v), want the hint %q", tt.name, err, e, tt.want)
		}
	}
}

// TestStoppable shows that Ctrl-C ends a command that waits for its stdin.
func TestStoppable(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	s := &stoppable{ctx: ctx, r: r}
	go w.Write([]byte("abc"))
	buf := make([]byte, 8)
	if n, err := s.Read(buf); err != nil || string(buf[:n]) != "abc" {
		t.Errorf("got %q, %v; want abc", buf[:n], err)
	}
	cancel()
	if n, err := s.Read(buf); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d, %v; want it cancelled", n, err)
	}
}

// TestInput_ChangedMeansItsContent shows that an input that was only touched or copied back is the same.
func TestInput_ChangedMeansItsContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\ntwo\n")
	files, err := findInputs([]string{path}, strings.NewReader(""), "")
	if err != nil {
		t.Fatal(err)
	}
	by, err := parseCut("lines=1")
	if err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(t.TempDir(), "items")
	if _, err := by.index(files, index); err != nil {
		t.Fatal(err)
	}
	items, err := readItems(index, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	for _, tt := range []struct{ name, text, want string }{
		{"as it was", "", ""},
		{"touched", "one\ntwo\n", ""},
		{"longer", "one\ntwo\nthree\n", "has changed since it was cut into items: it has 14 bytes and had 8"},
		{"other bytes", "one\nTWO\n", "has changed since it was cut into items: it holds other bytes"},
		{"put back", "one\ntwo\n", ""},
	} {
		if tt.text != "" {
			write(tt.text)
			if err := os.Chtimes(path, later, later); err != nil {
				t.Fatal(err)
			}
			later = later.Add(time.Hour)
		}
		var out bytes.Buffer
		err := frames(&out, files, items)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestCut_NamesTheSizeOfWhatIsTooLarge shows that a file that cannot be an item is refused with its own size and a
// cure.
func TestCut_NamesTheSizeOfWhatIsTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "photo.jpg")
	if err := os.WriteFile(path, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ by, want, hint string }{
		{"files", "photo.jpg has 3145728 bytes (3 MiB); an item of a batch has at most 1048576 bytes (1 MiB)",
			"crowd run PROG.wasm --in " + path},
		{"lines=1", "photo.jpg:1 has more than 1048576 bytes (1 MiB)", "--by bytes=N"},
	} {
		c, err := parseCut(tt.by)
		if err != nil {
			t.Fatal(err)
		}
		files, err := findInputs([]string{path}, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.index(files, filepath.Join(t.TempDir(), "items"))
		var e *rpc.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(e.Hint, tt.hint) {
			t.Errorf("%s: got %v (%+v), want %q and the hint %q", tt.by, err, e, tt.want, tt.hint)
		}
	}
}

func TestScarce(t *testing.T) {
	for _, tt := range []struct {
		name string
		gas  crowd.Gas
		size int64
		want string
	}{
		{"a small input", 1e6, 1 << 10, ""},
		{"enough", 100e9, 64 << 20, ""},
		{"little", 100e9, 256 << 20, "256 MiB of input and 100 Ggas: that is 372 gas for each byte, and programs " +
			"that look at every byte often use 500 to 2000"},
	} {
		got := strings.Join(scarce(tt.gas, tt.size), " ")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestExplain_NamesTheFlagOfTheTakenAddress(t *testing.T) {
	taken := fmt.Errorf("consumer: listen on 127.0.0.1:80: %w", syscall.EADDRINUSE)
	for _, tt := range []struct{ addr, want string }{{"127.0.0.1:80", "--addr"}, {"", "--listen"}} {
		var e *rpc.Error
		if err := explain(taken, tt.addr); !errors.As(err, &e) || !strings.Contains(e.Hint, tt.want) {
			t.Errorf("--addr %q: got %v, want a hint that names %s", tt.addr, err, tt.want)
		}
	}
}
