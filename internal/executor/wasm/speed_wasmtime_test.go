//go:build linux && cgo && (amd64 || arm64)

package wasm

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bytecodealliance/wasmtime-go/v43"

	"github.com/crowdcompute/crowd"
)

type slow struct {
	name, decl, locals, body string
	pages                    int
}

// slowGuests take long for what they pay, each with another instruction or host function.
func slowGuests() []slow {
	loop := func(n int, s string) string { return "(loop $l " + strings.Repeat(s, n) + " (br $l))" }
	lcg := "(local.set $i (i32.add (i32.mul (local.get $i) (i32.const 1664525)) (i32.const 1013904223)))"
	return []slow{
		{"empty loop", "", "", loop(1, ""), 1},
		{"f64.sqrt chain", "", "(local $x f64)", "(local.set $x (f64.const 1e300))" + loop(8, "(local.set $x (f64.sqrt (local.get $x)))"), 1},
		{"f64.sqrt stack chain", "", "(local $x f64)", "(local.set $x (f64.const 1e300))" + loop(1, "(local.set $x "+strings.Repeat("(f64.sqrt ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"f64.sqrt denormal chain", "", "(local $x f64)", loop(1, "(local.set $x (f64.const 5e-324)) (local.set $x "+strings.Repeat("(f64.mul (f64.const 1e-160) (f64.sqrt ", 64)+"(local.get $x)"+strings.Repeat("))", 64)+")"), 1},
		{"f64.div stack chain", "", "(local $x f64)", "(local.set $x (f64.const 1.7))" + loop(1, "(local.set $x "+strings.Repeat("(f64.div (f64.const 1.234) ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"f64.div denormal chain", "", "(local $x f64)", "(local.set $x (f64.const 5e-324))" + loop(1, "(local.set $x "+strings.Repeat("(f64.div (f64.const 3e-310) (f64.add (f64.const 1.1) ", 64)+"(local.get $x)"+strings.Repeat("))", 64)+")"), 1},
		{"f64.mul denormal chain", "", "(local $x f64)", "(local.set $x (f64.const 3e-310))" + loop(1, "(local.set $x "+strings.Repeat("(f64.mul (f64.const 1.0000001) ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"f64.add denormal chain", "", "(local $x f64)", "(local.set $x (f64.const 3e-310))" + loop(1, "(local.set $x "+strings.Repeat("(f64.add (f64.const 3e-310) ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"f64.mul to denormal", "", "(local $x f64)", "(local.set $x (f64.const 3e-150))" + loop(64, "(drop (i64.reinterpret_f64 (f64.mul (f64.const 1.3e-160) (local.get $x)))) (local.set $x (f64.add (local.get $x) (f64.const 1e-152)))"), 1},
		{"f32.sqrt chain", "", "(local $x f32)", "(local.set $x (f32.const 1e30))" + loop(1, "(local.set $x "+strings.Repeat("(f32.sqrt ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"f64.nearest+floor chain", "", "(local $x f64)", "(local.set $x (f64.const 1.7))" + loop(1, "(local.set $x "+strings.Repeat("(f64.nearest (f64.floor ", 32)+"(local.get $x)"+strings.Repeat("))", 32)+")"), 1},
		{"f64.min chain", "", "(local $x f64)", "(local.set $x (f64.const 1.7))" + loop(1, "(local.set $x "+strings.Repeat("(f64.min (f64.const 1.8) ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"i64.div_u chain", "", "(local $x i64) (local $y i64)", "(local.set $y (i64.const 3)) (local.set $x (i64.const -1))" + loop(16, "(local.set $x (i64.div_u (i64.const -17) (i64.or (i64.const 1) (local.get $x))))"), 1},
		{"i64.rem_s chain", "", "(local $x i64)", "(local.set $x (i64.const -1))" + loop(16, "(local.set $x (i64.rem_s (i64.const -1700000000000000) (i64.or (i64.const 1) (local.get $x))))"), 1},
		{"i32.div_s chain", "", "(local $x i32)", "(local.set $x (i32.const -1))" + loop(16, "(local.set $x (i32.div_s (i32.const -170000000) (i32.or (i32.const 1) (local.get $x))))"), 1},
		{"f64 trunc/convert chain", "", "(local $x i64)", "(local.set $x (i64.const -1))" + loop(1, "(local.set $x "+strings.Repeat("(i64.trunc_sat_f64_u (f64.convert_i64_u ", 32)+"(local.get $x)"+strings.Repeat("))", 32)+")"), 1},
		{"i64.mul chain", "", "(local $x i64)", "(local.set $x (i64.const -1))" + loop(1, "(local.set $x "+strings.Repeat("(i64.mul (i64.const 0x123456789abcdef) ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"call empty", "(func $g)", "", loop(16, "(call $g)"), 1},
		{"call recursive", "(func $g (param i32) (if (local.get 0) (then (call $g (i32.sub (local.get 0) (i32.const 1))))))", "", loop(1, "(call $g (i32.const 1000))"), 1},
		{"call 1000 params", "(func $g (param " + strings.Repeat("i32 ", 900) + "))", "", loop(1, "(call $g "+strings.Repeat("(i32.const 5)", 900)+")"), 1},
		{"call many locals", "(func $g (result i32) (local " + strings.Repeat("i32 ", 900) + ") (local.get 800))", "", loop(1, "(drop (call $g))"), 1},
		{"call_indirect", "(type $t (func)) (table 1 funcref) (elem (i32.const 0) $g) (func $g)", "", loop(16, "(call_indirect (type $t) (i32.const 0))"), 1},
		{"br_table random", "", "(local $i i32)", loop(1, lcg+"(block (block (block (block (block (block (block (block (br_table 0 1 2 3 4 5 6 7 (i32.shr_u (local.get $i) (i32.const 29))))))))))) "), 1},
		{"br_if random", "", "(local $i i32)", loop(8, lcg+"(block (br_if 0 (i32.and (i32.const 1) (i32.shr_u (local.get $i) (i32.const 29)))) (local.set $i (i32.add (local.get $i) (i32.const 1))))"), 1},
		{"loads random 64 MiB", "", "(local $i i32)", loop(8, "(local.set $i (i32.add (i32.mul (local.get $i) (i32.const 1664525)) (i32.add (i32.const 1013904223) (i32.load (i32.and (local.get $i) (i32.const 0x3fffffc))))))"), 1025},
		{"stores random 64 MiB", "", "(local $i i32)", loop(8, lcg+"(i32.store (i32.and (local.get $i) (i32.const 0x3fffffc)) (local.get $i))"), 1025},
		{"stores first touch 256 MiB", "", "(local $i i32)", loop(1, "(i32.store (local.get $i) (i32.const 1)) (local.set $i (i32.and (i32.add (local.get $i) (i32.const 4096)) (i32.const 0xfffffff)))"), 4097},
		{"memory.grow 1", "", "", loop(1, "(drop (memory.grow (i32.const 1)))"), 1},
		{"memory.grow 0", "", "", loop(8, "(drop (memory.grow (i32.const 0)))"), 1},
		{"memory.grow fail", "", "", loop(8, "(drop (memory.grow (i32.const 65535)))"), 1},
		{"memory.size", "", "", loop(16, "(drop (memory.size))"), 1},
		{"memory.copy 0", "", "", loop(8, "(memory.copy (i32.const 0) (i32.const 8) (i32.const 0))"), 1},
		{"memory.copy 64", "", "", loop(8, "(memory.copy (i32.const 0) (i32.const 80) (i32.const 64))"), 1},
		{"memory.copy 32 MiB", "", "", loop(1, "(memory.copy (i32.const 0x2000000) (i32.const 3) (i32.const 0x2000000))"), 1025},
		{"memory.fill 1 MiB", "", "", loop(1, "(memory.fill (i32.const 0) (i32.const 3) (i32.const 0x100000))"), 1025},
		{"memory.fill 1", "", "", loop(8, "(memory.fill (i32.const 0) (i32.const 3) (i32.const 1))"), 1025},
		{"memory.fill 60 MiB", "", "", loop(1, "(memory.fill (i32.const 0) (i32.const 3) (i32.const 60000000))"), 1025},
		{"memory.init 1", "(data $d \"abcd\")", "", loop(8, "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))"), 1},
		{"table.get/set", "(table 10 funcref) (elem declare func $s)", "", loop(8, "(table.set 0 (i32.const 1) (table.get 0 (i32.const 2)))"), 1},
		{"table.grow 0", "(table 10 externref)", "", loop(8, "(drop (table.grow 0 (ref.null extern) (i32.const 0)))"), 1},
		{"table.grow 1", "(table 10 externref)", "", loop(8, "(drop (table.grow 0 (ref.null extern) (i32.const 1)))"), 1},
		{"table.fill 10000", "(table 10000 funcref)", "", loop(1, "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 10000))"), 1},
		{"table.copy 10000", "(table 20000 funcref)", "", loop(1, "(table.copy 0 0 (i32.const 0) (i32.const 10000) (i32.const 10000))"), 1},
		{"table.copy 0", "(table 20000 funcref)", "", loop(8, "(table.copy 0 0 (i32.const 0) (i32.const 10000) (i32.const 0))"), 1},
		{"ref.func", "(elem declare func $s)", "", loop(16, "(drop (ref.is_null (ref.func $s)))"), 1},
		{"global get/set", "(global $g (mut i64) (i64.const 0))", "", loop(16, "(global.set $g (i64.add (global.get $g) (i64.const 1)))"), 1},
		{"f64x2.mul denormal chain", "", "(local $x v128)", "(local.set $x (v128.const f64x2 3e-310 3e-310))" + loop(1, "(local.set $x "+strings.Repeat("(f64x2.mul (v128.const f64x2 1.0000001 1.0000001) ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"f32 denormal promoted", "", "(local $x f64)", "(local.set $x (f64.const 3e-40))" + loop(16, "(local.set $x (f64.promote_f32 (f32.demote_f64 (local.get $x))))"), 1},
		{"f64x2.sqrt chain", "", "(local $x v128)", loop(1, "(local.set $x "+strings.Repeat("(f64x2.sqrt ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"f64x2.div chain", "", "(local $x v128)", "(local.set $x (v128.const f64x2 1.234 2.345))" + loop(1, "(local.set $x "+strings.Repeat("(f64x2.div (v128.const f64x2 1.234 2.345) ", 64)+"(local.get $x)"+strings.Repeat(")", 64)+")"), 1},
		{"i64x2.mul+popcnt chain", "", "(local $x v128)", "(local.set $x (v128.const f64x2 1.234 2.345))" + loop(1, "(local.set $x "+strings.Repeat("(i8x16.popcnt (i64x2.mul (v128.const f64x2 1.234 2.345) ", 32)+"(local.get $x)"+strings.Repeat("))", 32)+")"), 1},
		{"i8x16.swizzle/shl chain", "", "(local $x v128)", "(local.set $x (v128.const f64x2 1.234 2.345))" + loop(1, "(local.set $x "+strings.Repeat("(i8x16.shr_s (i64x2.shr_s ", 32)+"(local.get $x)"+strings.Repeat("(i32.const 1)) (i32.const 1))", 32)+")"), 1},
		{"f64 min/copysign/store nan", "", "(local $x f64)", "(local.set $x (f64.const nan))" + loop(16, "(f64.store (i32.const 8) (f64.add (local.get $x) (local.get $x)))"), 1},
		{"args_sizes_get", `(import "wasi_snapshot_preview1" "args_sizes_get" (func $h (param i32 i32) (result i32)))`, "", loop(8, "(drop (call $h (i32.const 0) (i32.const 8)))"), 1},
		{"args_get", `(import "wasi_snapshot_preview1" "args_get" (func $h (param i32 i32) (result i32)))`, "", loop(8, "(drop (call $h (i32.const 0) (i32.const 8000)))"), 1},
		{"clock_time_get", `(import "wasi_snapshot_preview1" "clock_time_get" (func $h (param i32 i64 i32) (result i32)))`, "", loop(8, "(drop (call $h (i32.const 0) (i64.const 0) (i32.const 8)))"), 1},
		{"sched_yield", `(import "wasi_snapshot_preview1" "sched_yield" (func $h (result i32)))`, "", loop(8, "(drop (call $h))"), 1},
		{"random_get 1", `(import "wasi_snapshot_preview1" "random_get" (func $h (param i32 i32) (result i32)))`, "", loop(8, "(drop (call $h (i32.const 0) (i32.const 1)))"), 1},
		{"random_get 64K", `(import "wasi_snapshot_preview1" "random_get" (func $h (param i32 i32) (result i32)))`, "", loop(1, "(drop (call $h (i32.const 0) (i32.const 65536)))"), 1},
		{"poll_oneoff 1", `(import "wasi_snapshot_preview1" "poll_oneoff" (func $h (param i32 i32 i32 i32) (result i32)))`, "", loop(8, "(drop (call $h (i32.const 0) (i32.const 8000) (i32.const 1) (i32.const 16)))"), 1},
		{"poll_oneoff 1024", `(import "wasi_snapshot_preview1" "poll_oneoff" (func $h (param i32 i32 i32 i32) (result i32)))`, "", loop(1, "(drop (call $h (i32.const 0) (i32.const 65536) (i32.const 1024) (i32.const 16)))"), 3},
		{"fd_write 0 vectors", `(import "wasi_snapshot_preview1" "fd_write" (func $h (param i32 i32 i32 i32) (result i32)))`, "", loop(8, "(drop (call $h (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 16)))"), 1},
		{"fd_write 1 byte", `(import "wasi_snapshot_preview1" "fd_write" (func $h (param i32 i32 i32 i32) (result i32)))`, "", "(i32.store (i32.const 4) (i32.const 1))" + loop(8, "(drop (call $h (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))"), 1},
		{"fd_write 1024 empty vectors", `(import "wasi_snapshot_preview1" "fd_write" (func $h (param i32 i32 i32 i32) (result i32)))`, "", loop(1, "(drop (call $h (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 16)))"), 1},
		{"fd_write 1024 vectors of 1", `(import "wasi_snapshot_preview1" "fd_write" (func $h (param i32 i32 i32 i32) (result i32)))`, "(local $i i32)", "(loop $m (i32.store (i32.add (local.get $i) (i32.const 4)) (i32.const 1)) (local.set $i (i32.add (local.get $i) (i32.const 8))) (br_if $m (i32.lt_u (local.get $i) (i32.const 8192))))" + loop(1, "(drop (call $h (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 9000)))"), 1},
		{"fd_write 64K", `(import "wasi_snapshot_preview1" "fd_write" (func $h (param i32 i32 i32 i32) (result i32)))`, "", "(i32.store (i32.const 4) (i32.const 65536))" + loop(1, "(drop (call $h (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))"), 1},
		{"path_open missing", `(import "wasi_snapshot_preview1" "path_open" (func $h (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))(data (i32.const 0) "tmp/x")`, "", loop(8, "(drop (call $h (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 0) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 16)))"), 1},
		{"path_open close tmp", `(import "wasi_snapshot_preview1" "path_open" (func $h (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))(import "wasi_snapshot_preview1" "fd_close" (func $c (param i32) (result i32)))(data (i32.const 0) "tmp/x")`, "", loop(8, "(drop (call $h (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 1) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 16))) (drop (call $c (i32.load (i32.const 16))))"), 1},
		{"path_filestat long path", `(import "wasi_snapshot_preview1" "path_filestat_get" (func $h (param i32 i32 i32 i32 i32) (result i32)))(data (i32.const 0) "` + strings.Repeat("tmp/../", 140) + `")`, "", loop(8, "(drop (call $h (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 980) (i32.const 2000)))"), 1},
	}
}

// module is the program.
func (g slow) module(t testing.TB) []byte {
	text := "(module "
	decl := g.decl
	text += decl
	text += fmt.Sprintf(`(memory (export "memory") %d) (func $s (export "_start") %s %s))`, g.pages, g.locals, g.body)
	b, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		t.Fatalf("%s: %v", g.name, err)
	}
	return b
}

// Whatever a program does, it has used up its gas long before a job's least wall time is over: that allows for 250 Mgas/s, and
// more for memory. Otherwise it would end as a fault of its executors, unpaid.
func TestPrice_NothingIsMuchSlowerThanItsGas(t *testing.T) {
	const (
		gas   = 25_000_000
		speed = 250_000_000 // gas a second
		slack = 3           // for the slowest, and for a machine that is busy with other things
	)
	made, err := newWasmtime()
	if err != nil {
		t.Fatal(err)
	}
	e := made.(*wasmtimeEngine)
	for _, g := range slowGuests() {
		module, _, err := prepare(g.module(t))
		if err != nil {
			t.Fatalf("%s: %v", g.name, err)
		}
		m, err := wasmtime.NewModule(e.engine, module)
		if err != nil {
			t.Fatalf("%s: %v", g.name, err)
		}
		p := &wasmtimeProgram{e, m, map[string]bool{startExport: true}}
		out, err := os.CreateTemp(t.TempDir(), "out")
		if err != nil {
			t.Fatal(err)
		}
		took := func() time.Duration {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			h := newHost([]string{"a", "b"}, nil, crowd.Hash{}, 1<<40, newTree(nil, false), nil, file(out.Fd()), &memory{})
			r, err := p.open(1 << 31)
			if err != nil {
				t.Fatalf("%s: %v", g.name, err)
			}
			defer r.close()
			r.setGas(gas)
			before := threadTime(t)
			err = r.call(startExport, h)
			took := threadTime(t) - before
			if r.gas() >= 0 {
				t.Errorf("%s: got %v with %d gas left, want it out of gas", g.name, err, r.gas())
			}
			return took
		}()
		out.Close()
		least := time.Second*gas/speed + time.Second*time.Duration(g.pages)/1024 // 64 MiB a second
		t.Logf("%-32s %8.0f Mgas/s", g.name, gas/1e6/took.Seconds())
		if took > slack*least {
			t.Errorf("%s: %d gas took %v, want at most %d times %v", g.name, gas, took, slack, least)
		}
	}
}
