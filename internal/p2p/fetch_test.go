package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	block "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/multiformats/go-multihash"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/store"
)

func TestFetch(t *testing.T) {
	for _, listen := range loopbacks {
		t.Run(strings.Split(listen, "/")[3], func(t *testing.T) {
			src, dst := openStore(t), openStore(t)
			a := start(t, Config{Blocks: src.Blocks(), Listen: []string{listen}})
			b := start(t, Config{Blocks: dst.Blocks(), Listen: []string{listen}})
			connect(t, b, a)
			data := random(64 << 20)
			file, err := src.AddFile(t.Context(), bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for i := range 200 {
				p := filepath.Join(dir, fmt.Sprint(i%10), fmt.Sprint(i))
				os.MkdirAll(filepath.Dir(p), 0o700)
				if err := os.WriteFile(p, fmt.Appendf(nil, "file %d", i), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "big"), data[1:], 0o600); err != nil {
				t.Fatal(err)
			}
			folder, err := src.AddDir(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []crowd.CID{file, folder} {
				var last, total uint64
				if err := b.Fetch(within(t, time.Minute), c, 65<<20, []crowd.NodeID{a.ID()}, func(d, n uint64) { last, total = d, n }); err != nil {
					t.Fatal(err)
				}
				if ok, err := dst.Has(t.Context(), c); !ok || err != nil {
					t.Errorf("Has: got %v, %v, want true", ok, err)
				}
				if last < 64<<20 || last != total {
					t.Errorf("progress: got %d of %d at the end", last, total)
				}
			}
			out := filepath.Join(t.TempDir(), "out")
			if err := dst.Export(t.Context(), folder, out, 65<<20); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(out, "big")); err != nil || !bytes.Equal(got, data[1:]) {
				t.Errorf("content: got %d bytes, %v", len(got), err)
			}
			if back, err := dst.AddDir(t.Context(), out); err != nil || back != folder {
				t.Errorf("exported and added again: got %s, %v, want %s", back, err, folder)
			}
		})
	}
}

// counting counts the blocks that a host serves, and may tamper with them.
type counting struct {
	blockstore.Blockstore
	gets   atomic.Int64
	tamper func(n int64, b block.Block) (block.Block, error)
}

func (c *counting) Get(ctx context.Context, k cid.Cid) (block.Block, error) {
	b, err := c.Blockstore.Get(ctx, k)
	if err == nil {
		n := c.gets.Add(1)
		if c.tamper != nil {
			return c.tamper(n, b)
		}
	}
	return b, err
}

func TestFetchFromLiar(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	data := random(8 << 20)
	c, err := src.AddFile(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	lie := func(n int64, b block.Block) (block.Block, error) {
		if n < 3 { // honest at first
			return b, nil
		}
		return block.NewBlockWithCid(append([]byte("x"), b.RawData()[1:]...), b.Cid())
	}
	bad := &counting{Blockstore: src.Blocks(), tamper: lie}
	liar, honest := start(t, Config{Blocks: bad}), start(t, Config{Blocks: src.Blocks()})
	b := start(t, Config{Blocks: dst.Blocks()})
	connect(t, b, liar)
	err = b.Fetch(within(t, 20*time.Second), c, 10<<20, []crowd.NodeID{liar.ID()}, nil)
	if !errors.Is(err, store.ErrMissing) || !errors.Is(err, errLied) {
		t.Errorf("from the liar alone: got %v, want that it lied and a block is missing", err)
	}
	connect(t, b, honest)
	if err := b.Fetch(within(t, 20*time.Second), c, 10<<20, []crowd.NodeID{liar.ID(), honest.ID()}, nil); err != nil {
		t.Fatal(err)
	}
	r, _, err := dst.Reader(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("content: got %d bytes, %v", len(got), err)
	}
}

// Who holds a file is told by its first block alone, which must be that block: parts that nobody has any more would else
// count as held.
func TestHolds_BelievesNoOtherBytes(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	c, err := src.AddFile(t.Context(), bytes.NewReader(random(100<<10)))
	if err != nil {
		t.Fatal(err)
	}
	lie := func(_ int64, b block.Block) (block.Block, error) {
		return block.NewBlockWithCid(append([]byte("x"), b.RawData()[1:]...), b.Cid())
	}
	honest, liar, empty := start(t, Config{Blocks: src.Blocks()}), start(t, Config{Blocks: &counting{Blockstore: src.Blocks(), tamper: lie}}), start(t, Config{Blocks: openStore(t).Blocks()})
	b := start(t, Config{Blocks: dst.Blocks()})
	for _, tt := range []struct {
		name string
		host *Host
		want error
	}{{"who has it", honest, nil}, {"who has it not", empty, store.ErrMissing}, {"who sends other bytes", liar, errLied}} {
		connect(t, b, tt.host)
		if err := b.Holds(within(t, 20*time.Second), tt.host.ID(), c); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A source that falls silent holds up its blocks only until patience ends.
func TestFetchFromSilent(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	c, err := src.AddFile(t.Context(), bytes.NewReader(random(8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	silent := start(t, Config{Blocks: &counting{Blockstore: src.Blocks(), tamper: func(n int64, b block.Block) (block.Block, error) {
		if n > 3 {
			<-t.Context().Done()
		}
		return b, nil
	}}})
	honest := start(t, Config{Blocks: src.Blocks()})
	b := start(t, Config{Blocks: dst.Blocks(), Limits: Limits{Patience: 200 * time.Millisecond}})
	connect(t, b, silent)
	err = b.Fetch(within(t, 20*time.Second), c, 10<<20, []crowd.NodeID{silent.ID()}, nil)
	if !errors.Is(err, store.ErrMissing) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("from the silent one alone: got %v, want ErrMissing and that time ran out", err)
	}
	connect(t, b, honest)
	if err := b.Fetch(within(t, 20*time.Second), c, 10<<20, []crowd.NodeID{silent.ID(), honest.ID()}, nil); err != nil {
		t.Error(err)
	}
}

// A node that listens nowhere is reached through a relay, and is seen to be.
func TestRelayed(t *testing.T) {
	relay := start(t, Config{options: []libp2p.Option{libp2p.EnableRelayService(), libp2p.ForceReachabilityPublic()}})
	hidden, b := start(t, Config{Listen: []string{}}), start(t, Config{})
	hidden.Answer("/hello", 10, func(_ context.Context, from crowd.NodeID, _ []byte) ([]byte, error) {
		return []byte(from.Short()), nil
	})
	connect(t, hidden, relay)
	info := peer.AddrInfo{ID: relay.host.ID(), Addrs: relay.host.Addrs()}
	for ctx := within(t, 10*time.Second); ; wait(10 * time.Millisecond) { // the service starts with a delay
		if _, err := circuit.Reserve(ctx, hidden.host, info); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	addr := relay.Addrs()[0] + "/p2p-circuit/p2p/" + hidden.host.ID().String()
	if id, err := b.Connect(within(t, 10*time.Second), addr); err != nil || id != hidden.ID() {
		t.Fatalf("Connect: got %s, %v", id.Short(), err)
	}
	got, err := b.Request(within(t, 10*time.Second), hidden.ID(), "/hello", nil, 100)
	if err != nil || string(got) != b.ID().Short() {
		t.Errorf("Request: got %q, %v, want %s", got, err, b.ID().Short())
	}
	for _, p := range b.Peers() {
		if want := map[bool]string{true: "relayed", false: "direct"}[p.ID == hidden.ID()]; p.Path != want {
			t.Errorf("path to %s: got %s, want %s", p.ID.Short(), p.Path, want)
		}
	}
}

// Two nodes with half of the blocks each, and one that has nothing.
func TestFetchFromHalves(t *testing.T) {
	full, dst := openStore(t), openStore(t)
	halves := []*store.Store{openStore(t), openStore(t), openStore(t)}
	c, err := full.AddFile(t.Context(), bytes.NewReader(random(20<<20)))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := full.Blocks().AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for k := range keys {
		blk, err := full.Blocks().Get(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		if err := halves[i%2].Blocks().Put(t.Context(), blk); err != nil {
			t.Fatal(err)
		}
		i++
	}
	b := start(t, Config{Blocks: dst.Blocks()})
	for _, s := range halves {
		connect(t, b, start(t, Config{Blocks: s.Blocks()}))
	}
	if err := b.Fetch(within(t, 20*time.Second), c, 21<<20, nil, nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := dst.Has(t.Context(), c); !ok || err != nil {
		t.Errorf("Has: got %v, %v, want true", ok, err)
	}
}

func TestFetchResumes(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	c, err := src.AddFile(t.Context(), bytes.NewReader(random(64<<20))) // 64 leaves and a root
	if err != nil {
		t.Fatal(err)
	}
	k := key(t)
	first := &counting{Blockstore: src.Blocks()}
	a := start(t, Config{PrivateKey: k, Blocks: first, Listen: loopbacks[:1]})
	b := start(t, Config{Blocks: dst.Blocks(), Listen: loopbacks[:1]})
	connect(t, b, a)
	cut := make(chan struct{})
	var once sync.Once
	go func() {
		<-cut
		a.Close()
	}()
	err = b.Fetch(within(t, 30*time.Second), c, 65<<20, []crowd.NodeID{a.ID()}, func(done, _ uint64) {
		if done > 20<<20 {
			once.Do(func() { close(cut) })
		}
	})
	if !errors.Is(err, store.ErrMissing) {
		t.Fatalf("cut: got %v, want ErrMissing", err)
	}
	keys, err := dst.Blocks().AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have := 0
	for range keys {
		have++
	}
	if have < 20 || have > 64 {
		t.Fatalf("blocks before the cut: got %d, want some", have)
	}
	second := &counting{Blockstore: src.Blocks()}
	again := start(t, Config{PrivateKey: k, Blocks: second, Listen: loopbacks[:1]})
	connect(t, b, again)
	if err := b.Fetch(within(t, 30*time.Second), c, 65<<20, []crowd.NodeID{a.ID()}, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := second.gets.Load(), int64(65-have); got != want {
		t.Errorf("blocks served after the cut: got %d, want the missing %d", got, want)
	}
	if err := b.Fetch(within(t, time.Second), c, 65<<20, []crowd.NodeID{a.ID()}, nil); err != nil || second.gets.Load() != int64(65-have) {
		t.Errorf("a third time: got %v and %d blocks served, want none more", err, second.gets.Load())
	}
}

func TestFetchRefuses(t *testing.T) {
	src, dst := openStore(t), openStore(t)
	a, b := start(t, Config{Blocks: src.Blocks()}), start(t, Config{Blocks: dst.Blocks()})
	connect(t, b, a)
	c, err := src.AddFile(t.Context(), bytes.NewReader(random(4<<20)))
	if err != nil {
		t.Fatal(err)
	}
	junk := put(t, src, []byte("junk"))
	deep := put(t, src, unixfs.FolderPBData())
	for range 2000 {
		deep = put(t, src, unixfs.FolderPBData(), &ipld.Link{Name: "d", Cid: deep})
	}
	empty := openStore(t)
	nothing := start(t, Config{Blocks: empty.Blocks()})
	connect(t, b, nothing)
	for _, tt := range []struct {
		name string
		c    crowd.CID
		from *Host
		max  uint64
		want error
	}{
		{"one byte too many", c, a, 4 << 20, store.ErrTooBig}, // the root is the rest
		{"no UnixFS", crowd.CID(junk.String()), a, 1 << 20, store.ErrInvalid},
		{"a long chain of small nodes", crowd.CID(deep.String()), a, 50_000, store.ErrTooBig},
		{"nobody has it", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", nothing, 100, store.ErrMissing},
		{"no CID", "x", a, 100, store.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := b.Fetch(within(t, 20*time.Second), tt.c, tt.max, []crowd.NodeID{tt.from.ID()}, nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	u, err := dst.Usage()
	if err != nil || u.Bytes > 40<<20 {
		t.Errorf("usage: got %+v, %v", u, err)
	}
	t.Run("cancelled", func(t *testing.T) {
		stuck := &counting{Blockstore: src.Blocks(), tamper: func(_ int64, b block.Block) (block.Block, error) {
			<-t.Context().Done()
			return b, nil
		}}
		h := start(t, Config{Blocks: stuck})
		connect(t, b, h)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for stuck.gets.Load() == 0 {
				runtime.Gosched()
			}
			cancel()
		}()
		if err := b.Fetch(ctx, crowd.CID(junk.String()), 100, []crowd.NodeID{h.ID()}, nil); err == nil {
			t.Error("got no error")
		}
	})
}

func put(t testing.TB, s *store.Store, data []byte, links ...*ipld.Link) cid.Cid {
	t.Helper()
	n := merkledag.NodeWithData(data)
	n.SetCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: multihash.SHA2_256})
	for _, l := range links {
		n.AddRawLink(l.Name, l)
	}
	if err := s.Blocks().Put(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.Cid()
}

// A stock IPFS client: bitswap on a libp2p host with an ed25519 key.
func TestServesBitswap(t *testing.T) {
	src := openStore(t)
	c, err := src.AddFile(t.Context(), strings.NewReader("for everybody"))
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, Config{Blocks: src.Blocks()})
	bs := bitswapClient(t, a)
	k, _ := cid.Decode(string(c))
	blk, err := bs.GetBlock(within(t, 10*time.Second), k)
	if err != nil || string(blk.RawData()) != "for everybody" {
		t.Errorf("got %v, %v", blk, err)
	}
	if ps := a.Peers(); len(ps) != 0 {
		t.Errorf("Peers: got %+v, want no node", ps)
	}
}

func bitswapClient(t testing.TB, a *Host) *client.Client {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings(loopbacks[0]), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	net := bsnet.NewFromIpfsHost(h)
	mem := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	bs := client.New(t.Context(), net, nil, mem, client.WithDefaultProviderQueryManager(false))
	net.Start(bs)
	t.Cleanup(func() { net.Stop(); bs.Close() })
	h.Peerstore().AddAddrs(a.host.ID(), a.host.Addrs(), time.Hour)
	if _, err := h.Network().DialPeer(t.Context(), a.host.ID()); err != nil {
		t.Fatal(err)
	}
	return bs
}
