package crowd_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/crowdcompute/crowd"

// layers lists every package, lowest first. A package imports only packages of
// lower lines. The numbers only rise, so that a line can be put between two.
// After the path may stand:
//
//	pure   no I/O, clock, lock, log or randomness of its own: all that is handed in
//	pins   imports modules only to keep them in go.mod; no door is closed to it
const layers = `
	 10  .                                 pure
	 20  internal/identity                 pure
	 25  internal/batch                    pure
	 30  internal/ledger                   pure
	 35  internal/overlay                  pure
	 40  internal/job                      pure
	 42  internal/flow                     pure
	 45  internal/sim                      pure
	 47  internal/sim/swarm                pure
	 50  internal/verify                   pure
	 55  internal/sim/scenario             pure
	 57  internal/sim/volatile             pure
	 60  internal/executor/wasm/instrument pure
	 80  internal/atomicfile
	 90  internal/executor
	 95  internal/executor/adversary
	100  internal/executor/executortest
	110  internal/executor/wasm
	120  internal/store
	130  internal/p2p
	135  internal/discovery
	140  internal/chain
	150  internal/runner
	160  internal/rpc
	165  internal/rpc/rpctest
	167  internal/lab
	170  internal/node
	175  sdk
	177  internal/fleet
	178  internal/soak
	180  programs
	190  cmd/crowd
	200  programs/blur
	210  programs/hello
	220  programs/wordcount
	230  programs/count
	240  programs/sum
	250  programs/grep
`

// doors says which packages, with all below them, may import a heavy dependency.
// The longest match counts.
var doors = []struct {
	dependency string
	rooms      []string
}{
	{"github.com/libp2p", []string{"internal/p2p"}},
	{"github.com/ipfs/boxo", []string{"internal/store", "internal/p2p"}},
	{"github.com/ipfs/boxo/bitswap", []string{"internal/p2p"}},
	{"github.com/cometbft", []string{"internal/chain"}},
	{"github.com/bytecodealliance/wasmtime-go", []string{"internal/executor/wasm"}},
	{"github.com/tetratelabs/wazero", []string{"internal/executor/wasm"}},
	{"github.com/ethereum/go-ethereum/rpc", []string{"internal/rpc"}},
	{"github.com/spf13/cobra", []string{"cmd/crowd"}},
	{"github.com/vishvananda/netlink", []string{"internal/lab"}},
	{"github.com/google/nftables", []string{"internal/lab"}},
	{"github.com/cosmos/ics23", []string{"internal/ledger", "internal/chain", "internal/verify"}},
}

// impure are the packages, with all below them, that a pure room does not import;
// innocent are those below them that it may.
var (
	impure = []string{"net", "os", "sync", "syscall", "log", "crypto/rand", "math/rand",
		"golang.org/x/sys", "golang.org/x/sync"}
	innocent = []string{"net/netip", "net/url", "math/rand/v2"}
)

// In a pure room, clocked are the names of package time that read the clock, and
// seeded the only functions of math/rand/v2 that do not draw from its global source.
var (
	clocked = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}
	seeded  = []string{"New", "NewPCG", "NewChaCha8", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf"}
)

type layer struct {
	number     int
	path       string
	pure, pins bool
}

// source is one package's folder, read without regard to build tags.
type source struct {
	path  string
	files []*ast.File // without tests
	tests []*ast.File
}

func parseLayers(table string) ([]layer, error) {
	var out []layer
	last := 0
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		n, err := strconv.Atoi(f[0])
		if err != nil || n <= last || len(f) < 2 {
			return nil, fmt.Errorf("line %q: want a number above %d and a path", strings.TrimSpace(line), last)
		}
		l := layer{number: n, path: f[1]}
		for _, word := range f[2:] {
			switch word {
			case "pure":
				l.pure = true
			case "pins":
				l.pins = true
			default:
				return nil, fmt.Errorf("line %d: unknown word %q", n, word)
			}
		}
		out, last = append(out, l), n
	}
	return out, nil
}

