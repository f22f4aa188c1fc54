package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// commands are those of docs/jobs.md with what they printed.
func commands(t *testing.T, name string, want int) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/jobs.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, block := range strings.Split(string(page), "```\n$ ")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		if lines := strings.Split(block, "\n"); strings.HasPrefix(lines[0], name) {
			all[lines[0]] = lines[1:]
		}
	}
	if len(all) != want {
		t.Fatalf("got %d times %q in docs/jobs.md, want %d", len(all), name, want)
	}
	return all
}

func simulate(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, talk bytes.Buffer
	if code := run(context.Background(), env{args: args, stdout: &out, stderr: &talk, getenv: func(string) string { return "" }}); code != exitDone {
		t.Fatalf("%q: exit code %d: %s", args, code, talk.String())
	}
	return out.Bytes()
}

// instead is args with that value of a flag, which they may have already.
func instead(args []string, flag, value string) []string {
	args = slices.Clone(args)
	if at := slices.Index(args, flag); at >= 0 {
		args = slices.Delete(args, at, at+2)
	}
	return append(args, flag, value)
}

// TestSimJobs_KeepsThePage plays what docs/jobs.md shows, on a small scale: the stated chances are the
// same, the measured ones and the gains are those of the page as far as so few batches can say. At night it
// plays the commands themselves and wants the very same lines.
func TestSimJobs_KeepsThePage(t *testing.T) {
	for command, lines := range commands(t, "crowd sim jobs --strategy", 2) {
		t.Run(command, func(t *testing.T) {
			args := strings.Fields(command)[1:]
			if os.Getenv("CROWD_NIGHT") != "" {
				if got := strings.TrimSuffix(string(simulate(t, args...)), "\n"); got != strings.Join(lines, "\n") {
					t.Errorf("the page is not what the command prints: got\n%s", got)
				}
				return
			}
			const jobs = 400
			var both simJobsResult
			if err := json.Unmarshal(simulate(t, append(instead(args, "--jobs", fmt.Sprint(jobs)), "--nodes", "200", "--json")...), &both); err != nil {
				t.Fatal(err)
			}
			small := both.Strategies
			if len(small) != len(lines)-1 {
				t.Fatalf("got %d lines, the page has %d", len(small), len(lines)-1)
			}
			for i, s := range small {
				page := columns(lines[0], lines[1+i])
				where := fmt.Sprintf("%s %s %s", page["STRATEGY"], page["SHARE"], page["RATE"])
				if page["STRATEGY"] != s.Config.Strategy || page["SHARE"] != fmt.Sprintf("%g", s.Config.Byzantine) {
					t.Fatalf("line %d is about %s, got %s %g", i, where, s.Config.Strategy, s.Config.Byzantine)
				}
				if page["SLASHED"] != "0" || s.HonestSlashes != 0 {
					t.Errorf("%s: %d honest nodes lost their stake, %s on the page", where, s.HonestSlashes, page["SLASHED"])
				}
				if page["STATED"] != chanceShort(s.Stated) {
					t.Errorf("%s: stated %s, on the page %s", where, chanceShort(s.Stated), page["STATED"])
				}
				if s.Accepted.Of > 0 && page["RATE"] != "-" {
					if page["ESCAPE"] != chanceShort(s.Guarantee) {
						t.Errorf("%s: escape %s, on the page %s", where, chanceShort(s.Guarantee), page["ESCAPE"])
					}
					p, n := number(t, page["PASSED"]), float64(s.Accepted.Of)
					if math.Abs(s.Accepted.Rate-p) > 5*math.Sqrt(p*(1-p)/n)+5/n {
						t.Errorf("%s: %.4f of the lies passed, on the page %.4f", where, s.Accepted.Rate, p)
					}
				}
				if gain := number(t, page["GAIN"]); s.Acted > 0 && gain != 0 && gain > 0 != (s.Gain > 0) {
					t.Errorf("%s: a gain of %.3f, on the page %.3f", where, s.Gain, gain)
				}
			}
		})
	}
}

