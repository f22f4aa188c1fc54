package fleet

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/lab"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// cast is the network of the tests: twelve hosts, seven of them behind four NATs.
type cast struct {
	*world
	seed           *member // the only authority, and all that anybody is told of
	p1, p2, p3     *member // public providers
	home1, home2   *member // on one LAN behind a cone NAT; home2 has heard of nobody
	office1        *member
	office2        *member // the same behind a symmetric NAT
	cone, sym      *member // providers behind NATs of their own
	buyer          *member // a consumer behind a cone NAT
	late           *member // public; comes later, as p3 does
	elsewhere      *lab.Host
	first, natted  []*member
	seeded, silent string // network files: with the seed, without
}

func wide(ms int) lab.Link {
	return lab.Link{Delay: time.Duration(ms) * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.005}
}

func newCast(t *testing.T) *cast {
	w := newWorld(t)
	c := &cast{world: w}
	l := w.lab
	// As far from one another as strangers are: the overlay has few of one subnet.
	host := func(name, addr string, ms int) *lab.Host { return l.HostAt(name, netip.MustParseAddr(addr), wide(ms)) }
	home, office := l.NAT("home", lab.Cone, wide(8)), l.NAT("office", lab.Symmetric, wide(6))
	c.seed = w.node("seed", host("seed", "23.4.7.1", 5), 4141)
	c.p1 = w.node("p1", host("p1", "81.9.30.1", 10), 4141, "gpu")
	c.p2 = w.node("p2", host("p2", "101.50.2.1", 20), 4141, "docker")
	c.p3 = w.node("p3", host("p3", "154.66.8.1", 40), 4141, "gpu")
	c.home1, c.home2 = w.node("home1", home.Host("home1"), 4141), w.node("home2", home.Host("home2"), 4142)
	c.cone = w.node("cone", l.HostBehindNAT("cone", lab.Cone, wide(15)), 4141, "gpu")
	c.buyer = w.node("buyer", l.HostBehindNAT("buyer", lab.Cone, wide(12)), 4141)
	c.office1, c.office2 = w.node("office1", office.Host("office1"), 4141), w.node("office2", office.Host("office2"), 4142)
	c.sym = w.node("sym", l.HostBehindNAT("sym", lab.Symmetric, wide(25)), 4141, "docker")
	c.late = w.node("late", host("late", "201.17.5.1", 30), 4141)
	c.elsewhere = host("elsewhere", "45.88.9.1", 30)

	p := ledger.DevParams()
	p.ClaimWindow, p.DispatchGrace, p.RevealWindow = 2000, 10_000, 5000 // for lines as slow as these, and a busy machine
	w.found(c.seed, p)
	c.seeded, c.silent = w.networkFile("network.json", c.seed.addr()), w.networkFile("silent.json")
	c.natted = []*member{c.home1, c.home2, c.cone, c.buyer, c.office1, c.office2, c.sym}
	c.first = append([]*member{c.seed, c.p1, c.p2}, c.natted...)
	return c
}

// show logs how each stands and whom it knows.
func (c *cast) show(list []*member) {
	for _, n := range list {
		if n.process == nil {
			continue
		}
		s, _ := n.status()
		c.Logf("%-8s %s, seen %v, tags %v, provide %q, %+v %v", n.name, s.Reachability, s.Seen, s.Tags, s.Provide, s.Overlay, s.Listen)
		peers, _ := n.peers()
		for _, p := range peers {
			at := slices.IndexFunc(c.nodes, func(m *member) bool { return m.id() == p.Node })
			c.Logf("     %-8s %q, overlay %v, %v ms %v", c.nodes[at].name, p.Path, p.Overlay, p.RTTMillis, p.Addresses)
		}
	}
}

