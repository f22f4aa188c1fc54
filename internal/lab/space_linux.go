package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is a network namespace without a name: only the open file keeps it alive,
// so that the kernel removes it, with all links in it, however this process dies.
type space struct {
	file  *os.File
	inode uint64
}

// errFled is for an f that never came back, since it called runtime.Goexit.
var errFled = errors.New("lab: the function left its goroutine")

// onThread runs f on a thread of its own, in the namespace of the process, and
// puts that thread back there afterwards; a thread that cannot go back ends.
func onThread(f func() error) error {
	done := make(chan error, 1) // so that the thread never waits for its caller
	go func() {
		err := errFled
		defer func() { done <- err }()
		runtime.LockOSThread()
		home, e := openSpace()
		if e != nil {
			err = e
			return
		}
		defer home.Close()
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}

// openSpace opens the namespace of the calling thread.
func openSpace() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	return f, nil
}

func newSpace() (*space, error) {
	s := new(space)
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if s.file, err = openSpace(); err != nil {
			return err
		}
		info, err := s.file.Stat()
		if err != nil {
			return err
		}
		s.inode = info.Sys().(*syscall.Stat_t).Ino
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
		// IPv4 only, but for ::1: lo has been made already.
		if err := sysctl("ipv6/conf/default/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		// Packets of the wide network arrive by links whose routes say nothing of it.
		for _, name := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv4/ip_forward"} {
			if err := sysctl(name, "0"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *space) fd() int { return int(s.file.Fd()) }

func (s *space) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// do runs f on a thread that is inside; sockets it opens stay there for ever. What
// f starts on other goroutines is outside.
func (s *space) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(s.fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// sysctl sets a value of the calling thread's namespace.
func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
}

// veth makes a pair of linked devices, near in s and far in other.
func (s *space) veth(near string, other *space, far string) error {
	return s.do(func() error {
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: near, MTU: mtu},
			PeerName:      far,
			PeerMTU:       mtu,
			PeerNamespace: netlink.NsFd(other.fd()),
		})
		if err != nil {
			return fmt.Errorf("make the veth pair %s, %s: %w", near, far, err)
		}
		return nil
	})
}

// up sets a device up and returns it as it then is.
func (s *space) up(device string, also ...func(netlink.Link) error) (link netlink.Link, err error) {
	err = s.do(func() error {
		if link, err = netlink.LinkByName(device); err != nil {
			return fmt.Errorf("find %s: %w", device, err)
		}
		for _, f := range append(also, netlink.LinkSetUp) {
			if err := f(link); err != nil {
				return fmt.Errorf("configure %s: %w", device, err)
			}
		}
		return nil
	})
	return link, err
}

// patience is how long a busy kernel may take to bring a link to life.
const patience = 10 * time.Second

// settled waits until a device that is up, with its peer up too, carries packets:
// the kernel comes round to that later, and drops what is sent before.
func (s *space) settled(device string) error {
	return s.do(func() error {
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			link, err := netlink.LinkByName(device)
			if err != nil {
				return fmt.Errorf("find %s: %w", device, err)
			}
			if link.Attrs().OperState == netlink.OperUp {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is %s after %v", device, link.Attrs().OperState, patience)
			}
		}
	})
}

// settledWith waits until broadcasts pass both ways between s and other, which have
// nothing but a bridge between them. They need no ARP, whose first retry takes a second.
func (s *space) settledWith(other *space, broadcast netip.Addr) error {
	ends := make([]*net.UDPConn, 2)
	for i, at := range []*space{s, other} {
		err := at.do(func() (err error) {
			ends[i], err = net.ListenUDP("udp4", nil)
			return err
		})
		if err != nil {
			return fmt.Errorf("open a socket for the trial: %w", err)
		}
		defer ends[i].Close()
	}
	buf := make([]byte, 1)
	heard := make([]bool, 2)
	for deadline := time.Now().Add(patience); !heard[0] || !heard[1]; {
		if time.Now().After(deadline) {
			return fmt.Errorf("no broadcasts by the bridge after %v", patience)
		}
		for i, c := range ends {
			to := ends[1-i].LocalAddr().(*net.UDPAddr).AddrPort().Port()
			if _, err := c.WriteToUDPAddrPort(buf, netip.AddrPortFrom(broadcast, to)); err != nil {
				return fmt.Errorf("try a broadcast: %w", err)
			}
		}
		for i, c := range ends {
			c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
			if _, _, err := c.ReadFromUDPAddrPort(buf); err == nil {
				heard[i] = true
			}
		}
	}
	return nil
}

// address gives a device its address.
func address(p netip.Prefix) func(netlink.Link) error {
	return func(link netlink.Link) error {
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p)})
	}
}

// defaultRoute sends what has no better route to via, or, where via is the zero
// Addr, straight into the device.
func (s *space) defaultRoute(device string, via netip.Addr) error {
	return s.do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("find %s: %w", device, err)
		}
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0))}
		if via.IsValid() {
			r.Gw = via.AsSlice()
		} else {
			r.Scope = netlink.SCOPE_LINK
		}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("route all by %s: %w", device, err)
		}
		return nil
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// plain switches off what leaves work to a network card that is not there: a packet
// that the wire reads must have its checksum and fit the MTU.
func plain(link netlink.Link) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for _, feature := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO} {
		off := struct{ cmd, data uint32 }{cmd: feature} // struct ethtool_value
		var req struct {                                // struct ifreq
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(req.name[:unix.IFNAMSIZ-1], link.Attrs().Name)
		req.data = unsafe.Pointer(&off)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
			return fmt.Errorf("switch off offload %#x: %w", feature, errno)
		}
	}
	return nil
}

// tap opens a device for whole IPv4 frames, in and out.
func (s *space) tap(device string) (f *os.File, err error) {
	err = s.do(func() error {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("find %s: %w", device, err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		at := unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: link.Attrs().Index}
		if err := errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBuffer),
			unix.Bind(fd, &at),
		); err != nil {
			unix.Close(fd)
			return fmt.Errorf("bind a packet socket to %s: %w", device, err)
		}
		f = os.NewFile(uintptr(fd), device)
		return nil
	})
	return f, err
}

func bigEndian(v uint16) uint16 { return v<<8 | v>>8 }
