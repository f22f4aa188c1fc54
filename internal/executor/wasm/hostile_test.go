//go:build linux

package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// betray is a worker that a program has taken over: it locks itself in as any,
// and then does not do its work.
func betray(how string) error {
	w := &worker{buf: make([]byte, maxMessage+1)}
	if _, _, _, err := w.recv(); err != nil {
		return err
	}
	if err := lockIn(); err != nil {
		return err
	}
	if err := w.send(mReady, struct{}{}); err != nil {
		return err
	}
	for {
		k, body, files, err := w.recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if k == mCompile && how != "claims code" {
			var o order
			if err := crowd.Decode(body, &o); err != nil {
				return err
			}
			if !o.Code {
				if err := w.send(mCompiled, compiled{}); err != nil {
					return err
				}
				continue
			}
			if _, err := files[1].WriteAt([]byte("code"), 0); err != nil {
				return err
			}
			if err := w.send(mCompiled, compiled{Size: 4}); err != nil {
				return err
			}
			continue
		}
		if k == mBatch {
			if err := w.send(mBegun, begun{Unloaded: how == "never loads"}); err != nil {
				return err
			}
			continue
		}
		if k == mItems {
			if err := betrayItems(w, how, body); err != nil {
				return err
			}
			continue
		}
		raw := func(b []byte) error { return unix.Sendmsg(linkFD, b, nil, nil, unix.MSG_NOSIGNAL) }
		ended := done{Status: crowd.Exited}
		switch how {
		case "dies":
			return errors.New("last words")
		case "claims code":
			err = w.send(mCompiled, compiled{Size: 1 << 40})
		case "escapes":
			ended.Status = 0
			ended.Fault, ended.Reason = executor.Unsupported, "got out by "+strings.Join(escape(files), ", ")
			err = w.send(mDone, ended)
		case "empty message":
			err = raw(nil)
		case "unknown message":
			err = raw([]byte{99, 0})
		case "not canonical":
			err = raw([]byte{byte(mDone), 0x9f, 0xff})
		case "too long":
			err = raw(make([]byte, maxMessage+2))
		case "wrong turn":
			err = w.send(mCompiled, compiled{})
		case "greets again":
			err = raw([]byte{byte(mReady)})
		case "unknown status":
			ended.Status = crowd.NoInput
			err = w.send(mDone, ended)
		case "too much gas":
			ended.Gas = 1 << 63
			err = w.send(mDone, ended)
		case "lists what is not there":
			err = w.send(mList, request{Path: []byte("../../etc")})
		case "opens what is outside":
			err = w.send(mOpen, request{Path: []byte("../../../../../etc/passwd")})
		case "opens a link":
			err = w.send(mOpen, request{Path: []byte("linkdir/passwd")})
		case "opens a folder":
			err = w.send(mOpen, request{Path: []byte("deep")})
		case "creates for ever":
			for err == nil {
				if err = w.send(mCreate, request{}); err == nil {
					_, _, files, err = w.recv()
					for _, f := range files {
						f.Close()
					}
				}
			}
		case "reports for ever":
			for i := 0; err == nil; i++ {
				err = w.send(mLeaves, leaves{List: []leaf{{Path: fmt.Sprint("d", i), Dir: true}}})
			}
		case "writes too much":
			if _, err = files[0].WriteAt(make([]byte, 1<<20+1), 0); err == nil {
				err = w.send(mDone, ended)
			}
		default: // a name for a file that is none
			l := map[string][]leaf{
				"names above":          {{Path: "../x", Dir: true}},
				"names the root":       {{Path: "/etc/x", Dir: true}},
				"names nothing":        {{Path: "", Dir: true}},
				"names itself":         {{Path: ".", Dir: true}},
				"names twice":          {{Path: "a", Dir: true}, {Path: "a", Dir: true}},
				"names without folder": {{Path: "a/b", Dir: true}},
				"names too long":       {{Path: strings.Repeat("a/", 600) + "a", Dir: true}},
				"claims a file":        {{Path: "a", Slot: 3}},
			}[how]
			if l == nil {
				return fmt.Errorf("unknown treason %q", how)
			}
			if err = w.send(mLeaves, leaves{List: l}); err == nil {
				err = w.send(mDone, ended)
			}
		}
		if err != nil {
			return err
		}
	}
}

