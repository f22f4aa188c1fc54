package crowd_test

import (
	"go/token"
	"strings"
	"testing"
	"testing/fstest"
)

// A checker that finds nothing may be one that looks at nothing: each case plants
// one violation in a small clean house and wants exactly that one found.
func TestLayersCheckerCatchesPlantedViolation(t *testing.T) {
	const table = `
		 1  .                       pure
		 2  internal/low            pure
		 3  internal/store
		 5  internal/p2p
		 8  internal/executor/wasm
		13  cmd/crowd
	`
	house := map[string]string{
		"crowd.go":                       "// Package crowd is clean.\npackage crowd\n",
		"internal/low/low.go":            "// Package low is clean.\npackage low\nimport (\"time\"; crowd \"" + module + "\"; \"math/rand/v2\")\nvar D time.Duration = crowd.D\nfunc F(r *rand.Rand) int { return rand.New(rand.NewPCG(1, 2)).IntN(9) + r.IntN(9) }\n",
		"internal/low/low_test.go":       "package low_test\nimport (\"os\"; \"time\"; \"" + module + "/cmd/crowd\")\nvar _ = time.Now\n",
		"internal/store/store.go":        "package store\nimport (\"os\"; \"github.com/ipfs/boxo/files\"; \"" + module + "/internal/low\")\n",
		"internal/store/doc.go":          "// Package store is clean.\npackage store\n",
		"internal/p2p/p2p.go":            "// Package p2p is clean.\npackage p2p\nimport (\"github.com/libp2p/go-libp2p\"; \"github.com/ipfs/boxo/bitswap/network\")\n",
		"internal/executor/wasm/wasm.go": "// Package wasm is clean.\npackage wasm\nimport \"github.com/bytecodealliance/wasmtime-go/v43\"\n",
		"cmd/crowd/main.go":              "// Command crowd is clean.\npackage main\nimport (\"github.com/spf13/cobra\"; \"" + module + "/internal/p2p\")\n",
		"testdata/x/x.go":                "package x\n",
		".hidden/x.go":                   "package x\n",
		"_old/x.go":                      "package x\n",
	}
	for _, c := range []struct {
		name, file, text, table string
		want                    string // "": nothing
	}{
		{name: "clean house"},
		{name: "unlisted package", file: "internal/util/util.go", text: "// Package util is a sin.\npackage util\n",
			want: "internal/util: not in the list of layers"},
		{name: "unlisted package of tests only", file: "internal/odd/odd_test.go", text: "// Package odd has a comment.\npackage odd\n",
			want: "internal/odd: not in the list of layers"},
		{name: "listed package that does not exist", table: "\n21 internal/ghost", want: "line 21: internal/ghost does not exist"},
		{name: "package listed twice", table: "\n21 internal/low", want: "line 21: internal/low is listed twice"},
		{name: "no package comment", file: "internal/p2p/p2p.go", text: "package p2p\n", want: "internal/p2p: no package comment"},
		{name: "import upwards", file: "internal/low/up.go", text: "package low\nimport \"" + module + "/internal/store\"\n",
			want: "internal/low/up.go:2:8: internal/low imports internal/store, which is not on a lower line"},
		{name: "import upwards behind a build tag", file: "internal/low/up.go",
			text: "//go:build never\n\npackage low\nimport _ \"" + module + "/cmd/crowd\"\n",
			want: "internal/low imports cmd/crowd, which is not on a lower line"},
		{name: "import of nothing listed", file: "internal/p2p/x.go", text: "package p2p\nimport \"" + module + "/internal/nowhere\"\n",
			want: "internal/p2p imports internal/nowhere, which is not on a lower line"},
		{name: "wrong door", file: "internal/store/x.go", text: "package store\nimport \"github.com/libp2p/go-libp2p/core/host\"\n",
			want: "internal/store imports github.com/libp2p/go-libp2p/core/host, whose door is internal/p2p"},
		{name: "the narrower door counts", file: "internal/store/x.go", text: "package store\nimport \"github.com/ipfs/boxo/bitswap\"\n",
			want: "internal/store imports github.com/ipfs/boxo/bitswap, whose door is internal/p2p"},
		{name: "init", file: "internal/p2p/x.go", text: "package p2p\nfunc init() {}\n", want: "internal/p2p has an init function"},
		{name: "pure room with files", file: "internal/low/x.go", text: "package low\nimport \"os/exec\"\n",
			want: "internal/low is pure and imports os/exec"},
		{name: "pure room with old randomness", file: "internal/low/x.go", text: "package low\nimport r \"math/rand\"\n",
			want: "internal/low is pure and imports math/rand"},
		{name: "pure room with a lock", file: "x.go", text: "package crowd\nimport \"sync/atomic\"\n",
			want: ". is pure and imports sync/atomic"},
		{name: "pure room that reads the clock", file: "internal/low/x.go", text: "package low\nimport \"time\"\nvar now = time.Now\n",
			want: "internal/low is pure and uses time.Now"},
		{name: "pure room that reads a renamed clock", file: "internal/low/x.go",
			text: "package low\nimport tm \"time\"\nfunc f() { g(tm.Until(x)) }\n", want: "internal/low is pure and uses time.Until"},
		{name: "pure room with a dotted clock", file: "internal/low/x.go", text: "package low\nimport . \"time\"\nvar now = Now()\n",
			want: "internal/low is pure and imports time with a dot"},
		{name: "pure room with global randomness", file: "internal/low/x.go",
			text: "package low\nimport \"math/rand/v2\"\nvar x = rand.N(10)\n", want: "internal/low is pure and uses the global rand.N"},
		{name: "the same in a room that is not pure", file: "internal/p2p/x.go",
			text: "package p2p\nimport (\"math/rand/v2\"; \"time\"; \"os\")\nvar x, y = rand.N(10), time.Now()\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := make(fstest.MapFS)
			for name, text := range house {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if c.file != "" {
				root[c.file] = &fstest.MapFile{Data: []byte(c.text)}
			}
			list, err := parseLayers(table + c.table)
			if err != nil {
				t.Fatal(err)
			}
			fset := token.NewFileSet()
			sources, err := readSources(fset, root)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(checkLayers(fset, list, sources), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) || strings.Contains(got, "\n") {
				t.Errorf("got %q want %q", got, c.want)
			}
		})
	}
}

func TestParseLayersRefuses(t *testing.T) {
	for _, c := range []struct{ name, table string }{
		{"no number", "one ."},
		{"no path", "1"},
		{"a number twice", "1 .\n1 internal/low"},
		{"numbers that fall", "2 .\n1 internal/low"},
		{"unknown word", "1 . holy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := parseLayers(c.table); err == nil {
				t.Errorf("got %v want an error", got)
			}
		})
	}
}
