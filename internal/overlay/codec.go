package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// The first byte after a packet's signature says which message follows. Append only.
const (
	typePing uint8 = iota + 1
	typePong
	typeFindNode
	typeNodes
	typeRegister
	typeTicket
	typeClock
)

// MaxTicket bounds a ticket, in bytes.
const MaxTicket = 128

// maxMillis keeps every time on the wire inside a Time.
const maxMillis = 1 << 52

// What goes over the wire are the records below, as arrays, each payload beginning with its
// expiration and ending, but for a Pong, with its padding. An empty list, an absent record and no
// padding are null: nothing has two forms.

type wireEndpoint struct {
	_    struct{} `cbor:",toarray"`
	Addr []byte   // 4 or 16 bytes
	UDP  uint16
	TCP  uint16
}

type recordBody struct {
	_         struct{} `cbor:",toarray"`
	Seq       uint64
	Endpoints []wireEndpoint
	Relay     []byte // 32 bytes, or null
	Tags      []string
	VRF       identity.VRFPublic
	Epoch     uint32
	Nonce     uint64
}

type wireRecord struct {
	_    struct{} `cbor:",toarray"`
	Body recordBody
	Sig  identity.Signature
}

type wirePing struct {
	_       struct{} `cbor:",toarray"`
	Expires uint64
	Req     uint64
	Seq     uint64
	Record  *wireRecord
	Pad     []byte
}

type wirePong struct {
	_       struct{} `cbor:",toarray"`
	Expires uint64
	Req     uint64
	Seq     uint64
	Addr    []byte // 4 or 16 bytes, then 2 of the port, big-endian; or null
	Ask     uint64 // 0: nothing is asked. In place of padding: a Pong has none, and is no longer than the shortest Ping
}

type wireFindNode struct {
	_       struct{} `cbor:",toarray"`
	Expires uint64
	Req     uint64
	Target  crowd.Key
	Want    uint8
	Ads     bool
	Record  *wireRecord
	Pad     []byte
}

type wireNodes struct {
	_       struct{} `cbor:",toarray"`
	Expires uint64
	Req     uint64
	Part    uint8
	Parts   uint8
	Ads     uint8
	Records []wireRecord
	Pad     []byte
}

type wireRegister struct {
	_       struct{} `cbor:",toarray"`
	Expires uint64
	Req     uint64
	Topic   crowd.Key
	Ticket  []byte
	Record  *wireRecord
	Pad     []byte
}

type wireTicket struct {
	_       struct{} `cbor:",toarray"`
	Expires uint64
	Req     uint64
	Kept    bool
	Wait    uint32 // milliseconds
	Ticket  []byte
	Pad     []byte
}

type wireClock struct {
	_       struct{} `cbor:",toarray"`
	Expires uint64
	Req     uint64
	Now     uint64
	Pad     []byte
}

// encodePayload fails for a message that no honest reader would take.
func encodePayload(m Message, expires Time, pad []byte) (kind uint8, payload []byte, err error) {
	if err := checkMessage(m); err != nil {
		return 0, nil, err
	}
	at, err := millis(expires)
	if err != nil {
		return 0, nil, err
	}
	switch m := m.(type) {
	case Ping:
		return typePing, crowd.Encode(wirePing{Expires: at, Req: m.Req, Seq: m.Seq, Record: toWire(m.Record), Pad: pad}), nil
	case Pong:
		if pad != nil {
			return 0, nil, errors.New("a pong is not padded")
		}
		w := wirePong{Expires: at, Req: m.Req, Seq: m.Seq, Ask: m.Ask}
		if m.Observed.IsValid() {
			w.Addr = binary.BigEndian.AppendUint16(m.Observed.Addr().AsSlice(), m.Observed.Port())
		}
		return typePong, crowd.Encode(w), nil
	case FindNode:
		return typeFindNode, crowd.Encode(wireFindNode{Expires: at, Req: m.Req, Target: m.Target, Want: m.Want, Ads: m.Ads,
			Record: toWire(m.Record), Pad: pad}), nil
	case Nodes:
		w := wireNodes{Expires: at, Req: m.Req, Part: m.Part, Parts: m.Parts, Ads: m.Ads, Pad: pad}
		for _, r := range m.Records {
			w.Records = append(w.Records, *toWire(r))
		}
		return typeNodes, crowd.Encode(w), nil
	case Register:
		return typeRegister, crowd.Encode(wireRegister{Expires: at, Req: m.Req, Topic: m.Topic, Ticket: orNull(m.Ticket),
			Record: toWire(m.Record), Pad: pad}), nil
	case Ticket:
		return typeTicket, crowd.Encode(wireTicket{Expires: at, Req: m.Req, Kept: m.Kept, Wait: uint32(m.Wait / time.Millisecond),
			Ticket: orNull(m.Ticket), Pad: pad}), nil
	case Clock:
		now, err := millis(m.Now)
		if err != nil {
			return 0, nil, err
		}
		return typeClock, crowd.Encode(wireClock{Expires: at, Req: m.Req, Now: now, Pad: pad}), nil
	}
	return 0, nil, fmt.Errorf("no wire form for %T", m)
}

