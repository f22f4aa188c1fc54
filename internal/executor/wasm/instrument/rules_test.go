package instrument

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
)

// TestRules: whatever decides an outcome here has a number on chain. It fails when a price, a bound or what is made of a module
// differs from what the number stands for.
func TestRules(t *testing.T) {
	h := sha256.New()
	for _, table := range [][]opcode{opcodes[:], bulk[:], vector[:]} {
		for i, o := range table {
			fmt.Fprintf(h, "%d %d %d %d %q %q %d\n", i, o.imm, o.cost, o.nan, o.in, o.out, o.limit)
		}
	}
	fmt.Fprintln(h, costFrame, costBulk, bulkBytesShift, costTableElement, costGrow, costPage, costCode, effortFree, effortSpare, costBegin, uncheckedGas, frameUnit)
	fmt.Fprintln(h, effortByte, effortFunction, effortType, effortValue, effortLabel, effortCall, effortTable, effortBulk, effortGrow, maxEffort, maxEfforts)
	fmt.Fprintln(h, maxTypes, maxImports, maxFunctions, maxTables, maxGlobals, maxExports, maxSegments, maxName, maxValues, maxLocals, maxBodyOut, maxNesting, maxLabels, maxSaved, maxPages, maxWork, MaxTable, Options{}.withDefaults())
	modules, err := filepath.Glob("testdata/rules/*.wasm")
	if err != nil || len(modules) < 2 {
		t.Fatalf("got %v, %v, want some modules", modules, err)
	}
	for _, path := range modules {
		wasm, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out, info, err := Module(wasm, Options{})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		fmt.Fprintf(h, "%x %+v\n", sha256.Sum256(out), info)
	}
	golden(t, "testdata/rules/golden", hex.EncodeToString(h.Sum(nil)))
}

// golden holds the rules to the hash that stands for crowd.RulesVersion in a file: a line for each number. Where UPDATE_SPEC is
// set it adds the line of a new number; none that is there is ever changed.
func golden(t *testing.T, path, hash string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var number uint32
		var want string
		if _, err := fmt.Sscan(line, &number, &want); err != nil {
			t.Fatalf("%s: line %q: %v", path, line, err)
		}
		switch {
		case number != crowd.RulesVersion:
		case want == hash:
			return
		default:
			t.Fatalf("the rules that decide outcomes are no longer those of crowd.RulesVersion %d (hash %s, want %s).\n"+
				"If that is not meant, undo it: honest nodes of two builds would come to different outcomes, and lose their stakes.\n"+
				"If it is, raise crowd.RulesVersion by one in rules.go and run the tests of internal/executor/wasm/... once with UPDATE_SPEC=1,\n"+
				"which adds a line to %s. Networks go over to the number when their genesis names it. Only a line that is in no release may go.", number, hash, want, path)
		}
	}
	if os.Getenv("UPDATE_SPEC") == "" {
		t.Fatalf("%s has no line for crowd.RulesVersion %d: run this test once with UPDATE_SPEC=1, if the number is new", path, crowd.RulesVersion)
	}
	if err := os.WriteFile(path, fmt.Appendf(text, "%d %s\n", crowd.RulesVersion, hash), 0o644); err != nil {
		t.Fatal(err)
	}
}
