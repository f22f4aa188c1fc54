package crowd

import "testing"

func TestParseCompare_ReadsWhatItWrites(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Compare
	}{
		{"", Compare{}},
		{"exact", Compare{}},
		{"lines", Compare{Kind: CompareLines}},
		{"json:gas-apart=0.05", Compare{Kind: CompareJSON, GasPPM: 50_000}},
		{"numeric:rel=1e-6", Compare{Kind: CompareNumeric, Rel: 1_000_000}},
		{"numeric:abs=2.5,rel=1e-12", Compare{Kind: CompareNumeric, Abs: 2_500_000_000_000, Rel: 1}},
		{"float32:rel=0.001", Compare{Kind: CompareFloat32, Rel: 1_000_000_000}},
		{"wasm:bafyprogram", Compare{Kind: CompareWasm, Program: "bafyprogram", Gas: autoCompare}},
		{"wasm:bafyprogram,gas=7", Compare{Kind: CompareWasm, Program: "bafyprogram", Gas: 7}},
	} {
		got, err := ParseCompare(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%q: got %+v, %v", tt.text, got, err)
		}
		if again, err := ParseCompare(got.String()); err != nil || again != got {
			t.Errorf("%q: written as %q, read as %+v, %v", tt.text, got, again, err)
		}
		if got.Strict() != (got.Kind == CompareExact) || got.Class() != map[bool]string{true: "strict", false: "tolerant"}[got.Strict()] {
			t.Errorf("%q: got the class %s", tt.text, got.Class())
		}
	}
	for _, bad := range []string{
		"none", "vibes", "numeric", "numeric:rel=1", "numeric:rel=-1", "numeric:rel=1e-13", "numeric:rel=nan", "numeric:abs=1e300", "numeric:rel=", "numeric:rel",
		"lines:rel=1e-6", "lines:gas-apart=0.6", "exact:gas-apart=0.1", "wasm", "wasm:", "wasm:gas=5", "wasm:p,gas=0", "wasm:p,gas=4000000001", "numeric:gas=5,rel=1e-6", "json:bafy",
	} {
		if c, err := ParseCompare(bad); err == nil {
			t.Errorf("%q: got %+v", bad, c)
		}
	}
}

func FuzzParseCompare(f *testing.F) {
	for _, s := range []string{"numeric:rel=1e-6,gas-apart=0.1", "wasm:bafy,gas=5", "lines"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCompare(s)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("%q: %+v does not hold: %v", s, c, err)
		}
		if c.Abs > 1<<50 { // printed with 15 digits
			return
		}
		if again, err := ParseCompare(c.String()); err != nil || again != c {
			t.Fatalf("%q: %+v is written as %q and read as %+v, %v", s, c, c, again, err)
		}
	})
}

func TestCompare_NearGas(t *testing.T) {
	c := Compare{GasPPM: 100_000}
	for _, tt := range []struct {
		a, b Gas
		want bool
	}{{0, 0, true}, {10, 10, true}, {100, 90, true}, {100, 89, false}, {^Gas(0), ^Gas(0) - 1, true}, {^Gas(0), 1, false}, {1, 0, false}} {
		if c.NearGas(tt.a, tt.b) != tt.want || c.NearGas(tt.b, tt.a) != tt.want {
			t.Errorf("%d and %d: want %v", tt.a, tt.b, tt.want)
		}
	}
	if (Compare{}).NearGas(1, 2) || !(Compare{}).NearGas(2, 2) {
		t.Error("strict gas is equal gas")
	}
}

func TestJobSpec_TolerantPlans(t *testing.T) {
	s := spec()
	s.Compare = Compare{Kind: CompareLines}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	s.Items, s.Task.Stdin, s.Task.Limits.Gas = 10, "items", 10
	if s.Validate() == nil {
		t.Error("a pair for many items passed")
	}
	s.Plan = Plan{Method: PlanSample, Verifiers: 1, Checks: 1, Replacements: 1}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	s.Compare.Rel = 5
	if s.Validate() == nil {
		t.Error("a tolerance for lines passed")
	}
}
