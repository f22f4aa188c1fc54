package crowd

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// golden compares v with a file of test vectors, or writes it where UPDATE_SPEC is set.
func golden(t *testing.T, file string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("spec", "vectors", file)
	if os.Getenv("UPDATE_SPEC") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (UPDATE_SPEC=1 go test . writes it): got\n%s", path, got)
	}
}

// sample has one field of each shape that occurs in the formats.
type sample struct {
	_     struct{} `cbor:",toarray"`
	Uint  uint64
	Int   int64
	Yes   bool
	Text  string
	Bytes []byte
	Hash  [4]byte
	List  []string
	Inner *Plan
}

func TestVectors_Encoding(t *testing.T) {
	type vector struct {
		Name     string `json:"name"`
		Encoding string `json:"encoding"`
	}
	var v struct {
		About   string `json:"about"`
		Samples []struct {
			vector
			Digest string `json:"digest"`
		} `json:"samples"`
		Refused []vector `json:"refused"`
	}
	v.About = "array of: uint, int, bool, text, bytes, 4 bytes, list of text, optional [text]. digest is under the purpose \"sample\"."
	for _, c := range []struct {
		name string
		s    sample
	}{
		{"zero; absent bytes, list and record are null", sample{}},
		{"empty bytes and list are not null", sample{Bytes: []byte{}, List: []string{}}},
		{"small", sample{Uint: 23, Int: -1, Yes: true, Text: "a", Bytes: []byte{1}, Hash: [4]byte{1, 2, 3, 4}, List: []string{"b", ""}, Inner: &Plan{Method: "pair"}}},
		{"large", sample{Uint: 1<<64 - 1, Int: -1 << 63, Text: "Ωμέγα"}},
		{"lengths", sample{Uint: 24, Int: 256, Text: "twenty-four characters..", Bytes: bytes.Repeat([]byte{7}, 256)}},
	} {
		raw := Encode(c.s)
		v.Samples = append(v.Samples, struct {
			vector
			Digest string `json:"digest"`
		}{vector{c.name, hex.EncodeToString(raw)}, Digest("sample", c.s).String()})
		var back sample
		if err := Decode(raw, &back); err != nil {
			t.Errorf("%s: got %v, want no error", c.name, err)
		}
	}
	zero := hex.EncodeToString(Encode(sample{})) // 88 00 00 f4 60 f6 44 00000000 f6 f6
	for _, r := range []vector{
		{"integer longer than needed", "881800" + zero[4:]},
		{"array of unknown length", "9f" + zero[2:] + "ff"},
		{"one field less", "87" + zero[2:len(zero)-2]},
		{"one field more", "89" + zero[2:] + "f6"},
		{"bytes after the end", zero + "00"},
		{"tag", "c0" + zero},
		{"null for an integer", "88f6" + zero[4:]},
		{"float for an integer", "88f90000" + zero[4:]},
		{"undefined for null", zero[:len(zero)-2] + "f7"},
		{"fewer bytes than the field has", "880000f460f643000000f6f6"},
		{"text that is no UTF-8", "880000f461fff64400000000f6f6"},
		{"cut off", zero[:len(zero)-2]},
	} {
		raw, err := hex.DecodeString(r.Encoding)
		if err != nil {
			t.Fatal(err)
		}
		var s sample
		if Decode(raw, &s) == nil {
			t.Errorf("%s: got no error", r.Name)
		}
		v.Refused = append(v.Refused, r)
	}
	golden(t, "encoding.json", v)
}

func TestVectors_Job(t *testing.T) {
	owner := NodeID(bytes.Repeat([]byte{0x11}, 64))
	full := JobSpec{
		Task: Task{
			Program: "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
			Inputs:  "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
			Stdin:   "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
			Args:    []string{"--radius", "8"}, Env: []string{"LANG=C"}, Seed: Hash{1, 2, 3},
			Limits: Limits{Gas: 1e9, Memory: 64 << 20, Output: 1 << 20, Wall: time.Minute},
		},
		Plan:    Plan{Method: PlanPair},
		Compare: Compare{Kind: CompareNumeric, Abs: 1, Rel: 1_000_000, GasPPM: 50_000},
		Filters: Filters{MaxPrice: ReferencePrice, Tags: []string{"gpu"}, Countries: []string{"GR"}, Providers: []NodeID{owner}},
		Budget:  10 * Credit,
	}
	least := JobSpec{
		Task:    Task{Program: full.Task.Program, Limits: Limits{Gas: 1, Memory: 1, Wall: 10001 * time.Millisecond}},
		Plan:    Plan{Method: PlanPair},
		Filters: Filters{MaxPrice: 1},
	}
	batch := full
	batch.Items, batch.Shuffle, batch.Plan = 100, Shuffle{Parts: 16, Gather: true}, Plan{Method: PlanSample, Verifiers: 2, Checks: 10, Undetected: 1, Replacements: 2}
	batch.Task.Limits.Wall, batch.Compare = time.Hour, Compare{}
	type vector struct {
		Name     string  `json:"name"`
		Spec     JobSpec `json:"spec"`
		Encoding string  `json:"encoding"`
		Owner    NodeID  `json:"owner"`
		Nonce    uint64  `json:"nonce"`
		Job      JobID   `json:"job"`
	}
	var v []vector
	for _, c := range []struct {
		name  string
		spec  JobSpec
		nonce uint64
	}{{"every field", full, 7}, {"the least", least, 0}, {"the same, posted again", least, 1}, {"a batch between two others", batch, 2}} {
		if err := c.spec.Validate(); err != nil {
			t.Fatal(err)
		}
		raw := Encode(&c.spec)
		var back JobSpec
		if err := Decode(raw, &back); err != nil || back.ID(owner, c.nonce) != c.spec.ID(owner, c.nonce) {
			t.Errorf("%s: got another job back, %v", c.name, err)
		}
		v = append(v, vector{c.name, c.spec, hex.EncodeToString(raw), owner, c.nonce, c.spec.ID(owner, c.nonce)})
	}
	golden(t, "job.json", v)
}

func FuzzParseAddress(f *testing.F) {
	f.Add("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
	f.Add("DE709F2102306220921060314715629080E2FB77")
	f.Add("0x")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if back, err := ParseAddress(a.String()); err != nil || back != a {
			t.Errorf("%q: got %s, %v back", s, back, err)
		}
	})
}

// FuzzParseID: what is read as the ID of a job or node is written as the same digits.
func FuzzParseID(f *testing.F) {
	f.Add(JobID{1}.String())
	f.Add("0X" + NodeID{2}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseJobID(s); err == nil {
			if back, err := ParseJobID(id.String()); err != nil || back != id {
				t.Errorf("%q: got %s, %v back", s, back, err)
			}
		}
		if id, err := ParseNodeID(s); err == nil {
			if back, err := ParseNodeID(id.String()); err != nil || back != id {
				t.Errorf("%q: got %s, %v back", s, back, err)
			}
		}
	})
}
