//go:build unix

package store

import "golang.org/x/sys/unix"

// room is how many bytes the disk of dir has left for us, and how many it has in all.
func room(dir string) (left, all uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), uint64(s.Blocks) * uint64(s.Bsize), nil
}
