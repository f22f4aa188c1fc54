package wasm

import (
	"path"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/crowdcompute/crowd/internal/executor"
)

// The tree that a program sees. Its names live here, in the worker's memory; of
// the machine's file system the worker only ever holds open files, which the
// parent hands it: it has no path, no folder and no way to name anything.
//
//	/in   the inputs, read-only, listed and opened when first looked at
//	/out  the output, each file backed by one that the parent made
//	/tmp  in memory
//
// Bounds. All are constants, so that running into one is the same everywhere.
const (
	maxNodes   = executor.MaxFiles // files and folders alive in /out and /tmp together
	maxInputs  = 1 << 17           // entries of /in looked at
	maxFDs     = 1024              // open descriptors
	maxName    = 255               // bytes of one name
	maxPath    = 1024              // bytes of any path in a call
	maxMade    = 1020              // bytes of a path below /out or /tmp: a store takes 1024, with "out/" before it
	maxDepth   = 32                // folders above a file in /out or /tmp
	maxTmp     = 64 << 20          // bytes in /tmp
	maxInDepth = 64                // folders above a file in /in
)

type place uint8

const (
	atRoot place = iota
	atIn
	atOut
	atTmp
	atStream // stdin, stdout, stderr: no name
)

// node is a file, folder or symbolic link. Inode numbers count up in the order
// in which nodes come to be known, which the program alone decides.
type node struct {
	kind   fileType
	at     place
	ino    uint64
	name   string
	parent *node            // nil: the root, a stream, or unlinked
	kids   map[string]*node // of a folder
	known  bool             // of a folder in /in: kids are loaded
	size   uint64           // of a file
	data   blob             // of a file; nil for one in /in that is not open
	slot   uint32           // of a file in /out: the parent's number for it
	opened int              // descriptors on it
}

// blob is the content of a file. Its errors are faults of this machine.
type blob interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Close() error
}

// entry is one line of a listing of /in.
type entry struct {
	_    struct{} `cbor:",toarray"`
	Name []byte
	Kind fileType
	Size uint64
}

// outside is what the worker asks its parent for. Errors are faults.
type outside interface {
	list(dir string) ([]entry, error)       // entries of /in/dir
	open(file string) (blob, error)         // /in/file
	create() (slot uint32, _ blob, _ error) // a new empty file of /out
}

type tree struct {
	// set once
	world outside
	root  *node

	// the program's goroutine only
	inos    uint64
	inputs  int
	live    int     // nodes in /out and /tmp
	tmpUsed uint64  // bytes in /tmp
	spare   []*node // unlinked files of /out whose blob can be used again
}

func newTree(world outside, inputs bool) *tree {
	t := &tree{world: world}
	t.root = t.newNode(dirType, atRoot, "", nil)
	if inputs {
		t.newNode(dirType, atIn, "in", t.root)
	}
	t.newNode(dirType, atOut, "out", t.root)
	t.newNode(dirType, atTmp, "tmp", t.root)
	return t
}

func (t *tree) newNode(k fileType, at place, name string, parent *node) *node {
	t.inos++
	n := &node{kind: k, at: at, ino: t.inos, name: name, parent: parent}
	if k == dirType {
		n.kids = map[string]*node{}
	}
	if parent != nil {
		parent.kids[name] = n
	}
	return n
}

// path of n below its place ("" for /in, /out and /tmp themselves).
func (n *node) path() string {
	if n.parent == nil || n.parent.at == atRoot {
		return ""
	}
	return path.Join(n.parent.path(), n.name)
}

func (n *node) depth() int {
	d := 0
	for ; n.parent != nil; n = n.parent {
		d++
	}
	return d
}

// extent is how deep and how long the paths below n are, n's own name included.
func (n *node) extent() (depth, bytes int) {
	for _, k := range n.kids {
		d, b := k.extent()
		depth, bytes = max(depth, d), max(bytes, b)
	}
	return depth + 1, bytes + 1 + len(n.name)
}

