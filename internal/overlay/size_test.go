package overlay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/crowdcompute/crowd"
)

// randomRecord keeps the bounds of a record. Nobody has signed it.
func randomRecord(rng *rand.Rand) *Record {
	for {
		r := recordOf(rng, publicAddr(rng), begin)
		r.Seq, r.Nonce, r.Epoch = randomNumber(rng), randomNumber(rng), uint32(randomNumber(rng))
		r.Endpoints = nil
		for range rng.IntN(MaxEndpoints + 1) {
			r.Endpoints = append(r.Endpoints, Endpoint{randomAddr(rng).Addr(), uint16(1 + rng.IntN(1<<16-1)), uint16(randomNumber(rng))})
		}
		if rng.IntN(3) == 0 {
			r.Relay[5] = 1
		}
		for range rng.IntN(MaxTags + 1) {
			r.Tags = append(r.Tags, fmt.Sprintf("%0*d", 1+rng.IntN(MaxTag), rng.IntN(10)))
		}
		slices.Sort(r.Tags)
		r.Tags = slices.Compact(r.Tags)
		if r.checkForm() == nil {
			return r
		}
	}
}

// randomNumber has each length on the wire.
func randomNumber(rng *rand.Rand) uint64 { return rng.Uint64() >> rng.IntN(64) }

func randomAddr(rng *rand.Rand) netip.AddrPort {
	a := publicAddr(rng)
	if rng.IntN(2) == 0 {
		a = netip.AddrFrom16([16]byte{0x2a, byte(rng.Uint32()), 15: byte(rng.Uint32())})
	}
	return netip.AddrPortFrom(a, uint16(1+rng.IntN(1<<16-1)))
}

// TestSizes_AreNeverBelowTheCodecs: that nobody is amplified rests on them.
func TestSizes_AreNeverBelowTheCodecs(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 500 {
		r := randomRecord(rng)
		b, err := EncodeRecord(r)
		if err != nil || len(b) != r.Size() {
			t.Fatalf("a record of %d bytes (%v), Size says %d", len(b), err, r.Size())
		}
		req, addr := randomNumber(rng), randomAddr(rng)
		nodes := Nodes{Req: req, Parts: uint8(1 + rng.IntN(255)), Ads: uint8(rng.IntN(5))}
		nodes.Part = uint8(rng.IntN(int(nodes.Parts)))
		reckoned := nodesBytes
		for range int(nodes.Ads) + rng.IntN(252) { // more than fit a packet
			o := recordOf(rng, addr.Addr(), begin)
			nodes.Records = append(nodes.Records, o)
			reckoned += o.Size()
		}
		for _, tt := range []struct {
			msg Message
			max int
		}{
			{Ping{Req: req, Seq: r.Seq}, pingBytes},
			{Ping{Req: req, Seq: r.Seq, Record: r}, pingBytes + r.Size()},
			{Pong{Req: req, Seq: r.Seq}, pongBytes},
			{Pong{Req: req, Seq: r.Seq, Observed: addr}, pongBytes + sizeAddr(addr)},
			{Pong{Req: req, Seq: r.Seq, Observed: addr, Ask: 1<<64 - 1}, pongBytes + sizeAddr(addr) + askBytes},
			{nodes, reckoned},
			{Ticket{Req: req, Kept: rng.IntN(2) == 0, Wait: (1<<32 - 1) * 1e6 >> rng.IntN(50), Ticket: make([]byte, rng.IntN(2)*ticketLen)}, ticketBytes},
			{Clock{Req: req, Now: Time(randomNumber(rng)%maxMillis) * 1000}, clockBytes},
		} {
			if got := PacketSize(tt.msg); got == 0 || got > tt.max {
				t.Fatalf("%T of %d bytes, reckoned as %d", tt.msg, got, tt.max)
			}
		}
	}
	full := Pong{Req: 1<<64 - 1, Seq: 1<<64 - 1}
	if got := PacketSize(full); got != pongBytes || PacketSize(Ping{Req: full.Req, Seq: full.Seq}) != got {
		t.Errorf("a Pong without address has %d bytes, reckoned as %d: it answers the shortest Ping", got, pongBytes)
	}
	var none crowd.Key
	if got := PacketSize(FindNode{Req: full.Req, Target: none}); got <= pingBytes {
		t.Errorf("a FindNode of %d bytes", got)
	}
}
