package store

import (
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/crowdcompute/crowd"
)

// Parse reads a CID in its one canonical form: version 1 in lower-case base32,
// SHA2-256, of a raw block or a dag-pb node.
func Parse(c crowd.CID) (cid.Cid, error) {
	if len(c) > crowd.MaxCID {
		return cid.Undef, fmt.Errorf("CID of %d bytes, at most %d: %w", len(c), crowd.MaxCID, ErrInvalid)
	}
	k, err := cid.Decode(string(c))
	if err != nil {
		return cid.Undef, fmt.Errorf("CID %q: %w: %w", c, ErrInvalid, err)
	}
	if err := check(k); err != nil {
		return cid.Undef, err
	}
	if k.String() != string(c) {
		return cid.Undef, fmt.Errorf("CID %q is not in canonical form, which is %s: %w", c, k, ErrInvalid)
	}
	return k, nil
}

// check holds every CID to Parse's rules, also those inside nodes.
func check(c cid.Cid) error {
	if !c.Defined() {
		return fmt.Errorf("no CID: %w", ErrInvalid)
	}
	p := c.Prefix()
	if p.Version != 1 || p.MhType != multihash.SHA2_256 || p.MhLength != 32 || (p.Codec != cid.Raw && p.Codec != cid.DagProtobuf) {
		return fmt.Errorf("CID %s: want version 1, SHA2-256, raw or dag-pb: %w", c, ErrInvalid)
	}
	return nil
}

type kind uint8

const (
	file kind = iota + 1
	folder
	shard // a part of a big folder: UnixFS HAMT
)

// node is one decoded block of a UnixFS tree.
type node struct {
	kind  kind
	size  uint64 // of a file: bytes of content, claimed by the node and checked when read
	data  []byte // of a file without links
	links []cid.Cid
	ends  []uint64 // of a file with links: where each part ends, counted from this node's start
	names []string // of a folder or shard; "" for a shard inside a shard
	sizes []uint64 // of a folder or shard: bytes in all blocks below each link, as it claims
}

const (
	// Each part of a file but the last stands for this many bytes on average, so that
	// reading costs in proportion to the size, whatever a hostile tree looks like.
	minPart = 1 << 10
	// maxSize keeps sums of sizes far from overflow.
	maxSize = 1 << 62
)

// Links are the CIDs directly below the block of c, in its order, perhaps with repetitions.
// A block that is no well-formed part of a UnixFS file or folder is ErrInvalid.
func Links(c cid.Cid, block []byte) ([]cid.Cid, error) {
	n, err := decode(c, block)
	if err != nil {
		return nil, err
	}
	return n.links, nil
}

// Inner are those of Links that List needs besides: of a folder's block its shards, of any other none.
func Inner(c cid.Cid, block []byte) ([]cid.Cid, error) {
	n, err := decode(c, block)
	if err != nil {
		return nil, err
	}
	var shards []cid.Cid
	for i, name := range n.names {
		if name == "" {
			shards = append(shards, n.links[i])
		}
	}
	return shards, nil
}

// decode reads the block of c, which the caller has checked against c.
func decode(c cid.Cid, block []byte) (*node, error) {
	bad := func(format string, a ...any) (*node, error) {
		return nil, fmt.Errorf("block %s: %s: %w", c, fmt.Sprintf(format, a...), ErrInvalid)
	}
	if c.Prefix().Codec == cid.Raw {
		return &node{kind: file, size: uint64(len(block)), data: block}, nil
	}
	pb, err := merkledag.DecodeProtobuf(block)
	if err != nil {
		return bad("%v", err)
	}
	fs, err := unixfs.FSNodeFromBytes(pb.Data())
	if err != nil {
		return bad("%v", err)
	}
	n := &node{}
	for _, l := range pb.Links() {
		if err := check(l.Cid); err != nil {
			return bad("link: %v", err)
		}
		n.links = append(n.links, l.Cid)
	}
	switch fs.Type() {
	case unixfs.TFile, unixfs.TRaw:
		n.kind, n.size = file, fs.FileSize()
		sizes := fs.BlockSizes()
		if len(n.links) == 0 {
			n.data = fs.Data()
			if len(sizes) > 0 || n.size != uint64(len(n.data)) {
				return bad("a file of %d bytes that claims %d", len(n.data), n.size)
			}
			return n, nil
		}
		if len(fs.Data()) > 0 || len(sizes) != len(n.links) {
			return bad("a file of %d parts with %d sizes and %d bytes of its own", len(n.links), len(sizes), len(fs.Data()))
		}
		var end uint64
		for _, size := range sizes {
			if size == 0 || size > maxSize || end+size > maxSize {
				return bad("a part of %d bytes", size)
			}
			end += size
			n.ends = append(n.ends, end)
		}
		if end != n.size || end/minPart < uint64(len(sizes)-1) {
			return bad("a file that claims %d bytes, with %d parts that claim %d", n.size, len(sizes), end)
		}
	case unixfs.TDirectory:
		n.kind = folder
		for _, l := range pb.Links() {
			if err := checkName(l.Name); err != nil {
				return bad("%v", err)
			}
			n.names, n.sizes = append(n.names, l.Name), append(n.sizes, l.Size)
		}
	case unixfs.THAMTShard:
		n.kind = shard
		fan := fs.Fanout()
		if fan < 8 || fan > 1024 || fan&(fan-1) != 0 || fs.HashType() != hamt.HashMurmur3 || uint64(len(n.links)) > fan {
			return bad("a folder's shard of fan-out %d, hash %#x, with %d links", fan, fs.HashType(), len(n.links))
		}
		prefix := len(strconv.FormatUint(fan-1, 16))
		for _, l := range pb.Links() {
			if len(l.Name) < prefix {
				return bad("a shard's link named %q", l.Name)
			}
			name := l.Name[prefix:]
			if name != "" {
				if err := checkName(name); err != nil {
					return bad("%v", err)
				}
			}
			n.names, n.sizes = append(n.names, name), append(n.sizes, l.Size)
		}
	default:
		return bad("neither file nor folder: UnixFS type %s", fs.Type())
	}
	return n, nil
}

// checkName refuses what could leave the folder, confuse a terminal, or not exist on some machine.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..":
		return fmt.Errorf("entry named %q", name)
	case len(name) > MaxName:
		return fmt.Errorf("entry with a name of %d bytes, at most %d", len(name), MaxName)
	case !utf8.ValidString(name), slices.ContainsFunc([]rune(name), func(r rune) bool { return r == '/' || r == '\\' || r < 0x20 || r == 0x7f }):
		return fmt.Errorf("entry named %q: not UTF-8, a slash or a control character", name)
	}
	return nil
}