// load makes the kids of a folder in /in known.
func (t *tree) load(n *node) (errno, error) {
	if n.at != atIn || n.known {
		return ok, nil
	}
	if n.depth() > maxInDepth {
		return eNameTooLong, nil
	}
	list, err := t.world.list(n.path())
	if err != nil {
		return eIO, err
	}
	if t.inputs += len(list); t.inputs > maxInputs {
		return eNFile, nil
	}
	sort.Slice(list, func(i, j int) bool { return string(list[i].Name) < string(list[j].Name) })
	for _, e := range list {
		k := t.newNode(e.Kind, atIn, string(e.Name), n)
		k.size = e.Size
	}
	n.known = true
	return ok, nil
}

// names of the kids of n, sorted.
func (n *node) names() []string {
	names := make([]string, 0, len(n.kids))
	for k := range n.kids {
		names = append(names, k)
	}
	sort.Strings(names)
	return names
}

// lookup walks p from the folder dir and returns the folder that holds the last
// name, that name, and the node of that name, nil if there is none. A path that
// is dir itself has no parent. No path leads above dir, and no link is followed.
func (t *tree) lookup(dir *node, p string) (parent *node, name string, n *node, e errno, fault error) {
	switch {
	case p == "":
		return nil, "", nil, eNoEnt, nil
	case len(p) > maxPath:
		return nil, "", nil, eNameTooLong, nil
	case p[0] == '/':
		return nil, "", nil, eNotCapable, nil
	case !utf8.ValidString(p):
		return nil, "", nil, eIlSeq, nil
	case strings.IndexByte(p, 0) >= 0:
		return nil, "", nil, eInval, nil
	}
	at, up := dir, 0 // up: how far at is below dir
	n = dir
	rest := p
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if part == "" {
			continue
		}
		if len(part) > maxName {
			return nil, "", nil, eNameTooLong, nil
		}
		if n == nil { // the folder before this part does not exist
			return nil, "", nil, eNoEnt, nil
		}
		if n.kind == linkType {
			return nil, "", nil, eLoop, nil
		}
		if n.kind != dirType {
			return nil, "", nil, eNotDir, nil
		}
		at = n
		switch part {
		case ".":
			parent, name = nil, ""
		case "..":
			if up == 0 {
				return nil, "", nil, eNotCapable, nil
			}
			up--
			n, parent, name = at.parent, nil, ""
		default:
			if e, fault := t.load(at); e != ok {
				return nil, "", nil, e, fault
			}
			up++
			n, parent, name = at.kids[part], at, part
		}
	}
	if n != nil && strings.HasSuffix(p, "/") && n.kind == regularType {
		return nil, "", nil, eNotDir, nil
	}
	return parent, name, n, ok, nil
}

// writable says why nothing can be made in or taken from the folder n.
func (n *node) writable() errno {
	switch {
	case n.at != atOut && n.at != atTmp:
		return eROFS
	case n.parent == nil: // removed, and still open
		return eNoEnt
	}
	return ok
}

// storable: no store takes a result with other names, and what no node can store would
// be the fault of every honest one.
func storable(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || r < 0x20 || r == 0x7f })
}

// make adds a file or folder.
func (t *tree) make(k fileType, parent *node, name string) (*node, errno, error) {
	if e := parent.writable(); e != ok {
		return nil, e, nil
	}
	if !storable(name) {
		return nil, eInval, nil
	}
	if t.live >= maxNodes {
		return nil, eNoSpc, nil
	}
	if parent.depth() >= maxDepth || len(parent.path())+1+len(name) > maxMade {
		return nil, eNameTooLong, nil
	}
	var data blob
	var slot uint32
	if k == regularType {
		switch {
		case parent.at == atTmp:
			data = &memory{}
		case len(t.spare) > 0:
			old := t.spare[len(t.spare)-1]
			t.spare = t.spare[:len(t.spare)-1]
			if err := old.data.Truncate(0); err != nil {
				return nil, eIO, err
			}
			data, slot = old.data, old.slot
		default:
			var err error
			if slot, data, err = t.world.create(); err != nil {
				return nil, eIO, err
			}
		}
	}
	n := t.newNode(k, parent.at, name, parent)
	n.data, n.slot = data, slot
	t.live++
	return n, ok, nil
}

