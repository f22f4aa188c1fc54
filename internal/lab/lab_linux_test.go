package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

func udp(t testing.TB, h *Host, address string) *net.UDPConn {
	t.Helper()
	c, err := h.ListenUDP(address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// say sends text to an address and a port.
func say(t testing.TB, c *net.UDPConn, text string, to netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
		t.Fatal(err)
	}
}

// hear waits for a packet; it returns "" where none comes.
func hear(t testing.TB, c *net.UDPConn, patience time.Duration) (string, netip.AddrPort) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", netip.AddrPort{}
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), from
}

const (
	soon  = 100 * time.Millisecond // enough for what must not come
	late  = 5 * time.Second        // enough for what must come
	aPort = 4001
)

func port4001(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, aPort) }

func localPort(c *net.UDPConn) uint16 { return c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// echo answers every packet until the socket is closed.
func echo(c *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(buf[:n], from) // a lost answer is what the tests look for
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	a := l.Host("a", Link{Delay: 20 * time.Millisecond})
	b := l.Host("b", Link{Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond})
	n := l.Host("near", Link{})
	for _, c := range []struct {
		name     string
		from, to *Host
		min, max time.Duration
	}{
		{"a to b", a, b, 60 * time.Millisecond, 80 * time.Millisecond},
		{"near to a", n, a, 40 * time.Millisecond, 40 * time.Millisecond},
		{"a to near", a, n, 40 * time.Millisecond, 40 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			there, here := udp(t, c.to, ":0"), udp(t, c.from, ":0")
			go echo(there)
			// The machine may be slow at times, the wire is never fast: the best of
			// some trips tells.
			best := time.Hour
			for i := 0; i < 5 || i < 50 && best > c.max+10*time.Millisecond; i++ {
				began := time.Now()
				say(t, here, fmt.Sprint(i), netip.AddrPortFrom(c.to.Addr(), localPort(there)))
				if got, _ := hear(t, here, late); got != fmt.Sprint(i) {
					t.Fatalf("answer %d: got %q", i, got)
				}
				best = min(best, time.Since(began))
			}
			if best < c.min || best > c.max+10*time.Millisecond {
				t.Errorf("best round trip: got %v, want %v to %v", best, c.min, c.max+10*time.Millisecond)
			}
		})
	}
}

func TestJitterKeepsOrder(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	a, b := l.Host("a", Link{Jitter: 40 * time.Millisecond}), l.Host("b", Link{})
	from, to := udp(t, a, ":0"), udp(t, b, ":0")
	const packets = 200
	for i := range packets {
		say(t, from, fmt.Sprint(i), netip.AddrPortFrom(b.Addr(), localPort(to)))
	}
	for i := range packets {
		if got, _ := hear(t, to, late); got != fmt.Sprint(i) {
			t.Fatalf("packet %d: got %q", i, got)
		}
	}
}

// arrivals sends numbered packets over a lossy wire and tells which arrive.
func arrivals(t *testing.T, seed uint64, packets int) (got []uint32, traffic Traffic) {
	l := New(t, Config{Seed: seed})
	defer l.Close()
	a, b := l.Host("a", Link{Loss: 0.1}), l.Host("b", Link{Loss: 0.1})
	from, to := udp(t, a, ":0"), udp(t, b, ":0")
	heard := make(chan []uint32)
	go func() {
		var got []uint32
		for buf := make([]byte, 4); ; {
			if _, err := io.ReadFull(to, buf); err != nil {
				heard <- got
				return
			}
			got = append(got, binary.BigEndian.Uint32(buf))
		}
	}()
	for i := range packets {
		say(t, from, string(binary.BigEndian.AppendUint32(nil, uint32(i))), netip.AddrPortFrom(b.Addr(), localPort(to)))
		if i%50 == 49 {
			time.Sleep(time.Millisecond) // no socket's buffer may be the reason of a loss
		}
	}
	eventually(t, "all packets delivered or lost", func() bool {
		traffic = l.Traffic()
		return traffic.Delivered+traffic.Lost == int64(packets)
	})
	if err := to.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	return <-heard, traffic
}

