package wasm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crowdcompute/crowd/internal/executor"
)

// process is a worker as its parent sees it. One goroutine at a time uses it.
type process struct {
	// set once
	cmd    *exec.Cmd
	conn   *net.UnixConn
	layers []string
	group  *cgroup // nil: none
	stderr *said

	buf     []byte
	program key // loaded; zero: it has never seen one
}

// said keeps the first bytes that a worker says on stderr: where Go dies, the reason comes first.
type said struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

func (t *said) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), maxReason-len(t.b))]...)
	return len(p), nil
}

func (t *said) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return clip(string(t.b))
}

// stackLimit makes the children that f starts have native stacks of a known size.
// The limit of a process is read when it begins, so that this one never sees it.
var stackLimit sync.Mutex

func withStackLimit(f func() error) error {
	stackLimit.Lock()
	defer stackLimit.Unlock()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &old); err != nil {
		return fmt.Errorf("read stack limit: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_STACK, &unix.Rlimit{Cur: workerStack, Max: old.Max}); err != nil {
		return fmt.Errorf("set stack limit to %d: %w", workerStack, err)
	}
	return errors.Join(f(), unix.Setrlimit(unix.RLIMIT_STACK, &old))
}

// start begins a worker in its own namespaces, waits until it has locked itself
// in, and reads from the kernel what holds. The worker dies with the thread that
// forks it, so fork calls its argument on one that lives as long as the executor.
func (c *Config) start(ctx context.Context, fork func(func() error) error) (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket to worker: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "worker")
	ours := os.NewFile(uintptr(pair[0]), "parent")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("socket to worker: %w", err)
	}
	p := &process{conn: conn.(*net.UnixConn), stderr: &said{}, buf: make([]byte, maxMessage+1)}
	p.cmd = exec.Command(c.Command[0], c.Command[1:]...)
	p.cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=single", "GODEBUG=containermaxprocs=0"} // the last: hold no file of a cgroup open
	p.cmd.Dir = "/"
	p.cmd.Stderr = p.stderr
	p.cmd.WaitDelay = time.Second
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.SysProcAttr = attributes()
	err = fork(func() error { return withStackLimit(p.cmd.Start) })
	theirs.Close() // so that the worker's death ends the conversation
	if err != nil {
		p.conn.Close()
		return nil, executor.Faultf(executor.Unsupported, "start worker in namespaces: %w", err)
	}
	p.group = newCgroup()
	if p.group != nil {
		if err := p.group.add(p.cmd.Process.Pid); err != nil {
			p.group.remove()
			p.group = nil
		}
	}
	stop := context.AfterFunc(ctx, p.kill)
	defer stop()
	err = p.send(mHello, hello{Engine: c.Engine})
	if err == nil {
		var k kind
		if k, _, err = p.recv(); err == nil && k != mReady {
			err = fmt.Errorf("message %d for a greeting", k)
		}
	}
	if err == nil {
		p.layers, err = inspect(p.cmd.Process.Pid)
	}
	if err != nil {
		p.end()
		if ctx.Err() != nil {
			return nil, &executor.Fault{Kind: executor.Cancelled, Err: context.Cause(ctx)}
		}
		return nil, executor.Faultf(executor.Unsupported, "worker did not start: %w; it said %q", err, p.stderr)
	}
	if p.group != nil {
		p.layers = append(p.layers, LayerCgroup)
	}
	return p, nil
}

// attributes puts a worker into namespaces of its own, as nobody where we are
// root and as ourselves without any capability where we are not.
func attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true,
	}
	if os.Geteuid() == 0 {
		ids := []syscall.SysProcIDMap{{ContainerID: jailRoot, HostID: hostNobody, Size: 1}, {ContainerID: jailNobody, HostID: hostSpare, Size: 1}}
		a.UidMappings, a.GidMappings, a.GidMappingsEnableSetgroups = ids, ids, true
		a.Credential = &syscall.Credential{Uid: jailRoot, Gid: jailRoot}
		return a
	}
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: hostNobody, HostID: os.Geteuid(), Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: hostNobody, HostID: os.Getegid(), Size: 1}}
	return a
}

func (p *process) kill() { p.cmd.Process.Kill() }

// end kills p, with all in its process namespace, and waits for it. Nobody waits
// before, so that its process ID stays its own until here.
func (p *process) end() {
	p.kill()
	p.conn.Close()
	p.cmd.Wait() // how it ended is told by the socket and by stderr
	if p.group != nil {
		p.group.remove()
	}
}

func (p *process) send(k kind, body any, files ...*os.File) error {
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err := p.conn.WriteMsgUnix(pack(k, body), oob, nil)
	runtime.KeepAlive(files)
	if err != nil {
		return fmt.Errorf("send to worker: %w", err)
	}
	return nil
}

// recv reads one message. Files that a worker might send are dropped by the kernel.
func (p *process) recv() (kind, any, error) {
	n, _, flags, _, err := p.conn.ReadMsgUnix(p.buf, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("receive from worker: %w", err)
	}
	if n == 0 {
		return 0, nil, errors.New("the worker has ended")
	}
	if flags&unix.MSG_TRUNC != 0 {
		return 0, nil, fmt.Errorf("message of more than %d bytes", maxMessage)
	}
	k, body, err := unpack(p.buf[:n])
	if err != nil {
		return 0, nil, fmt.Errorf("receive from worker: %w", err)
	}
	v, err := decodeFromWorker(k, body)
	if err != nil {
		return 0, nil, fmt.Errorf("receive from worker: %w", err)
	}
	return k, v, nil
}

// quiet reports whether p lives and has nothing to say, as befits an idle worker.
func (p *process) quiet() bool {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = err == unix.EAGAIN
	})
	return err == nil && quiet
}

// bound sets what p may take of the machine for one job.
func (p *process) bound(memory, output uint64) error {
	pid := p.cmd.Process.Pid
	for what, limit := range map[int]uint64{
		unix.RLIMIT_DATA:  memory + maxTmp*3 + overhead,
		unix.RLIMIT_FSIZE: output + 1<<20,
	} {
		if err := unix.Prlimit(pid, what, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}, nil); err != nil {
			return fmt.Errorf("set resource limit %d of worker: %w", what, err)
		}
	}
	if p.group != nil {
		if err := p.group.bound(memory + maxTmp*3 + overhead/2); err != nil {
			return fmt.Errorf("bound memory of worker: %w", err)
		}
	}
	return nil
}

// cpu is the time that p has spent on processors so far.
func (p *process) cpu() time.Duration {
	var t unix.Timespec
	clock := int32(^p.cmd.Process.Pid<<3 | 2) // CLOCKFD of clock_getcpuclockid(3)
	if unix.ClockGettime(clock, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
