package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/crowdcompute/crowd"
)

// golden compares v with a file of test vectors, or writes it where UPDATE_SPEC is set.
func golden(t *testing.T, file string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("..", "..", "spec", "vectors", file)
	if os.Getenv("UPDATE_SPEC") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/store writes it): got\n%s", path, got)
	}
}

func TestVectors(t *testing.T) {
	s, err := Open(t.TempDir(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	type file struct {
		Name   string    `json:"name"`
		Repeat string    `json:"repeat"` // the content is this text,
		Times  int       `json:"times"`  // so often
		CID    crowd.CID `json:"cid"`
		Root   string    `json:"root,omitempty"` // the root's block, of a file with links
	}
	type folder struct {
		Name  string            `json:"name"`
		Files map[string]string `json:"files"` // a name that ends in a slash is an empty folder
		CID   crowd.CID         `json:"cid"`
		Root  string            `json:"root"`
	}
	var v struct {
		Files   []file      `json:"files"`
		Folders []folder    `json:"folders"`
		Refused []crowd.CID `json:"refused"`
	}
	root := func(c crowd.CID) string {
		k, err := Parse(c)
		if err != nil {
			t.Fatal(err)
		}
		if k.Prefix().Codec == cid.Raw {
			return ""
		}
		b, err := s.Blocks().Get(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(b.RawData())
	}
	for _, f := range []file{
		{Name: "empty", Repeat: "", Times: 0},
		{Name: "one leaf", Repeat: "hello world", Times: 1},
		{Name: "a whole chunk", Repeat: "a", Times: chunkSize},
		{Name: "one byte more than a chunk", Repeat: "a", Times: chunkSize + 1},
	} {
		if f.CID, err = s.AddFile(t.Context(), strings.NewReader(strings.Repeat(f.Repeat, f.Times))); err != nil {
			t.Fatal(err)
		}
		f.Root = root(f.CID)
		v.Files = append(v.Files, f)
	}
	for _, f := range []folder{
		{Name: "empty", Files: map[string]string{}},
		{Name: "a file and an empty folder", Files: map[string]string{"a": "1", "b/": ""}},
		{Name: "result of a run", Files: map[string]string{"stdout": "hello\n", "stderr": "", "out/photo.txt": "x"}},
	} {
		dir := t.TempDir()
		for name, text := range f.Files {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, "/") {
				err = os.MkdirAll(path, 0o700)
			} else {
				err = os.WriteFile(path, []byte(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if f.CID, err = s.AddDir(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		f.Root = root(f.CID)
		v.Folders = append(v.Folders, f)
	}
	good := v.Files[1].CID
	for _, c := range []crowd.CID{
		"", "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", "bafkqaaa",
		crowd.CID(strings.ToUpper(string(good))), good + "a", good[:len(good)-1],
	} {
		if k, err := Parse(c); err == nil {
			t.Errorf("%q: got %s, want an error", c, k)
		}
		v.Refused = append(v.Refused, c)
	}
	golden(t, "content.json", v)
}

// FuzzLinks: a block from a peer, of each of the two codecs.
func FuzzLinks(f *testing.F) {
	f.Add([]byte{0x0a, 0x02, 0x08, 0x01})
	f.Add([]byte("leaf"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := builder.Sum(data)
		if err != nil {
			t.Fatal(err)
		}
		links, err := Links(c, data)
		for _, l := range links {
			if _, err := Parse(crowd.CID(l.String())); err != nil {
				t.Errorf("got the link %s: %v", l, err)
			}
		}
		if err != nil && links != nil {
			t.Errorf("got %d links and %v", len(links), err)
		}
		if links, err := Links(cid.NewCidV1(cid.Raw, c.Hash()), data); err != nil || len(links) != 0 {
			t.Errorf("of a leaf: got %d links, %v", len(links), err)
		}
	})
}
