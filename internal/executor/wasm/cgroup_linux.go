package wasm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// cgroup bounds the memory of one worker. It is there only where a cgroup is
// writable: version 1's memory controller, or version 2 where it is delegated.
type cgroup struct {
	dir  string
	file string // that takes the bound
}

var cgroups atomic.Uint64

// ownCgroups lists where cgroups of ours may go, by the file that bounds memory there.
func ownCgroups() map[string]string {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	dirs := map[string]string{}
	for _, l := range strings.Split(string(own), "\n") {
		switch f := strings.SplitN(l, ":", 3); {
		case len(f) != 3:
		case f[1] == "":
			dirs["memory.max"] = filepath.Join("/sys/fs/cgroup", f[2])
		case f[1] == "memory":
			dirs["memory.limit_in_bytes"] = filepath.Join("/sys/fs/cgroup/memory", f[2])
		}
	}
	return dirs
}

// groupMemory is the least bound on memory of the groups and of all above them, up to root. They are named as ownCgroups does.
func groupMemory(root string, groups map[string]string) uint64 {
	least := uint64(math.MaxUint64)
	for file, dir := range groups {
		for ; strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				continue // no controller here; or no group, where /sys shows those of another namespace
			}
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" is none
				least = min(least, n)
			}
		}
	}
	return least
}

// newCgroup makes a cgroup below this process's own, or returns nil.
func newCgroup() *cgroup {
	for file, dir := range ownCgroups() {
		c := &cgroup{file: file, dir: filepath.Join(dir, fmt.Sprintf("crowd-%d-%d", os.Getpid(), cgroups.Add(1)))}
		if os.Mkdir(c.dir, 0o755) != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(c.dir, c.file)); err == nil {
			return c
		}
		os.Remove(c.dir)
	}
	return nil
}

// sweepCgroups removes what processes left that did not get to it themselves.
func sweepCgroups() {
	for _, dir := range ownCgroups() {
		left, err := filepath.Glob(filepath.Join(dir, "crowd-*-*"))
		if err != nil {
			continue
		}
		for _, d := range left {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(d), "crowd-"), "-")
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
				os.Remove(d)
			}
		}
	}
}

func (c *cgroup) add(pid int) error {
	return os.WriteFile(filepath.Join(c.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func (c *cgroup) bound(bytes uint64) error {
	return os.WriteFile(filepath.Join(c.dir, c.file), []byte(strconv.FormatUint(bytes, 10)), 0)
}

// remove takes away the empty cgroup once its process has ended.
func (c *cgroup) remove() error {
	if err := os.Remove(c.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
