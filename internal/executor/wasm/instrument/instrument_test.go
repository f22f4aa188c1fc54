package instrument

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const plenty = int64(1) << 40

// The text of a module with one page of memory and a function f.
func withF(sig, body string) string {
	return `(module (memory (export "memory") 1) (func (export "f") ` + sig + ` ` + body + `))`
}

// TestSemantics: the rewritten program does what the original does, on both engines.
func TestSemantics(t *testing.T) {
	table := []struct {
		name, text string
		args       []uint64
		want       string // results
		trap       string
	}{
		{"empty", withF("", ""), nil, "", ""},
		{"straight line", withF("(param i32) (result i32)", "local.get 0 i32.const 2 i32.mul"), []uint64{21}, "42 ", ""},
		{"if without else, taken", withF("(param i32) (result i32)", "local.get 0 if (i32.store (i32.const 0) (i32.const 7)) end (i32.load (i32.const 0))"), []uint64{1}, "7 ", ""},
		{"if without else, skipped", withF("(param i32) (result i32)", "local.get 0 if (i32.store (i32.const 0) (i32.const 7)) end (i32.load (i32.const 0))"), []uint64{0}, "0 ", ""},
		{"if else with results", withF("(param i32) (result i32)", "local.get 0 if (result i32) i32.const 1 else i32.const 2 end"), []uint64{0}, "2 ", ""},
		{"if else with parameters", withF("(param i32) (result i64)", "i64.const 10 i32.const 3 local.get 0 if (param i64 i32) (result i64) drop else i64.extend_i32_s i64.sub end"), []uint64{0}, "7 ", ""},
		{"return from the depth", withF("(param i32) (result i32)", "block loop local.get 0 if i32.const 5 return end br 1 end end i32.const 6"), []uint64{1}, "5 ", ""},
		{"branch to the outermost label", withF("(param i32) (result i32)", "i32.const 8 local.get 0 br_if 0 drop i32.const 9"), []uint64{1}, "8 ", ""},
		{"branch table", withF("(param i32) (result i32)",
			"block block block local.get 0 br_table 0 1 2 end i32.const 10 return end i32.const 11 return end i32.const 12 return"), []uint64{1}, "11 ", ""},
		{"branch table to the function", `(module (func (export "f") (param i32) (result i32) block (result i32) i32.const 3 local.get 0 br_table 0 1 end i32.const 1 i32.add))`, []uint64{7}, "3 ", ""},
		{"multiple results", `(module (func $d (param i32) (result i64 i32) (if (i32.eqz (local.get 0)) (then (return (i64.const 1) (i32.const 2)))) local.get 0 i64.extend_i32_s local.get 0)
			(func (export "f") (param i32) (result i64 i32) local.get 0 call $d))`, []uint64{4}, "4 4 ", ""},
		{"multiple results by return", `(module (func $d (param i32) (result i64 i32) (if (i32.eqz (local.get 0)) (then (return (i64.const 1) (i32.const 2)))) local.get 0 i64.extend_i32_s local.get 0)
			(func (export "f") (param i32) (result i64 i32) local.get 0 call $d))`, []uint64{0}, "1 2 ", ""},
		{"loop with parameters", `(module (func (export "f") (param i32) (result i32) i32.const 0 local.get 0
			loop (param i32 i32) (result i32) local.set 0 local.get 0 i32.add local.get 0 i32.const 1 i32.sub local.tee 0 if (param i32) (result i32) local.get 0 br 1 end end))`, []uint64{4}, "10 ", ""},
		{"unreachable code after a branch", withF("(result i32)", "block (result i32) i32.const 4 br 0 i32.add drop f64.store f32x4.add drop call 0 drop i32.reinterpret_f32 drop memory.fill memory.grow end"), nil, "4 ", ""},
		{"dead loop and block", withF("(result i32)", "block br 0 loop br 0 end block i32.const 1 br_if 0 end if else end return end i32.const 4"), nil, "4 ", ""},
		{"ends in unreachable", withF("(param i32) (result i32)", "local.get 0 if i32.const 3 return end unreachable"), []uint64{0}, "", "unreachable"},
		{"start", `(module (memory (export "memory") 1) (start $s) (func $s (i32.store (i32.const 0) (i32.const 77))) (func (export "f") (result i32) (i32.load (i32.const 0))))`, nil, "77 ", ""},
		{"start traps", `(module (start $s) (func $s unreachable) (func (export "f") (result i32) i32.const 0))`, nil, "", "unreachable"},
		{"indirect call", `(module (type $t (func (param i32) (result i32))) (table 2 funcref) (elem (i32.const 0) $a $b)
			(func $a (type $t) local.get 0 i32.const 1 i32.add) (func $b (type $t) local.get 0 i32.const 2 i32.add)
			(func (export "f") (param i32) (result i32) i32.const 40 local.get 0 call_indirect (type $t)))`, []uint64{1}, "42 ", ""},
		{"import in a table", `(module (type $t (func)) (import "e" "nop" (func $n)) (table 1 funcref) (elem (i32.const 0) $n)
			(func (export "f") (result i32) i32.const 0 call_indirect (type $t) i32.const 5))`, nil, "5 ", ""},
		{"two calls in one block", `(module (global $g (mut i32) (i32.const 0)) (func $a (global.set $g (i32.add (global.get $g) (i32.const 3))))
			(func (export "f") (param i32) (result i32) call $a call $a local.get 0 if call $a end call $a global.get $g))`, []uint64{1}, "12 ", ""},
		{"after a function that ends in dead code", `(module (func (param i32) (result i32) local.get 0 return)
			(func (export "f") (param i32) (result i32) (if (local.get 0) (then (return (call 1 (i32.sub (local.get 0) (i32.const 1)))))) i32.const 5))`, []uint64{100}, "5 ", ""},
		{"references", `(module (table $t 1 10 externref) (table $u 3 funcref) (elem declare func $g) (func $g)
			(func (export "f") (result i32) (local i32)
			  ref.null extern i32.const 4 table.grow $t drop
			  i32.const 0 ref.func $g i32.const 3 table.fill $u
			  i32.const 0 i32.const 1 i32.const 2 table.copy $u $u
			  i32.const 2 table.get $u ref.is_null table.size $t i32.add))`, nil, "5 ", ""},
		{"table grows to its bound only", `(module (table 1 funcref) (func (export "f") (result i32) ref.null func i32.const 0x100000 table.grow))`, nil, "-1 ", ""},
		{"select with type", withF("(param i32) (result i64)", "i64.const 1 i64.const 2 local.get 0 select (result i64)"), []uint64{0}, "2 ", ""},
		{"out of bounds", withF("(result i32)", "i32.const 65533 i32.load"), nil, "", "out of bounds memory access"},
		{"division by zero", withF("(result i32)", "i32.const 1 i32.const 0 i32.div_s"), nil, "", "integer divide by zero"},
		{"bad conversion", withF("(result i32)", "f32.const nan i32.trunc_f32_s"), nil, "", "invalid conversion to integer"},
		{"null entry", `(module (type $t (func)) (table 1 funcref) (func (export "f") i32.const 0 call_indirect (type $t)))`, nil, "", "table"},
		{"wrong signature", `(module (type $t (func)) (table 1 funcref) (elem (i32.const 0) 0) (func (export "f") (param i32) i32.const 0 call_indirect (type $t)))`, []uint64{0}, "", "indirect call type mismatch"},
		{"bulk memory", `(module (memory (export "memory") 1) (data $d "abcd") (func (export "f") (result i32)
			i32.const 8 i32.const 1 i32.const 2 memory.init $d data.drop $d i32.const 100 i32.const 8 i32.const 2 memory.copy
			i32.const 102 i32.const 0x64 i32.const 2 memory.fill i32.const 100 i32.load))`, nil, "1684300642 ", ""},
		{"growth", withF("(result i32)", "i32.const 3 memory.grow drop i32.const 70000 memory.grow memory.size i32.add"), nil, "3 ", ""},
		{"growth to its own maximum only", `(module (memory (export "memory") 1 3) (func (export "f") (result i32)
			i32.const 2 memory.grow drop i32.const 1 memory.grow i32.const 70000 memory.grow i32.add memory.size i32.add))`, nil, "1 ", ""},
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			wasm := wat(t, tt.text)
			plain := both(t, wasm, 0, "f", tt.args...)
			for _, o := range []Options{{}, {NaN: AsIs}} {
				got := both(t, instrumented(t, wasm, o), plenty, "f", tt.args...)
				if got.results != tt.want || got.trap != tt.trap {
					t.Errorf("got %v, want results %q trap %q", got, tt.want, tt.trap)
				}
				if !strings.Contains(tt.text, "(start") && tt.name != "table grows to its bound only" && (plain.results != tt.want || plain.trap != tt.trap || plain.memory != got.memory) {
					t.Errorf("got %v, plain %v", got, plain)
				}
				if got.trap == "" && got.depth != 16384 {
					t.Errorf("depth after the run: got %d, want 16384", got.depth)
				}
				if got.gas < 0 || got.gas >= plenty {
					t.Errorf("gas left: got %d", got.gas)
				}
				if got.refused != NeverRefused { // what no machine may grant is no failure of this one
					t.Errorf("refused: got %d pages, want none", got.refused)
				}
			}
		})
	}
}

