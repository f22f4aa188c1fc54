package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/crowdcompute/crowd"
)

// A folder of one block, and one so large that it is shards: listed from the blocks that Inner leads to alone.
func TestList(t *testing.T) {
	for _, n := range []int{3, crowd.MaxParts, 6000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := open(t, Config{})
			small, big := add(t, s, []byte("a file")), add(t, s, noise(1<<20+1))
			c, err := s.add(func(d ipld.DAGService) (ipld.Node, error) {
				var links []*ipld.Link
				for i := range n {
					links = append(links, link(t, s, fmt.Sprintf("%05d", i), small))
				}
				return (&tree{dag: d}).folder(t.Context(), append(links, link(t, s, "big", big)))
			})
			if err != nil {
				t.Fatal(err)
			}
			bare, blocks := open(t, Config{}), 0
			root, err := Parse(c)
			if err != nil {
				t.Fatal(err)
			}
			for todo := []cid.Cid{root}; len(todo) > 0; blocks++ {
				b, err := s.blocks.Get(t.Context(), todo[0])
				if err != nil {
					t.Fatal(err)
				}
				inner, err := Inner(todo[0], b.RawData())
				if err != nil {
					t.Fatal(err)
				}
				if err := bare.blocks.Put(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				todo = append(todo[1:], inner...)
			}
			if n <= crowd.MaxParts == (blocks > 1) {
				t.Errorf("the listing of %d files is %d blocks", n, blocks)
			}
			list, err := bare.List(t.Context(), c)
			if err != nil || len(list) != n+1 {
				t.Fatalf("got %d entries, %v want %d", len(list), err, n+1)
			}
			for i, e := range list[:n] {
				if want := (Entry{Name: fmt.Sprintf("%05d", i), CID: small, Raw: true, Size: 6}); e != want {
					t.Errorf("entry %d: got %+v want %+v", i, e, want)
				}
			}
			if e := list[n]; e.Name != "big" || e.Raw || e.Size <= 1<<20 {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// link names content of s.
func link(t *testing.T, s *Store, name string, c crowd.CID) *ipld.Link {
	k, err := Parse(c)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.blocks.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	var n ipld.Node = rawNode(b.RawData())
	if k.Prefix().Codec != cid.Raw {
		if n, err = merkledag.DecodeProtobuf(b.RawData()); err != nil {
			t.Fatal(err)
		}
	}
	l, err := ipld.MakeLink(n)
	if err != nil {
		t.Fatal(err)
	}
	l.Name, l.Cid = name, k
	return l
}

func TestList_RefusesWhatIsNoFolder(t *testing.T) {
	s := open(t, Config{})
	for _, c := range []crowd.CID{add(t, s, []byte("a file")), add(t, s, noise(2<<20)), "nonsense"} {
		if list, err := s.List(t.Context(), c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %d entries, %v", c, len(list), err)
		}
	}
	other := open(t, Config{})
	c, err := other.AddDir(t.Context(), writeTree(t, map[string]string{"a": "b"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context(), c); !errors.Is(err, ErrMissing) {
		t.Errorf("a folder that is not here: got %v", err)
	}
}
