package discovery

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/crowdcompute/crowd/internal/overlay"
	"github.com/crowdcompute/crowd/internal/p2p"
)

// benchNode is a node that no goroutine runs.
func benchNode(b *testing.B) *member {
	m := newEther().make(b, 1, func(c *Config) { c.Port = nowhere{} })
	if err := m.begin(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	return m
}

type nowhere struct{}

func (nowhere) SendDatagram(netip.AddrPort, []byte) error { return nil }
func (nowhere) Datagrams() <-chan p2p.Datagram            { return nil }

func BenchmarkReceiveNoiseOf1278Bytes(b *testing.B) {
	m := benchNode(b)
	g := p2p.Datagram{From: testAddr(9), Data: bytes.Repeat([]byte{7}, overlay.MaxPacket)}
	b.ReportAllocs()
	for b.Loop() {
		m.receive(g)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}

// BenchmarkReceiveOverBudget is a packet with a good hash from a flood that has used up its budget.
func BenchmarkReceiveOverBudget(b *testing.B) {
	m := benchNode(b)
	packet, err := overlay.Seal(testKey(b, 2), testNetwork, m.id, overlay.Ping{Req: 1}, overlay.At(time.Now().Add(packetLife)), false)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 2 * sourceBurst {
		m.receive(p2p.Datagram{From: testAddr(9), Data: unsigned(m.id, packet, i)})
	}
	g := p2p.Datagram{From: testAddr(9), Data: unsigned(m.id, packet, 1<<20)}
	b.ReportAllocs()
	for b.Loop() {
		m.receive(g)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
}
