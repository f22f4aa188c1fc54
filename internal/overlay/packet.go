package overlay

import (
	"errors"
	"fmt"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// A packet is hash[32] ‖ signature[65] ‖ type[1] ‖ payload. The hash is Keccak-256 over network,
// recipient and all that follows it: it proves nothing, but noise, and a packet recorded
// elsewhere, falls at the cost of one hash. The signature covers network, recipient, type and payload.

// MaxPacket is the longest packet, in bytes. With the two bytes of magic by which the socket's owner
// tells it from QUIC it is 1,280, which IPv6 carries everywhere (RFC 8200, section 5).
const MaxPacket = 1280 - 2

const headSize = len(crowd.Hash{}) + len(identity.Signature{}) + 1

const maxPayload = MaxPacket - headSize

// Why a packet is refused, cheapest check first. Each is wrapped with more.
var (
	ErrLength    = errors.New("no packet has this length")
	ErrHash      = errors.New("not for this node on this network")
	ErrForm      = errors.New("not a message")
	ErrSignature = errors.New("bad signature")
)

// Network sets the packets and records of one network apart from all others'.
type Network [32]byte

// NetworkOf is the network of the chain with that ID.
func NetworkOf(chain string) Network { return Network(crowd.Digest("overlay/network", chain)) }

// Recover is identity.Recover or one that also counts, remembers or refuses, since it takes 170 µs.
type Recover func(crowd.Hash, identity.Signature) (crowd.NodeID, error)

// Packet is a packet whose hash and form hold. Its signatures nobody has looked at.
type Packet struct {
	Hash    crowd.Hash // names it: another packet has another
	Type    uint8
	Req     uint64 // of its message
	Expires Time   // on the sender's clock
	Size    int    // bytes
	Records int    // in its message: so many calls of recover Message makes at most

	network Network
	digest  crowd.Hash
	sig     identity.Signature
	padded  bool
	message Message // records without IDs
}

// Seal makes the packet of a message for the node to. With pad it is MaxPacket long, or one byte less.
// It fails for a message that breaks its bounds, or is too long.
func Seal(key *identity.Key, network Network, to crowd.NodeID, m Message, expires Time, pad bool) ([]byte, error) {
	kind, payload, err := payloadOf(m, expires, pad)
	if err != nil {
		return nil, fmt.Errorf("seal %T: %w", m, err)
	}
	position := to.Key()
	sig := key.Sign(packetDigest(network, position, kind, payload))
	hash := packetHash(network, position, sig[:], []byte{kind}, payload)
	packet := make([]byte, 0, headSize+len(payload))
	packet = append(packet, hash[:]...)
	packet = append(packet, sig[:]...)
	packet = append(packet, kind)
	return append(packet, payload...), nil
}

func payloadOf(m Message, expires Time, pad bool) (kind uint8, payload []byte, err error) {
	kind, payload, err = encodePayload(m, expires, nil)
	if err != nil {
		return 0, nil, err
	}
	if len(payload) > maxPayload {
		return 0, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrLength, headSize+len(payload), MaxPacket)
	}
	if n := padding(maxPayload - len(payload)); pad && n > 0 {
		return encodePayload(m, expires, make([]byte, n))
	}
	return kind, payload, nil
}

// padding is how many zero bytes, as a byte string in place of null, fill up so much room, or all but one byte of it.
func padding(room int) int {
	n := room // the head of a short string is as long as null
	for n > 0 && sizeUint(uint64(n))+n > room+1 {
		n--
	}
	return n
}

// PacketSize is the length of the packet of m in bytes, without padding; of a message that has none, 0.
func PacketSize(m Message) int {
	_, payload, err := encodePayload(m, maxMillis*1000, nil)
	if err != nil {
		return 0
	}
	return headSize + len(payload)
}