// sieve has nested loops, calls, bulk memory, growth and early exits.
const sieve = `(module (import "e" "nop" (func $nop)) (memory (export "memory") 1 4)
  (func $mark (param $p i32) (param $n i32) (local $i i32)
    (local.set $i (i32.mul (local.get $p) (local.get $p)))
    (block $out (loop $next
      (br_if $out (i32.ge_u (local.get $i) (local.get $n)))
      (i32.store8 (local.get $i) (i32.const 1))
      (local.set $i (i32.add (local.get $i) (local.get $p)))
      (br $next))))
  (func $rec (param i32) (result i32)
    (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
    (i32.store (i32.add (i32.const 60000) (i32.mul (local.get 0) (i32.const 4))) (local.get 0))
    (i32.add (i32.const 1) (call $rec (i32.sub (local.get 0) (i32.const 1)))))
  (func (export "f") (param $n i32) (result i32) (local $p i32) (local $c i32)
    (memory.fill (i32.const 0) (i32.const 0) (local.get $n))
    (local.set $p (i32.const 2))
    (loop $next
      (if (i32.eqz (i32.load8_u (local.get $p))) (then
        (call $mark (local.get $p) (local.get $n))
        (call $nop)
        (local.set $c (i32.add (local.get $c) (i32.const 1)))))
      (br_if $next (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 1))) (local.get $n))))
    (drop (memory.grow (i32.const 1)))
    (memory.copy (i32.const 65536) (i32.const 0) (local.get $n))
    (drop (call $rec (i32.const 5)))
    (local.get $c)))`