func TestLoss(t *testing.T) {
	t.Parallel()
	const packets = 2000
	got, traffic := arrivals(t, 1, packets)
	// 0.9 × 0.9 of 2000 is 1620, the standard deviation 17.5; five of them are allowed.
	if len(got) < 1532 || len(got) > 1708 {
		t.Errorf("arrived: got %d of %d, want 1620 ± 88", len(got), packets)
	}
	if want := (Traffic{Delivered: int64(len(got)), Bytes: 32 * int64(len(got)), Lost: packets - int64(len(got))}); traffic != want {
		t.Errorf("traffic: got %+v, want %+v", traffic, want)
	}
	again, _ := arrivals(t, 1, packets)
	if !slices.Equal(got, again) {
		t.Errorf("the same seed lost other packets")
	}
	other, _ := arrivals(t, 2, packets)
	if slices.Equal(got, other) {
		t.Errorf("another seed lost the same packets")
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		a, b Link
	}{
		{"the sender's", Link{Rate: 1_000_000}, Link{}},
		{"the receiver's", Link{}, Link{Rate: 1_000_000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := New(t, Config{})
			a, b := l.Host("a", c.a), l.Host("b", c.b)
			from, to := udp(t, a, ":0"), udp(t, b, ":0")
			const size = 1250 - frameHead - ipHead - 8 // 10 ms each
			began := time.Now()
			for range 100 {
				say(t, from, strings.Repeat("x", size), netip.AddrPortFrom(b.Addr(), localPort(to)))
			}
			sent := time.Since(began)
			eventually(t, "all packets delivered or dropped", func() bool {
				got := l.Traffic()
				return got.Delivered+got.Overflow == 100
			})
			took, n := time.Since(began), 0
			for text := "x"; text != ""; n++ {
				text, _ = hear(t, to, soon)
			}
			n--
			// A backlog of 200 ms holds 20 packets and the one that began it, and
			// some more go through while slow sending goes on.
			most := 22 + int(sent/(10*time.Millisecond))
			if n < 20 || n > most || l.Traffic().Overflow != int64(100-n) {
				t.Errorf("got %d packets and %+v, want 20 to %d and the rest as overflow", n, l.Traffic(), most)
			}
			if least := time.Duration(n) * 10 * time.Millisecond; took < least {
				t.Errorf("%d packets took %v, want at least %v", n, took, least)
			}
		})
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	hosts := []*Host{l.Host("a", Link{}), l.Host("b", Link{}), l.Host("c", Link{}), l.HostBehindNAT("d", Cone, Link{})}
	var sockets []*net.UDPConn
	for _, h := range hosts {
		c := udp(t, h, ":4001")
		go echo(c)
		sockets = append(sockets, udp(t, h, ":0"))
	}
	reached := func(want string) (out string) {
		for i, c := range sockets {
			for j, h := range hosts[:3] {
				if i == j {
					continue
				}
				say(t, c, "?", port4001(h.Addr()))
				pair := hosts[i].Name() + h.Name() + " "
				patience := soon
				if strings.Contains(want, pair) {
					patience = late
				}
				if text, _ := hear(t, c, patience); text == "?" {
					out += pair
				}
			}
		}
		return out
	}
	const all = "ab ac ba bc ca cb da db dc "
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"whole", func() {}, all},
		{"a cut from b", func() { l.Cut(hosts[0], hosts[1]) }, "ac bc ca cb da db dc "},
		{"healed", l.Heal, all},
		{"a and d cut from b and c", func() { l.Partition([]*Host{hosts[0], hosts[3]}, hosts[1:3]) }, "bc cb da "},
		{"healed again", l.Heal, all},
	} {
		c.do()
		if got := reached(c.want); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestSetLink(t *testing.T) {
	t.Parallel()
	l := New(t, Config{})
	a, b := l.Host("a", Link{}), l.Host("b", Link{})
	from, to := udp(t, a, ":0"), udp(t, b, ":4001")
	b.SetLink(Link{Loss: 1})
	say(t, from, "lost", port4001(b.Addr()))
	if text, _ := hear(t, to, soon); text != "" {
		t.Errorf("with all lost: got %q", text)
	}
	b.SetLink(Link{})
	say(t, from, "here", port4001(b.Addr()))
	if text, _ := hear(t, to, late); text != "here" {
		t.Errorf("with none lost: got %q", text)
	}
}

func TestNATLetsOutAndNotIn(t *testing.T) {
	t.Parallel()
	for kind, name := range []string{Cone: "cone", Symmetric: "symmetric"} {
		t.Run(name, func(t *testing.T) {
			l := New(t, Config{})
			a, stranger := l.Host("a", Link{}), l.Host("stranger", Link{})
			b := l.HostBehindNAT("b", NAT(kind), Link{Delay: time.Millisecond})
			at, other, there, in := udp(t, a, ":4001"), udp(t, a, ":4002"), udp(t, stranger, ":4001"), udp(t, b, ":4001")

			say(t, at, "unasked", port4001(b.Public()))
			if text, _ := hear(t, in, soon); text != "" {
				t.Errorf("unasked, b got %q", text)
			}
			say(t, in, "hello", port4001(a.Addr()))
			text, mapped := hear(t, at, late)
			if text != "hello" || mapped.Addr() != b.Public() {
				t.Fatalf("a got %q from %v, want hello from %v", text, mapped, b.Public())
			}
			say(t, at, "answer", mapped)
			if text, from := hear(t, in, late); text != "answer" || from != port4001(a.Addr()) {
				t.Errorf("b got %q from %v, want the answer of a", text, from)
			}
			say(t, other, "another port", mapped)
			say(t, there, "another address", mapped)
			if text, from := hear(t, in, soon); text != "" {
				t.Errorf("b got %q from %v, to whom it never spoke", text, from)
			}
			// It was the gateway that stopped the first and these two.
			if got := l.Traffic(); got.Delivered != 5 || got.Lost+got.Overflow+got.Astray != 0 {
				t.Errorf("the wire had %+v, want all 5 packets delivered", got)
			}
			say(t, in, "hello", port4001(stranger.Addr()))
			_, second := hear(t, there, late)
			if same := second == mapped; same != (NAT(kind) == Cone) {
				t.Errorf("mapped to %v for one and %v for another", mapped, second)
			}
		})
	}
}

// punch lets two hosts behind gateways learn of each other's mapped addresses by a
// third and then speak to them, and reports whether each hears the other.
func punch(t *testing.T, one, two NAT) bool {
	l := New(t, Config{})
	defer l.Close()
	server := udp(t, l.Host("server", Link{}), ":4001")
	link := Link{Delay: 5 * time.Millisecond}
	a, b := udp(t, l.HostBehindNAT("a", one, link), ":4001"), udp(t, l.HostBehindNAT("b", two, link), ":4002")
	var mapped []netip.AddrPort
	for _, c := range []*net.UDPConn{a, b} {
		say(t, c, "register", port4001(netip.MustParseAddr("30.1.0.1")))
		text, from := hear(t, server, late)
		if text != "register" {
			t.Fatalf("the server got %q", text)
		}
		mapped = append(mapped, from)
	}
	// a begins, so that its first packet comes unasked to b's gateway.
	heard := make([]string, 2)
	for range 20 {
		say(t, a, "punch", mapped[1])
		heard[1], _ = hear(t, b, 20*time.Millisecond)
		say(t, b, "punch", mapped[0])
		heard[0], _ = hear(t, a, 20*time.Millisecond)
		if heard[0] == "punch" && heard[1] == "punch" {
			return true
		}
	}
	return false
}

func TestHolePunching(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		one, two NAT
		want     bool
	}{
		{"two cones", Cone, Cone, true},
		{"cone and symmetric", Cone, Symmetric, false},
		{"two symmetric", Symmetric, Symmetric, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := punch(t, c.one, c.two); got != c.want {
				t.Errorf("a hole is punched: got %v, want %v", got, c.want)
			}
		})
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		link Link
		nat  bool
	}{
		{"perfect", Link{}, false},
		{"slow and lossy", Link{Delay: 2 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.003}, false},
		{"behind NAT", Link{Delay: time.Millisecond}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := New(t, Config{Seed: 3})
			a := l.Host("a", Link{})
			var b *Host
			if c.nat {
				b = l.HostBehindNAT("b", Symmetric, c.link)
			} else {
				b = l.Host("b", c.link)
			}
			ln, err := a.Listen("tcp4", ":4001")
			if err != nil {
				t.Fatal(err)
			}
			sums := make(chan [32]byte, 1)
			go func() {
				defer close(sums)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				h := sha256.New()
				if n, err := io.Copy(h, conn); err == nil && n == 1<<20 {
					sums <- [32]byte(h.Sum(nil))
				}
				conn.Close()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 2*late)
			defer cancel()
			conn, err := b.Dial(ctx, "tcp4", port4001(a.Addr()).String())
			if err != nil {
				t.Fatal(err)
			}
			data := make([]byte, 1<<20)
			rand.NewChaCha8([32]byte{}).Read(data)
			if _, err := conn.Write(data); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			select {
			case got, ok := <-sums:
				if !ok || got != sha256.Sum256(data) {
					t.Errorf("a megabyte was not received whole")
				}
			case <-ctx.Done():
				t.Errorf("a megabyte has not arrived: %+v", l.Traffic())
			}
			if got := l.Traffic().Bytes; got < 1<<20 {
				t.Errorf("the wire carried %d bytes, want a megabyte at least", got)
			}
		})
	}
}