// decodePayload reads what encodePayload made. The records in the message have no ID yet.
func decodePayload(kind uint8, b []byte) (m Message, expires Time, pad []byte, err error) {
	switch kind {
	case typePing:
		var w wirePing
		if err = crowd.Decode(b, &w); err == nil {
			var r *Record
			r, err = fromWireOptional(w.Record)
			m, expires, pad = Ping{Req: w.Req, Seq: w.Seq, Record: r}, fromMillis(w.Expires), w.Pad
		}
	case typePong:
		var w wirePong
		if err = crowd.Decode(b, &w); err == nil {
			var seen netip.AddrPort
			if w.Addr != nil {
				port := max(len(w.Addr)-2, 0)
				var a netip.Addr
				if a, err = fromAddr(w.Addr[:port]); err == nil {
					seen = netip.AddrPortFrom(a, binary.BigEndian.Uint16(w.Addr[port:]))
				}
			}
			m, expires = Pong{Req: w.Req, Seq: w.Seq, Observed: seen, Ask: w.Ask}, fromMillis(w.Expires)
		}
	case typeFindNode:
		var w wireFindNode
		if err = crowd.Decode(b, &w); err == nil {
			var r *Record
			r, err = fromWireOptional(w.Record)
			m, expires, pad = FindNode{Req: w.Req, Target: w.Target, Want: w.Want, Ads: w.Ads, Record: r}, fromMillis(w.Expires), w.Pad
		}
	case typeNodes:
		var w wireNodes
		if err = crowd.Decode(b, &w); err == nil {
			n := Nodes{Req: w.Req, Part: w.Part, Parts: w.Parts, Ads: w.Ads}
			if w.Records != nil && len(w.Records) == 0 {
				err = errTwoForms
			}
			for i := range w.Records {
				r, bad := fromWire(&w.Records[i])
				if bad != nil {
					err = bad
					break
				}
				n.Records = append(n.Records, r)
			}
			m, expires, pad = n, fromMillis(w.Expires), w.Pad
		}
	case typeRegister:
		var w wireRegister
		if err = crowd.Decode(b, &w); err == nil {
			var r *Record
			r, err = fromWireOptional(w.Record)
			m, expires, pad = Register{Req: w.Req, Topic: w.Topic, Ticket: w.Ticket, Record: r}, fromMillis(w.Expires), w.Pad
			if w.Ticket != nil && len(w.Ticket) == 0 {
				err = errTwoForms
			}
		}
	case typeTicket:
		var w wireTicket
		if err = crowd.Decode(b, &w); err == nil {
			m, expires, pad = Ticket{Req: w.Req, Kept: w.Kept, Wait: time.Duration(w.Wait) * time.Millisecond, Ticket: w.Ticket}, fromMillis(w.Expires), w.Pad
			if w.Ticket != nil && len(w.Ticket) == 0 {
				err = errTwoForms
			}
		}
	case typeClock:
		var w wireClock
		if err = crowd.Decode(b, &w); err == nil {
			m, expires, pad = Clock{Req: w.Req, Now: fromMillis(w.Now)}, fromMillis(w.Expires), w.Pad
		}
	default:
		err = fmt.Errorf("unknown type %d", kind)
	}
	if err != nil {
		return nil, 0, nil, err
	}
	if expires < 0 {
		return nil, 0, nil, errTime
	}
	if err := checkMessage(m); err != nil {
		return nil, 0, nil, err
	}
	return m, expires, pad, nil
}