// TestSimJobs_KeepsThePageOfAttacks holds the lines of the attacks: no honest node is slashed on the page or in a small play of the same
// worlds, and where the page says that an attack loses, it loses. At night the commands are played and want the very same lines.
func TestSimJobs_KeepsThePageOfAttacks(t *testing.T) {
	for command, lines := range commands(t, "crowd sim jobs --attack", 2) {
		t.Run(command, func(t *testing.T) {
			args := strings.Fields(command)[1:]
			if os.Getenv("CROWD_NIGHT") != "" {
				if got := strings.TrimSuffix(string(simulate(t, args...)), "\n"); got != strings.Join(lines, "\n") {
					t.Errorf("the page is not what the command prints: got\n%s", got)
				}
				return
			}
			if at := slices.Index(args, "all"); at >= 0 { // some of them
				args[at] = "fee-drainer,cancel-grinder,disk-filler"
				args = append(args, "--plan", "pair")
			}
			var small simJobsResult
			if err := json.Unmarshal(simulate(t, append(instead(args, "--raid-jobs", "6"), "--json")...), &small); err != nil {
				t.Fatal(err)
			}
			seen := 0
			for _, line := range lines[1:] {
				page := strings.Fields(line)
				for _, got := range small.Attacks {
					if strings.Join(got.Config.Attacks, "+") != page[0] || got.Config.Plan != page[1] {
						continue
					}
					seen++
					if got.HonestSlashes != 0 {
						t.Errorf("%s %s: %d honest nodes lost their stake", page[0], page[1], got.HonestSlashes)
					}
					if profit := number(t, page[6]); profit < -0.01 && got.Profit > 0 {
						t.Errorf("%s %s: a profit of %.4f, on the page %.4f", page[0], page[1], got.Profit, profit)
					}
					if stated := page[5]; stated != "-" && stated != chanceShort(got.Stated) {
						t.Errorf("%s %s: stated %s, on the page %s", page[0], page[1], chanceShort(got.Stated), stated)
					}
				}
			}
			if seen != len(small.Attacks) || seen == 0 {
				t.Errorf("%d of %d lines are on the page", seen, len(small.Attacks))
			}
		})
	}
}

func TestSimAudits_KeepsThePage(t *testing.T) {
	for command, lines := range commands(t, "crowd sim audits", 4) {
		if got := strings.TrimSuffix(string(simulate(t, strings.Fields(command)[1:]...)), "\n"); got != strings.Join(lines, "\n") {
			t.Errorf("%s: the page is not what the command prints: got\n%s", command, got)
		}
	}
}

// columns are the cells of a line of a table whose columns begin where their headings do.
func columns(head, line string) map[string]string {
	cells := map[string]string{}
	for _, name := range strings.Fields(strings.ReplaceAll(head, "95 %", "95%")) {
		at := strings.Index(strings.ReplaceAll(head, "95 %", "95% "), name)
		cell := line[min(at, len(line)):]
		cell, _, _ = strings.Cut(cell, "  ")
		cells[name] = cell
	}
	return cells
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// An interrupt ends the play, and what was seen until then is printed.
func TestSimJobs_PrintsWhatThereIs(t *testing.T) {
	interrupts := make(chan os.Signal, 2)
	var out, talk bytes.Buffer
	e := env{args: strings.Fields("sim jobs --jobs 100000000 --nodes 100 --strategy cheat --json"), stdout: &out, stderr: &talk,
		getenv: func(string) string { return "" }, interrupts: interrupts}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, e) }()
	interrupts <- os.Interrupt
	if code := <-ended; code != exitFailed || !strings.Contains(talk.String(), "interrupted") {
		t.Errorf("got exit code %d and %q", code, talk.String())
	}
	var scores simJobsResult
	if err := json.Unmarshal(out.Bytes(), &scores); err != nil || len(scores.Strategies) > 1 {
		t.Errorf("got %q, %v: want a scoreboard", out.String(), err)
	}
}