// escape tries to reach anything from inside, and returns what it reached.
func escape(files []file) (reached []string) {
	try := func(what string, err error) {
		if err == nil {
			reached = append(reached, what)
		}
	}
	_, err := os.ReadFile("/etc/passwd")
	try("open", err)
	_, err = os.ReadDir("/")
	try("read folder", err)
	_, err = unix.Openat(int(files[0]), "..", unix.O_RDONLY, 0)
	try("openat", err)
	_, err = unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH})
	try("openat2", err)
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	try("socket", err)
	_, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	try("socketpair", err)
	_, _, e := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
	try("fork", errnoErr(e))
	_, _, e = unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_THREAD|unix.CLONE_NEWUSER, 0, 0)
	try("clone into a namespace", errnoErr(e))
	_, _, e = unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	try("clone3", errnoErr(e))
	try("exec", unix.Exec("/proc/self/exe", []string{"x"}, nil))
	try("kill", unix.Kill(1, 0))
	try("kill parent", unix.Tgkill(os.Getppid(), os.Getppid(), 0))
	try("ptrace", unix.PtraceAttach(1))
	try("unshare", unix.Unshare(unix.CLONE_NEWNS))
	try("mount", unix.Mount("x", "/", "tmpfs", 0, ""))
	try("chroot", unix.Chroot("/"))
	try("setuid", unix.Setuid(0))
	try("raise limits", unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 40, Max: 1 << 40}))
	try("undump", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	_, err = unix.MemfdCreate("x", 0)
	try("memfd", err)
	_, err = unix.Getdents(int(files[0]), make([]byte, 100))
	try("getdents", err)
	_, _, e = unix.Syscall(unix.SYS_BPF, 0, 0, 0)
	try("bpf", errnoErr(e))
	return reached
}