var (
	errTwoForms = errors.New("an empty list is null")
	errTime     = errors.New("a time out of range")
)

// checkMessage holds for what is written and what is read.
func checkMessage(m Message) error {
	switch m := m.(type) {
	case Ping:
		return checkOptional(m.Record)
	case Pong:
		if m.Observed == (netip.AddrPort{}) {
			return nil
		}
		return checkAddr(m.Observed.Addr(), m.Observed.Port())
	case FindNode:
		return checkOptional(m.Record)
	case Nodes:
		if m.Part >= m.Parts {
			return fmt.Errorf("part %d of %d", m.Part, m.Parts)
		}
		if int(m.Ads) > len(m.Records) {
			return fmt.Errorf("%d ads in %d records", m.Ads, len(m.Records))
		}
		for _, r := range m.Records {
			if err := r.checkForm(); err != nil {
				return err
			}
		}
	case Register:
		if len(m.Ticket) > MaxTicket {
			return fmt.Errorf("ticket of %d bytes, at most %d", len(m.Ticket), MaxTicket)
		}
		return m.Record.checkForm()
	case Ticket:
		if len(m.Ticket) > MaxTicket {
			return fmt.Errorf("ticket of %d bytes, at most %d", len(m.Ticket), MaxTicket)
		}
		if m.Wait < 0 || m.Wait/time.Millisecond > 1<<32-1 {
			return fmt.Errorf("wait of %v", m.Wait)
		}
	case Clock:
		_, err := millis(m.Now)
		return err
	default:
		return fmt.Errorf("no wire form for %T", m)
	}
	return nil
}

func checkOptional(r *Record) error {
	if r == nil {
		return nil
	}
	return r.checkForm()
}

// checkForm fails unless r keeps the bounds of a record. It says nothing of signature and puzzles.
func (r *Record) checkForm() error {
	if r == nil {
		return errors.New("record: missing")
	}
	if len(r.Endpoints) > MaxEndpoints {
		return fmt.Errorf("record: %d endpoints, at most %d", len(r.Endpoints), MaxEndpoints)
	}
	for i, e := range r.Endpoints {
		if err := checkAddr(e.Addr, e.UDP); err != nil {
			return fmt.Errorf("record: endpoint: %w", err)
		}
		if slices.Contains(r.Endpoints[:i], e) {
			return errors.New("record: an endpoint twice")
		}
	}
	if len(r.Tags) > MaxTags {
		return fmt.Errorf("record: %d tags, at most %d", len(r.Tags), MaxTags)
	}
	for i, tag := range r.Tags {
		if err := CheckTag(tag); err != nil {
			return fmt.Errorf("record: %w", err)
		}
		if i > 0 && r.Tags[i-1] >= tag {
			return errors.New("record: tags are not sorted, or one stands there twice")
		}
	}
	if n := r.Size(); n > MaxRecord {
		return fmt.Errorf("record: %d bytes, at most %d", n, MaxRecord)
	}
	return nil
}

// CheckTag fails unless tag has 1 to MaxTag bytes, each of [a-z0-9._:=-].
func CheckTag(tag string) error {
	if len(tag) == 0 || len(tag) > MaxTag {
		return fmt.Errorf("tag of %d bytes, want 1 to %d", len(tag), MaxTag)
	}
	for _, c := range []byte(tag) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("._:=-", rune(c)) {
			return fmt.Errorf("tag %q: want a-z, 0-9 and ._:=-", tag)
		}
	}
	return nil
}

