//go:build linux

package wasm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/job"
)

// TestRules: whatever decides an outcome beside what package instrument does has a number on chain. It fails when a host function,
// its price, a bound that programs can see, or the encoding of an outcome differs from what the number stands for.
func TestRules(t *testing.T) {
	h := sha256.New()
	for _, f := range functions {
		params, results := f.types()
		fmt.Fprintf(h, "%s %x %x %d\n", f.name, params, results, f.gas)
	}
	fmt.Fprintln(h, gasCall, gasFile, gasPath, gasCreate, gasEntry, gasVector, gasByte, gasWrite, gasString, uint64(maxGas))
	fmt.Fprintln(h, uint64(epoch), tick, uint64(maxLinear), executor.MaxProgram, maxVectors, maxSubscription)
	fmt.Fprintln(h, maxNodes, maxInputs, maxFDs, maxName, maxPath, maxMade, maxDepth, maxTmp, maxInDepth)
	fmt.Fprintln(h, executor.LayOut(1, 0), executor.LayOut(0, 1), executor.Unusable, executor.Share(10, 3), executor.MaxItemStdin, executor.MaxItemOutput, uint64(job.MaxInput))
	p := price{Code: 10, Begin: 1000}
	fmt.Fprintln(h, p.start(&executor.Spec{Spent: 100_000, Shares: 3}), startExport, initExport, itemExport)
	// Runs from the first byte to the outcome; openings and their commitments; the leaves of batches, and how their outputs are split.
	for _, file := range []string{"wasm.json", "commitment.json", "shuffle.json"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "spec", "vectors", file))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %x\n", file, sha256.Sum256(text))
	}
	goldenRules(t, filepath.Join("testdata", "rules"), hex.EncodeToString(h.Sum(nil)))
}

// goldenRules holds the rules to the hash that stands for crowd.RulesVersion in a file: a line for each number. Where UPDATE_SPEC is
// set it adds the line of a new number; none that is there is ever changed.
func goldenRules(t *testing.T, path, hash string) {
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