// unlink takes n out of the tree; its content goes when the last descriptor does.
func (t *tree) unlink(n *node) {
	delete(n.parent.kids, n.name)
	n.parent = nil
	t.live--
	if n.opened == 0 {
		t.forget(n)
	}
}

func (t *tree) forget(n *node) {
	if n.kind != regularType {
		return
	}
	switch n.at {
	case atTmp:
		t.tmpUsed -= n.size
	case atOut:
		t.spare = append(t.spare, n)
		return
	}
	n.data = nil
}

// open and close count descriptors; a file in /in has a real one only in between.
func (t *tree) open(n *node) error {
	if n.at == atIn && n.kind == regularType && n.opened == 0 {
		b, err := t.world.open(n.path())
		if err != nil {
			return err
		}
		n.data = b
	}
	n.opened++
	return nil
}

func (t *tree) close(n *node) error {
	if n.opened--; n.opened > 0 {
		return nil
	}
	if n.at == atIn && n.kind == regularType {
		b := n.data
		n.data = nil
		return b.Close()
	}
	if n.parent == nil && (n.at == atOut || n.at == atTmp) {
		t.forget(n)
	}
	return nil
}

// rename moves n to name in the folder to, over old if that is not nil.
func (t *tree) rename(n *node, to *node, name string, old *node) errno {
	if e := n.parent.writable(); e != ok {
		return e
	}
	if e := to.writable(); e != ok {
		return e
	}
	if n.at != to.at {
		return eXDev
	}
	if !storable(name) {
		return eInval
	}
	for up := to; up != nil; up = up.parent {
		if up == n {
			return eInval
		}
	}
	depth, bytes := n.extent()
	if to.depth()+depth > maxDepth+1 || len(to.path())+bytes-len(n.name)+len(name) > maxMade {
		return eNameTooLong
	}
	if old == n {
		return ok
	}
	if old != nil {
		switch {
		case old.kind == dirType && n.kind != dirType:
			return eIsDir
		case old.kind != dirType && n.kind == dirType:
			return eNotDir
		case len(old.kids) > 0:
			return eNotEmpty
		}
		t.unlink(old)
	}
	delete(n.parent.kids, n.name)
	n.parent, n.name = to, name
	to.kids[name] = n
	return ok
}

// leaf is one line of the tree /out as the worker reports it at the end.
type leaf struct {
	_    struct{} `cbor:",toarray"`
	Path string   // below out
	Dir  bool
	Slot uint32 // of a file
	Size uint64 // of a file
}

// result lists /out, folders before what is in them, sorted.
func (t *tree) result() []leaf {
	var list []leaf
	var walk func(n *node, p string)
	walk = func(n *node, p string) {
		for _, name := range n.names() {
			k := n.kids[name]
			l := leaf{Path: path.Join(p, name), Dir: k.kind == dirType}
			if !l.Dir {
				l.Slot, l.Size = k.slot, k.size
			}
			list = append(list, l)
			walk(k, l.Path)
		}
	}
	walk(t.root.kids["out"], "")
	return list
}

// memory is a file of /tmp.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m.b)) {
		return 0, nil
	}
	return copy(p, m.b[off:]), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.Truncate(end)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Truncate(size int64) error {
	if size <= int64(len(m.b)) {
		clear(m.b[size:])
		m.b = m.b[:size]
		return nil
	}
	if size <= int64(cap(m.b)) {
		m.b = m.b[:size]
		return nil
	}
	grown := make([]byte, size, max(size, min(2*int64(cap(m.b)), maxTmp)))
	copy(grown, m.b)
	m.b = grown
	return nil
}

func (m *memory) Close() error { return nil }
