// Package lab is a laboratory of hosts for tests: network namespaces joined by veth
// links, with delay, loss, rates, cuts and NAT, in which a test starts real programs.
// Nothing of it has a name on the machine or touches the machine's own network: the
// kernel takes all of it back however the test ends. It is not a simulator: time is
// real, and so is everything above the wire. IPv4 only.
//
// A public host is joined by a veth link to one router namespace, and there the
// process of the test reads each packet and passes it on when its time has come,
// since not every kernel has netem. Hosts of a LAN share a bridge, by the kernel
// alone; the bridge's namespace may be a gateway with NAT to the wide network.
//
//	l := lab.New(t, lab.Config{Seed: 1})
//	a := l.Host("a", lab.Link{Delay: 20 * time.Millisecond, Loss: 0.01})
//	b := l.HostBehindNAT("b", lab.Symmetric, lab.Link{})
//	p, err := a.Start(exec.CommandContext(ctx, "bin/crowd", "start"))
//	...
//	l.Cut(a, b)
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Config is what a lab needs to know. The zero value works.
type Config struct {
	Seed uint64 // of loss and jitter
}

// Lab is a network of hosts. Its methods that build fail the test where they
// cannot; they are called from the test's goroutine, all others from any.
type Lab struct {
	t       testing.TB // set once
	router  *space     // set once
	wire    *wire      // set once
	starter *starter   // set once

	mu        sync.Mutex
	closed    bool            // guarded by mu
	spaces    []*space        // guarded by mu
	processes []*Process      // guarded by mu
	sockets   []io.Closer     // guarded by mu
	names     map[string]bool // test's goroutine only
	public    byte            // test's goroutine only; numbers of addresses given
	lans      byte            // test's goroutine only
}

// New makes an empty lab that ends with the test. Where the kernel or the user's
// rights do not allow one, it skips the test and says why.
func New(t testing.TB, config Config) *Lab {
	t.Helper()
	if err := sweep(); err != nil {
		t.Fatalf("lab: look for what dead labs left: %v", err)
	}
	l := &Lab{t: t, names: make(map[string]bool)}
	if err := l.probe(); err != nil {
		t.Skipf("lab: no network namespaces with veth links and packet sockets here (root can have them): %v", err)
	}
	var err error
	if l.router, err = l.space(); err != nil {
		t.Fatalf("lab: %v", err)
	}
	l.wire = newWire(config.Seed)
	l.starter = newStarter()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("lab: %+v", l.Traffic())
		}
		l.Close()
	})
	return l
}

// probe tries all that a lab without NAT needs.
func (l *Lab) probe() error {
	s, err := newSpace()
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.veth("a", s, "b"); err != nil {
		return err
	}
	f, err := s.tap("a")
	if err != nil {
		return err
	}
	return f.Close()
}

func (l *Lab) space() (*space, error) {
	s, err := newSpace()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spaces = append(l.spaces, s)
	return s, nil
}

// must fails the test.
func (l *Lab) must(name string, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("lab: %s: %v", name, err)
	}
}

// Close ends all processes, closes all sockets that Hosts have opened and removes
// the network. A test that ends calls it.
func (l *Lab) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	processes, sockets, spaces := l.processes, l.sockets, l.spaces
	l.mu.Unlock()

	for _, p := range processes {
		p.kill(-p.Pid(), syscall.SIGKILL) // or it has ended
	}
	// Whoever has left its process group is still in its host.
	inodes := make(map[uint64]bool)
	for _, s := range spaces {
		inodes[s.inode] = true
	}
	for deadline := time.Now().Add(patience); killAll(inside(inodes)) > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	for _, p := range processes {
		p.Wait()
	}
	l.starter.close()
	for _, s := range sockets {
		s.Close()
	}
	l.wire.close()
	for _, s := range spaces {
		s.close()
	}
}

// Host is a machine of the lab.
type Host struct {
	lab   *Lab
	name  string
	addr  netip.Addr
	space *space
	port  *port // where the wide network sees it; nil: nowhere
}

// LAN is a bridge with hosts on it, and perhaps with a gateway.
type LAN struct {
	lab     *Lab
	name    string
	number  byte
	members byte
	space   *space
	port    *port // the gateway's; nil: none
	public  netip.Addr
}

// Host adds a host with a public address. Each has another /16, and addresses look
// public to programs that know the ranges set aside for tests and shun them.
func (l *Lab) Host(name string, link Link) *Host {
	l.t.Helper()
	return l.HostAt(name, l.nextPublic(), link)
}

