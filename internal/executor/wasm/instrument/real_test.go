package instrument

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v43"
)

// guests are real programs, built on first use.
var guests = map[string]func() ([]byte, error){
	"kernels":     clang("kernels.c", "-O2", "-nostartfiles", "-Wl,--no-entry"),
	"vectors":     clang("kernels.c", "-O3", "-nostartfiles", "-Wl,--no-entry", "-msimd128", "-ffast-math"),
	"program":     clang("program.c", "-O2"),
	"unoptimised": clang("program.c", "-O0"),
	"go": build(func(out string) (*exec.Cmd, error) {
		cmd := exec.Command("go", "build", "-trimpath", "-o", out, "./testdata/guest")
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
		return cmd, nil
	}),
}

// guest is the module of a real program; without its compiler t is skipped.
func guest(t testing.TB, name string) []byte {
	t.Helper()
	wasm, err := guests[name]()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		t.Skipf("cannot build the guest: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func clang(source string, flags ...string) func() ([]byte, error) {
	return build(func(out string) (*exec.Cmd, error) {
		if _, err := os.Stat("/usr/include/wasm32-wasi"); err != nil {
			return nil, err // wasi-libc
		}
		args := []string{"--target=wasm32-wasi", "-w", filepath.Join("testdata", source), "-lm", "-o", out}
		return exec.Command("clang-14", append(args, flags...)...), nil
	})
}

func build(command func(out string) (*exec.Cmd, error)) func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		dir, err := os.MkdirTemp("", "guest")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		out := filepath.Join(dir, "guest.wasm")
		cmd, err := command(out)
		if err != nil {
			return nil, err
		}
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, errors.Join(err, errors.New(string(text)))
		}
		return os.ReadFile(out)
	})
}

var kernels = []struct {
	name        string
	small, size uint64 // for tests, for benchmarks
}{
	{"sha256", 300, 40_000},
	{"mandelbrot", 60, 400},
	{"nbody", 300, 100_000},
	{"matmul", 1, 4},
	{"blur", 1, 8},
	{"recursion", 17, 31},
	{"shellsort", 3000, 100_000},
	{"interpreter", 20, 4_000},
}

// TestKernels: real code gives its plain result, and both engines the same gas, memory and result.
func TestKernels(t *testing.T) {
	for _, program := range []string{"kernels", "vectors"} {
		wasm := guest(t, program)
		for _, o := range []Options{{}, {NaN: AsIs}} {
			out := instrumented(t, wasm, o)
			for _, k := range kernels {
				plain := runWasmtime(t, wasm, 0, k.name, k.small)
				got := both(t, out, plenty, k.name, k.small)
				if got.results != plain.results || got.memory != plain.memory || got.depth != 16384 || got.trap != "" {
					t.Errorf("%s %s: got %v, plain %v", program, k.name, got, plain)
				}
				// Out of gas at some points in the middle.
				used := plenty - got.gas
				for _, part := range []int64{used / 7, used / 2, used - 3} {
					if got := both(t, out, part, k.name, k.small); got.gas >= 0 {
						t.Errorf("%s %s with %d of %d gas: got %v", program, k.name, part, used, got)
					}
				}
			}
		}
	}
}

func TestPrograms(t *testing.T) {
	table := []struct{ name, trap, want string }{
		{"program", "exit", "guest 00000000-nan ffe22d6b-0.000520827 21 4194304\n000000000000f87f nan 1\n"},
		{"unoptimised", "exit", "guest 00000000-nan ffe22d6b-0.000520827 21 4194304\n000000000000f87f nan 1\n"},
		{"go", "exit", "2364 [0 0x 0xx]\n97 29 2000 7ff8000000000000 1.4142135623730951\nassignment to entry in nil map\n"},
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.name == "go" {
				t.Skip("compiles for seconds")
			}
			out := instrumented(t, guest(t, tt.name), Options{})
			got := both(t, out, plenty, "_start")
			if got.trap != tt.trap || got.stdout != tt.want || got.gas < 0 {
				t.Errorf("got %v, want %q %q", got, tt.trap, tt.want)
			}
			short := both(t, out, (plenty-got.gas)/2, "_start")
			if short.trap != "unreachable" || short.gas >= 0 {
				t.Errorf("got %v, want out of gas", short)
			}
			t.Logf("gas %d", plenty-got.gas)
		})
	}
}

