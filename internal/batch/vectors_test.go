package batch

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/crowdcompute/crowd"
)

// golden compares v with a file of test vectors, or writes it where UPDATE_SPEC is set.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	path := filepath.Join("..", "..", "spec", "vectors", name)
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
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
		t.Errorf("%s differs (UPDATE_SPEC=1 go test ./internal/batch writes it): got\n%s", path, got)
	}
}

func TestVectors_Shuffle(t *testing.T) {
	type vector struct {
		Name  string   `json:"name"`
		Outs  []string `json:"outputs"`
		Parts []string `json:"parts"`
		Reads string   `json:"reads"` // of an item that consists of all of them
	}
	var v struct {
		About    string   `json:"about"`
		Split    []vector `json:"split"`
		Manifest struct {
			Value    Manifest `json:"manifest"`
			Encoding string   `json:"encoding"`
		} `json:"manifest"`
		Refused []struct {
			Name     string `json:"name"`
			Encoding string `json:"encoding"`
		} `json:"refused"`
	}
	v.About = "outputs of items that did not fail, what becomes of them in four parts, and what an item reads that consists of all four. Refused are no manifests for 3 items."
	for _, c := range []struct {
		name string
		outs []string
	}{
		{"words", []string{"the\t1\nfox\t1\nthe\t1\n", "fox\t1\nκλειδί\t2\n"}},
		{"lines without newline, value or key", []string{"a", "b\n\n\tno key", ""}},
		{"more tabs", []string{"k\ta\tb\nk\t\n"}},
	} {
		parts := split(t, c.outs, 4)
		w := vector{Name: c.name, Outs: c.outs, Reads: string(Merge(parts))}
		for _, p := range parts {
			w.Parts = append(w.Parts, string(p))
		}
		v.Split = append(v.Split, w)
	}
	v.Manifest.Value = someManifest()
	raw := crowd.Encode(&v.Manifest.Value)
	v.Manifest.Encoding = hex.EncodeToString(raw)
	if _, err := DecodeManifest(raw, 3); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Manifest)
	}{
		{"no sources", func(m *Manifest) { m.Sources = nil }},
		{"an item of nothing", func(m *Manifest) { m.Items[1] = []uint32{} }},
		{"parts that descend", func(m *Manifest) { m.Items[0] = []uint32{3, 0} }},
		{"an item too few", func(m *Manifest) { m.Items = m.Items[:2] }},
	} {
		m := someManifest()
		c.change(&m)
		raw := crowd.Encode(&m)
		if _, err := DecodeManifest(raw, 3); err == nil {
			t.Errorf("%s: got no error", c.name)
		}
		v.Refused = append(v.Refused, struct {
			Name     string `json:"name"`
			Encoding string `json:"encoding"`
		}{c.name, hex.EncodeToString(raw)})
	}
	golden(t, "shuffle.json", v)
}
