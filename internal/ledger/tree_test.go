package ledger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crowdcompute/crowd"
)

func TestTree_RootIgnoresOrderAndHistory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	keys := make([]string, 500)
	for i := range keys {
		keys[i] = fmt.Sprintf("key/%d", i)
	}
	build := func() *node {
		var n *node
		for _, i := range rng.Perm(len(keys)) {
			n = n.insert(0, leaf(keys[i], []byte(keys[i]+"!")))
		}
		return n
	}
	a, b := build(), build()
	for i := range 300 { // what came and went leaves no mark
		l := leaf(fmt.Sprintf("gone/%d", i), []byte("x"))
		b = b.insert(0, l)
	}
	a.seal()
	b.seal()
	if a.hash == b.hash {
		t.Fatal("more keys, same root")
	}
	for i := range 300 {
		l := leaf(fmt.Sprintf("gone/%d", i), nil)
		b = b.remove(0, &l.path)
	}
	if b.seal() != a.hash {
		t.Errorf("got root %s want %s", b.hash, a.hash)
	}
	for _, k := range keys {
		l := leaf(k, nil)
		b = b.remove(0, &l.path)
	}
	if b != nil {
		t.Error("a tree without keys is not empty")
	}
}

func treeState(n int) State {
	return Load(func(f func(string, []byte)) {
		for i := range n {
			f(fmt.Sprintf("key/%d", i), fmt.Appendf(nil, "value %d", i))
		}
	})
}

func TestProve_StockLibraryVerifiesPresenceAndAbsence(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 50, 1000} {
		s := treeState(n)
		root := s.Root()
		for i := range min(n, 200) {
			key := fmt.Appendf(nil, "key/%d", i)
			val, proof := s.Prove(key)
			if err := VerifyProof(root, key, val, proof); err != nil {
				t.Fatalf("n=%d %s: %v", n, key, err)
			}
			for name, err := range map[string]error{
				"more than itself": VerifyProof(root, key, val, append(bytes.Clone(proof), 0x7a, 1, 'A')),
				"another value":    VerifyProof(root, key, []byte("lie"), proof),
				"absence":          VerifyProof(root, key, nil, proof),
				"another key":      VerifyProof(root, []byte("other"), val, proof),
				"another root":     VerifyProof(crowd.Hash{1}, key, val, proof),
			} {
				if err == nil {
					t.Fatalf("n=%d %s: a proof of %s was accepted", n, key, name)
				}
			}
		}
		if n == 0 {
			continue // ics23 has no proof against an empty tree
		}
		for i := range 200 {
			key := fmt.Appendf(nil, "none/%d", i)
			val, proof := s.Prove(key)
			if val != nil {
				t.Fatalf("%s is there", key)
			}
			if err := VerifyProof(root, key, nil, proof); err != nil {
				t.Fatalf("n=%d absence of %s: %v", n, key, err)
			}
			if err := VerifyProof(root, []byte("key/0"), nil, proof); err == nil {
				t.Fatalf("n=%d: absence of a key that is there was accepted", n)
			}
		}
	}
}

func FuzzVerifyProof(f *testing.F) {
	s := treeState(20)
	val, proof := s.Prove([]byte("key/3"))
	_, none := s.Prove([]byte("none"))
	root := s.Root()
	f.Add([]byte(proof), val)
	f.Add([]byte(none), []byte(nil))
	f.Fuzz(func(t *testing.T, proof, claimed []byte) {
		if VerifyProof(root, []byte("key/3"), claimed, proof) == nil && string(claimed) != string(val) {
			t.Errorf("a proof of %q was accepted", claimed)
		}
		if len(claimed) == 0 && VerifyProof(root, []byte("key/3"), nil, proof) == nil {
			t.Error("a proof of absence was accepted")
		}
	})
}

func FuzzOpen(f *testing.F) {
	k := key(f, 1)
	for _, m := range []Message{&Transfer{Amount: 3}, &Post{Spec: testSpec()}, &Tick{}, &Commit{Sealed: [][]byte{{1}}}} {
		f.Add(Sign(k, "c", 7, m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		tx, err := Open("c", raw)
		if err != nil {
			return
		}
		var e envelope
		if err := crowd.Decode(raw, &e); err != nil {
			t.Fatal(err)
		}
		again := crowd.Encode(envelope{Body: crowd.Encode(body{Chain: "c", Nonce: tx.nonce, Kind: tx.msg.kind(), Msg: crowd.Encode(tx.msg)}), Sig: e.Sig})
		if string(again) != string(raw) {
			t.Errorf("%x encodes to %x", raw, again)
		}
	})
}

func TestState_EachAfterSeeks(t *testing.T) {
	keys := []string{"a/1", "job/", "job/\x00", "job/1", "job/2", "job/2\x00", "job/3", "job0", "z"}
	s := Load(func(f func(string, []byte)) {
		for _, k := range keys {
			f(k, []byte{1})
		}
	})
	for _, c := range []struct{ prefix, after, want string }{
		{"job/", "", "[job/ job/\x00 job/1 job/2 job/2\x00 job/3]"},
		{"job/", "a/1", "[job/ job/\x00 job/1 job/2 job/2\x00 job/3]"},
		{"job/", "job/", "[job/\x00 job/1 job/2 job/2\x00 job/3]"},
		{"job/", "job/2", "[job/2\x00 job/3]"},
		{"job/", "job/25", "[job/3]"},
		{"job/", "job/3", "[]"},
		{"job/", "z", "[]"},
		{"", "job/3", "[job0 z]"},
	} {
		got := []string{}
		s.EachAfter(c.prefix, c.after, func(key string, _ []byte) bool { got = append(got, key); return true })
		if fmt.Sprint(got) != c.want {
			t.Errorf("under %q after %q: got %q, want %s", c.prefix, c.after, got, c.want)
		}
	}
	n := 0
	s.EachAfter("job/", "job/1", func(string, []byte) bool { n++; return false })
	if n != 1 {
		t.Errorf("got %d keys after the first was enough", n)
	}
	State{}.EachAfter("", "", func(string, []byte) bool { t.Error("an empty state has a key"); return false })
}