// TestMutants: what we accept, both engines accept, before and after. What wasmtime accepts
// and we refuse uses what we do not support.
func TestMutants(t *testing.T) {
	ctx := context.Background()
	r := newWazero()
	defer r.Close(ctx)
	compiles := func(wasm []byte) error {
		m, err := r.CompileModule(ctx, wasm)
		if err == nil {
			err = m.Close(ctx)
		}
		_, err2 := wasmtime.NewModule(wasmtimeEngine, wasm)
		return errors.Join(err, err2)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, text := range []string{sieve, everything} {
		wasm := withoutCustom(wat(t, text))
		accepted, refused, ran := 0, 0, 0
		for range 1500 {
			mutant := mutate(random, wasm)
			out, info, err := Module(mutant, Options{})
			if err == nil {
				accepted++
				if err := errors.Join(compiles(withoutCustom(mutant)), compiles(out)); err != nil {
					t.Errorf("%x accepted: %v", mutant, err)
				}
				if runnable(mutant, info) {
					ran++
					both(t, out, 20_000, "f", 0)
					if t.Failed() {
						t.Fatalf("%x", mutant)
					}
				}
				continue
			}
			refused++
			if wasmtime.ModuleValidate(wasmtimeEngine, mutant) == nil && !slices.ContainsFunc(policies, func(s string) bool { return strings.Contains(err.Error(), s) }) {
				t.Errorf("%x refused: %v", mutant, err)
			}
		}
		if accepted < 200 || refused < 200 || ran < 100 {
			t.Errorf("accepted %d, refused %d, ran %d: the test shows nothing", accepted, refused, ran)
		}
	}
}

// runnable reports whether the host can run f of a mutant: small memory, types and imports as they were.
func runnable(wasm []byte, info Info) bool {
	if info.MinPages > 10 || info.MaxPages > 10 || len(info.Imports) != 1 || len(info.Imports[0].Params)+len(info.Imports[0].Results) > 0 {
		return false
	}
	m, err := wasmtime.NewModule(wasmtimeEngine, wasm)
	if err != nil || !slices.ContainsFunc(info.Exports, func(e Export) bool { return e.Name == "memory" && e.Kind == 2 }) {
		return false
	}
	for _, e := range m.Exports() {
		if f := e.Type().FuncType(); e.Name() == "f" && f != nil {
			p, r := f.Params(), f.Results()
			return len(p) == 1 && p[0].Kind() == wasmtime.KindI32 && len(r) == 1 && r[0].Kind() == wasmtime.KindI32
		}
	}
	return false
}

// policies are the reasons for which we refuse what is valid elsewhere.
var policies = []string{"not supported", "constant expression", "only functions", "takes floats", "tables", "memories", "does not fit", "shortest form", "active segment", "not passive"}

// withoutCustom drops the custom sections, which wazero checks and we drop.
func withoutCustom(wasm []byte) []byte {
	out := append([]byte(nil), wasm[:8]...)
	for r := (reader{b: wasm, p: 8}); r.more(); {
		from := r.p
		id := r.u8()
		if r.skip(int(r.u32())); id != 0 {
			out = append(out, wasm[from:r.p]...)
		}
	}
	return out
}

// mutate changes a few bytes behind the header.
func mutate(random *rand.Rand, wasm []byte) []byte {
	m := append([]byte(nil), wasm...)
	for range 1 + random.IntN(2) {
		i := 8 + random.IntN(len(m)-8)
		switch random.IntN(4) {
		case 0:
			m[i] = byte(random.Uint32())
		case 1:
			m[i] ^= 1 << random.IntN(8)
		case 2:
			m[i] = m[8+random.IntN(len(m)-8)]
		case 3:
			m[i] += byte(random.IntN(5)) - 2
		}
	}
	return m
}

// everything has an example of most forms of instruction and segment.
const everything = `(module
  (type $t (func (param i32) (result i32))) (type $two (func (param i32) (result i32 i64)))
  (import "e" "nop" (func $nop)) (memory (export "memory") 1 3)
  (table $t 4 10 funcref) (table $x 2 externref)
  (global $g (mut i32) (i32.const 5)) (global $f f64 (f64.const 1.5)) (global $r (mut funcref) (ref.func $id)) (global $v (mut v128) (v128.const i32x4 1 2 3 4))
  (elem (table $t) (i32.const 0) func $id $nop) (elem $p func $id) (elem declare func $id) (elem $e funcref (ref.func $id) (ref.null func))
  (data (i32.const 8) "hello") (data $d "passive")
  (func $id (type $t) local.get 0)
  (func $both (type $two) (local f32 f64 v128) local.get 0 i32.eqz if i32.const 1 i64.const 2 return end local.get 0 local.get 0 i64.extend_i32_u)
  (func (export "f") (param i32) (result i32) (local $a f32) (local $b f64) (local $c v128) (local $l i64)
    local.get 0 call $both i64.const 2 i64.div_u local.set $l drop
    block $x block $y block $z local.get 0 br_table $x $y $z $z end call $nop end i32.const 3 i32.const 0 call_indirect $t (type $t) drop end
    (local.set $a (f32.div (f32.convert_i32_s (local.get 0)) (f32.const 3)))
    (f32.store offset=4 (i32.const 0) (f32.copysign (local.get $a) (f32.neg (local.get $a))))
    (local.set $b (f64.promote_f32 (local.get $a))) (f64.store (i32.const 16) (f64.max (local.get $b) (global.get $f)))
    (local.set $c (f32x4.add (f32x4.mul (f32x4.splat (local.get $a)) (f32x4.splat (local.get $a))) (f32x4.sqrt (f32x4.splat (local.get $a)))))
    (v128.store (i32.const 32) (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get $c) (global.get $v)))
    (global.set $v (v128.load8_lane 3 (i32.const 1) (f64x2.replace_lane 1 (local.get $c) (local.get $b))))
    loop $again (result i32)
      global.get $g i32.const -1 i32.add global.set $g
      (memory.fill (i32.const 100) (i32.const 1) (i32.const 20)) (memory.copy (i32.const 200) (i32.const 100) (i32.const 10))
      (memory.init $d (i32.const 300) (i32.const 0) (i32.const 3)) (drop (memory.grow (i32.const 0)))
      (table.init $t $p (i32.const 2) (i32.const 0) (i32.const 1)) (table.copy $t $t (i32.const 3) (i32.const 0) (i32.const 1))
      (drop (table.grow $x (ref.null extern) (i32.const 1))) (table.fill $t (i32.const 0) (ref.func $id) (i32.const 1))
      (table.set $t (i32.const 1) (table.get $t (i32.const 0))) (global.set $r (ref.null func))
      global.get $g if (param) nop br $again else end
      i32.const 9
    end
    i32.const 7 local.get 0 select
    (i32.trunc_sat_f64_s (local.get $b)) i32.add memory.size i32.add table.size $x i32.add
    data.drop $d elem.drop $p
    (select (result i32) (i32.reinterpret_f32 (local.get $a)) (i32.wrap_i64 (i64.reinterpret_f64 (local.get $b))) (ref.is_null (global.get $r))) i32.add))`

func TestEverything(t *testing.T) {
	out := instrumented(t, wat(t, everything), Options{})
	full := both(t, out, plenty, "f", 2)
	if full.trap != "" {
		t.Fatalf("got %v", full)
	}
	for gas := int64(0); gas < plenty-full.gas; gas += 7 {
		both(t, out, gas, "f", 2)
	}
}

// FuzzModule: bytes from anywhere are refused or rewritten, without panic, and what is accepted twice is equal.
func FuzzModule(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Add(wat(f, sieve))
	f.Add(wat(f, everything))
	ctx := context.Background()
	r := newWazero()
	f.Fuzz(func(t *testing.T, wasm []byte) {
		out, info, err := Module(wasm, Options{MaxModule: 1 << 16})
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || invalid.Offset < 0 || invalid.Offset > len(wasm) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if len(out) > 1<<17+1<<12 {
			t.Fatalf("%d bytes became %d", len(wasm), len(out))
		}
		if info.MinPages > 1000 {
			return
		}
		for _, accepted := range [][]byte{withoutCustom(wasm), out} {
			m, err := r.CompileModule(ctx, accepted)
			if err != nil {
				t.Fatalf("wazero: %v", err)
			}
			m.Close(ctx)
			if err := wasmtime.ModuleValidate(wasmtimeEngine, accepted); err != nil {
				t.Fatalf("wasmtime: %v", err)
			}
		}
	})
}

// FuzzNumbers: signed and unsigned LEB128 numbers come back as they were written.
func FuzzNumbers(f *testing.F) {
	f.Add(binary.LittleEndian.AppendUint64(nil, 1<<63))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 8 {
			return
		}
		v := binary.LittleEndian.Uint64(b)
		r := reader{b: sleb(nil, int64(v))}
		if got := r.sleb(64); got != int64(v) || r.more() {
			t.Errorf("got %d, want %d", got, int64(v))
		}
		r = reader{b: sleb(nil, int64(int32(v)))}
		if got := r.sleb(32); got != int64(int32(v)) || r.more() {
			t.Errorf("got %d, want %d", got, int32(v))
		}
		r = reader{b: uleb(nil, uint64(uint32(v)))}
		if got := r.u32(); got != uint32(v) || r.more() {
			t.Errorf("got %d, want %d", got, uint32(v))
		}
	})
}
