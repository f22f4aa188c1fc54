package store

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	ipld "github.com/ipfs/go-ipld-format"

	"github.com/crowdcompute/crowd"
)

// A megabyte of zeros in the store that claims a gigabyte takes no gigabyte of the disk, and is a gigabyte of zeros to its reader.
func TestExport_AGigabyteOfOneBlockOfZerosIsAHole(t *testing.T) {
	s := open(t, Config{})
	const leaf, parts = 1 << 20, 1 << 10
	c := raw(t, s, string(make([]byte, leaf)))
	sizes, links := make([]uint64, parts), make([]*ipld.Link, parts)
	for i := range links {
		sizes[i], links[i] = leaf, &ipld.Link{Cid: c}
	}
	// The last byte is none, so that the end of the file shows.
	last := raw(t, s, "x")
	top := put(t, s, dagNode(fileData(leaf*parts+1, leaf*parts, 1), &ipld.Link{Cid: put(t, s, dagNode(fileData(leaf*parts, sizes...), links...))}, &ipld.Link{Cid: last}))
	path := filepath.Join(t.TempDir(), "f")
	if err := s.Export(t.Context(), crowd.CID(top.String()), path, 2<<30); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != leaf*parts+1 || st.Blocks*512 > leaf {
		t.Errorf("got %d bytes, %d of them on disk, want %d and next to none", st.Size, st.Blocks*512, leaf*parts+1)
	}
	for at, want := range map[int64]string{0: "\x00\x00", leaf*parts - 1: "\x00x"} {
		b := make([]byte, 2)
		if _, err := f.ReadAt(b, at); err != nil || !bytes.Equal(b, []byte(want)) {
			t.Errorf("at %d: got %q, %v, want %q", at, b, err, want)
		}
	}
}
