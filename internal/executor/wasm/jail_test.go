//go:build linux

package wasm

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/executor/executortest"
)

// What a node refuses to run without is written down here once more, so that no layer goes missing unnoticed.
func TestDefaultLayers_AreAllThatAnyMachineCanGive(t *testing.T) {
	want := []string{
		"user namespace", "mount namespace", "pid namespace", "network namespace", "ipc namespace", "uts namespace",
		"no capabilities", "no new privileges", "seccomp", "rlimits",
	}
	if got := DefaultLayers(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// idleWorker is a worker that has run a program, as its parent and the kernel see it.
func idleWorker(t *testing.T) (*Executor, *process, string) {
	t.Helper()
	x := newTest(t, "")
	executortest.See(t, x, executortest.Case{Guest: "true.c"}.Spec(t))
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.idle) != 1 {
		t.Fatalf("got %d idle workers, want one", len(x.idle))
	}
	return x, x.idle[0], "/proc/" + strconv.Itoa(x.idle[0].cmd.Process.Pid)
}

// The layers are what the kernel says of the process, and not what we say of it.
func TestWorker_IsLockedInAsTheKernelSeesIt(t *testing.T) {
	x, _, proc := idleWorker(t)
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		own, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink(proc + "/ns/" + ns)
		if err1 != nil || err2 != nil || own == its || !slices.Contains(x.Isolation(), namespaces[ns]) {
			t.Errorf("%s: got %q in %q, %v, %v, listed: %v; want another one", ns, its, own, err1, err2, x.Isolation())
		}
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n", "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n", "\nCapInh:\t0000000000000000\n", "\nCapAmb:\t0000000000000000\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("want %q in what the kernel says of the worker:\n%s", want, status)
		}
	}
	limits, err := os.ReadFile(proc + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	fields := func(name string) []string {
		_, rest, _ := strings.Cut(string(limits), name)
		line, _, _ := strings.Cut(rest, "\n")
		return strings.Fields(line)
	}
	for name, want := range map[string]int{"Max processes": maxThreads, "Max open files": workerFDs, "Max core file size": 0} {
		if got := fields(name); len(got) < 2 || got[0] != strconv.Itoa(want) || got[1] != got[0] {
			t.Errorf("%s: got %v, want %d", name, got, want)
		}
	}
	if got, want := fields("Max data size"), strconv.Itoa(64<<20+maxTmp*3+overhead); len(got) < 1 || got[0] != want {
		t.Errorf("Max data size: got %v, want %s", got, want)
	}
}

// A parent that is root leaves its workers no file system at all.
func TestWorker_OfRootHasAnEmptyRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a worker an empty root")
	}
	x, _, proc := idleWorker(t)
	if !slices.Contains(x.Isolation(), LayerRoot) {
		t.Errorf("got %v, want %q among it", x.Isolation(), LayerRoot)
	}
	if list, err := os.ReadDir(proc + "/root/"); err != nil || len(list) > 0 {
		t.Errorf("got %v, %v in the worker's root, want nothing", list, err)
	}
	mounts, err := os.ReadFile(proc + "/mounts")
	if n := strings.Count(string(mounts), "\n"); err != nil || n != 1 || !strings.Contains(string(mounts), "ro,") {
		t.Errorf("got %d mounts, %v, want one that is read-only:\n%s", n, err, mounts)
	}
}

// A worker holds no file of its machine open but what a run gives it.
func TestWorker_HoldsNoFileOfTheMachine(t *testing.T) {
	_, _, proc := idleWorker(t)
	held := func() (files []string) {
		list, err := os.ReadDir(proc + "/fd")
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		for _, fd := range list {
			to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
			if err == nil && strings.HasPrefix(to, "/") && to != "/dev/null" {
				files = append(files, to)
			}
		}
		return files
	}
	// What the run gave it, it closes when it has said how the run ended.
	for deadline := time.Now().Add(5 * time.Second); len(held()) > 0 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if files := held(); len(files) > 0 {
		t.Errorf("an idle worker holds %q open", files)
	}
}

// A worker serves one program and never another: one that breaks out of its engine finds only its own runs.
func TestWorker_ServesOneProgramOnly(t *testing.T) {
	c := testConfig(t, "")
	c.Workers = 2
	x, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	programs := []string{executortest.Guest(t, "true.c"), executortest.Guest(t, "echo.c")}
	served := map[int]string{} // by process ID
	for i := range 6 {
		s := executortest.Case{Guest: "true.c"}.Spec(t)
		s.Program = programs[i%2]
		executortest.See(t, x, s)
		x.mu.Lock()
		p := x.idle[len(x.idle)-1] // that ran last
		if n := len(x.idle); n != min(i+1, 2) {
			t.Errorf("run %d: got %d idle workers, want one for each program", i, n)
		}
		x.mu.Unlock()
		pid := p.cmd.Process.Pid
		if before, is := served[pid]; is && before != s.Program {
			t.Errorf("run %d: worker %d has served another program", i, pid)
		}
		served[pid] = s.Program
	}
	if len(served) != 2 {
		t.Errorf("got %d workers for two programs that run in turn, want two", len(served))
	}
	// Nor does one that a batch has used, or in which a program was compiled.
	x.mu.Lock()
	spare := x.spare
	x.mu.Unlock()
	if spare != nil && (spare.program != key{} || served[spare.cmd.Process.Pid] != "") {
		t.Error("the spare worker has seen a program")
	}
}

// The kernel bounds a worker's memory where a cgroup can be had, with what the run may use.
func TestWorker_MemoryIsBoundedByItsCgroup(t *testing.T) {
	_, p, _ := idleWorker(t)
	if p.group == nil {
		t.Skip("no cgroup of ours can be made here")
	}
	text, err := os.ReadFile(filepath.Join(p.group.dir, p.group.file))
	if want := fmt.Sprint(64<<20 + maxTmp*3 + overhead/2); err != nil || strings.TrimSpace(string(text)) != want {
		t.Errorf("%s: got %q, %v, want %s", p.group.file, text, err, want)
	}
	procs, err := os.ReadFile(filepath.Join(p.group.dir, "cgroup.procs"))
	if err != nil || !slices.Contains(strings.Fields(string(procs)), strconv.Itoa(p.cmd.Process.Pid)) {
		t.Errorf("got the processes %q, %v, want %d among them", procs, err, p.cmd.Process.Pid)
	}
}
