package wasm

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allowed is all that a worker may ask of the kernel once it is locked in, the
// frequent ones first. Nothing here takes a path, makes a socket or a process.
var allowed = [...]uint32{
	unix.SYS_PWRITE64, unix.SYS_PREAD64, unix.SYS_FUTEX, unix.SYS_SENDMSG, unix.SYS_RECVMSG,
	unix.SYS_MPROTECT, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_MINCORE,
	unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGACTION, unix.SYS_SIGALTSTACK,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETRUSAGE, unix.SYS_GETRANDOM,
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_FTRUNCATE,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_FCNTL,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS, unix.SYS_MEMBARRIER, unix.SYS_RESTART_SYSCALL,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

// Offsets in struct seccomp_data; arguments are 64 bits, little-endian.
const (
	dataNr   = 0
	dataArch = 4
	dataArg0 = 16
)

// filter is the seccomp program of a worker whose process ID is pid.
func filter(pid int) ([]unix.SockFilter, error) {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if arch == 0 {
		return nil, fmt.Errorf("no system call filter for %s", runtime.GOARCH)
	}
	var p []unix.SockFilter
	load := func(at uint32) { p = append(p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}) }
	jump := func(op uint16, k uint32, yes, no uint8) {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k})
	}
	ret := func(k uint32) { p = append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}) }
	refuse := func(e unix.Errno) { ret(unix.SECCOMP_RET_ERRNO | uint32(e)) }

	load(dataArch)
	jump(unix.BPF_JEQ, arch, 1, 0)
	ret(unix.SECCOMP_RET_KILL_PROCESS)
	load(dataNr)
	for _, nr := range allowed {
		jump(unix.BPF_JEQ, nr, 0, 1)
		ret(unix.SECCOMP_RET_ALLOW)
	}
	// clone: threads of this process only. clone3's flags cannot be seen; libc
	// falls back to clone when it is not there.
	jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1)
	refuse(unix.ENOSYS)
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 5)
	load(dataArg0)
	jump(unix.BPF_JSET, namespaces, 2, 0)
	jump(unix.BPF_JSET, unix.CLONE_THREAD, 0, 1)
	ret(unix.SECCOMP_RET_ALLOW)
	refuse(unix.EPERM)
	// tgkill: to itself, as Go preempts goroutines.
	jump(unix.BPF_JEQ, unix.SYS_TGKILL, 0, 4)
	load(dataArg0)
	jump(unix.BPF_JEQ, uint32(pid), 0, 1)
	ret(unix.SECCOMP_RET_ALLOW)
	refuse(unix.EPERM)
	// prctl: names of threads and of mappings.
	jump(unix.BPF_JEQ, unix.SYS_PRCTL, 0, 5)
	load(dataArg0)
	jump(unix.BPF_JEQ, unix.PR_SET_NAME, 1, 0)
	jump(unix.BPF_JEQ, unix.PR_SET_VMA, 0, 1)
	ret(unix.SECCOMP_RET_ALLOW)
	refuse(unix.EPERM)
	refuse(unix.EPERM)
	return p, nil
}

// lockCalls puts the filter on every thread, and with it "no new privileges".
func lockCalls() error {
	p, err := filter(os.Getpid())
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	r, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	if r != 0 {
		return fmt.Errorf("seccomp: thread %d would not follow", r)
	}
	return nil
}
