package fleet

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/lab"
	"github.com/crowdcompute/crowd/internal/ledger"
)

func (w *world) show(list []*member) {
	for _, n := range list {
		s, _ := n.status()
		w.Logf("%-8s %s seen %v tags %v provide %q overlay %+v listen %v", n.name, s.Reachability, s.Seen, s.Tags, s.Provide, s.Overlay, s.Listen)
		for _, m := range list[:min(2, len(list))] {
			f, err := m.find(n)
			w.Logf("     found by %s: endpoints %v relay %.8s %v", m.name, f.Addresses, f.Relay, err)
		}
		peers, _ := n.peers()
		for _, p := range peers {
			at := slices.IndexFunc(w.nodes, func(m *member) bool { return m.id() == p.Node })
			w.Logf("     %-8s path %q overlay %v rtt %v %v", w.nodes[at].name, p.Path, p.Overlay, p.RTTMillis, p.Addresses)
		}
	}
}

func TestRealHosts(t *testing.T) {
	w := newWorld(t)
	wide := func(ms int) lab.Link {
		return lab.Link{Delay: time.Duration(ms) * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.005}
	}
	l := w.lab
	seed := w.node("seed", l.Host("seed", wide(5)), 4141)
	p1 := w.node("p1", l.Host("p1", wide(10)), 4141, "gpu")
	p2 := w.node("p2", l.Host("p2", wide(20)), 4141, "docker")
	p3 := w.node("p3", l.Host("p3", wide(40)), 4141, "gpu")
	home := l.NAT("home", lab.Cone, wide(8))
	home1 := w.node("home1", home.Host("home1"), 4141)
	home2 := w.node("home2", home.Host("home2"), 4142)
	cone := w.node("cone", l.HostBehindNAT("cone", lab.Cone, wide(15)), 4141, "gpu")
	buyer := w.node("buyer", l.HostBehindNAT("buyer", lab.Cone, wide(12)), 4141)
	office := l.NAT("office", lab.Symmetric, wide(6))
	office1 := w.node("office1", office.Host("office1"), 4141)
	office2 := w.node("office2", office.Host("office2"), 4142)
	sym := w.node("sym", l.HostBehindNAT("sym", lab.Symmetric, wide(25)), 4141, "docker")
	late := w.node("late", l.Host("late", wide(30)), 4141)

	w.found(seed, ledger.DevParams())
	file, none := w.networkFile("network.json", seed.addr()), w.networkFile("seedless.json")
	first := []*member{seed, p1, p2, p3, home1, home2, cone, buyer, office1, office2, sym}
	seed.start("--network", none)
	for _, n := range first[1:] {
		if n == home2 || n == office2 {
			n.start("--network", none)
			continue
		}
		n.start("--network", file)
	}
	_ = late

	joined := map[*member]time.Duration{}
	var mu sync.Mutex
	w.within(60*time.Second, "all have joined", func() error {
		return each(first, func(n *member) error {
			s, err := n.status()
			if err != nil {
				return err
			}
			if !s.Overlay.Joined || s.ChainTime.IsZero() {
				if n == home2 || n == office2 {
					return nil
				}
				return fmt.Errorf("joined: %v, chain %v", s.Overlay.Joined, s.ChainTime)
			}
			mu.Lock()
			defer mu.Unlock()
			if joined[n] == 0 {
				joined[n] = time.Since(n.began)
			}
			return nil
		})
	})
	for _, n := range first {
		t.Logf("%-8s joined %v", n.name, joined[n])
	}
	for range 6 {
		w.show(first)
		t.Logf("------ %v", time.Since(seed.began))
		time.Sleep(8 * time.Second)
	}
	took := w.within(30*time.Second, "all find all", func() error {
		return each(first, func(n *member) error {
			for _, other := range first {
				if _, err := n.find(other); n != other && err != nil {
					return err
				}
			}
			return nil
		})
	})
	t.Logf("all find all: %v", took)
}
