package store

import "golang.org/x/sys/windows"

// room is how many bytes the disk of dir has left for us.
func room(dir string) (uint64, error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var n uint64
	err = windows.GetDiskFreeSpaceEx(p, &n, nil, nil)
	return n, err
}