// TestEveryBudget: with any amount of gas both engines stop at the same point with the same memory,
// and the run is out of gas if and only if the gas did not suffice.
func TestEveryBudget(t *testing.T) {
	out := instrumented(t, wat(t, sieve), Options{})
	full := both(t, out, plenty, "f", 40)
	used := plenty - full.gas
	if full.results != "12 " || full.depth != 16384 {
		t.Fatalf("got %v, want 12 primes", full)
	}
	step := int64(1)
	if testing.Short() {
		step = 7
	}
	memories := map[[32]byte]bool{}
	for gas := int64(0); gas <= used+2; gas++ {
		// growth's 8 Ki gas would make this slow: nothing happens in between
		if gas > used-costPage+400 && gas < used-400 {
			gas = used - 400
		}
		if gas%step != 0 {
			continue
		}
		got := both(t, out, gas, "f", 40)
		if short := gas < used; short != (got.gas < 0) {
			t.Fatalf("gas %d of %d: got %v", gas, used, got)
		}
		if got.gas >= 0 && (got.results != full.results || got.memory != full.memory) {
			t.Fatalf("gas %d of %d: got %v, want %v", gas, used, got, full)
		}
		if got.trap != "" && (got.trap != "unreachable" || got.gas >= 0) {
			t.Fatalf("gas %d: got %v", gas, got)
		}
		memories[got.memory] = true
	}
	if len(memories) < 20 {
		t.Errorf("stopped in %d states, want more", len(memories))
	}
}

func TestEndless(t *testing.T) {
	table := []struct{ name, body string }{
		{"loop br 0", "loop br 0 end"},
		{"nested heads", "loop loop loop br 1 end end end"},
		{"br_if", "loop i32.const 1 br_if 0 end"},
		{"br_table", "loop i32.const 1 br_table 0 0 end"},
		{"store", "loop (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) br 0 end"},
		{"with call", "loop call 0 br 0 end"},
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			out := instrumented(t, wat(t, withF("", tt.body)), Options{})
			got := both(t, out, 100_000, "f")
			if got.trap != "unreachable" || got.gas >= 0 || got.gas < -100 {
				t.Errorf("got %v, want out of gas", got)
			}
		})
	}
}

