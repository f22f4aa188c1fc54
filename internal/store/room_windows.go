package store

import "golang.org/x/sys/windows"

// room is how many bytes the disk of dir has left for us, and how many it has in all.
func room(dir string) (left, all uint64, err error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err == nil {
		err = windows.GetDiskFreeSpaceEx(p, &left, &all, nil)
	}
	return left, all, err
}
