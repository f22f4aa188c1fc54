package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	"github.com/crowdcompute/crowd"
)

// The import parameters are those of the profile unixfs-v1-2025 (IPIP-499), so that a CID is a
// function of the content alone, here and with `ipfs add --profile unixfs-v1-2025`.
const (
	chunkSize = 1 << 20   // bytes in a leaf, which is a raw block
	fileWidth = 1024      // links in a node of a file, layout balanced
	maxFolder = 256 << 10 // bytes of a folder's node above which it becomes a HAMT
	hamtWidth = 256
)

var builder = cid.V1Builder{Codec: cid.DagProtobuf, MhType: multihash.SHA2_256}

// AddFile stores what r gives and returns its CID, a function of those bytes alone.
// If it fails, nothing of it stays. What it adds outlives the next GC even unpinned.
func (s *Store) AddFile(ctx context.Context, r io.Reader) (crowd.CID, error) {
	return s.add(func(d ipld.DAGService) (ipld.Node, error) { return addFile(ctx, d, r) })
}

// AddDir stores the folder dir with all files and folders below it: names and contents, no modes,
// no times, no owners. A symbolic link, device, pipe or socket below dir is an error, and so is a
// name that Export would refuse. If it fails, nothing of it stays.
func (s *Store) AddDir(ctx context.Context, dir string) (crowd.CID, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("add folder: %w", err)
	}
	defer root.Close()
	t := tree{root: root}
	return s.add(func(d ipld.DAGService) (ipld.Node, error) {
		t.dag = d
		return t.add(ctx, ".", 0)
	})
}

func (s *Store) add(what func(ipld.DAGService) (ipld.Node, error)) (crowd.CID, error) {
	a := &added{blocks: s.blocks, all: map[string]struct{}{}, fresh: map[cid.Cid]uint64{}}
	s.mu.Lock()
	s.adds[a] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.adds, a)
		s.mu.Unlock()
	}()
	// WriteThrough: blocks that are here already pass through Put too, which makes them young.
	n, err := what(merkledag.NewDAGService(blockservice.New(a, nil, blockservice.WriteThrough(true))))
	if err != nil {
		a.undo()
		return "", fmt.Errorf("add: %w", err)
	}
	s.blocks.touch(a.all) // the first may have grown old meanwhile
	return crowd.CID(n.Cid().String()), nil
}

func addFile(ctx context.Context, d ipld.DAGService, r io.Reader) (ipld.Node, error) {
	b, err := (&helpers.DagBuilderParams{
		Maxlinks:   fileWidth,
		RawLeaves:  true,
		CidBuilder: builder,
		Dagserv:    d,
	}).New(chunk.NewSizeSplitter(contextReader{ctx, r}, chunkSize))
	if err != nil {
		return nil, err
	}
	return balanced.Layout(b)
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// tree is one AddDir.
type tree struct {
	root    *os.Root
	dag     ipld.DAGService
	entries int
}

func (t *tree) add(ctx context.Context, at string, depth int) (ipld.Node, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("%s: folders nested more than %d deep: %w", at, MaxDepth, ErrInvalid)
	}
	list, err := fs.ReadDir(t.root.FS(), at) // sorted by name
	if err != nil {
		return nil, err
	}
	if t.entries += len(list); t.entries > MaxEntries {
		return nil, fmt.Errorf("more than %d files and folders: %w", MaxEntries, ErrTooBig)
	}
	links := make([]*ipld.Link, len(list))
	for i, e := range list {
		name := path.Join(at, e.Name())
		if err := checkName(e.Name()); err != nil {
			return nil, fmt.Errorf("in %s: %w: %w", at, err, ErrInvalid)
		}
		if len(name) > MaxPath {
			return nil, fmt.Errorf("%s: a path of %d bytes, at most %d: %w", name, len(name), MaxPath, ErrInvalid)
		}
		var n ipld.Node
		switch {
		case e.IsDir():
			n, err = t.add(ctx, name, depth+1)
		case e.Type().IsRegular():
			n, err = t.addFile(ctx, name)
		default:
			err = fmt.Errorf("%s is a %s, neither file nor folder: %w", name, e.Type(), ErrInvalid)
		}
		if err != nil {
			return nil, err
		}
		if links[i], err = ipld.MakeLink(n); err != nil {
			return nil, err
		}
		links[i].Name = e.Name()
	}
	return t.folder(ctx, links)
}

// addFile opens the very file that was seen, not what a link put there meanwhile points to.
func (t *tree) addFile(ctx context.Context, name string) (ipld.Node, error) {
	seen, err := t.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !seen.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no longer a file: %w", name, ErrInvalid)
	}
	f, err := t.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if now, err := f.Stat(); err != nil || !os.SameFile(seen, now) {
		return nil, errors.Join(fmt.Errorf("%s changed while it was read", name), err)
	}
	n, err := addFile(ctx, t.dag, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

func (t *tree) folder(ctx context.Context, links []*ipld.Link) (ipld.Node, error) {
	n := unixfs.EmptyDirNode()
	if err := n.SetCidBuilder(builder); err != nil {
		return nil, err
	}
	for _, l := range links {
		if err := n.AddRawLink(l.Name, l); err != nil {
			return nil, err
		}
	}
	raw, err := n.EncodeProtobuf(false)
	if err != nil {
		return nil, err
	}
	if len(raw) <= maxFolder {
		return n, t.dag.Add(ctx, n)
	}
	h, err := hamt.NewShard(t.dag, hamtWidth)
	if err != nil {
		return nil, err
	}
	h.SetCidBuilder(builder)
	for _, l := range links {
		if err := h.SetLink(ctx, l.Name, l); err != nil {
			return nil, err
		}
	}
	return h.Node() // writes itself
}