func TestDepth(t *testing.T) {
	locals := strings.Repeat("i64 ", 400)
	vectors := strings.Repeat("v128 ", 49_000)
	const count = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))"
	table := []struct {
		name, text string
		calls      uint32 // how often count was reached
	}{
		{"direct", `(memory (export "memory") 1) (func $f (export "f") ` + count + ` call $f)`, 16384},
		{"indirect", `(memory (export "memory") 1) (type $t (func)) (table 1 funcref) (elem (i32.const 0) $f)
			(func $f (export "f") ` + count + ` i32.const 0 call_indirect (type $t))`, 16384},
		{"mutual", `(memory (export "memory") 1) (func $f (export "f") call $g) (func $g ` + count + ` call $f)`, 8192},
		{"two units", `(memory (export "memory") 1) (func $f (export "f") (param i32) ` + count + ` local.get 0 call $f)`, 8192},
		{"many locals", `(memory (export "memory") 1) (func $f (export "f") (local ` + locals + `) ` + count + ` call $f)`, 16384 / 51},
		{"many operands", `(memory (export "memory") 1) (func $f (export "f") ` + count + strings.Repeat("(i32.load (i32.const 8))", 500) + ` call $f ` + strings.Repeat("i32.add ", 499) + `drop)`, 16384 / 63},
		{"many results", `(memory (export "memory") 1) (func $f (export "f") (result` + strings.Repeat(" i32", 100) + `) ` + count + ` call $f)`, 16384 / 25},
		{"one huge leaf", `(memory (export "memory") 1) (func $g (local ` + vectors + `) ` + count + `) (func (export "f") (call $g) (call $g) (call $h)) (func $h (local ` + vectors + `) (call $g) (call $h))`, 2},
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			out := instrumented(t, wat(t, "(module "+tt.text+")"), Options{})
			args := make([]uint64, strings.Count(tt.text, "(param i32)"))
			got := both(t, out, plenty, "f", args...)
			if got.trap != "unreachable" || got.depth >= 0 || got.gas < 0 {
				t.Errorf("got %v, want depth exceeded", got)
			}
			memory := make([]byte, 65536)
			binary.LittleEndian.PutUint32(memory, tt.calls)
			if got.memory != digest(memory) {
				t.Errorf("got %v, want %d calls", got, tt.calls)
			}
		})
	}
	t.Run("restored at every exit", func(t *testing.T) {
		text := `(module
			(func $leaf) (func $a (param i32) (result i32)
			  call $leaf
			  block block block local.get 0 br_table 0 1 2 3 end i32.const 1 return end i32.const 2 br 1 end i32.const 3)
			(func $b (param i32) (result i32) call $leaf i32.const 9 local.get 0 br_if 0 drop i32.const 8 local.get 0 i32.eqz br_if 0 drop i32.const 7)
			(func (export "f") (result i32) (local i32)
			  loop (drop (call $a (local.get 0))) (drop (call $b (local.get 0))) (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 5))) end
			  i32.const 1))`
		text = strings.Replace(text, "br_table 0 1 2 3", "br_table 0 1 2 2", 1)
		got := both(t, instrumented(t, wat(t, text), Options{CallDepth: 50}), plenty, "f")
		if got.depth != 50 || got.trap != "" {
			t.Errorf("got %v, want depth 50", got)
		}
	})
}

// TestSizedPrices: what an operation on memory or tables costs grows with its operand.
func TestSizedPrices(t *testing.T) {
	table := []struct {
		name, text string
		a, b       uint64
		want       int64 // price of b less price of a
	}{
		{"memory.fill", withF("(param i32)", "i32.const 0 i32.const 1 local.get 0 memory.fill"), 8, 65536, (65536 - 8) / 8},
		{"memory.copy", withF("(param i32)", "i32.const 0 i32.const 0 local.get 0 memory.copy"), 0, 4096, 512},
		{"memory.init", `(module (memory 1) (data $d "` + strings.Repeat("x", 800) + `") (func (export "f") (param i32) i32.const 0 i32.const 0 local.get 0 memory.init $d))`, 0, 800, 100},
		{"memory.grow", withF("(param i32)", "local.get 0 memory.grow drop"), 0, 3, 3 * 8192},
		{"memory.grow refused", withF("(param i32)", "local.get 0 memory.grow drop"), 0, 65536, 65536 * 8192},
		{"table.grow", `(module (table 0 funcref) (func (export "f") (param i32) ref.null func local.get 0 table.grow drop))`, 0, 100, 400},
		{"table.fill", `(module (table 100 funcref) (func (export "f") (param i32) i32.const 0 ref.null func local.get 0 table.fill))`, 0, 100, 400},
		{"table.copy", `(module (table 100 funcref) (func (export "f") (param i32) i32.const 0 i32.const 0 local.get 0 table.copy))`, 0, 100, 400},
		{"table.init", `(module (table 100 funcref) (elem $e func 0 0 0 0 0) (func (export "f") (param i32) i32.const 0 i32.const 0 local.get 0 table.init $e))`, 0, 5, 20},
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			out := instrumented(t, wat(t, tt.text), Options{})
			a, b := both(t, out, plenty, "f", tt.a), both(t, out, plenty, "f", tt.b)
			if a.trap+b.trap != "" || a.gas-b.gas != tt.want {
				t.Errorf("got %v and %v: %d, want %d", a, b, a.gas-b.gas, tt.want)
			}
			// Unpaid, nothing happens.
			short := both(t, out, plenty-b.gas-1, "f", tt.b)
			if short.gas >= 0 {
				t.Errorf("got %v, want out of gas", short)
			}
		})
	}
	t.Run("paid before it happens", func(t *testing.T) {
		out := instrumented(t, wat(t, withF("", "i32.const 0 i32.const 1 i32.const 65536 memory.fill")), Options{})
		if got := both(t, out, 8000, "f"); got.trap != "unreachable" || got.gas >= 0 || got.memory != digest(make([]byte, 65536)) {
			t.Errorf("got %v, want out of gas with clear memory", got)
		}
	})
}

