package wasm

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Layers of isolation, as `crowd doctor` names them. The parent reads each of
// them from the kernel; no worker is believed.
const (
	LayerUser    = "user namespace"
	LayerMount   = "mount namespace"
	LayerPID     = "pid namespace"
	LayerNet     = "network namespace"
	LayerIPC     = "ipc namespace"
	LayerUTS     = "uts namespace"
	LayerRoot    = "empty root" // no file system at all; needs a parent that is root
	LayerCaps    = "no capabilities"
	LayerNNP     = "no new privileges"
	LayerSeccomp = "seccomp"
	LayerLimits  = "rlimits"
	LayerCgroup  = "cgroup memory" // where a cgroup is writable
)

// namespaces by their names in /proc.
var namespaces = map[string]string{
	"user": LayerUser, "mnt": LayerMount, "pid": LayerPID, "net": LayerNet, "ipc": LayerIPC, "uts": LayerUTS,
}

// DefaultLayers is what a job gets at the least where Config.Require says nothing.
func DefaultLayers() []string {
	return []string{LayerUser, LayerMount, LayerPID, LayerNet, LayerIPC, LayerUTS, LayerCaps, LayerNNP, LayerSeccomp, LayerLimits}
}

// Uids inside a worker's user namespace. Only a parent that is root can give a
// worker two: the first may mount, the second may nothing.
const (
	jailRoot   = 0
	jailNobody = 1
	hostNobody = 65534
	hostSpare  = 65533
)

// lockIn takes away from this process all that a worker does not need. The
// namespaces are there already. What fails here shows in the layers that the
// parent finds; only the parent decides what is enough.
func lockIn() error {
	limits := map[int]unix.Rlimit{
		unix.RLIMIT_CORE:   {},
		unix.RLIMIT_NPROC:  {Cur: maxThreads, Max: maxThreads},
		unix.RLIMIT_NOFILE: {Cur: workerFDs, Max: workerFDs},
	}
	for what, l := range limits {
		if err := unix.Setrlimit(what, &l); err != nil {
			return fmt.Errorf("set resource limit %d to %d: %w", what, l.Cur, err)
		}
	}
	if os.Getuid() == jailRoot {
		if err := emptyRoot(); err != nil {
			return fmt.Errorf("empty root: %w", err)
		}
		// To another user on every thread: the kernel takes all capabilities.
		if err := errors.Join(unix.Setresgid(jailNobody, jailNobody, jailNobody), unix.Setresuid(jailNobody, jailNobody, jailNobody)); err != nil {
			return fmt.Errorf("drop capabilities: %w", err)
		}
	}
	return lockCalls()
}

// emptyRoot puts this process on an empty read-only file system and lets go of the machine's.
func emptyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	var err error
	for _, dir := range []string{"/tmp", "/proc", "/dev"} {
		if err = unix.Mount("crowd", dir, "tmpfs", flags, "size=4k,nr_inodes=2,mode=0555"); err == nil {
			err = os.Chdir(dir)
			break
		}
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", flags|unix.MS_REMOUNT|unix.MS_RDONLY, "size=4k,nr_inodes=2"); err != nil {
		return fmt.Errorf("remount read-only: %w", err)
	}
	return nil
}

// inspect reads from the kernel which layers hold around the process pid.
func inspect(pid int) ([]string, error) {
	var layers []string
	proc := fmt.Sprintf("/proc/%d", pid)
	for ns, layer := range namespaces {
		own, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink(proc + "/ns/" + ns)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("inspect worker: %w", err)
		}
		if own != its {
			layers = append(layers, layer)
		}
	}
	threads, err := os.ReadDir(proc + "/task")
	if err != nil {
		return nil, fmt.Errorf("inspect worker: %w", err)
	}
	all := map[string]bool{LayerCaps: true, LayerNNP: true, LayerSeccomp: true}
	for _, t := range threads {
		status, err := os.ReadFile(proc + "/task/" + t.Name() + "/status")
		if errors.Is(err, os.ErrNotExist) {
			continue // ended since
		} else if err != nil {
			return nil, fmt.Errorf("inspect worker: %w", err)
		}
		lines := map[string]string{}
		for _, l := range strings.Split(string(status), "\n") {
			if name, v, is := strings.Cut(l, ":"); is {
				lines[name] = strings.TrimSpace(v)
			}
		}
		all[LayerNNP] = all[LayerNNP] && lines["NoNewPrivs"] == "1"
		all[LayerSeccomp] = all[LayerSeccomp] && lines["Seccomp"] == "2"
		for _, c := range []string{"CapPrm", "CapEff", "CapInh", "CapAmb"} {
			all[LayerCaps] = all[LayerCaps] && strings.Trim(lines[c], "0") == ""
		}
	}
	for layer, holds := range all {
		if holds {
			layers = append(layers, layer)
		}
	}
	var own, its unix.Stat_t
	if unix.Stat("/", &own) == nil && unix.Stat(proc+"/root/.", &its) == nil && (own.Dev != its.Dev || own.Ino != its.Ino) {
		layers = append(layers, LayerRoot)
	}
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NPROC, nil, &l); err == nil && l.Max == maxThreads {
		layers = append(layers, LayerLimits)
	}
	return layers, nil
}
