package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	block "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/crowdcompute/crowd"
)

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func squares(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i>>8 ^ i)
	}
	return b
}

func add(t testing.TB, s *Store, data []byte) crowd.CID {
	t.Helper()
	c, err := s.AddFile(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// put stores a node made by hand and returns its CID.
func put(t testing.TB, s *Store, n ipld.Node) cid.Cid {
	t.Helper()
	if err := s.Blocks().Put(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return n.Cid()
}

func raw(t testing.TB, s *Store, data string) cid.Cid {
	return put(t, s, rawNode([]byte(data)))
}

func rawNode(data []byte) ipld.Node {
	n, err := merkledag.NewRawNodeWPrefix(data, builder.WithCodec(cid.Raw))
	if err != nil {
		panic(err)
	}
	return n
}

// dagNode is a dag-pb node with the links, in that order.
func dagNode(data []byte, links ...*ipld.Link) *merkledag.ProtoNode {
	n := merkledag.NodeWithData(data)
	n.SetCidBuilder(builder)
	for _, l := range links {
		n.AddRawLink(l.Name, l)
	}
	return n
}

func fileData(size uint64, parts ...uint64) []byte {
	f := unixfs.NewFSNode(unixfs.TFile)
	for _, p := range parts {
		f.AddBlockSize(p)
	}
	f.UpdateFilesize(int64(size) - int64(f.FileSize()))
	b, _ := f.GetBytes()
	return b
}

func blockPath(t testing.TB, s *Store, c crowd.CID) string {
	t.Helper()
	k, err := Parse(c)
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(s.dir, "blocks", "*", dshelp.MultihashToDsKey(k.Hash()).String()[1:]+".data"))
	if err != nil || len(found) != 1 {
		t.Fatalf("file of block %s: got %v, %v, want one", c, found, err)
	}
	return found[0]
}

func TestAddFile(t *testing.T) {
	s := open(t, Config{})
	for _, tt := range []struct {
		name string
		data []byte
		want crowd.CID // computed by 20 lines of Python from the specification; "" where it was not
	}{
		{"empty", nil, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
		{"hello world", []byte("hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"},
		{"one byte less than a chunk", noise(chunkSize - 1), ""},
		{"one chunk", noise(chunkSize), ""},
		{"one byte more than a chunk", squares(chunkSize + 1), "bafybeid4njanebg45rsie3igrfsuthmxt3iysf2k57jn2hsizjkrilsafu"},
		{"five chunks and a half", noise(5*chunkSize + chunkSize/2), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := add(t, s, tt.data)
			if tt.want != "" && got != tt.want {
				t.Errorf("CID: got %s, want %s", got, tt.want)
			}
			again, err := s.AddFile(t.Context(), iotest.HalfReader(bytes.NewReader(tt.data)))
			if err != nil || again != got {
				t.Errorf("read in other pieces: got %s, %v, want %s", again, err, got)
			}
			in, err := s.Stat(t.Context(), got)
			if err != nil || in != (Info{Size: uint64(len(tt.data))}) {
				t.Errorf("Stat: got %+v, %v, want a file of %d bytes", in, err, len(tt.data))
			}
			r, size, err := s.Reader(t.Context(), got)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if size != uint64(len(tt.data)) {
				t.Errorf("Reader's size: got %d, want %d", size, len(tt.data))
			}
			if len(tt.data) < 2*chunkSize { // TestReader reads byte by byte
				if err := iotest.TestReader(r, tt.data); err != nil {
					t.Error(err)
				}
			} else if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, tt.data) {
				t.Errorf("content: got %d bytes, %v, want the %d that were added", len(b), err, len(tt.data))
			}
			out := filepath.Join(t.TempDir(), "out")
			if err := s.Export(t.Context(), got, out, uint64(len(tt.data))); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, tt.data) {
				t.Errorf("exported: got %d bytes, %v, want the %d that were added", len(b), err, len(tt.data))
			}
			if len(tt.data) > 0 {
				if err := s.Export(t.Context(), got, out+"2", uint64(len(tt.data))-1); !errors.Is(err, ErrTooBig) {
					t.Errorf("Export with one byte too few: got %v, want ErrTooBig", err)
				}
			}
			if err := s.Export(t.Context(), got, out, 1<<30); !errors.Is(err, os.ErrExist) {
				t.Errorf("Export onto a file: got %v, want ErrExist", err)
			}
		})
	}
}

func writeTree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			os.MkdirAll(p, 0o755)
		} else if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func sameTree(t testing.TB, got, want string) {
	t.Helper()
	list := func(dir string) map[string]string {
		m := map[string]string{}
		filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			rel, _ := filepath.Rel(dir, p)
			m[rel] = "folder"
			if d.Type().IsRegular() {
				b, _ := os.ReadFile(p)
				m[rel] = "file " + string(b)
			}
			return err
		})
		return m
	}
	g, w := list(got), list(want)
	if len(g) != len(w) {
		t.Errorf("tree: got %d entries, want %d", len(g), len(w))
	}
	for name := range w {
		if g[name] != w[name] {
			t.Errorf("%s: got %.40q, want %.40q", name, g[name], w[name])
		}
	}
}

