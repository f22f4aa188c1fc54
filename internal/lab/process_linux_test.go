package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func sh(ctx context.Context, script string) *exec.Cmd {
	return exec.CommandContext(ctx, "sh", "-c", script)
}

// lockedWriter may be read by the test while the command writes.
type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (l *lockedWriter) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.String()
}

// population counts the processes in the namespaces.
func population(inodes map[uint64]bool) (n int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if inside(inodes)(dir) {
			n++
		}
	}
	return n
}

// alive reports whether a process runs, and is no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return len(f) > 0 && f[0] != "Z" && f[0] != "X"
}

func TestRunInHost(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	h := l.Host("a", Link{})
	var out bytes.Buffer
	cmd := sh(t.Context(), "readlink /proc/self/ns/net; exit 3")
	cmd.Stdout = &out
	err := h.Run(cmd)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("Run: got %v, want exit status 3", err)
	}
	if want := fmt.Sprintf("net:[%d]\n", h.space.inode); out.String() != want {
		t.Errorf("the command ran in %q, want %q", out.String(), want)
	}
	if err := h.Run(exec.Command("/no/such/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such program: got %v, want ErrNotExist", err)
	}
}

func TestProcessEnds(t *testing.T) {
	t.Parallel()
	const group = "sleep 1000 & echo $!; wait"
	for _, c := range []struct {
		name   string
		script string
		end    func(p *Process, cancel func())
	}{
		{"by Kill", group, func(p *Process, _ func()) { p.Kill() }},
		{"by its context", group, func(p *Process, cancel func()) { cancel() }},
		{"by Stop", group, func(p *Process, _ func()) { p.Stop(late) }},
		{"by Stop, deaf", "trap '' TERM; " + group, func(p *Process, _ func()) { p.Stop(10 * time.Millisecond) }},
		{"by its first process", "sleep 1000 & echo $!; sleep 0.1", func(*Process, func()) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := New(t, Config{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out lockedWriter
			out.w = new(bytes.Buffer)
			cmd := sh(ctx, c.script)
			cmd.Stdout = &out
			p, err := l.Host("a", Link{}).Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the second process", func() bool { return strings.HasSuffix(out.String(), "\n") })
			second, err := strconv.Atoi(strings.TrimSpace(out.String()))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			c.end(p, cancel)
			p.Wait()
			if took := time.Since(began); took > late/2 {
				t.Errorf("the end took %v", took)
			}
			eventually(t, "the second process gone", func() bool { return !alive(second) })
			if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrEnded) {
				t.Errorf("Signal after the end: got %v, want ErrEnded", err)
			}
		})
	}
}

// TestOwner is no test: it is the process that TestOwnerKilled kills.
func TestOwner(t *testing.T) {
	if os.Getenv("CROWD_LAB_OWNER") == "" {
		t.Skip("run by TestOwnerKilled")
	}
	l := New(t, Config{})
	cmd := sh(t.Context(), "setsid sleep 1000 & echo pid $!; echo pid $$; wait")
	cmd.Stdout = os.Stdout
	p, err := l.Host("a", Link{}).Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	p.Wait()
}

func TestOwnerKilled(t *testing.T) {
	t.Parallel()
	New(t, Config{}) // skips where there is no lab
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestOwner$", "-test.v")
	cmd.Env = append(os.Environ(), "CROWD_LAB_OWNER=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer cmd.Process.Kill()
	var pids []int
	for in := bufio.NewScanner(io.LimitReader(r, 1<<16)); len(pids) < 2; {
		if !in.Scan() {
			t.Fatalf("the owner said only %v", pids)
		}
		if text, ok := strings.CutPrefix(in.Text(), "pid "); ok {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	fled, child := pids[0], pids[1]
	// While its owner lives, another lab's sweep lets a process be.
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	if !alive(fled) || !alive(child) {
		t.Fatal("a sweep killed the processes of a living lab")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	eventually(t, "the child of the dead owner gone", func() bool { return !alive(child) })
	if !alive(fled) {
		t.Log("the process that left the group is gone without a sweep")
	}
	New(t, Config{})
	eventually(t, "the fled process gone", func() bool { return !alive(fled) })
}

func FuzzOwner(f *testing.F) {
	f.Add("pid:[4026531836]/12/3456")
	f.Add("a/+1/b")
	f.Add("//")
	f.Fuzz(func(t *testing.T, s string) {
		if o, ok := parseOwner(s); ok && o.String() != s {
			t.Errorf("%q became %q", s, o.String())
		}
	})
}