// readSources parses every package below root. It sees what the go tool sees: no
// folder named testdata or vendor or that begins with a dot or an underscore.
func readSources(fset *token.FileSet, root fs.FS) ([]source, error) {
	found := make(map[string]*source)
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		hidden := p != "." && (name[0] == '.' || name[0] == '_')
		if d.IsDir() {
			if hidden || name == "testdata" || name == "vendor" {
				return fs.SkipDir
			}
			return nil
		}
		if hidden || path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		s := found[path.Dir(p)]
		if s == nil {
			s = &source{path: path.Dir(p)}
			found[s.path] = s
		}
		if strings.HasSuffix(name, "_test.go") {
			s.tests = append(s.tests, f)
		} else {
			s.files = append(s.files, f)
		}
		return nil
	})
	var out []source
	for _, s := range found {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b source) int { return strings.Compare(a.path, b.path) })
	return out, err
}

// checkLayers is all that is wrong, one line each.
func checkLayers(fset *token.FileSet, layers []layer, sources []source) (wrong []string) {
	at := make(map[string]layer)
	for _, l := range layers {
		if _, twice := at[l.path]; twice {
			wrong = append(wrong, fmt.Sprintf("line %d: %s is listed twice", l.number, l.path))
			continue
		}
		at[l.path] = l
		if !slices.ContainsFunc(sources, func(s source) bool { return s.path == l.path }) {
			wrong = append(wrong, fmt.Sprintf("line %d: %s does not exist", l.number, l.path))
		}
	}
	for _, s := range sources {
		l, ok := at[s.path]
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s: not in the list of layers", s.path))
			continue
		}
		speaks := s.files
		if len(speaks) == 0 {
			speaks = s.tests
		}
		if !slices.ContainsFunc(speaks, func(f *ast.File) bool { return f.Doc.Text() != "" }) {
			wrong = append(wrong, fmt.Sprintf("%s: no package comment", s.path))
		}
		for _, f := range s.files {
			say := func(p token.Pos, format string, a ...any) {
				wrong = append(wrong, fmt.Sprintf("%s: %s", fset.Position(p), fmt.Sprintf(format, a...)))
			}
			checkImports(f, l, at, say)
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					say(fn.Pos(), "%s has an init function", s.path)
				}
			}
			if l.pure {
				checkPure(f, s.path, say)
			}
		}
	}
	return wrong
}

type sayFunc func(p token.Pos, format string, a ...any)

func importPath(i *ast.ImportSpec) string {
	p, err := strconv.Unquote(i.Path.Value)
	if err != nil {
		panic("bug: the parser let pass the import path " + i.Path.Value)
	}
	return p
}

// below reports whether path is dir or lies in it.
func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func belowAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return below(path, d) })
}

func checkImports(f *ast.File, l layer, at map[string]layer, say sayFunc) {
	for _, i := range f.Imports {
		p := importPath(i)
		if below(p, module) {
			to := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
			if to == "" {
				to = "."
			}
			if up, ok := at[to]; !ok || up.number >= l.number {
				say(i.Pos(), "%s imports %s, which is not on a lower line", l.path, to)
			}
		}
		var longest string
		var rooms []string
		for _, d := range doors {
			if below(p, d.dependency) && len(d.dependency) > len(longest) {
				longest, rooms = d.dependency, d.rooms
			}
		}
		if longest != "" && !l.pins && !belowAny(l.path, rooms) {
			say(i.Pos(), "%s imports %s, whose door is %s", l.path, p, strings.Join(rooms, ", "))
		}
	}
}

func checkPure(f *ast.File, room string, say sayFunc) {
	var clock, dice string // what this file calls time and math/rand/v2
	for _, i := range f.Imports {
		p := importPath(i)
		if belowAny(p, impure) && !belowAny(p, innocent) {
			say(i.Pos(), "%s is pure and imports %s", room, p)
		}
		name := ""
		if i.Name != nil {
			name = i.Name.Name
		}
		switch p {
		case "time":
			clock = name
			if name == "" {
				clock = "time"
			}
		case "math/rand/v2":
			dice = name
			if name == "" {
				dice = "rand"
			}
		default:
			continue
		}
		if name == "." {
			say(i.Pos(), "%s is pure and imports %s with a dot", room, p)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch {
		case x.Name == clock && slices.Contains(clocked, sel.Sel.Name):
			say(sel.Pos(), "%s is pure and uses time.%s", room, sel.Sel.Name)
		case x.Name == dice && !slices.Contains(seeded, sel.Sel.Name):
			say(sel.Pos(), "%s is pure and uses the global rand.%s", room, sel.Sel.Name)
		}
		return true
	})
}

func TestLayers(t *testing.T) {
	list, err := parseLayers(layers)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	sources, err := readSources(fset, os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range checkLayers(fset, list, sources) {
		t.Error(w)
	}
}
