package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/crowdcompute/crowd"
)

const (
	maxFileDepth  = 8  // nodes above a leaf; fileWidth^4 MiB is an exabyte
	maxShardDepth = 16 // HAMTs nest by 1 byte of an 8-byte hash
)

// node reads, checks and decodes one block.
func (s *Store) node(ctx context.Context, c cid.Cid) (*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.blocks.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return decode(c, b.RawData())
}

// Info describes content without its bytes.
type Info struct {
	Size    uint64 // bytes in all files; each is what its root claims, and a lie shows when it is read
	Dir     bool
	Entries int // files and folders below a folder, at any depth
}

// Stat walks the tree of c down to its files' roots: ErrInvalid if it is none,
// ErrMissing if one of those blocks is not here.
func (s *Store) Stat(ctx context.Context, c crowd.CID) (Info, error) {
	var in Info
	err := s.walk(ctx, c, func(p string, _ cid.Cid, n *node) error {
		if p == "" {
			in.Dir = n.kind != file
		} else {
			in.Entries++
		}
		if in.Size += n.size; in.Size > maxSize {
			return fmt.Errorf("more than %d bytes: %w", uint64(maxSize), ErrTooBig)
		}
		return nil
	})
	if err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", c, err)
	}
	return in, nil
}

// walk visits c and all below it that has a name, parents first, in an order that c decides.
// A path is relative, with slashes; the root's is "".
func (s *Store) walk(ctx context.Context, c crowd.CID, visit func(path string, c cid.Cid, n *node) error) error {
	k, err := Parse(c)
	if err != nil {
		return err
	}
	w := walker{s: s, visit: visit}
	return w.any(ctx, "", k, 0)
}

type walker struct {
	s     *Store
	visit func(path string, c cid.Cid, n *node) error
	links int
}

func (w *walker) any(ctx context.Context, p string, c cid.Cid, depth int) error {
	n, err := w.s.node(ctx, c)
	if err != nil {
		return err
	}
	if err := w.visit(p, c, n); err != nil || n.kind == file {
		return err
	}
	if depth > MaxDepth {
		return fmt.Errorf("folders nested more than %d deep: %w", MaxDepth, ErrInvalid)
	}
	return w.entries(ctx, p, n, map[string]bool{}, depth, 0)
}