// mdns joins the group of multicast DNS at the host's eth0.
func mdns(t *testing.T, h *Host) *net.UDPConn {
	t.Helper()
	c, err := opened(h, func() (*net.UDPConn, error) {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return nil, err
		}
		return net.ListenMulticastUDP("udp4", eth0, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353})
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMulticast(t *testing.T) {
	t.Parallel()
	group := netip.MustParseAddrPort("224.0.0.251:5353")
	l := New(t, Config{})
	office := l.LAN("office")
	home := l.NAT("home", Cone, Link{})
	a, b, c := office.Host("a"), office.Host("b"), office.Host("c")
	d, e := home.Host("d"), home.Host("e")
	out := l.Host("out", Link{})
	at := map[*Host]*net.UDPConn{}
	for _, h := range []*Host{a, b, c, d, e, out} {
		at[h] = mdns(t, h)
	}
	for _, k := range []struct {
		name    string
		from    *Host
		hear    []*Host
		nothing []*Host
	}{
		{"on a LAN alone", a, []*Host{b, c}, []*Host{d, out}},
		{"behind a gateway", d, []*Host{e}, []*Host{b, out}},
		{"on the wide network", out, nil, []*Host{b, e}},
	} {
		t.Run(k.name, func(t *testing.T) {
			say(t, udp(t, k.from, ":0"), "who is there?", group)
			for _, h := range k.hear {
				if text, from := hear(t, at[h], late); text != "who is there?" || from.Addr() != k.from.Addr() {
					t.Errorf("%s: got %q from %v, want the question of %s", h.Name(), text, from, k.from.Name())
				}
			}
			for _, h := range k.nothing {
				if text, _ := hear(t, at[h], soon); text != "" {
					t.Errorf("%s, elsewhere, got %q", h.Name(), text)
				}
			}
		})
	}
	// Within the segment also to one host, and from the gateway's to the wide network.
	in := udp(t, b, ":4001")
	say(t, udp(t, a, ":0"), "b?", port4001(b.Addr()))
	if text, _ := hear(t, in, late); text != "b?" {
		t.Errorf("b got %q", text)
	}
	wide := udp(t, out, ":4001")
	say(t, udp(t, e, ":0"), "out?", port4001(out.Addr()))
	if text, from := hear(t, wide, late); text != "out?" || from.Addr() != home.Public() {
		t.Errorf("out got %q from %v, want it from %v", text, from, home.Public())
	}
}

// links are the names of the devices in a namespace.
func links(t *testing.T, do func(func() error) error) (names []string) {
	t.Helper()
	err := do(func() error {
		list, err := netlink.LinkList()
		for _, k := range list {
			names = append(names, k.Attrs().Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// eventually polls, since the kernel removes namespaces in its own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(late); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// ours counts the namespaces and the sockets that this process has open.
func ours() (n int) {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		to, _ := os.Readlink(fd)
		if strings.HasPrefix(to, "net:[") || strings.HasPrefix(to, "socket:[") {
			n++
		}
	}
	return n
}

// Not parallel: it counts what the whole process has.
func TestCloseLeavesNothing(t *testing.T) {
	machine := links(t, onThread)
	files, goroutines := ours(), runtime.NumGoroutine()
	l := New(t, Config{})
	a := l.Host("a", Link{Delay: time.Hour})
	b := l.HostBehindNAT("b", Cone, Link{})
	c := udp(t, a, ":0")
	say(t, c, "never arrives", port4001(b.Public()))
	udp(t, b, ":4001")
	if got := links(t, l.router.do); len(got) != 3 {
		t.Errorf("the router has the links %v, want lo and one for each public address", got)
	}
	if got := links(t, onThread); !slices.Equal(got, machine) {
		t.Errorf("the machine has the links %v, before it had %v", got, machine)
	}
	// One keeps to its group, one has left it.
	var out bytes.Buffer
	cmd := sh(t.Context(), "setsid sleep 1000 & sleep 1000 & echo started; wait")
	cmd.Stdout = &lockedWriter{w: &out}
	p, err := a.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[uint64]bool{}
	for _, s := range l.spaces {
		inodes[s.inode] = true
	}
	eventually(t, "three processes in the host", func() bool { return population(inodes) == 3 })
	// The other ends of the hosts' links are gone when their namespaces are.
	router, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", l.router.fd()))
	if err != nil {
		t.Fatal(err)
	}
	watch := &space{file: router}

	l.Close()
	if err := p.Wait(); err == nil {
		t.Errorf("the process ended well, want it killed")
	}
	if n := population(inodes); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	eventually(t, "the hosts' namespaces gone", func() bool { return slices.Equal(links(t, watch.do), []string{"lo"}) })
	watch.close()
	if got := ours(); got != files {
		t.Errorf("open sockets and namespaces: got %d, want %d", got, files)
	}
	eventually(t, "all goroutines gone", func() bool { return runtime.NumGoroutine() <= goroutines })
	if _, err := a.Start(sh(t.Context(), "true")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Start after Close: got %v, want ErrClosed", err)
	}
	if _, err := a.ListenUDP(":0"); err == nil {
		t.Errorf("a socket opened after Close")
	}
	l.Close() // twice is well
}

// ipv4 is a frame from one address to another.
func ipv4(from, to netip.Addr) []byte {
	frame := make([]byte, frameHead+ipHead)
	frame[frameHead] = 0x45
	copy(frame[frameHead+12:], from.AsSlice())
	copy(frame[frameHead+16:], to.AsSlice())
	return frame
}

func TestAstray(t *testing.T) {
	a, b := &port{addr: netip.MustParseAddr("30.1.0.1")}, &port{addr: netip.MustParseAddr("30.2.0.1")}
	w := &wire{ports: map[netip.Addr]*port{a.addr: a, b.addr: b}}
	good := ipv4(a.addr, b.addr)
	version6 := bytes.Clone(good)
	version6[frameHead] = 0x65
	for _, c := range []struct {
		name  string
		frame []byte
		want  *port
	}{
		{"a to b", good, b},
		{"too short", good[:len(good)-1], nil},
		{"not IPv4", version6, nil},
		{"a as b", ipv4(b.addr, b.addr), nil},
		{"to nobody", ipv4(a.addr, netip.MustParseAddr("30.3.0.1")), nil},
		{"to a group", ipv4(a.addr, netip.MustParseAddr("224.0.0.251")), nil},
	} {
		if got := w.route(a, c.frame); got != c.want {
			t.Errorf("%s: got port %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzForward(f *testing.F) {
	from, to := netip.MustParseAddr("30.1.0.1"), netip.MustParseAddr("30.2.0.1")
	f.Add(ipv4(from, to))
	f.Add(ipv4(from, to)[:33])
	f.Fuzz(func(t *testing.T, frame []byte) {
		w := newWire(0)
		a := &port{addr: from, link: Link{Delay: time.Hour}}
		b := &port{addr: to, mac: [6]byte{1, 2, 3, 4, 5, 6}}
		w.ports[a.addr], w.ports[b.addr] = a, b
		w.forward(a, bytes.Clone(frame), time.Now())
		close(w.stop)
		w.running.Wait()
		if len(w.flying) == 1 {
			got := w.flying[0]
			if got.to == b && (!bytes.Equal(got.frame[6:], frame[6:]) || [6]byte(got.frame) != b.mac) {
				t.Errorf("the frame changed on its way: %x became %x", frame, got.frame)
			}
		} else if w.traffic.Astray != 1 {
			t.Errorf("neither in flight nor astray: %+v", w.traffic)
		}
	})
}

// BenchmarkTCP_MiB sends over a wire without delay, 1 MiB a time.
func BenchmarkTCP_MiB(b *testing.B) {
	l := New(b, Config{})
	from, to := l.Host("from", Link{}), l.Host("to", Link{})
	ln, err := to.Listen("tcp4", ":4001")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 1<<20)
		for {
			if _, err := io.ReadFull(conn, buf); err != nil {
				return
			}
			if _, err := conn.Write(buf[:1]); err != nil {
				return
			}
		}
	}()
	conn, err := from.Dial(b.Context(), "tcp4", port4001(to.Addr()).String())
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(data); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, data[:1]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(l.Traffic().Delivered)/b.Elapsed().Seconds(), "packets/s")
}
