package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// What is no text is not thrown at a terminal, and that is said once.
func TestTextOnly(t *testing.T) {
	var out strings.Builder
	said := 0
	w := &textOnly{w: &out, skipped: func() { said++ }}
	for _, s := range []string{"a line\n", "\x89PNG\x00", "IDAT", "\x00"} {
		if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("got %d, %v of %q", n, err, s)
		}
	}
	if out.String() != "a line\n" || said != 1 {
		t.Errorf("got %q, said %d times", out.String(), said)
	}
}

// TestPrintChecks_SaysWhatTheTwoChancesAre shows that a batch's receipt does not leave two numbers side by side
// unexplained.
func TestPrintChecks_SaysWhatTheTwoChancesAre(t *testing.T) {
	batch := []Check{{"map shard 1: verdict", true, "3 verifiers committed; a cheater escapes with 1 in 117"},
		{"map shard 1: chance", true, "4 nodes held a place: an executor that gets a tenth of its items wrong " +
			"escapes with a chance of 1 in 1e3"}}
	task := []Check{{"verdict", true, "2 drawn executors revealed the same " +
		"outcome"}, {"chance", true, "2 nodes held a place: a wrong result passes with 1 in 100"}}
	for _, tt := range []struct {
		name   string
		checks []Check
		want   bool
	}{{"a batch", batch, true}, {"a task", task, false}} {
		var out bytes.Buffer
		printChecks(&out, tt.checks)
		if got := strings.Contains(out.String(), "of the two chances"); got != tt.want {
			t.Errorf("%s: got %q", tt.name, out.String())
		}
	}
}

// TestStages_FolderTellsHowFarItIs shows that many small files are not uploaded in silence, and few without a word.
func TestStages_FolderTellsHowFarItIs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files int
		want  string
	}{
		{"few", 3, ""},
		{"many", 1000, "uploading 1000 files, 1000 B\nuploaded all files; the node puts them in its store\n"},
	} {
		var out bytes.Buffer
		st := (&app{env: env{stderr: &out}}).newStages(false)
		tell := st.folder(rpc.FolderSize{Files: tt.files, Bytes: int64(tt.files)})
		for range tt.files {
			if tell != nil {
				tell(0, 1)
				tell(1, 0)
			}
		}
		st.done()
		if out.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, out.String(), tt.want)
		}
	}
}

// TestPlan_AssumesTheGasThatMapGives shows that the plan of few items is the one that crowd map would show.
func TestPlan_AssumesTheGasThatMapGives(t *testing.T) {
	for _, tt := range []struct {
		items uint64
		gas   crowd.Gas
		says  string
	}{
		{pilotItems, fewGas, "at most 1 Ggas for an item, as crowd map gives so few items"},
		{pilotItems + 1, planGas, "at most 100 Mgas for an item; say it with --gas"},
	} {
		p, wish := stagePlan{indexed: indexed{Items: tt.items}}, stageWish{auto: true}
		p.assumeGas(&wish)
		if wish.request.Limits.Gas != tt.gas || len(p.Assumed) != 1 || !strings.HasPrefix(p.Assumed[0], tt.says) {
			t.Errorf("%d items: got %d gas, %q; want %d, %q",
				tt.items, wish.request.Limits.Gas, p.Assumed, tt.gas, tt.says)
		}
	}
}