// entries visits what is in a folder or a shard of one. seen holds the folder's names so far.
func (w *walker) entries(ctx context.Context, p string, n *node, seen map[string]bool, depth, shards int) error {
	if w.links += len(n.links); w.links > MaxEntries || shards > maxShardDepth {
		return fmt.Errorf("more than %d files and folders: %w", MaxEntries, ErrTooBig)
	}
	for i, c := range n.links {
		name := n.names[i]
		if name == "" { // only shards have such
			sub, err := w.s.node(ctx, c)
			if err != nil {
				return err
			}
			if sub.kind != shard {
				return fmt.Errorf("block %s: not the shard that its parent says it is: %w", c, ErrInvalid)
			}
			if err := w.entries(ctx, p, sub, seen, depth, shards+1); err != nil {
				return err
			}
			continue
		}
		at := path.Join(p, name)
		if seen[name] || len(at) > MaxPath {
			return fmt.Errorf("entry %q: twice in its folder, or a path of more than %d bytes: %w", name, MaxPath, ErrInvalid)
		}
		seen[name] = true
		if err := w.any(ctx, at, c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Entry is a name in a folder.
type Entry struct {
	Name string
	CID  crowd.CID
	Raw  bool   // it is a file, and its bytes are those of its one block
	Size uint64 // bytes of all its blocks, as the folder claims
}

// List is what the folder c holds itself, sorted by name. Only its own blocks, which Inner leads
// to, need to be here. What is no folder is ErrInvalid.
func (s *Store) List(ctx context.Context, c crowd.CID) ([]Entry, error) {
	k, err := Parse(c)
	if err != nil {
		return nil, err
	}
	var list []Entry
	seen := map[string]bool{}
	var add func(c cid.Cid, depth int) error
	add = func(c cid.Cid, depth int) error {
		n, err := s.node(ctx, c)
		switch {
		case err != nil:
			return err
		case n.kind == file || depth > 0 && n.kind != shard:
			return fmt.Errorf("block %s: no folder, or no shard of one: %w", c, ErrInvalid)
		case depth > maxShardDepth:
			return fmt.Errorf("a folder's shards more than %d deep: %w", maxShardDepth, ErrInvalid)
		}
		for i, link := range n.links {
			name := n.names[i]
			if name == "" {
				if err := add(link, depth+1); err != nil {
					return err
				}
				continue
			}
			if seen[name] || len(list) == MaxEntries {
				return fmt.Errorf("entry %q: twice in its folder, or one of more than %d: %w", name, MaxEntries, ErrInvalid)
			}
			seen[name] = true
			list = append(list, Entry{Name: name, CID: crowd.CID(link.String()), Raw: link.Prefix().Codec == cid.Raw, Size: n.sizes[i]})
		}
		return nil
	}
	if err := add(k, 0); err != nil {
		return nil, fmt.Errorf("list %s: %w", c, err)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Has reports whether all blocks below c are here. It reads and checks the
// nodes; of the leaves, which hold nearly all bytes, it only checks that they exist.
func (s *Store) Has(ctx context.Context, c crowd.CID) (bool, error) {
	k, err := Parse(c)
	if err != nil {
		return false, err
	}
	err = s.reach(ctx, k, map[cid.Cid]struct{}{}, false)
	if errors.Is(err, ErrMissing) {
		return false, nil
	}
	return err == nil, err
}

// reach adds c and all below it to seen. With holes, what is not here or makes no sense
// ends only its own branch.
func (s *Store) reach(ctx context.Context, c cid.Cid, seen map[cid.Cid]struct{}, holes bool) error {
	todo := []cid.Cid{c}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, ok := seen[c]; ok {
			continue
		}
		seen[c] = struct{}{}
		var links []cid.Cid
		var err error
		if c.Prefix().Codec == cid.Raw {
			var has bool
			if has, err = s.blocks.Has(ctx, c); err == nil && !has {
				err = missing(c)
			}
		} else {
			var n *node
			if n, err = s.node(ctx, c); err == nil {
				links = n.links
			}
		}
		if err != nil && !(holes && (errors.Is(err, ErrMissing) || errors.Is(err, ErrInvalid))) {
			return err
		}
		todo = append(todo, links...)
	}
	return nil
}

// Reader reads the file c; size is in bytes. Its Read and Seek are ErrMissing
// where a block is not here, and ErrInvalid where the content is not what its nodes claim.
func (s *Store) Reader(ctx context.Context, c crowd.CID) (r io.ReadSeekCloser, size uint64, err error) {
	k, err := Parse(c)
	if err != nil {
		return nil, 0, err
	}
	n, err := s.node(ctx, k)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", c, err)
	}
	if n.kind != file {
		return nil, 0, fmt.Errorf("read %s: it is a folder: %w", c, ErrInvalid)
	}
	return s.reader(ctx, n), n.size, nil
}

func (s *Store) reader(ctx context.Context, root *node) *reader {
	return &reader{ctx: ctx, s: s, path: []span{{n: root}}}
}

// reader walks a file's tree, holding the nodes between the root and the current leaf.
type reader struct {
	ctx  context.Context // of the Reader call: reading has no context of its own
	s    *Store
	path []span
	off  uint64
}

type span struct {
	n     *node
	start uint64 // of its first byte in the file
}

// rest returns what the leaf at off still has; nil at the end of the file.
func (r *reader) rest() ([]byte, error) {
	if r.off >= r.path[0].n.size {
		return nil, nil
	}
	top := len(r.path) - 1
	for r.off < r.path[top].start || r.off-r.path[top].start >= r.path[top].n.size {
		top--
	}
	r.path = r.path[:top+1]
	for {
		at := r.path[len(r.path)-1]
		if len(at.n.links) == 0 {
			return at.n.data[r.off-at.start:], nil
		}
		if len(r.path) > maxFileDepth {
			return nil, fmt.Errorf("a file's tree more than %d deep: %w", maxFileDepth, ErrInvalid)
		}
		i := sort.Search(len(at.n.ends), func(i int) bool { return at.n.ends[i] > r.off-at.start })
		var begin uint64
		if i > 0 {
			begin = at.n.ends[i-1]
		}
		c := at.n.links[i]
		n, err := r.s.node(r.ctx, c)
		if err != nil {
			return nil, err
		}
		if n.kind != file || n.size != at.n.ends[i]-begin {
			return nil, fmt.Errorf("block %s: not the part of %d bytes that its parent says it is: %w", c, at.n.ends[i]-begin, ErrInvalid)
		}
		r.path = append(r.path, span{n, at.start + begin})
	}
}

func (r *reader) Read(p []byte) (int, error) {
	b, err := r.rest()
	if err == nil && b == nil && len(p) > 0 {
		err = io.EOF
	}
	n := copy(p, b)
	r.off += uint64(n)
	return n, err
}

// WriteTo spares io.Copy its buffer.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	var sum int64
	for {
		b, err := r.rest()
		if err != nil || b == nil {
			return sum, err
		}
		n, err := w.Write(b)
		sum += int64(n)
		r.off += uint64(n)
		if err != nil {
			return sum, err
		}
	}
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += int64(r.off)
	case io.SeekEnd:
		offset += int64(r.path[0].n.size)
	}
	if offset < 0 {
		return 0, errors.New("seek before the start of the file")
	}
	r.off = uint64(offset)
	return offset, nil
}

func (r *reader) Close() error {
	r.path = []span{{n: &node{kind: file}}}
	return nil
}
