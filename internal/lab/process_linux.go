package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a command that runs in a host, in a process group of its own. When its
// first process ends, so does the rest of the group; nothing outlives the lab.
type Process struct {
	cmd  *exec.Cmd     // set once
	done chan struct{} // closed when err is known
	err  error

	mu    sync.Mutex
	ended bool // guarded by mu: the process number may be somebody else's now
}

// ErrEnded is for a signal to a process that has ended.
var ErrEnded = errors.New("the process has ended")

// Done is closed when the command has ended and its output is read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns what cmd.Wait returned, after Done.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Pid is the number of the first process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends sig to the first process, or returns ErrEnded.
func (p *Process) Signal(sig syscall.Signal) error { return p.kill(p.Pid(), sig) }

// Kill kills the whole group and waits for its end.
func (p *Process) Kill() {
	if err := p.kill(-p.Pid(), syscall.SIGKILL); err != nil && !errors.Is(err, ErrEnded) {
		panic(fmt.Sprintf("bug: kill our own process group %d: %v", p.Pid(), err))
	}
	<-p.done
}

// Stop sends SIGTERM, gives the process so long to end, and then kills the group.
// It returns what Wait does.
func (p *Process) Stop(grace time.Duration) error {
	if p.Signal(syscall.SIGTERM) == nil {
		select {
		case <-p.done:
		case <-time.After(grace):
		}
	}
	p.Kill()
	return p.err
}

func (p *Process) kill(pid int, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return ErrEnded
	}
	return syscall.Kill(pid, sig)
}

// wait sees the end of the process before it is reaped: until then nobody else can
// have its number, nor its group's.
func (p *Process) wait() {
	for {
		err := unix.Waitid(unix.P_PID, p.Pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.mu.Lock()
	p.ended = true
	syscall.Kill(-p.Pid(), syscall.SIGKILL) // fails where nobody is left
	p.mu.Unlock()
	p.err = p.cmd.Wait()
	close(p.done)
}

// starter is a thread that starts all processes of a lab. They die with it, since
// the kernel looks at the thread, not at the process, that started them.
type starter struct {
	jobs chan func() // unbuffered; closed by close
	gone chan struct{}
}

func newStarter() *starter {
	s := &starter{jobs: make(chan func()), gone: make(chan struct{})}
	go func() {
		defer close(s.gone)
		runtime.LockOSThread() // and never unlocked: the thread ends here
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

func (s *starter) close() {
	close(s.jobs)
	<-s.gone
}

func (s *starter) start(in *space, cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	owner, err := self()
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, ownerVar+"="+owner.String())
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = 5 * time.Second // for whoever has left the group with our pipes
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	if cmd.Cancel != nil {
		cmd.Cancel = func() error {
			if err := p.kill(-p.Pid(), syscall.SIGKILL); err != nil {
				return os.ErrProcessDone
			}
			return nil
		}
	}
	result := make(chan error)
	s.jobs <- func() {
		home, err := openSpace()
		if err != nil {
			result <- err
			return
		}
		defer home.Close()
		if err := unix.Setns(in.fd(), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = cmd.Start()
		if e := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); e != nil {
			panic("bug: leave a network namespace: " + e.Error())
		}
		result <- err
	}
	if err := <-result; err != nil {
		return nil, err
	}
	go p.wait()
	return p, nil
}

// ownerVar is the environment variable by which the processes of a lab are known
// when the process that had the lab is no more.
const ownerVar = "CROWD_LAB"

// owner names a process for ever: its number is used again, but not with the same
// start, and not for a process of another namespace.
type owner struct {
	space string // of process numbers
	pid   int
	start string // clock ticks since boot
}

func (o owner) String() string { return fmt.Sprintf("%s/%d/%s", o.space, o.pid, o.start) }

func parseOwner(s string) (owner, bool) {
	f := strings.Split(s, "/")
	if len(f) != 3 {
		return owner{}, false
	}
	pid, err := strconv.Atoi(f[1])
	o := owner{f[0], pid, f[2]}
	return o, err == nil && o.String() == s
}

func self() (owner, error) {
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return owner{}, err
	}
	start, err := startOf(os.Getpid())
	return owner{space, os.Getpid(), start}, err
}

// startOf reads field 22 of proc(5)'s stat, counted after the name, which may hold anything.
func startOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 20 {
		return "", fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	return f[19], nil
}

// killAll kills every process for which ours holds, and tells how many. It asks
// again with the process held by a file, so that a number used anew is not hit.
func killAll(ours func(dir string) bool) (killed int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // its only error is a bad pattern
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !ours(dir) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it is gone
		}
		if ours(dir) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			killed++
		}
		unix.Close(fd)
	}
	return killed
}

// sweep kills the processes that labs of dead processes have left.
func sweep() error {
	me, err := self()
	if err != nil {
		return err
	}
	killAll(func(dir string) bool {
		env, err := os.ReadFile(dir + "/environ")
		if err != nil {
			return false
		}
		for v := range strings.SplitSeq(string(env), "\x00") {
			value, found := strings.CutPrefix(v, ownerVar+"=")
			if !found {
				continue
			}
			o, ok := parseOwner(value)
			if !ok || o.space != me.space {
				return false
			}
			start, err := startOf(o.pid)
			return errors.Is(err, os.ErrNotExist) || err == nil && start != o.start
		}
		return false
	})
	return nil
}

// inside reports whether a process is in one of the network namespaces.
func inside(inodes map[uint64]bool) func(dir string) bool {
	return func(dir string) bool {
		var st unix.Stat_t
		return unix.Stat(dir+"/ns/net", &st) == nil && inodes[st.Ino]
	}
}