// HostAt adds a host with the address addr, as for many hosts in one subnet.
func (l *Lab) HostAt(name string, addr netip.Addr, link Link) *Host {
	l.t.Helper()
	s, p := l.uplink(name, addr, link)
	return &Host{lab: l, name: name, addr: addr, space: s, port: p}
}

// HostBehindNAT adds a host that is alone behind a gateway. The link is the gateway's.
func (l *Lab) HostBehindNAT(name string, kind NAT, link Link) *Host {
	l.t.Helper()
	return l.NAT(name+"-gateway", kind, link).Host(name)
}

// LAN adds a segment without a gateway: its hosts reach one another and no one else.
func (l *Lab) LAN(name string) *LAN {
	l.t.Helper()
	l.name(name)
	s, err := l.space()
	l.must(name, err)
	return l.lan(name, s)
}

// NAT adds a segment behind a gateway that has a public address. The link is the gateway's.
func (l *Lab) NAT(name string, kind NAT, link Link) *LAN {
	l.t.Helper()
	public := l.nextPublic()
	s, p := l.uplink(name, public, link)
	if err := s.masquerade(kind, "eth0"); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
			l.t.Skipf("lab: no NAT by nftables in this kernel: %v", err)
		}
		l.must(name, err)
	}
	n := l.lan(name, s)
	n.port, n.public = p, public
	return n
}

func (l *Lab) lan(name string, s *space) *LAN {
	l.t.Helper()
	if l.lans == 250 {
		l.t.Fatalf("lab: %s: more than 250 LANs", name)
	}
	l.lans++
	n := &LAN{lab: l, name: name, number: l.lans, space: s, members: 1}
	l.must(name, s.do(func() error {
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan", MTU: mtu}})
	}))
	_, err := s.up("lan", address(netip.PrefixFrom(n.at(1), 24)))
	l.must(name, err)
	return n
}

func (n *LAN) at(member byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, n.number, member}) }

// Public is the gateway's address, or the zero Addr.
func (n *LAN) Public() netip.Addr { return n.public }

