package crowd

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// EIP-55's own test cases.
func TestEIP55_ChecksumsMatchTheStandard(t *testing.T) {
	for _, want := range []string{
		"0x52908400098527886E0F7030069857D2E4169EE7",
		"0xde709f2102306220921060314715629080e2fb77",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
		"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
		"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
		"0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
	} {
		a, err := ParseAddress(want)
		if err != nil {
			t.Fatal(err)
		}
		if a.String() != want {
			t.Errorf("got %s want %s", a, want)
		}
		if _, err := ParseAddress(strings.Replace(want, "D", "d", 1)); err == nil && strings.Contains(want, "D") && want[2:] != strings.ToUpper(want[2:]) {
			t.Errorf("%s with one letter's case changed was accepted", want)
		}
	}
}

func TestKeccak256_OfNothing(t *testing.T) {
	if got, want := Keccak256().String(), "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

func spec() *JobSpec {
	return &JobSpec{
		Task: Task{
			Program: "bafkreigh2akiscaildc", Args: []string{"--radius", "8"}, Env: []string{"A=b"},
			Limits: Limits{Gas: 1e9, Memory: 64 << 20, Output: 1 << 20, Wall: time.Minute},
		},
		Plan:    Plan{Method: PlanPair},
		Filters: Filters{MaxPrice: ReferencePrice},
		Budget:  10 * Credit,
	}
}

func TestEncoding_RoundTripAndDomains(t *testing.T) {
	s := spec()
	var back JobSpec
	if err := Decode(Encode(s), &back); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(Encode(&back), Encode(s)) {
		t.Error("a decoded spec encodes to other bytes")
	}
	if Digest("a", s) == Digest("b", s) {
		t.Error("two purposes give one digest")
	}
	if s.ID(NodeID{1}, 0) == s.ID(NodeID{1}, 1) || s.ID(NodeID{1}, 0) == s.ID(NodeID{2}, 0) {
		t.Error("job IDs do not depend on owner and nonce")
	}
	if err := Decode(append(Encode(s), 0), &back); err == nil {
		t.Error("trailing bytes were accepted")
	}
}

func TestValidate_NamesEveryFault(t *testing.T) {
	if err := spec().Validate(); err != nil {
		t.Fatalf("a good spec: %v", err)
	}
	bad := spec()
	bad.Task.Program = ""
	bad.Task.Limits.Gas = 0
	bad.Task.Env = []string{"=x"}
	bad.Plan.Method = "none"
	err := bad.Validate()
	for _, want := range []string{"program", "gas", "env", "plan"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v want it to name %q", err, want)
		}
	}
}

// What Validate takes, every executor must be able to run, and everybody to fetch: else the owner has it for nothing.
func TestValidate_BoundsTheOutputOfABatch(t *testing.T) {
	for _, tt := range []struct {
		items  uint32
		output uint64
		want   string // "" is good
	}{
		{1, MaxItemOutput, ""},
		{1, MaxItemOutput + 1, "output of 1048577 bytes for an item"},
		{MaxItems, MaxOutput / MaxItems, ""},
		{MaxItems, MaxOutput/MaxItems + 1, "for all of them together"},
		{0, MaxOutput, ""},
	} {
		s := spec()
		s.Items, s.Task.Stdin, s.Task.Limits.Output = tt.items, "bafyitems", tt.output
		s.Task.Limits.Gas, s.Task.Limits.Wall = 1e6, MaxWall
		if s.Items > 0 {
			s.Plan = Plan{Method: PlanSample, Verifiers: 1, Checks: 1, Replacements: 1}
		}
		if err := s.Validate(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d items of %d bytes: got %v want %q", tt.items, tt.output, err, tt.want)
		}
	}
}

func TestValidate_ShuffleIsBetweenSampledBatches(t *testing.T) {
	good := spec()
	good.Items, good.Task.Stdin, good.Plan = 10, "items", Plan{Method: PlanSample, Verifiers: 1, Checks: 1, Replacements: 1}
	for _, tt := range []struct {
		name   string
		change func(*JobSpec)
		want   string
	}{
		{"parts", func(s *JobSpec) { s.Shuffle.Parts = MaxParts }, ""},
		{"gathered", func(s *JobSpec) { s.Shuffle.Gather = true }, ""},
		{"both", func(s *JobSpec) { s.Shuffle = Shuffle{Parts: 1, Gather: true} }, ""},
		{"too many parts", func(s *JobSpec) { s.Shuffle.Parts = MaxParts + 1 }, "4097 parts"},
		{"too many items", func(s *JobSpec) { s.Shuffle.Gather, s.Items = true, MaxParts+1 }, "4097 items"},
		{"of outputs that may differ", func(s *JobSpec) { s.Shuffle.Parts, s.Compare = 1, Compare{Kind: CompareLines} }, "byte for byte"},
		{"of one task", func(s *JobSpec) { s.Shuffle.Parts, s.Items, s.Plan = 1, 0, Plan{Method: PlanPair} }, "only between batches"},
		{"of a pair's batch", func(s *JobSpec) { s.Shuffle.Gather, s.Plan = true, Plan{Method: PlanPair} }, "only between batches"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := *good
			tt.change(&s)
			s.Task.Limits.Wall = MaxWall
			if err := s.Validate(); tt.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v want %q", err, tt.want)
			}
		})
	}
}

func TestPrice_RoundsUpAndSaturates(t *testing.T) {
	for _, c := range []struct {
		p    Price
		g    Gas
		want Credits
	}{
		{ReferencePrice, 1e9, Credit}, {ReferencePrice, 1, 1}, {ReferencePrice, 0, 0},
		{^Price(0), ^Gas(0), ^Credits(0)}, {1, 1e6 + 1, 2},
	} {
		if got := c.p.Cost(c.g); got != c.want {
			t.Errorf("Price(%d).Cost(%d): got %d want %d", c.p, c.g, got, c.want)
		}
	}
	if got := (^Credits(0)).PPM(1e6); got != ^Credits(0) {
		t.Errorf("the whole of the largest amount: got %d", got)
	}
}

// FuzzDecode: what decodes, encodes back to the same bytes.
func FuzzDecode(f *testing.F) {
	f.Add(Encode(spec()))
	f.Add(Encode(Outcome{Status: Exited, Gas: 7, Result: "b"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s JobSpec
		if Decode(data, &s) == nil {
			if !bytes.Equal(Encode(&s), data) {
				t.Errorf("a spec of %x encodes to %x", data, Encode(&s))
			}
			_ = s.Validate()
		}
		var o Outcome
		if Decode(data, &o) == nil && !bytes.Equal(Encode(o), data) {
			t.Errorf("an outcome of %x encodes to %x", data, Encode(o))
		}
	})
}
