package wasm

import "fmt"

// wasiModule is the only module that a program may import from.
const wasiModule = "wasi_snapshot_preview1"

// errno is WASI's; stopped is ours and never reaches a program.
type errno uint32

const (
	ok           errno = 0
	eAcces       errno = 2
	eBadF        errno = 8
	eExist       errno = 20
	eFault       errno = 21
	eFBig        errno = 22
	eIlSeq       errno = 25
	eInval       errno = 28
	eIO          errno = 29
	eIsDir       errno = 31
	eLoop        errno = 32
	eMFile       errno = 33
	eNameTooLong errno = 37
	eNFile       errno = 41
	eNoEnt       errno = 44
	eNoSpc       errno = 51
	eNoSys       errno = 52
	eNotDir      errno = 54
	eNotEmpty    errno = 55
	eNotSock     errno = 57
	eNotSup      errno = 58
	ePerm        errno = 63
	eROFS        errno = 69
	eSPipe       errno = 70
	eXDev        errno = 75
	eNotCapable  errno = 76
	stopped      errno = 1 << 31
)

type fileType uint8

const (
	dirType     fileType = 3
	regularType fileType = 4
	linkType    fileType = 7
)

// Rights of WASI preview 1 that matter here.
const (
	rightFDRead            = 1 << 1
	rightFDSeek            = 1 << 2
	rightFDTell            = 1 << 5
	rightFDWrite           = 1 << 6
	rightAll        uint64 = 1<<30 - 1
	dirRights              = rightAll &^ (rightFDSeek | rightFDTell | rightFDWrite | rightFDRead)
	streamRights    uint64 = 1<<0 | 1<<3 | 1<<4 | 1<<21 | 1<<27 // datasync, set flags, sync, filestat get, poll
	flagAppend      uint16 = 1
	flagNonblock    uint16 = 4
	openCreate             = 1
	openDir                = 2
	openExcl               = 4
	openTrunc              = 8
	maxVectors             = 1024 // buffers in one read or write
	maxSubscription        = 1024 // events in one poll
)

// Gas of host functions, the same for every engine. A unit is about one simple
// instruction; the figures are what the calls cost on the reference machine,
// rounded up, so that no program buys host time below its price.
const (
	gasCall   = 1_500   // crossing into the host and back
	gasFile   = 5_000   // a system call on an open file
	gasPath   = 20_000  // walking a path, asking the parent for a file or a listing
	gasCreate = 250_000 // a new file on disk
	gasEntry  = 200     // one name of a folder
	gasVector = 1_000   // a buffer of a read or write beyond the second: it may be a system call of its own
	gasByte   = 1       // one byte moved
	gasWrite  = 3       // one byte written to a file: somebody stores it, too
	gasString = 20      // an argument or variable
)

// function is one host function. All return an errno but proc_exit.
type function struct {
	name   string
	params string // i: i32, I: i64
	gas    uint64
	do     func(h *host, a []uint64) errno
}