// Host adds a host to the segment.
func (n *LAN) Host(name string) *Host {
	l := n.lab
	l.t.Helper()
	l.name(name)
	if n.members == 250 {
		l.t.Fatalf("lab: %s: more than 250 addresses in %s", name, n.name)
	}
	n.members++
	addr, far := n.at(n.members), fmt.Sprintf("port%d", n.members)
	s, err := l.space()
	l.must(name, err)
	l.must(name, s.veth("eth0", n.space, far))
	_, err = n.space.up(far, func(link netlink.Link) error {
		bridge, err := netlink.LinkByName("lan")
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
	l.must(name, err)
	_, err = s.up("eth0", address(netip.PrefixFrom(addr, 24)))
	l.must(name, err)
	l.must(name, s.defaultRoute("eth0", n.at(1)))
	l.must(name, s.settledWith(n.space, n.at(255)))
	return &Host{lab: l, name: name, addr: addr, space: s, port: n.port}
}

// uplink makes a namespace whose eth0 is joined to the wide network.
func (l *Lab) uplink(name string, addr netip.Addr, link Link) (*space, *port) {
	l.t.Helper()
	l.name(name)
	l.must(name, link.validate())
	if !addr.Is4() {
		l.t.Fatalf("lab: %s: the address %s is not IPv4", name, addr)
	}
	s, err := l.space()
	l.must(name, err)
	far := fmt.Sprintf("port%d", len(l.names))
	l.must(name, s.veth("eth0", l.router, far))
	_, err = l.router.up(far)
	l.must(name, err)
	tap, err := l.router.tap(far)
	l.must(name, err)
	// Without ARP the host puts any address on the line, as on a line to a provider.
	eth0, err := s.up("eth0", plain, netlink.LinkSetARPOff, address(netip.PrefixFrom(addr, 32)))
	if err != nil {
		tap.Close()
		l.must(name, err)
	}
	if err := errors.Join(s.settled("eth0"), l.router.settled(far)); err != nil {
		tap.Close()
		l.must(name, err)
	}
	p := &port{addr: addr, mac: [6]byte(eth0.Attrs().HardwareAddr), tap: tap, link: link}
	if err := l.wire.plug(p); err != nil {
		tap.Close()
		l.must(name, err)
	}
	l.must(name, s.defaultRoute("eth0", netip.Addr{}))
	return s, p
}

func (l *Lab) name(name string) {
	l.t.Helper()
	if l.names[name] {
		l.t.Fatalf("lab: two hosts or networks are named %s", name)
	}
	l.names[name] = true
}

func (l *Lab) nextPublic() netip.Addr {
	l.t.Helper()
	if l.public == 250 {
		l.t.Fatal("lab: more than 250 public addresses")
	}
	l.public++
	return netip.AddrFrom4([4]byte{30, l.public, 0, 1})
}

// Cut lets no packet pass between two hosts over the wide network. For a host
// behind NAT that is its gateway, with all that is behind it.
func (l *Lab) Cut(a, b *Host) {
	l.t.Helper()
	l.wire.cut(l.wide(a, b), l.wide(b, a), true)
}

// Partition cuts every host of each side from every host of the other sides. Hosts
// on no side are as before.
func (l *Lab) Partition(sides ...[]*Host) {
	l.t.Helper()
	for i, side := range sides {
		for _, other := range sides[i+1:] {
			for _, a := range side {
				for _, b := range other {
					l.Cut(a, b)
				}
			}
		}
	}
}

// Heal ends all cuts.
func (l *Lab) Heal() { l.wire.heal() }

// wide is a's port, if a and b have different ones.
func (l *Lab) wide(a, b *Host) *port {
	l.t.Helper()
	if a.port == nil || b.port == nil || a.port == b.port {
		l.t.Fatalf("lab: the wide network does not lie between %s and %s", a.name, b.name)
	}
	return a.port
}

// Traffic is what the wide network has carried so far.
func (l *Lab) Traffic() Traffic { return l.wire.count() }

// Name is the host's name, and Addr its address: behind NAT and on a LAN a private one.
func (h *Host) Name() string     { return h.name }
func (h *Host) Addr() netip.Addr { return h.addr }

// Public is the address by which the wide network knows the host, or the zero Addr.
func (h *Host) Public() netip.Addr {
	if h.port == nil {
		return netip.Addr{}
	}
	return h.port.addr
}

// SetLink changes the host's link, or its gateway's, for packets sent from now on.
func (h *Host) SetLink(link Link) {
	h.lab.t.Helper()
	h.lab.must(h.name, link.validate())
	if h.port == nil {
		h.lab.t.Fatalf("lab: %s has no link to the wide network", h.name)
	}
	h.lab.wire.setLink(h.port, link)
}

// Start starts the command in the host's network, in a process group of its own.
// Only the network is the host's: files and users are the machine's.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	l := h.lab
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("start in %s: %w", h.name, os.ErrClosed)
	}
	p, err := l.starter.start(h.space, cmd)
	if err != nil {
		return nil, fmt.Errorf("start in %s: %w", h.name, err)
	}
	l.processes = append(l.processes, p)
	return p, nil
}

// Run starts the command in the host and waits for its end.
func (h *Host) Run(cmd *exec.Cmd) error {
	p, err := h.Start(cmd)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Do runs f with the calling thread in the host's network: sockets that f opens are
// the host's for ever, those that its goroutines open are not. Sockets must be closed before the lab.
func (h *Host) Do(f func() error) error { return h.space.do(f) }

// Dial connects from the host, as net.Dialer.DialContext does; address is an IP
// address and a port, not a name. The lab closes what it returns.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return opened(h, func() (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, address) })
}

// Listen listens in the host, as net.Listen does. The lab closes what it returns.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	return opened(h, func() (net.Listener, error) { return net.Listen(network, address) })
}

// ListenUDP opens a UDP socket in the host, as net.ListenUDP does: address has the
// form of ":0" or "10.0.0.1:4001". The lab closes what it returns.
func (h *Host) ListenUDP(address string) (*net.UDPConn, error) {
	return opened(h, func() (*net.UDPConn, error) {
		at, err := net.ResolveUDPAddr("udp4", address)
		if err != nil {
			return nil, err
		}
		return net.ListenUDP("udp4", at)
	})
}

// opened opens a socket in the host and has it closed with the lab.
func opened[S io.Closer](h *Host, open func() (S, error)) (s S, err error) {
	err = h.space.do(func() (err error) {
		s, err = open()
		return err
	})
	if err != nil {
		return s, fmt.Errorf("in %s: %w", h.name, err)
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.closed {
		s.Close()
		return s, fmt.Errorf("in %s: %w", h.name, os.ErrClosed)
	}
	h.lab.sockets = append(h.lab.sockets, s)
	return s, nil
}