// TestTrapKeepsGas: a trap does not hide the work that preceded it.
func TestTrapKeepsGas(t *testing.T) {
	out := instrumented(t, wat(t, withF("", `(local i32) loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 1000))) end
		(drop (i32.load (i32.const 70000)))`)), Options{})
	got := both(t, out, plenty, "f")
	if used := plenty - got.gas; got.trap != "out of bounds memory access" || used < 8000 {
		t.Errorf("got %v, %d gas used, want 8000 or more", got, used)
	}
}

// TestHostSeesGas: what has been done is charged, and paid, before a call out of the module.
func TestHostSeesGas(t *testing.T) {
	text := `(module (import "e" "fd_write" (func $w (param i32 i32 i32 i32) (result i32))) (memory (export "memory") 1) (data (i32.const 0) "\10\00\00\00\01\00\00\00") (data (i32.const 16) "x")
		(func $pad (param i32) local.get 0 if ` + strings.Repeat("(i32.store (i32.const 100) (i32.const 1)) ", 50) + ` end)
		(func (export "f") i32.const 1 call $pad (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))`
	out := instrumented(t, wat(t, text), Options{})
	full := both(t, out, plenty, "f")
	if full.stdout != "x" {
		t.Fatalf("got %v, want x", full)
	}
	for gas := range plenty - full.gas {
		if got := both(t, out, gas, "f"); got.stdout != "" || got.gas >= 0 {
			t.Fatalf("gas %d: got %v, want nothing written", gas, got)
		}
	}
}

func TestNaNBits(t *testing.T) {
	const store = `(f64.store (i32.const 0) %) (i64.load (i32.const 0))`
	const c32, c64 = "2143289344 ", "9221120237041090560 "
	table := []struct{ name, sig, body, want string }{
		{"0/0 stored", "(param f64) (result i64)", strings.Replace(store, "%", "(f64.div (local.get 0) (local.get 0))", 1), c64},
		{"sqrt(-1) stored", "(param f64) (result i64)", strings.Replace(store, "%", "(f64.sqrt (f64.sub (local.get 0) (f64.const 1)))", 1), c64},
		{"inf-inf reinterpreted", "(param f64) (result i64)", "(i64.reinterpret_f64 (f64.sub (f64.div (f64.const 1) (local.get 0)) (f64.div (f64.const 1) (local.get 0))))", c64},
		{"0*inf, 32 bits", "(param f32) (result i32)", "(i32.reinterpret_f32 (f32.mul (local.get 0) (f32.div (f32.const 1) (local.get 0))))", c32},
		{"f32 stored", "(param f32) (result i32)", "(f32.store (i32.const 4) (f32.div (local.get 0) (local.get 0))) (i32.load (i32.const 4))", c32},
		{"demoted", "(param f64) (result i32)", "(i32.reinterpret_f32 (f32.demote_f64 (f64.neg (f64.div (local.get 0) (local.get 0)))))", c32},
		{"promoted", "(param f32) (result i64)", "(i64.reinterpret_f64 (f64.promote_f32 (f32.div (local.get 0) (local.get 0))))", c64},
		{"min", "(param f32) (result i32)", "(i32.reinterpret_f32 (f32.min (f32.div (local.get 0) (local.get 0)) (f32.const 1)))", c32},
		{"copysign's sign", "(param f64) (result i64)", "(i64.reinterpret_f64 (f64.copysign (f64.const 1) (f64.div (local.get 0) (local.get 0))))", "4607182418800017408 "},
		{"copysign of a negated NaN", "(param f64) (result i64)", "(i64.reinterpret_f64 (f64.copysign (f64.const 1) (f64.neg (f64.div (local.get 0) (local.get 0)))))", "4607182418800017408 "},
		{"a number", "(param f64) (result i64)", "(i64.reinterpret_f64 (f64.add (local.get 0) (f64.const -1)))", "-4616189618054758400 "},
		{"splat", "(param f32) (result i64)", "(i64x2.extract_lane 1 (f32x4.splat (f32.div (local.get 0) (local.get 0))))", "9205357640488583168 "},
		{"replace lane", "(param f64) (result i64)", "(i64x2.extract_lane 1 (f64x2.replace_lane 1 (v128.const i64x2 0 0) (f64.div (local.get 0) (local.get 0))))", c64},
		{"lanes, 32 bits", "(param f32) (result i64)", "(i64x2.extract_lane 0 (f32x4.div (f32x4.splat (local.get 0)) (f32x4.splat (local.get 0))))", "9205357640488583168 "},
		{"lanes in a chain", "(param f64) (result i64)", "(i64x2.extract_lane 0 (f64x2.add (v128.const f64x2 1 2) (f64x2.mul (f64x2.splat (local.get 0)) (f64x2.splat (f64.const inf)))))", c64},
		{"lanes, chain broken by neg", "(param f64) (result i64)", "(i64x2.extract_lane 0 (f64x2.neg (f64x2.div (f64x2.splat (local.get 0)) (f64x2.splat (local.get 0)))))", "-2251799813685248 "},
		{"lanes promoted", "(param f32) (result i64)", "(i64x2.extract_lane 0 (f64x2.promote_low_f32x4 (f32x4.sqrt (f32x4.splat (f32.sub (local.get 0) (f32.const 1))))))", c64},
		{"lanes demoted", "(param f64) (result i64)", "(i64x2.extract_lane 0 (f32x4.demote_f64x2_zero (f64x2.div (f64x2.splat (local.get 0)) (f64x2.splat (local.get 0)))))", "9205357640488583168 "},
		{"lane extracted", "(param f32) (result i32)", "(i32.reinterpret_f32 (f32x4.extract_lane 2 (f32x4.max (f32x4.splat (f32.div (local.get 0) (local.get 0))) (v128.const f32x4 1 2 3 4))))", c32},
		{"through a local, a global and a call", "(param f64) (result i64)", "(global.set 0 (f64.div (local.get 0) (local.get 0))) (i64.reinterpret_f64 (call 1 (global.get 0)))", c64},
		{"a loaded NaN keeps its bits", "(param f64) (result i64)", "(i64.store (i32.const 8) (i64.const -1)) (f64.store (i32.const 16) (f64.load (i32.const 8))) (i64.load (i32.const 16))", "-1 "},
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			// The parameter is zero, but the compiler must not know.
			kind := tt.sig[7:10]
			text := `(module (memory (export "memory") 1) (global (mut f64) (f64.const 0))
				(func $g ` + tt.sig + tt.body + `) (func (param f64) (result f64) (f64.add (local.get 0) (f64.const 1)))
				(func (export "f") (param i32) ` + tt.sig[len("(param f64) "):] + ` (call $g (` + kind + `.convert_i32_s (local.get 0)))))`
			got := both(t, instrumented(t, wat(t, text), Options{}), plenty, "f", 0)
			if got.results != tt.want {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
}

// assemble makes a module of sections given as (id, content) without any check.
func assemble(sections ...[]byte) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		b = append(b, s[0])
		b = append(uleb(b, uint64(len(s)-1)), s[1:]...)
	}
	return b
}

