package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crowdcompute/crowd/internal/verify"
)

// The whole way on real parts: crowd map over a local network in which one node gets a fifth of its items wrong. What comes
// out is what this machine computes itself, the poison line is named, the liar is caught, and the receipts check.
func TestMap_OnRealPartsWithALiar(t *testing.T) {
	home, err := os.MkdirTemp("", "crowd") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	program := filepath.Join(home, "fnv.wasm")
	if said, err := exec.Command("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-o", program, "../../internal/node/testdata/fnv.c").CombinedOutput(); err != nil {
		t.Skipf("the guest cannot be built here: %v: %s", err, said)
	}
	getenv := func(name string) string { return map[string]string{"HOME": home}[name] }
	net, err := startNetwork(getenv)(t.Context(), upConfig{Dir: localDir(t, getenv), Providers: 7,
		Cheat: "wrong-items"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	}()
	crowd := func(args ...string) (int, string, string) {
		var out, talk bytes.Buffer
		code := run(t.Context(), env{args: args, stdout: &out, stderr: &talk, getenv: getenv, verifyReceipt: verifyReceipt(getenv), itemReceipt: itemReceipt})
		return code, out.String(), talk.String()
	}
	const poison = 777
	lines := 2000
	if os.Getenv("CROWD_NIGHT") != "" {
		lines = 1_000_000
	}
	var text, want strings.Builder
	for i := range lines {
		line := fmt.Sprintf("line %d of a text with some words\n", i)
		if i == poison {
			line = "a poison line\n"
		}
		text.WriteString(line)
		h := fnv.New32a()
		io.WriteString(h, line)
		if i != poison {
			fmt.Fprintf(&want, "%08x\n", h.Sum32())
		}
	}
	in := filepath.Join(home, "in.txt")
	if err := os.WriteFile(in, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	var sum mapSummary
	var dir string
	for round, caught := 0, false; !caught; round++ {
		if round == 8 {
			t.Fatal("the liar was not drawn in 8 maps")
		}
		out := filepath.Join(home, fmt.Sprintf("out%d", round))
		dir = out + ".map"
		// 0.9 takes so few verifiers that there are nodes enough without the liar.
		code, said, talk := crowd("map", program, in, "--by", "lines=1", "--out", out, "--json", "--confidence", "0.9", "--allow-failed")
		if code != exitDone {
			t.Fatalf("got code %d: %s", code, talk)
		}
		sum = mapSummary{}
		if err := json.Unmarshal([]byte(said), &sum); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want.String() {
			t.Fatalf("the outputs are not those of this machine: %d bytes, want %d", len(got), want.Len())
		}
		if sum.Items != uint64(lines) || sum.Failed != 1 || sum.Failures[0].Item != poison || sum.Failures[0].ExitCode != 3 || sum.Failures[0].Stderr != "poison\n" ||
			!strings.HasSuffix(sum.Failures[0].Name, fmt.Sprintf("in.txt:%d", poison+1)) {
			t.Fatalf("got %+v", sum)
		}
		t.Logf("%d items, %d shards, %d lost, %d convicted, overhead %.3f, paid %s, %d ms", sum.Items, sum.Shards, sum.Lost, sum.Convicted, sum.Overhead, sum.Paid, sum.WallMillis)
		caught = sum.Convicted > 0
	}
	if sum.Convicted != 1 {
		t.Errorf("%d nodes were convicted, there is one liar", sum.Convicted)
	}
	// A reducer that wants more memory than it may have fails, is named with its partition, and the flow ends.
	build := func(name, source string) string {
		out := filepath.Join(home, name)
		if said, err := exec.Command("clang-14", "--target=wasm32-wasi", "--sysroot=/usr", "-O2", "-o", out, source).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		return out
	}
	few := filepath.Join(home, "few.txt")
	first, _, _ := strings.Cut(text.String(), "line 2000 ")
	if err := os.WriteFile(few, []byte(first), 0o644); err != nil { // a partition holds a key's lines, 1 MiB
		t.Fatal(err)
	}
	code, said, talk := crowd("map", build("words.wasm", "../../internal/node/testdata/words.c"), few, "--by", "lines=1000", "--reduce", build("hog.wasm", "testdata/hog.c"), "--memory", "2MiB",
		"--out", filepath.Join(home, "hog"), "--gas", "100M", "--confidence", "0.9", "--allow-failed", "--json")
	var hog mapSummary
	if err := json.Unmarshal([]byte(said), &hog); code != exitDone || err != nil || len(hog.Failures) == 0 {
		t.Fatalf("got code %d, %v: %s", code, err, talk)
	}
	for _, f := range hog.Failures {
		if !strings.HasPrefix(f.Name, "reduce: partition ") && f.Stderr != "poison\n" || strings.HasPrefix(f.Name, "reduce: ") && f.Status != "trapped" {
			t.Errorf("got %+v", f)
		}
	}
	code, said, talk = crowd("receipt", "verify", dir)
	if code != exitDone || !strings.Contains(said, "map shard 2: leaves") {
		t.Errorf("got code %d: %s%s", code, said, talk)
	}
	code, proof, talk := crowd("receipt", "item", dir, "--item", fmt.Sprint(poison))
	if code != exitDone {
		t.Fatalf("got code %d: %s", code, talk)
	}
	file := filepath.Join(home, "proof.json")
	for _, c := range []struct {
		name   string
		change func(*verify.ItemReceipt)
		code   int
	}{
		{"as it is", func(*verify.ItemReceipt) {}, exitDone},
		{"another output", func(r *verify.ItemReceipt) { r.Item.Stderr = []byte("fine\n") }, exitFailed},
		{"another status", func(r *verify.ItemReceipt) { r.Item.ExitCode = 0 }, exitFailed},
		{"another item", func(r *verify.ItemReceipt) { r.Item.Index++ }, exitFailed},
		{"another root", func(r *verify.ItemReceipt) { r.Receipt.Summary.Batch.Root[0] ^= 1 }, exitFailed},
		{"a cut proof", func(r *verify.ItemReceipt) { r.Item.Proof = r.Item.Proof[:len(r.Item.Proof)-1] }, exitFailed},
	} {
		r, err := verify.DecodeItem([]byte(proof))
		if err != nil {
			t.Fatal(err)
		}
		c.change(r)
		if err := os.WriteFile(file, r.Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
		if code, said, talk := crowd("receipt", "verify", file); code != c.code {
			t.Errorf("%s: got code %d want %d: %s%s", c.name, code, c.code, said, talk)
		}
	}
	leaves := filepath.Join(dir, "map", "shard-00001", "leaves")
	raw, err := os.ReadFile(leaves)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	if err := os.WriteFile(leaves, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, said, _ := crowd("receipt", "verify", dir); code != exitFailed || !strings.Contains(said, "these leaves are not those under the root") {
		t.Errorf("other leaves: got code %d: %s", code, said)
	}
	id := sum.Jobs[len(sum.Jobs)-1].String()
	if code, said, talk := crowd("job", "describe", id, "--samples"); code != exitDone || !strings.Contains(said, "verifier") || !strings.Contains(said, "re-ran the items [") ||
		!strings.Contains(said, "accepted by sample") { // the liar may be one of its verifiers
		t.Errorf("describe: got code %d: %s%s", code, said, talk)
	}
}

// Words counted by count and summed up by sum, in partitions, are the words of the text.
func TestMap_ReduceOnRealParts(t *testing.T) {
	if os.Getenv("CROWD_NIGHT") == "" {
		t.Skip("long: CROWD_NIGHT=1 runs it")
	}
	home, err := os.MkdirTemp("", "crowd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	for _, p := range []string{"count", "sum"} {
		c := exec.Command("go", "build", "-o", filepath.Join(home, p+".wasm"), "../../programs/"+p)
		c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if said, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
	}
	getenv := func(name string) string { return map[string]string{"HOME": home}[name] }
	net, err := startNetwork(getenv)(t.Context(), upConfig{Dir: localDir(t, getenv), Providers: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	counts := map[string]int{}
	for f := range 3 {
		var text strings.Builder
		for i := range 20_000 {
			w := fmt.Sprintf("w%d", i*i%977)
			counts[w]++
			fmt.Fprintf(&text, "%s ", w)
			if i%7 == 0 {
				text.WriteByte('\n')
			}
		}
		if err := os.WriteFile(filepath.Join(home, fmt.Sprintf("%d.txt", f)), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for w, n := range counts {
		want = append(want, fmt.Sprintf("%s\t%d", w, n))
	}
	slices.Sort(want)
	out := filepath.Join(home, "out")
	var said, talk bytes.Buffer
	code := run(t.Context(), env{args: []string{"map", filepath.Join(home, "count.wasm"), filepath.Join(home, "*.txt"), "--by", "lines", "--reduce", filepath.Join(home, "sum.wasm"),
		"--partitions", "5", "--out", out}, stdout: &said, stderr: &talk, getenv: getenv})
	if code != exitDone {
		t.Fatalf("got code %d: %s", code, talk.String())
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(raw)), "\n")
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %d words want %d", len(got), len(want))
	}
}

// localDir is where the user with that environment has the local network.
func localDir(t *testing.T, getenv func(string) string) string {
	t.Helper()
	dir, err := (&app{env: env{getenv: getenv}}).defaultDir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