func TestAddDir(t *testing.T) {
	s := open(t, Config{})
	big := map[string]string{}
	for i := range 6000 {
		big[fmt.Sprintf("folder/entry-with-a-name-of-some-length-%05d", i)] = fmt.Sprint(i % 7)
	}
	for _, tt := range []struct {
		name string
		tree map[string]string
		want crowd.CID
		info Info
	}{
		{"empty", nil, "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354", Info{Dir: true}},
		{"file and folder", map[string]string{"a": "1", "b/": ""}, "bafybeiby32y6ilf4bgmvmumgxtzydrnguwyldqeshuiy3o2qqdenn5rbom", Info{Size: 1, Dir: true, Entries: 2}},
		{"nested", map[string]string{"b": "2", "a/c/d": "33", "a/e/": "", "ü": "5"}, "", Info{Size: 4, Dir: true, Entries: 6}},
		{"so big that it is a HAMT", big, "", Info{Size: 6000, Dir: true, Entries: 6001}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := writeTree(t, tt.tree)
			got, err := s.AddDir(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && got != tt.want {
				t.Errorf("CID: got %s, want %s", got, tt.want)
			}
			if err := os.Chtimes(dir, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if again, err := s.AddDir(t.Context(), dir); err != nil || again != got {
				t.Errorf("with other times: got %s, %v, want %s", again, err, got)
			}
			in, err := s.Stat(t.Context(), got)
			if err != nil || in != tt.info {
				t.Errorf("Stat: got %+v, %v, want %+v", in, err, tt.info)
			}
			out := filepath.Join(t.TempDir(), "out")
			if err := s.Export(t.Context(), got, out, in.Size); err != nil {
				t.Fatal(err)
			}
			sameTree(t, out, dir)
			if back, err := s.AddDir(t.Context(), out); err != nil || back != got {
				t.Errorf("exported and added again: got %s, %v, want %s", back, err, got)
			}
			if ok, err := s.Has(t.Context(), got); !ok || err != nil {
				t.Errorf("Has: got %v, %v, want true", ok, err)
			}
		})
	}
}

func TestAddDirRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(dir string) error
	}{
		{"symbolic link to a file outside", func(d string) error { return os.Symlink("/etc/hostname", filepath.Join(d, "x")) }},
		{"symbolic link to a folder inside", func(d string) error { return os.Symlink("sub", filepath.Join(d, "x")) }},
		{"socket", func(d string) error {
			l, err := net.Listen("unix", filepath.Join(d, "x"))
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}},
		{"name with a control character", func(d string) error { return os.WriteFile(filepath.Join(d, "a\x1bb"), nil, 0o600) }},
		{"name that is not UTF-8", func(d string) error { return os.WriteFile(filepath.Join(d, "\xff"), nil, 0o600) }},
		{"name with a backslash", func(d string) error { return os.WriteFile(filepath.Join(d, `a\b`), nil, 0o600) }},
		{"too deep", func(d string) error { return os.MkdirAll(d+strings.Repeat("/d", MaxDepth+1), 0o700) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, Config{})
			dir := writeTree(t, map[string]string{"sub/file": "content"})
			if err := tt.make(dir); err != nil {
				t.Skip(err)
			}
			if c, err := s.AddDir(t.Context(), dir); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %s, %v, want ErrInvalid", c, err)
			}
			if n := count(t, s); n != 0 {
				t.Errorf("after the failed add: got %d blocks, want 0", n)
			}
		})
	}
}