// code is a module of one function () -> () with the body given.
func code(locals []byte, body ...byte) []byte {
	f := append(append([]byte{}, locals...), append(body, opEnd)...)
	return assemble([]byte{1, 1, 0x60, 0, 0}, []byte{3, 1, 0}, append([]byte{10, 1}, append(uleb(nil, uint64(len(f))), f...)...))
}

func TestRefused(t *testing.T) {
	none := []byte{0}
	table := []struct {
		name string
		wasm []byte
		want string
	}{
		{"nothing", nil, "not a WebAssembly module"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "components"},
		{"version", []byte("\x00asm\x02\x00\x00\x00"), "version"},
		{"gas exported", wat(t, `(module (func (export "crowd:gas")))`), "reserved"},
		{"depth exported", wat(t, `(module (func (export "crowd:depth")))`), "reserved"},
		{"refused exported", wat(t, `(module (func (export "crowd:refused")))`), "reserved"},
		{"saved exported", wat(t, `(module (func (export "crowd:saved:99")))`), "reserved"},
		{"start exported", wat(t, `(module (func (export "crowd:start")))`), "reserved"},
		{"shared memory", wat(t, `(module (memory 1 1 shared))`), "shared"},
		{"memory64", wat(t, `(module (memory i64 1))`), "64-bit"},
		{"two memories", wat(t, `(module (memory 1) (memory 1))`), "memories"},
		{"atomics", wat(t, `(module (memory 1 1) (func atomic.fence))`), "threads"},
		{"relaxed", wat(t, `(module (func (param v128) local.get 0 local.get 0 f32x4.relaxed_min drop))`), "relaxed"},
		{"tail call", wat(t, `(module (func return_call 0))`), "tail calls"},
		{"exceptions", wat(t, `(module (tag))`), "exceptions"},
		{"throw", code(none, 0x08, 0), "exceptions"},
		{"garbage collection", wat(t, `(module (type (struct)))`), "garbage"},
		{"imported memory", wat(t, `(module (import "a" "b" (memory 1)))`), "only functions"},
		{"imported global", wat(t, `(module (import "a" "b" (global i32)))`), "only functions"},
		{"import of a float", wat(t, `(module (import "a" "b" (func (param f64))))`), "floats"},
		{"our global", code(none, opGlobalGet, 0, 0x1a), "no global 0"},
		{"our local", code(none, opLocalGet, 0, 0x1a), "no local 0"},
		{"our type", code(none, opBlock, 1, opEnd), "no type 1"},
		{"label", code(none, opBr, 1), "no label 1"},
		{"else", code(none, opElse), "else without if"},
		{"end", code(none, opEnd), "code after the end"},
		{"open block", code(none, opBlock, 0x40), "unexpected end"},
		{"long number", code(none, opI32Const, 0x80, 0x80, 0x80, 0x80, 0x78, 0x1a), ""},
		{"longer number", code(none, opI32Const, 0x80, 0x80, 0x80, 0x80, 0x30, 0x1a), "exceeds 32 bits"},
		{"locals", code([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f, i32}), "locals"},
		{"locals twice", code([]byte{2, 0xff, 0xff, 1, i32, 0xff, 0xff, 1, i64}), "locals"},
		{"nesting", code(none, bytes.Repeat([]byte{opBlock, 0x40}, maxNesting+1)...), "nested"},
		{"table", wat(t, `(module (table 2000000 funcref))`), "tables"},
		{"tables", wat(t, `(module`+strings.Repeat("(table 1 funcref)", 17)+`)`), "tables"},
		{"sections out of order", assemble([]byte{3, 0}, []byte{1, 0}), "out of order"},
		{"section twice", assemble([]byte{1, 0}, []byte{1, 0}), "out of order"},
		{"unknown section", assemble([]byte{14, 0}), "unknown section"},
		{"section too long", assemble([]byte{1, 0, 0}), "longer"},
		{"functions without code", assemble([]byte{1, 1, 0x60, 0, 0}, []byte{3, 1, 0}), "without code"},
		{"export twice", assemble([]byte{5, 1, 0, 1}, []byte{7, 2, 1, 'm', 2, 0, 1, 'm', 2, 0}), "twice"},
		{"name", assemble([]byte{5, 1, 0, 1}, []byte{7, 1, 1, 0xff, 2, 0}), "UTF-8"},
		{"extended constant", wat(t, `(module (global i32 (i32.add (i32.const 1) (i32.const 2))))`), "constant"},
		{"data outside", wat(t, `(module (memory 1) (data (i32.const 65530) "1234567"))`), "does not fit"},
		{"elements outside", wat(t, `(module (table 1 funcref) (func) (elem (i32.const 1) 0))`), "does not fit"},
		{"work", wat(t, `(module (type $t (func (param`+strings.Repeat(" i32", 1000)+`))) (func (type $t) unreachable `+strings.Repeat(" call 0", 1<<28/1000+1)+`))`), "too many values"},
		{"init of an active segment", wat(t, `(module (memory 1) (data $d (i32.const 0) "x") (func (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0))))`), "active segment"},
		{"init of an active table segment", wat(t, `(module (table 1 funcref) (elem $e (i32.const 0) 0) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 0))))`), "not passive"},
		{"long opcode", code(none, opVector, vectorConst|0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1a), "shortest form"},
		{"operands", code(none, opI32Add), "the stack is empty"},
		{"types of operands", code(none, opI32Const, 0, opI64Const, 0, opI32Add, 0x1a), "i32 wanted, got i64"},
		{"typed select of other values", code(none, opI32Const, 0, opI32Const, 0, opI32Const, 0, 0x1c, 1, f32, 0x1a), "f32 wanted, got i32"},
		{"values left", code(none, opI32Const, 0), "too many"},
		{"pages", assemble([]byte{5, 1, 0, 0x81, 0x80, 4}), "limits"},
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Module(tt.wasm, Options{})
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v, want accepted", err)
				}
				return
			}
			var invalid *InvalidError
			if !errors.As(err, &invalid) || !strings.Contains(invalid.Reason, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if invalid != nil && (invalid.Offset < 0 || invalid.Offset > len(tt.wasm)) {
				t.Errorf("offset %d of %d", invalid.Offset, len(tt.wasm))
			}
		})
	}
	t.Run("by the caller", func(t *testing.T) {
		o := Options{Imports: func(module, name string, params, results []byte) error {
			if module != "wasi" || name != "x" || !bytes.Equal(params, []byte{i32, i64}) || !bytes.Equal(results, []byte{i32}) {
				t.Errorf("got %q %q %x %x", module, name, params, results)
			}
			return errors.New("not here")
		}}
		_, _, err := Module(wat(t, `(module (import "wasi" "x" (func (param i32 i64) (result i32))))`), o)
		if err == nil || !strings.Contains(err.Error(), "not here") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too big", func(t *testing.T) {
		if _, _, err := Module(make([]byte, 101), Options{MaxModule: 100}); err == nil {
			t.Error("got no error")
		}
	})
}

