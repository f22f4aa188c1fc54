package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
)

// A listing comes without the files, then some of these come without the others; each byte is counted at both ends.
func TestFetchFolder_AndThenSomeFiles(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	a, b := start(t, Config{Blocks: src.Blocks()}), start(t, Config{Blocks: dst.Blocks()})
	connect(t, b, a)
	dir := t.TempDir()
	const files, size = 300, 10_000
	data := random(size + files)
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d", i)), data[i:i+size], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder, err := src.AddDir(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, from := within(t, time.Minute), []crowd.NodeID{a.ID()}
	if err := b.FetchFolder(ctx, folder, 1000, from, nil); !errors.Is(err, store.ErrTooBig) {
		t.Errorf("a listing beyond its bound: got %v", err)
	}
	if err := b.FetchFolder(ctx, folder, 1<<20, from, nil); err != nil {
		t.Fatal(err)
	}
	list, err := dst.List(ctx, folder)
	if err != nil || len(list) != files {
		t.Fatalf("got %d entries, %v", len(list), err)
	}
	var some []crowd.CID
	for i := range 100 {
		some = append(some, list[3*i].CID)
	}
	if err := b.FetchAll(ctx, some, 99*size, from, nil); !errors.Is(err, store.ErrTooBig) {
		t.Errorf("more than all together may have: got %v", err)
	}
	if err := b.FetchAll(ctx, some, 100*size, from, nil); err != nil {
		t.Fatal(err)
	}
	for i, e := range list {
		if has, err := dst.Has(ctx, e.CID); err != nil || has != (i%3 == 0) {
			t.Errorf("file %d: here %v, %v", i, has, err)
		}
	}
	fetched, _ := b.Traffic()
	_, served := a.Traffic()
	if fetched < 100*size || fetched > 100*size+100_000 || fetched > served || served > fetched+1<<20 { // what was under way when a fetch failed
		t.Errorf("got %d bytes fetched, %d served", fetched, served)
	}
	if err := b.FetchAll(ctx, []crowd.CID{some[0], "nonsense"}, 1<<20, from, nil); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a CID that is none: got %v", err)
	}
}

func TestHolds(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	lying := &counting{Blockstore: openStore(t).Blocks()}
	a, b := start(t, Config{Blocks: src.Blocks()}), start(t, Config{Blocks: dst.Blocks()})
	liar := start(t, Config{Blocks: lying})
	connect(t, b, a)
	connect(t, b, liar)
	here, err := src.AddFile(t.Context(), bytes.NewReader(random(3<<20)))
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, time.Minute)
	if err := b.Holds(ctx, a.ID(), here); err != nil {
		t.Errorf("what it has: got %v", err)
	}
	if has, _ := dst.Has(ctx, here); has {
		t.Error("asking was fetching")
	}
	if err := b.Holds(ctx, liar.ID(), here); !errors.Is(err, store.ErrMissing) {
		t.Errorf("what it has not: got %v", err)
	}
	a.Close()
	if err := b.Holds(ctx, a.ID(), here); err == nil || errors.Is(err, store.ErrMissing) {
		t.Errorf("a node that is gone: got %v", err)
	}
}