func count(t testing.TB, s *Store) int {
	t.Helper()
	keys, err := s.Blocks().AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range keys {
		n++
	}
	return n
}

func TestSeek(t *testing.T) {
	s := open(t, Config{})
	data := noise(3*chunkSize + 100)
	r, _, err := s.Reader(t.Context(), add(t, s, data))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		off := rng.IntN(len(data) + 10)
		if _, err := r.Seek(int64(off), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, rng.IntN(3000))
		n, _ := io.ReadFull(r, buf)
		want := data[min(off, len(data)):min(off+len(buf), len(data))]
		if !bytes.Equal(buf[:n], want) {
			t.Fatalf("at %d: got %d bytes, want %d equal ones", off, n, len(want))
		}
	}
}

func TestMissing(t *testing.T) {
	s := open(t, Config{})
	c := add(t, s, noise(3*chunkSize))
	k, _ := Parse(c)
	n, err := s.node(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	gone := n.links[1]
	if err := s.Blocks().DeleteBlock(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Has(t.Context(), c); ok || err != nil {
		t.Errorf("Has: got %v, %v, want false", ok, err)
	}
	out := filepath.Join(t.TempDir(), "out")
	err = s.Export(t.Context(), c, out, 1<<30)
	var m *MissingError
	if !errors.As(err, &m) || m.CID != crowd.CID(gone.String()) || m.Rotten || !errors.Is(err, ErrMissing) {
		t.Errorf("Export: got %v, want that %s is missing", err, gone)
	}
	if list, _ := os.ReadDir(filepath.Dir(out)); len(list) != 0 {
		t.Errorf("after a failed export: got %v, want nothing left", list)
	}
	if _, err := s.Stat(t.Context(), crowd.CID(gone.String())); !errors.Is(err, ErrMissing) {
		t.Errorf("Stat: got %v, want ErrMissing", err)
	}
}

func TestBitRot(t *testing.T) {
	s := open(t, Config{})
	data := noise(5000)
	c := add(t, s, data)
	p := blockPath(t, s, c)
	if err := os.WriteFile(p, append([]byte{data[0] ^ 1}, data[1:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Reader(t.Context(), c)
	var m *MissingError
	if !errors.As(err, &m) || !m.Rotten || m.CID != c {
		t.Errorf("first read: got %v, want that %s is rotten", err, c)
	}
	_, _, err = s.Reader(t.Context(), c)
	if !errors.As(err, &m) || m.Rotten {
		t.Errorf("second read: got %v, want that it is missing", err)
	}
	if again := add(t, s, data); again != c {
		t.Errorf("added again: got %s, want %s", again, c)
	}
	if _, _, err := s.Reader(t.Context(), c); err != nil {
		t.Errorf("after it came again: got %v, want no error", err)
	}
}

func TestHostileTrees(t *testing.T) {
	s := open(t, Config{})
	a, b := raw(t, s, "a"), raw(t, s, strings.Repeat("b", 2000))
	link := func(name string, c cid.Cid) *ipld.Link { return &ipld.Link{Name: name, Cid: c} }
	dir := func(links ...*ipld.Link) cid.Cid { return put(t, s, dagNode(unixfs.FolderPBData(), links...)) }
	chain := func(n int) cid.Cid {
		c := dir()
		for range n {
			c = dir(link("d", c))
		}
		return c
	}
	deepFile := b
	for range 20 {
		deepFile = put(t, s, dagNode(fileData(2000, 2000), link("", deepFile)))
	}
	bomb := b // 2^8 leaves' worth of bytes behind 8 small nodes
	for i := range 8 {
		half := uint64(2000) << i
		bomb = put(t, s, dagNode(fileData(2*half, half, half), link("", bomb), link("", bomb)))
	}
	dirBomb := dir()
	for range 60 {
		dirBomb = dir(link("a", dirBomb), link("b", dirBomb))
	}
	wide := dagNode(unixfs.FolderPBData())
	for i := range 20000 {
		wide.AddRawLink(fmt.Sprintf("%06d", i), link("", a))
	}
	w := put(t, s, wide)
	var wides []*ipld.Link
	for i := range 8 {
		wides = append(wides, link(fmt.Sprint(i), w))
	}
	symlink, _ := unixfs.SymlinkData("/etc/passwd")
	shardOf := func(fan uint64, links ...*ipld.Link) cid.Cid {
		d, _ := unixfs.HAMTShardData(nil, fan, 0x22)
		return put(t, s, dagNode(d, links...))
	}
	for _, tt := range []struct {
		name string
		c    cid.Cid
		want error
	}{
		{"parent folder", dir(link("..", a)), ErrInvalid},
		{"this folder", dir(link(".", a)), ErrInvalid},
		{"no name", dir(link("", a)), ErrInvalid},
		{"absolute", dir(link("/etc/x", a)), ErrInvalid},
		{"slash inside", dir(link("x/../../y", a)), ErrInvalid},
		{"zero byte", dir(link("x\x00y", a)), ErrInvalid},
		{"long name", dir(link(strings.Repeat("n", 256), a)), ErrInvalid},
		{"same name twice", dir(link("x", a), link("x", b)), ErrInvalid},
		{"file as folder and folder as file", put(t, s, dagNode(fileData(5, 5), link("", dir()))), ErrInvalid},
		{"symbolic link", dir(link("x", put(t, s, dagNode(symlink)))), ErrInvalid},
		{"no UnixFS", put(t, s, dagNode([]byte("junk"))), ErrInvalid},
		{"claims less than it has", put(t, s, dagNode(fileData(1, 1), link("", b))), ErrInvalid},
		{"claims more than it has", put(t, s, dagNode(fileData(9000, 9000), link("", b))), ErrInvalid},
		{"sum of parts is wrong", put(t, s, dagNode(fileData(9000, 2000), link("", b))), ErrInvalid},
		{"sum of parts overflows", put(t, s, dagNode(fileData(2000, 1<<63, 1<<63, 2000), link("", b), link("", b), link("", b))), ErrInvalid},
		{"sizes without parts", put(t, s, dagNode(fileData(2000, 2000))), ErrInvalid},
		{"many tiny parts", put(t, s, dagNode(fileData(3, 1, 1, 1), link("", a), link("", a), link("", a))), ErrInvalid},
		{"file nested too deep", deepFile, ErrInvalid},
		{"folders nested too deep", chain(MaxDepth + 2), ErrInvalid},
		{"small file that is big when expanded", bomb, ErrTooBig},
		{"folders that double at each level", dirBomb, nil}, // either bound may strike first
		{"more entries than allowed", dir(wides...), ErrTooBig},
		{"shard of odd fan-out", shardOf(24), ErrInvalid},
		{"shard of huge fan-out", shardOf(1 << 40), ErrInvalid},
		{"shard with a name too short", shardOf(256, link("0", a)), ErrInvalid},
		{"shard with a bad name", shardOf(256, link("00..", a)), ErrInvalid},
		{"shard whose sub-shard is a file", shardOf(256, link("00", a)), ErrInvalid},
		{"shards with a name twice", shardOf(256, link("00x", a), link("01", shardOf(256, link("00x", a)))), ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			err := s.Export(t.Context(), crowd.CID(tt.c.String()), out, 100_000)
			if err == nil || (tt.want != nil && !errors.Is(err, tt.want)) || errors.Is(err, ErrMissing) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if list, _ := os.ReadDir(filepath.Dir(out)); len(list) != 0 {
				t.Errorf("got %v left behind, want nothing", list)
			}
		})
	}
	t.Run("a cycle cannot be made, but a self-similar tree within bounds is fine", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out")
		if err := s.Export(t.Context(), crowd.CID(bomb.String()), out, 2000<<8); err != nil {
			t.Errorf("got %v, want no error with enough allowed", err)
		}
	})
}

func TestParse(t *testing.T) {
	good := crowd.CID("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")
	if _, err := Parse(good); err != nil {
		t.Errorf("got %v, want no error", err)
	}
	k, _ := cid.Decode(string(good))
	b58, _ := k.StringOfBase('z')
	v0 := cid.NewCidV0(k.Hash())
	for _, tt := range []struct {
		name string
		c    crowd.CID
	}{
		{"empty", ""},
		{"garbage", "hello"},
		{"upper case", crowd.CID(strings.ToUpper(string(good)))},
		{"other base", crowd.CID(b58)},
		{"version 0", crowd.CID(v0.String())},
		{"path", "/ipfs/" + good},
		{"trailing space", good + " "},
		{"other codec", crowd.CID(cid.NewCidV1(cid.DagCBOR, k.Hash()).String())},
		{"identity hash", "bafkqaaa"},
		{"too long", crowd.CID(strings.Repeat("b", 10_000))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if k, err := Parse(tt.c); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v, %v, want ErrInvalid", k, err)
			}
		})
	}
}

func TestPinsAndGC(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	shared, big := writeTree(t, map[string]string{"x": "shared", "y": "only here"}), noise(2*chunkSize)
	folder, err := s.AddDir(ctx, shared)
	if err != nil {
		t.Fatal(err)
	}
	lone, loose := add(t, s, []byte("shared")), add(t, s, big)
	for _, by := range []string{"job-1", "job-2", "job-2"} {
		if err := s.Pin(folder, by); err != nil {
			t.Fatal(err)
		}
	}
	gc := func(want int) {
		t.Helper()
		if n, err := s.GC(ctx); err != nil || n != want {
			t.Errorf("GC: got %d deleted, %v, want %d", n, err, want)
		}
	}
	has := func(c crowd.CID, want bool) {
		t.Helper()
		if ok, err := s.Has(ctx, c); ok != want || err != nil {
			t.Errorf("Has(%s): got %v, %v, want %v", c, ok, err, want)
		}
	}
	gc(0) // all is young
	has(loose, true)
	gc(3) // two leaves and their node
	has(loose, false)
	has(folder, true)
	has(lone, true)
	if err := s.Unpin(folder, "job-1"); err != nil {
		t.Fatal(err)
	}
	gc(0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Config{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	gc(0) // job-2's pin is on disk
	has(folder, true)
	if u, err := s.Usage(); err != nil || u.Pins != 1 || u.Bytes == 0 {
		t.Errorf("Usage: got %+v, %v, want one pin and some bytes", u, err)
	}
	if err := s.Unpin(folder, "job-2"); err != nil {
		t.Fatal(err)
	}
	gc(3)
	if n := count(t, s); n != 0 {
		t.Errorf("got %d blocks, want 0", n)
	}
	for _, by := range []string{"", "../x", "a/b", "a@b", strings.Repeat("x", 129)} {
		if err := s.Pin(folder, by); err == nil {
			t.Errorf("Pin by %q: got no error", by)
		}
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Config{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second open: got %v, want ErrLocked", err)
	}
	c := add(t, s, []byte("stays"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Config{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if ok, err := s.Has(t.Context(), c); !ok || err != nil {
		t.Errorf("Has after reopening: got %v, %v, want true", ok, err)
	}
}

// A killed process leaves a temporary file and a stale count of bytes.
func TestAfterKill(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	c := add(t, s, noise(100_000))
	before, _ := s.Usage()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"unclean": "", "blocks/.temp/temp-1": "half", "blocks/diskUsage.cache": `{"diskUsage":1,"accuracy":"initial-exact"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = Open(dir, Config{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if ok, err := s.Has(t.Context(), c); !ok || err != nil {
		t.Errorf("Has: got %v, %v, want true", ok, err)
	}
	if u, _ := s.Usage(); u.Bytes < 100_000 || u.Bytes > before.Bytes+100_000 {
		t.Errorf("usage: got %d bytes, want about %d", u.Bytes, before.Bytes)
	}
	if _, err := os.Stat(filepath.Join(dir, "blocks/.temp/temp-1")); !os.IsNotExist(err) {
		t.Errorf("half-written file: got %v, want it gone", err)
	}
}

func TestQuota(t *testing.T) {
	testFull(t, open(t, Config{MaxBytes: 3 << 20}))
}

func testFull(t *testing.T, s *Store) {
	t.Helper()
	small := add(t, s, []byte("small"))
	if c, err := s.AddFile(t.Context(), bytes.NewReader(noise(4<<20))); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %s, %v, want ErrNoSpace", c, err)
	}
	if n := count(t, s); n != 1 {
		t.Errorf("after the failed add: got %d blocks, want only the first", n)
	}
	if _, _, err := s.Reader(t.Context(), small); err != nil {
		t.Errorf("what was there: got %v, want no error", err)
	}
	add(t, s, noise(1<<20))
}

func TestBlockSize(t *testing.T) {
	s := open(t, Config{})
	if err := s.Blocks().Put(t.Context(), rawNode(make([]byte, MaxBlock+1))); !errors.Is(err, ErrTooBig) {
		t.Errorf("got %v, want ErrTooBig", err)
	}
}

// An add that fails must not take away what another add has put meanwhile.
func TestFailedAddSparesOthers(t *testing.T) {
	s := open(t, Config{})
	data := noise(2 * chunkSize)
	var other crowd.CID
	r := io.MultiReader(bytes.NewReader(data), readerFunc(func([]byte) (int, error) {
		other = add(t, s, data[:chunkSize])
		return 0, errors.New("cut")
	}))
	if _, err := s.AddFile(t.Context(), r); err == nil {
		t.Fatal("got no error from a cut input")
	}
	if ok, err := s.Has(t.Context(), other); !ok || err != nil {
		t.Errorf("Has: got %v, %v, want true", ok, err)
	}
	if n := count(t, s); n != 1 {
		t.Errorf("got %d blocks, want 1", n)
	}
}

// An add that outlasts two collections loses nothing, nor does its owner before he pins.
func TestLongAdd(t *testing.T) {
	s := open(t, Config{})
	data := noise(3*chunkSize + 1)
	gc := readerFunc(func([]byte) (int, error) {
		for range 2 {
			if _, err := s.GC(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return 0, io.EOF
	})
	c, err := s.AddFile(t.Context(), io.MultiReader(bytes.NewReader(data), gc))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Has(t.Context(), c); !ok || err != nil {
		t.Errorf("Has: got %v, %v, want true", ok, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func FuzzParse(f *testing.F) {
	f.Add("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")
	f.Add("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := Parse(crowd.CID(s))
		if err == nil && k.String() != s {
			t.Errorf("got %s, want %s back", k, s)
		}
	})
}

// FuzzExport makes a folder of one entry out of any dag-pb block and some leaf.
func FuzzExport(f *testing.F) {
	s, err := Open(f.TempDir(), Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	leaf := raw(f, s, "leaf")
	f.Add(dagNode(unixfs.FolderPBData(), &ipld.Link{Name: "x", Cid: leaf}).RawData())
	f.Add(dagNode(fileData(4, 4), &ipld.Link{Cid: leaf}).RawData())
	f.Add(dagNode(unixfs.FilePBData([]byte("inline"), 6)).RawData())
	h, _ := unixfs.HAMTShardData([]byte{1}, 256, 0x22)
	f.Add(dagNode(h, &ipld.Link{Name: "00x", Cid: leaf}).RawData())
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := builder.Sum(data)
		if err != nil {
			t.Fatal(err)
		}
		blk, err := block.NewBlockWithCid(data, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Blocks().Put(context.Background(), blk); err != nil {
			return
		}
		dir := t.TempDir()
		out := filepath.Join(dir, "a", "out")
		os.Mkdir(filepath.Dir(out), 0o700)
		err = s.Export(context.Background(), crowd.CID(c.String()), out, 1<<16)
		if err == nil {
			in, err := s.Stat(context.Background(), crowd.CID(c.String()))
			if err != nil || in.Size > 1<<16 {
				t.Errorf("exported, but Stat: got %+v, %v", in, err)
			}
		}
		if list, _ := os.ReadDir(dir); len(list) != 1 {
			t.Errorf("got %v, want nothing outside", list)
		}
	})
}