// Read checks length, hash and form of a packet for the node at self: some microseconds for what is
// not for it, some tens for what is. It keeps nothing of b.
func Read(network Network, self crowd.Key, b []byte) (*Packet, error) {
	if len(b) <= headSize || len(b) > MaxPacket {
		return nil, fmt.Errorf("%w: %d bytes", ErrLength, len(b))
	}
	p := &Packet{Hash: crowd.Hash(b), Size: len(b), network: network}
	p.sig = identity.Signature(b[len(p.Hash):])
	p.Type = b[headSize-1]
	payload := b[headSize:]
	if packetHash(network, self, b[len(p.Hash):]) != p.Hash {
		return nil, ErrHash
	}
	m, expires, pad, err := decodePayload(p.Type, payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if pad != nil {
		p.padded = true
		for _, c := range pad {
			if c != 0 {
				return nil, fmt.Errorf("%w: padding is not zero", ErrForm)
			}
		}
		bare := len(payload) - sizeUint(uint64(len(pad))) - len(pad) + 1
		if n := padding(maxPayload - bare); n == 0 || len(pad) != n {
			return nil, fmt.Errorf("%w: padding of %d bytes, want %d", ErrForm, len(pad), n)
		}
	}
	p.digest = packetDigest(network, self, p.Type, payload)
	p.Req, p.Expires, p.Records, p.message = requestOf(m), expires, recordsIn(m), m
	return p, nil
}

func requestOf(m Message) uint64 {
	switch m := m.(type) {
	case Ping:
		return m.Req
	case Pong:
		return m.Req
	case FindNode:
		return m.Req
	case Nodes:
		return m.Req
	case Register:
		return m.Req
	case Ticket:
		return m.Req
	case Clock:
		return m.Req
	}
	return 0
}

func recordsIn(m Message) int {
	var own *Record
	switch m := m.(type) {
	case Nodes:
		return len(m.Records)
	case Ping:
		own = m.Record
	case FindNode:
		own = m.Record
	case Register:
		own = m.Record
	}
	if own == nil {
		return 0
	}
	return 1
}

// IsAnswer reports whether only somebody who was asked under Req sends such a packet.
func (p *Packet) IsAnswer() bool {
	switch p.message.(type) {
	case Pong, Nodes, Ticket, Clock:
		return true
	}
	return false
}

// Sender is who signed p: one call of recover.
func (p *Packet) Sender(recover Recover) (crowd.NodeID, error) {
	id, err := recover(p.digest, p.sig)
	if err != nil {
		return crowd.NodeID{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return id, nil
}

// Message is what p says, with the records' IDs: one call of recover for each of them. The record of
// a request must be that of its sender. Of an answer's records, their signatures alone say whose they are.
func (p *Packet) Message(sender crowd.NodeID, recover Recover) (Message, error) {
	var own *Record
	switch m := p.message.(type) {
	case Ping:
		own = m.Record
	case FindNode:
		own = m.Record
	case Register:
		own = m.Record
	case Nodes:
		for _, r := range m.Records {
			if err := r.recoverID(p.network, recover); err != nil {
				return nil, err
			}
		}
	}
	if own != nil {
		if err := own.recoverID(p.network, recover); err != nil {
			return nil, err
		}
		if own.ID != sender {
			return nil, fmt.Errorf("%w: the record in a request is not its sender's", ErrSignature)
		}
	}
	return p.message, nil
}

// Open reads a whole packet: who sent which message to the node at self, and until when it counts.
// That it has not expired, and that its records' puzzles are solved, the caller checks.
func Open(network Network, self crowd.Key, b []byte) (sender crowd.NodeID, m Message, expires Time, err error) {
	p, err := Read(network, self, b)
	if err != nil {
		return crowd.NodeID{}, nil, 0, err
	}
	if sender, err = p.Sender(identity.Recover); err != nil {
		return crowd.NodeID{}, nil, 0, err
	}
	if m, err = p.Message(sender, identity.Recover); err != nil {
		return crowd.NodeID{}, nil, 0, err
	}
	return sender, m, p.Expires, nil
}

func packetHash(network Network, to crowd.Key, rest ...[]byte) crowd.Hash {
	return crowd.Keccak256(append([][]byte{network[:], to[:]}, rest...)...)
}

func packetDigest(network Network, to crowd.Key, kind uint8, payload []byte) crowd.Hash {
	return crowd.Digest("overlay/packet", struct {
		_       struct{} `cbor:",toarray"`
		Network Network
		To      crowd.Key
		Type    uint8
		Payload []byte
	}{Network: network, To: to, Type: kind, Payload: payload})
}

// Split divides an answer into parts of which each fits a packet; n.Part and n.Parts are ignored. The
// order of the records is kept, so the ads stay in front. What does not fit 255 parts is left out.
func Split(n Nodes) []Nodes {
	empty := Nodes{Req: n.Req, Parts: 255, Part: 254, Ads: 255}
	var parts []Nodes
	part, size, ads := Nodes{Req: n.Req}, 0, int(n.Ads)
	// The head of the list counts once more: its length grows to two bytes.
	room := MaxPacket - headSize - sizeNodes(empty) - 1
	for i, r := range n.Records {
		if len(part.Records) > 0 && size+r.Size() > room {
			parts = append(parts, part)
			part, size = Nodes{Req: n.Req}, 0
			if len(parts) == 255 {
				break
			}
		}
		part.Records = append(part.Records, r)
		size += r.Size()
		if i < ads {
			part.Ads++
		}
	}
	if len(parts) < 255 {
		parts = append(parts, part)
	}
	for i := range parts {
		parts[i].Part, parts[i].Parts = uint8(i), uint8(len(parts))
	}
	return parts
}

// sizeNodes is the length of the payload of n without its records.
func sizeNodes(n Nodes) int {
	return 1 + 9 + sizeUint(n.Req) + sizeUint(uint64(n.Part)) + sizeUint(uint64(n.Parts)) + sizeUint(uint64(n.Ads)) + 1 + 1
}