// functions is all of WASI preview 1, bound to every engine.
var functions = [...]function{
	{"args_get", "ii", gasCall, func(h *host, a []uint64) errno { return h.strings(h.args, a[0], a[1]) }},
	{"args_sizes_get", "ii", gasCall, func(h *host, a []uint64) errno { return h.stringSizes(h.args, a[0], a[1]) }},
	{"environ_get", "ii", gasCall, func(h *host, a []uint64) errno { return h.strings(h.env, a[0], a[1]) }},
	{"environ_sizes_get", "ii", gasCall, func(h *host, a []uint64) errno { return h.stringSizes(h.env, a[0], a[1]) }},
	{"clock_res_get", "ii", gasCall, clockResGet},
	{"clock_time_get", "iIi", gasCall, clockTimeGet},
	{"fd_advise", "iIIi", gasCall, onFile(func(*host, *descriptor, []uint64) errno { return ok })},
	{"fd_allocate", "iII", gasFile, onFile(fdAllocate)},
	{"fd_close", "i", gasFile, fdClose},
	{"fd_datasync", "i", gasCall, onFD(func(*host, *descriptor, []uint64) errno { return ok })},
	{"fd_fdstat_get", "ii", gasCall, onFD(fdStatGet)},
	{"fd_fdstat_set_flags", "ii", gasCall, onFD(fdStatSetFlags)},
	{"fd_fdstat_set_rights", "iII", gasCall, onFD(fdStatSetRights)},
	{"fd_filestat_get", "ii", gasCall, onFD(fdFilestatGet)},
	{"fd_filestat_set_size", "iI", gasFile, onFile(fdFilestatSetSize)},
	{"fd_filestat_set_times", "iIIi", gasCall, onFD(fdFilestatSetTimes)},
	{"fd_pread", "iiiIi", gasFile, onFile(fdPread)},
	{"fd_prestat_get", "ii", gasCall, onFD(fdPrestatGet)},
	{"fd_prestat_dir_name", "iii", gasCall, onFD(fdPrestatDirName)},
	{"fd_pwrite", "iiiIi", gasFile, onFile(fdPwrite)},
	{"fd_read", "iiii", gasFile, onFile(fdRead)},
	{"fd_readdir", "iiiIi", gasPath, onFD(fdReaddir)},
	{"fd_renumber", "ii", gasCall, fdRenumber},
	{"fd_seek", "iIii", gasCall, onFile(fdSeek)},
	{"fd_sync", "i", gasCall, onFD(func(*host, *descriptor, []uint64) errno { return ok })},
	{"fd_tell", "ii", gasCall, onFile(fdTell)},
	{"fd_write", "iiii", gasFile, onFile(fdWrite)},
	{"path_create_directory", "iii", gasPath, pathCreateDirectory},
	{"path_filestat_get", "iiiii", gasPath, pathFilestatGet},
	{"path_filestat_set_times", "iiiiIIi", gasPath, pathFilestatSetTimes},
	{"path_link", "iiiiiii", gasCall, func(*host, []uint64) errno { return eNotSup }},
	{"path_open", "iiiiiIIii", gasPath, pathOpen},
	{"path_readlink", "iiiiii", gasPath, pathReadlink},
	{"path_remove_directory", "iii", gasPath, pathRemoveDirectory},
	{"path_rename", "iiiiii", gasPath, pathRename},
	{"path_symlink", "iiiii", gasCall, func(*host, []uint64) errno { return eNotSup }},
	{"path_unlink_file", "iii", gasPath, pathUnlinkFile},
	{"poll_oneoff", "iiii", gasCall, pollOneoff},
	{"proc_exit", "i", gasCall, procExit},
	{"proc_raise", "i", gasCall, func(*host, []uint64) errno { return eNoSys }},
	{"sched_yield", "", gasCall, func(*host, []uint64) errno { return ok }},
	{"random_get", "ii", gasCall, randomGet},
	{"sock_accept", "iii", gasCall, onFD(func(*host, *descriptor, []uint64) errno { return eNotSock })},
	{"sock_recv", "iiiiii", gasCall, onFD(func(*host, *descriptor, []uint64) errno { return eNotSock })},
	{"sock_send", "iiiii", gasCall, onFD(func(*host, *descriptor, []uint64) errno { return eNotSock })},
	{"sock_shutdown", "ii", gasCall, onFD(func(*host, *descriptor, []uint64) errno { return eNotSock })},
}

// Types of WebAssembly's binary format.
const (
	typeI32 = 0x7f
	typeI64 = 0x7e
)

func (f *function) types() (params, results []byte) {
	for _, c := range f.params {
		if c == 'i' {
			params = append(params, typeI32)
		} else {
			params = append(params, typeI64)
		}
	}
	if f.name != "proc_exit" {
		results = []byte{typeI32}
	}
	return params, results
}

// checkImport says whether the host has a function of that name and type.
func checkImport(module, name string, params, results []byte) error {
	if module != wasiModule {
		return fmt.Errorf("import of %.64q from %.64q: only %s is offered", name, module, wasiModule)
	}
	for i := range functions {
		f := &functions[i]
		if f.name != name {
			continue
		}
		p, r := f.types()
		if string(p) != string(params) || string(r) != string(results) {
			return fmt.Errorf("import of %s with another type than %s has", name, wasiModule)
		}
		return nil
	}
	return fmt.Errorf("import of %.64q: %s has no such function", name, wasiModule)
}