// checkAddr refuses what nobody can answer at, and second forms of an address.
func checkAddr(a netip.Addr, port uint16) error {
	switch {
	case !a.IsValid() || a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("address %q: want IPv4, or IPv6 without zone that is no mapped IPv4", a)
	case a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("address %s is no single machine's on every link", a)
	case port == 0:
		return errors.New("port 0")
	}
	return nil
}

func fromAddr(b []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("address of %d bytes, want 4 or 16", len(b))
	}
	return a, nil
}

func (r *Record) body() recordBody {
	b := recordBody{Seq: r.Seq, VRF: r.VRF, Epoch: r.Epoch, Nonce: r.Nonce}
	for _, e := range r.Endpoints {
		b.Endpoints = append(b.Endpoints, wireEndpoint{Addr: e.Addr.AsSlice(), UDP: e.UDP, TCP: e.TCP})
	}
	if r.Relay != (crowd.Key{}) {
		b.Relay = r.Relay[:]
	}
	if len(r.Tags) > 0 {
		b.Tags = r.Tags
	}
	return b
}

func toWire(r *Record) *wireRecord {
	if r == nil {
		return nil
	}
	return &wireRecord{Body: r.body(), Sig: r.Sig}
}

func fromWireOptional(w *wireRecord) (*Record, error) {
	if w == nil {
		return nil, nil
	}
	return fromWire(w)
}

// fromWire leaves the ID zero: whose record it is, its signature says.
func fromWire(w *wireRecord) (*Record, error) {
	b := &w.Body
	r := &Record{Seq: b.Seq, Tags: b.Tags, VRF: b.VRF, Epoch: b.Epoch, Nonce: b.Nonce, Sig: w.Sig}
	if b.Endpoints != nil && len(b.Endpoints) == 0 || b.Tags != nil && len(b.Tags) == 0 {
		return nil, errTwoForms
	}
	if b.Relay != nil {
		if len(b.Relay) != len(r.Relay) {
			return nil, fmt.Errorf("record: relay of %d bytes", len(b.Relay))
		}
		if r.Relay = crowd.Key(b.Relay); r.Relay == (crowd.Key{}) {
			return nil, errors.New("record: no relay is null")
		}
	}
	for _, e := range b.Endpoints {
		a, err := fromAddr(e.Addr)
		if err != nil {
			return nil, fmt.Errorf("record: endpoint: %w", err)
		}
		r.Endpoints = append(r.Endpoints, Endpoint{Addr: a, UDP: e.UDP, TCP: e.TCP})
	}
	return r, nil
}

// Size is the length of r's encoding with its signature, in bytes, without making it.
func (r *Record) Size() int {
	n := 1 + 1 + sizeUint(r.Seq) + 1 + 1 + 1 + 2 + len(r.VRF) + sizeUint(uint64(r.Epoch)) + sizeUint(r.Nonce) + 2 + len(r.Sig)
	for _, e := range r.Endpoints {
		n += 1 + 1 + e.Addr.BitLen()/8 + sizeUint(uint64(e.UDP)) + sizeUint(uint64(e.TCP))
	}
	if r.Relay != (crowd.Key{}) {
		n += 1 + len(r.Relay)
	}
	for _, tag := range r.Tags {
		n += sizeUint(uint64(len(tag))) + len(tag)
	}
	return n
}

// sizeUint is how many bytes CBOR takes for n, or for the head of n bytes or entries.
func sizeUint(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n < 1<<8:
		return 2
	case n < 1<<16:
		return 3
	case n < 1<<32:
		return 5
	}
	return 9
}

func millis(t Time) (uint64, error) {
	if t < 0 || t/1000 > maxMillis {
		return 0, errTime
	}
	return uint64(t / 1000), nil
}

// fromMillis is -1 for what is out of range.
func fromMillis(ms uint64) Time {
	if ms > maxMillis {
		return -1
	}
	return Time(ms) * 1000
}

func orNull(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