func errnoErr(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// TestHostileWorker: whatever a worker does, the parent says whose fault it is,
// keeps its own files, and goes on.
func TestHostileWorker(t *testing.T) {
	for _, how := range []string{
		"dies", "claims code", "empty message", "unknown message", "not canonical", "too long", "wrong turn", "greets again",
		"unknown status", "too much gas", "lists what is not there", "opens what is outside", "opens a link", "opens a folder",
		"creates for ever", "reports for ever", "writes too much", "names above", "names the root", "names nothing",
		"names itself", "names twice", "names without folder", "names too long", "claims a file",
	} {
		t.Run(how, func(t *testing.T) {
			c := testConfig(t, "")
			c.Command = append(c.Command, how)
			x, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			s := executortest.Case{Guest: "true.c", Inputs: true}.Spec(t)
			_, err = x.Run(context.Background(), s, executor.IO{})
			var f *executor.Fault
			if !errors.As(err, &f) || f.Kind != executor.Crashed && f.Kind != executor.BadSpec {
				t.Fatalf("got %v, want a fault", err)
			}
			if len(x.idle) > 0 {
				t.Errorf("got %d workers kept, want none after a fault", len(x.idle))
			}
		})
	}
}

// TestLockedIn tries from inside a worker what a program that broke out would try.
func TestLockedIn(t *testing.T) {
	c := testConfig(t, "")
	c.Command = append(c.Command, "escapes")
	x, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	_, err = x.Run(context.Background(), executortest.Case{Guest: "true.c"}.Spec(t), executor.IO{})
	if err == nil || !strings.HasSuffix(err.Error(), "got out by ") {
		t.Fatalf("got %v, want no way out", err)
	}
	for _, l := range DefaultLayers() {
		if !slices.Contains(x.Isolation(), l) {
			t.Errorf("got %v, want %s among it", x.Isolation(), l)
		}
	}
}

func TestRequireRefuses(t *testing.T) {
	c := testConfig(t, "")
	c.Require = append(DefaultLayers(), "a moat")
	_, err := New(c)
	var f *executor.Fault
	if !errors.As(err, &f) || f.Kind != executor.Unsupported || !strings.Contains(err.Error(), "a moat") {
		t.Errorf("got %v, want %v with the layer named", err, executor.Unsupported)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
	}{
		{"zero", Config{}},
		{"engine", Config{CacheDir: "x", Command: []string{"x"}, Engine: "steam"}},
		{"workers", Config{CacheDir: "x", Command: []string{"x"}, Workers: -1}},
	} {
		if _, err := New(c.config); err == nil {
			t.Errorf("%s: got no error, want one", c.name)
		}
	}
	c := testConfig(t, "")
	c.Command = []string{"/does/not/exist"}
	if _, err := New(c); err == nil {
		t.Error("got no error for a worker that is not there, want one")
	}
	c.Command = []string{"/bin/true"}
	if _, err := New(c); err == nil {
		t.Error("got no error for a worker that is none, want one")
	}
}

// TestClose ends what runs, and leaves no process and no goroutine.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	x, err := New(testConfig(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	s := executortest.Case{Guest: "hostile.c", Args: []string{"loop"}, Limits: crowd.Limits{Gas: 1 << 60}}.Spec(t)
	ran := make(chan error, 1)
	begun := make(chan struct{}, 64)
	go func() {
		_, err := x.Run(context.Background(), s, executor.IO{Stdout: writer(func(p []byte) { begun <- struct{}{} })})
		ran <- err
	}()
	<-begun
	x.Close()
	var f *executor.Fault
	if err := <-ran; !errors.As(err, &f) || f.Kind != executor.Cancelled {
		t.Errorf("got %v, want %v", err, executor.Cancelled)
	}
	if _, err := x.Run(context.Background(), s, executor.IO{}); !errors.As(err, &f) || f.Kind != executor.Cancelled {
		t.Errorf("got %v after Close, want %v", err, executor.Cancelled)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("got %d goroutines, want %d as before", n, before)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// TestIdleWorkerDies: a worker that is gone when the next run wants it is replaced.
func TestIdleWorkerDies(t *testing.T) {
	x := newTest(t, "")
	for range 2 {
		if got, _ := executortest.See(t, x, executortest.Case{Guest: "true.c"}.Spec(t)); got.Status != crowd.Exited {
			t.Fatalf("got %v, want %v", got.Status, crowd.Exited)
		}
		x.idle[0].kill()
		for x.idle[0].quiet() { // until the kernel has done it
			runtime.Gosched()
		}
	}
}

// betrayItems answers a frame of items as no honest worker does.
func betrayItems(w *worker, how string, body []byte) error {
	var p part
	if err := crowd.Decode(body, &p); err != nil {
		return err
	}
	var f frame
	if err := crowd.Decode(p.Data, &f); err != nil || len(f.List) == 0 {
		return err
	}
	var c chunk
	for _, i := range f.List {
		c.List = append(c.List, itemDone{Index: i.Index, Status: crowd.Exited, Gas: 1})
	}
	first, last := &c.List[0], &c.List[len(c.List)-1]
	switch how {
	case "dies at items":
		return errors.New("last words")
	case "wrong index":
		last.Index++
	case "too many results":
		c.List = append(c.List, itemDone{Index: last.Index + 1, Status: crowd.Exited})
	case "too few results":
		if err := w.send(mResults, part{Data: crowd.Encode(chunk{List: c.List[1:]}), Last: true}); err != nil {
			return err
		}
		return errors.New("and no more")
	case "no results for ever":
		c.List = nil
	case "same result twice":
		for range 2 {
			if err := w.send(mResults, part{Data: crowd.Encode(chunk{List: c.List[:1]}), Last: true}); err != nil {
				return err
			}
		}
		return nil
	case "unknown status of an item":
		last.Status = crowd.NoInput
	case "no status":
		last.Status = 0
	case "status and fault":
		last.Fault = executor.NoSpace
	case "unknown fault":
		last.Status, last.Fault = 0, 99
	case "goes on after a fault":
		first.Status, first.Fault = 0, executor.NoSpace
		c.List = append(c.List, *last)
	case "exit code of a trap":
		last.Status, last.ExitCode = crowd.Trapped, 1
	case "too much gas for an item":
		last.Gas = 1 << 63
	case "too much output":
		last.Stdout, last.Stderr = make([]byte, 700), make([]byte, 700)
	case "too much in files":
		last.Out = []executor.File{{Path: "a", Data: make([]byte, 1001)}}
	case "folder with content":
		last.Out = []executor.File{{Path: "a", Dir: true, Data: []byte("x")}}
	case "file above out":
		last.Out = []executor.File{{Path: "../a"}}
	case "file twice":
		last.Out = []executor.File{{Path: "a"}, {Path: "a"}}
	case "file without its folder":
		last.Out = []executor.File{{Path: "a/b"}}
	case "a chunk without end":
		for {
			if err := w.send(mResults, part{Data: make([]byte, partBytes)}); err != nil {
				return err
			}
		}
	case "not a chunk":
		return w.send(mResults, part{Data: []byte("x"), Last: true})
	case "another message":
		return w.send(mDone, done{Status: crowd.Exited})
	case "asks for a file":
		return w.send(mCreate, request{})
	case "lists above":
		return w.send(mList, request{Path: []byte("../../etc")})
	default:
		return fmt.Errorf("unknown treason %q", how)
	}
	return w.send(mResults, part{Data: crowd.Encode(c), Last: true})
}

// TestHostileWorker_Batch: nothing that a worker cannot know is believed, whatever it says about items; each item
// has one result, and it is a fault, and the batch comes to its end.
func TestHostileWorker_Batch(t *testing.T) {
	for _, how := range []string{
		"dies at items", "wrong index", "too many results", "too few results", "no results for ever", "same result twice", "unknown status of an item",
		"no status", "status and fault", "unknown fault", "goes on after a fault", "exit code of a trap", "too much gas for an item",
		"too much output", "too much in files", "folder with content", "file above out", "file twice", "file without its folder",
		"a chunk without end", "not a chunk", "another message", "asks for a file", "lists above",
	} {
		t.Run(how, func(t *testing.T) {
			c := testConfig(t, "")
			c.Command = append(c.Command, how)
			x, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			s := executortest.Case{Guest: "true.c", Inputs: true, Limits: crowd.Limits{Output: 1000}}.BatchSpec(t)
			items := []executor.Item{{Index: 1}, {Index: 5}, {Index: 9}}
			for _, r := range executortest.Batch(t, x, s, items) {
				switch {
				case r.Fault == nil && how != "same result twice":
					t.Errorf("item %d: got %v believed, want a fault", r.Index, r.Status)
				case r.Fault != nil && r.Fault.Kind != executor.Crashed && r.Fault.Kind != executor.BadSpec:
					t.Errorf("item %d: got %v, want a fault", r.Index, r.Fault)
				}
			}
		})
	}
	t.Run("never loads", func(t *testing.T) {
		c := testConfig(t, "")
		c.Command = append(c.Command, "never loads")
		x, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		_, err = x.RunBatch(t.Context(), executortest.Case{Guest: "true.c"}.BatchSpec(t), slices.Values([]executor.Item{{}}),
			func(executor.ItemResult) error { return nil })
		if f := (*executor.Fault)(nil); !errors.As(err, &f) || f.Kind != executor.Crashed {
			t.Errorf("got %v, want %v", err, executor.Crashed)
		}
	})
}