// TestManyLocals: the most locals that we accept still leave room for ours in the engines.
func TestManyLocals(t *testing.T) {
	text := `(module (memory (export "memory") 1) (func (export "f") (param i32) (result i32) (local ` + strings.Repeat("i32 ", maxLocals-1) + `)
		(memory.fill (i32.const 0) (i32.const 1) (local.get 0))
		(f32.store (i32.const 0) (f32.div (f32.const 0) (f32.const 0))) (f64.store (i32.const 8) (f64.div (f64.const 0) (f64.const 0)))
		(v128.store (i32.const 16) (f32x4.sqrt (v128.const f32x4 -1 1 1 1)))
		(local.set 48999 (local.get 0)) (local.get 48999)))`
	if got := both(t, instrumented(t, wat(t, text), Options{}), plenty, "f", 5); got.results != "5 " {
		t.Errorf("got %v", got)
	}
}

func TestInfo(t *testing.T) {
	text := `(module (import "a" "b" (func (param i32))) (memory (export "memory") 2 9) (func $s) (start $s) (func (export "g") (result f32) f32.const 1))`
	_, info, err := Module(wat(t, text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if info.MinPages != 2 || info.MaxPages != 9 || !info.HasMemory || !info.HasFloat || !info.HasStart || info.Functions != 2 ||
		len(info.Imports) != 1 || info.Imports[0].Name != "b" || len(info.Exports) != 2 || info.Exports[1].Name != "g" {
		t.Errorf("got %+v", info)
	}
}

func TestDeterministic(t *testing.T) {
	wasm := wat(t, sieve)
	before := bytes.Clone(wasm)
	a, b := instrumented(t, wasm, Options{}), instrumented(t, wasm, Options{})
	if !bytes.Equal(a, b) {
		t.Error("two runs differ")
	}
	if !bytes.Equal(before, wasm) {
		t.Error("the input was changed")
	}
	if _, _, err := Module(a, Options{}); err == nil {
		t.Error("an instrumented module was instrumented again")
	}
}

// TestSaved: what a run can change besides memory is in the globals that are named for it, or none are.
func TestSaved(t *testing.T) {
	table := `(module (memory 1) (table 2 funcref) (global (mut i32) (i32.const 7)) (global $k i32 (i32.const 8)) (global (mut i64) (i64.const 9)) %s
		(elem $e func 0) (data $d "x") (func (export "f") %s))`
	for _, tt := range []struct {
		name, text string
		want       int
	}{
		{"globals", fmt.Sprintf(table, "", ""), 4},
		{"reading tables and segments", fmt.Sprintf(table, "", "i32.const 0 table.get 0 drop table.size 0 drop i32.const 0 i32.const 0 i32.const 1 memory.init $d"), 4},
		{"bulk memory", fmt.Sprintf(table, "", "i32.const 0 i32.const 0 i32.const 1 memory.copy i32.const 0 i32.const 0 i32.const 1 memory.fill"), 4},
		{"float", fmt.Sprintf(table, "(global (mut f64) (f64.const 1))", ""), 0},
		{"vector", fmt.Sprintf(table, "(global (mut v128) (v128.const i64x2 1 1))", ""), 0},
		{"reference", fmt.Sprintf(table, "(global (mut funcref) (ref.null func))", ""), 0},
		{"fixed float", fmt.Sprintf(table, "(global f64 (f64.const 1))", ""), 4},
		{"table.set", fmt.Sprintf(table, "", "i32.const 0 ref.null func table.set 0"), 0},
		{"table.grow", fmt.Sprintf(table, "", "ref.null func i32.const 0 table.grow 0 drop"), 0},
		{"table.fill", fmt.Sprintf(table, "", "i32.const 0 ref.null func i32.const 0 table.fill 0"), 0},
		{"table.copy", fmt.Sprintf(table, "", "i32.const 0 i32.const 0 i32.const 0 table.copy"), 0},
		{"table.init", fmt.Sprintf(table, "", "i32.const 0 i32.const 0 i32.const 0 table.init $e"), 0},
		{"elem.drop", fmt.Sprintf(table, "", "elem.drop $e"), 0},
		{"data.drop", fmt.Sprintf(table, "", "data.drop $d"), 0},
		{"many globals", fmt.Sprintf(table, strings.Repeat("(global (mut i32) (i32.const 0))", maxSaved), ""), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := instrumented(t, wat(t, tt.text), Options{})
			_, info, err := Module(wat(t, tt.text), Options{})
			if err != nil || len(info.Exports) != 1 {
				t.Fatalf("got %v, %v", info, err)
			}
			got := bytes.Count(out, []byte(SavedPrefix))
			if got != tt.want {
				t.Errorf("got %d saved globals, want %d", got, tt.want)
			}
			for i := range got {
				if !bytes.Contains(out, []byte(SavedPrefix+strconv.Itoa(i))) {
					t.Errorf("got no %s%d, want no gap", SavedPrefix, i)
				}
			}
			both(t, out, plenty, "f") // both engines take it
		})
	}
}
