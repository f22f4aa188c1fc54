package lab

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// NAT is how a gateway maps the addresses behind it to its own: masquerading by
// the Linux kernel, as in most home routers. Both kinds let in only answers, from
// the address and the port that was spoken to (RFC 4787: address and port-dependent
// filtering); what comes unasked is dropped in silence.
type NAT int

const (
	// Cone keeps the source port for every destination while no two hosts behind
	// the gateway want the same (RFC 4787: endpoint-independent mapping). A hole can be punched.
	Cone NAT = iota
	// Symmetric takes a random port for each destination, which nobody outside can
	// foretell (RFC 4787: address and port-dependent mapping).
	Symmetric
)

// masquerade makes s, with the wide network at its device uplink, a gateway.
func (s *space) masquerade(kind NAT, uplink string) error {
	if err := s.do(func() error { return sysctl("ipv4/ip_forward", "1") }); err != nil {
		return err
	}
	nft, err := nftables.New(nftables.WithNetNSFd(s.fd()))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"})
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, rule ...expr.Any) {
		c := nft.AddChain(&nftables.Chain{Name: name, Table: table, Type: typ, Hooknum: hook, Priority: priority})
		nft.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: rule})
	}
	device := func(key expr.MetaKey) []expr.Any {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, uplink)
		return []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		}
	}
	random := kind == Symmetric
	chain("out", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		append(device(expr.MetaKeyOIFNAME), &expr.Masq{Random: random, FullyRandom: random})...)
	// What comes unasked must be dropped before the kernel keeps a connection for
	// it: that would hold the port which a host inside is about to punch with.
	unasked := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW|expr.CtStateBitINVALID)
	refuse := append(device(expr.MetaKeyIIFNAME),
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: unasked, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictDrop})
	chain("in", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, refuse...)
	chain("through", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, refuse...)
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("set the rules of the gateway: %w", err)
	}
	return nil
}