// TestRealHosts is the life of a network. With CROWD_NIGHT=1 it waits, too, for what takes those behind NATs longer: a new
// relay in place of one that is gone.
func TestRealHosts(t *testing.T) {
	night := os.Getenv("CROWD_NIGHT") != ""
	c := newCast(t)
	program := trivial(t)

	defer func() {
		if t.Failed() {
			c.show(c.nodes)
		}
	}()

	// All start at once: the first must not matter.
	c.seed.start("--network", c.silent)
	for _, n := range c.first[1:] {
		if n == c.home2 || n == c.office2 {
			n.start("--network", c.silent)
		} else {
			n.start("--network", c.seeded)
		}
	}
	for _, n := range c.first {
		c.within(patience, n.name+" has joined", func() error { return n.joined(true) })
		t.Logf("%s: %v after its start", n.name, time.Since(n.began).Round(10*time.Millisecond))
	}
	c.within(patience, "all find all", func() error { return each(c.first, func(n *member) error { return n.finds(c.first...) }) })
	// That of the one behind a NAT is an ad, which waits for its like (DISC-NG): minutes, where gateways are neighbours.
	c.within(patience, "all find by tag", func() error {
		return each(c.first, func(n *member) error { return n.findsTag("gpu", c.p1, c.cone) })
	})
	t.Logf("wire: %+v", c.lab.Traffic())

	c.within(patience, "all behind NATs are found with a relay", func() error {
		return each(c.natted, func(n *member) error {
			f, err := c.p2.find(n)
			if err == nil && f.Relay == "" {
				err = fmt.Errorf("at %v without a relay", f.Addresses)
			}
			return err
		})
	})

	// Nobody in it can be dialled, and only the seed was known.
	c.job(c.buyer, program, c.cone, c.sym)
	for _, pair := range []struct {
		to   *member
		path string
	}{{c.cone, "punched"}, {c.sym, "relayed"}} {
		c.within(patience, fmt.Sprintf("the buyer's path to %s is %s", pair.to.name, pair.path), func() error {
			p, err := c.buyer.path(pair.to)
			if err == nil && p.Path != pair.path {
				err = fmt.Errorf("got %q", p.Path)
			}
			return err
		})
	}

	// Two halves, each with a newcomer of whom the other cannot have heard.
	a := []*member{c.seed, c.p1, c.home1, c.home2, c.cone, c.late}
	b := []*member{c.p2, c.buyer, c.office1, c.office2, c.sym, c.p3}
	c.lab.Partition(hosts(a), hosts(b))
	parted := time.Now()
	c.late.start("--network", c.seeded)
	c.p3.start("--chain", c.chain, "--peer", c.p2.addr())
	c.within(patience, "late has joined its half", func() error { return c.late.joined(true) })
	c.within(patience, "p3 has joined its half", func() error { return c.p3.joined(false) })
	inA, inB := []*member{c.seed, c.p1, c.late}, []*member{c.p2, c.p3}
	if night {
		inA, inB = a, b
	}
	c.within(patience, "each half finds its own", func() error {
		if err := each(inA, func(n *member) error { return n.finds(inA...) }); err != nil {
			return err
		}
		return each(inB, func(n *member) error { return n.finds(inB...) })
	})
	if _, err := c.late.find(c.p3); err == nil {
		t.Error("late finds p3 through a partition")
	}
	if _, err := c.p3.find(c.late); err == nil {
		t.Error("p3 finds late through a partition")
	}
	c.lab.Heal()
	healed := time.Now()
	cut := healed.Sub(parted)
	meet := func() error {
		return each([]*member{c.late, c.p3}, func(n *member) error { return n.finds(c.late, c.p3) })
	}
	// Halves that have quite lost each other meet by the seed, which is tried no longer after the cut than the cut took, once more.
	c.within(2*cut+patience, "healed: the newcomers find each other", meet)
	t.Logf("the halves met %v after a cut of %v", time.Since(healed).Round(10*time.Millisecond), cut.Round(10*time.Millisecond))
	c.within(patience, "healed: p3 follows the chain", func() error { return c.p3.joined(true) })
	c.within(patience, "healed: the old chain goes on", func() error { return c.buyer.joined(true) })
	c.within(patience, "healed: p3 has registered", func() error { // which costs it a fee, and no other one is to come
		s, err := c.p3.status()
		if err == nil && s.Provide != "registered" {
			err = fmt.Errorf("got %q", s.Provide)
		}
		return err
	})
	c.send(c.buyer, c.p3)

	// A power cut takes the seed and two more. They come back by what they remember.
	for _, n := range []*member{c.seed, c.p1, c.p2} {
		n.kill()
	}
	c.p1.start()
	c.p2.start()
	for _, n := range []*member{c.p1, c.p2} {
		c.within(patience, n.name+" is back without the seed", func() error { return n.joined(false) })
		t.Logf("%s: %v after its start", n.name, time.Since(n.began).Round(10*time.Millisecond))
	}
	// One moves, and another that nobody knows takes its place.
	c.late.kill()
	fresh := c.node("fresh", c.late.host, 4141)
	c.late.host = c.elsewhere
	c.late.start()
	fresh.start("--chain", c.chain, "--peer", c.p3.addr())
	c.within(patience, "fresh has joined without the seed", func() error { return fresh.joined(false) })
	alive := []*member{c.p1, c.p2, c.p3, c.late, fresh}
	if night {
		alive = append(alive, c.natted...)
	}
	c.within(patience, "who moved is found where it is", func() error {
		return each(alive, func(n *member) error {
			f, err := n.find(c.late)
			if err == nil && n != c.late && !slices.ContainsFunc(f.Addresses, func(a string) bool { return strings.Contains(a, c.elsewhere.Addr().String()) }) {
				err = fmt.Errorf("at %v", f.Addresses)
			}
			return err
		})
	})
	c.within(patience, "the newcomer is found", func() error { return c.p3.finds(fresh) })

	if !night {
		c.end()
		return
	}
	c.within(2*patience, "all find all without the seed", func() error { return each(alive, func(n *member) error { return n.finds(alive...) }) })
	c.seed.start()
	c.within(patience, "all follow the chain again", func() error { return each(append(alive, c.seed), func(n *member) error { return n.joined(true) }) })
	c.job(c.buyer, program, c.p1, c.p3)
	t.Logf("wire: %+v", c.lab.Traffic())
	c.end()
}

func hosts(list []*member) (out []*lab.Host) {
	for _, n := range list {
		out = append(out, n.host)
	}
	return out
}

// end stops all as a user does, and looks that nothing is left.
func (c *cast) end() {
	c.Helper()
	err := each(c.nodes, func(n *member) error {
		n.hangUp()
		if n.process == nil {
			return nil
		}
		return n.process.Stop(patience / 2)
	})
	if err != nil {
		c.Errorf("stop: %v", err)
	}
	if left := running(c.bin); len(left) > 0 {
		c.Errorf("processes %v are left", left)
	}
	c.lab.Close()
}

// running are the processes that run a program.
func running(bin string) (pids []string) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // its only error is a bad pattern
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == bin {
			pids = append(pids, filepath.Base(filepath.Dir(l)))
		}
	}
	return pids
}
