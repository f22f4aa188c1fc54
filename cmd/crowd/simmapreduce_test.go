package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd/internal/sim/volatile"
)

// At night the command of docs/mapreduce.md is played and must print the very same lines.
func TestSimMapReduce_KeepsThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/mapreduce.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```\n$ ")
	if len(blocks) < 2 {
		t.Fatal("docs/mapreduce.md shows no command")
	}
	for _, block := range blocks[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		command, lines, _ := strings.Cut(block, "\n")
		args := strings.Fields(command)[1:]
		if os.Getenv("CROWD_NIGHT") != "" {
			if got := strings.TrimSuffix(string(simulate(t, args...)), "\n"); got != lines {
				t.Errorf("the page is not what %s prints: got\n%s", command, got)
			}
			continue
		}
		var r []volatile.Result
		out := simulate(t, append(args[:2:2], "--providers", "20", "--maps", "2", "--reduces", "1", "--away", "0.1", "--way", "adaptive", "--json")...)
		if err := json.Unmarshal(out, &r); err != nil || len(r) != 1 || r[0].Complete != 1 || r[0].Wrong != 0 {
			t.Errorf("got %s, %v: want a map-reduce that is done", out, err)
		}
	}
}
