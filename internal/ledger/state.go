package ledger

import (
	"encoding/binary"
	"strings"

	"github.com/google/btree"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/identity"
)

// State is one immutable snapshot: cheap to keep, safe to read from many
// goroutines. The zero State is empty; New makes the first one.
type State struct {
	kv   *btree.BTreeG[entry]
	tree *node
}

type entry struct {
	key string
	val []byte
}

func less(a, b entry) bool { return a.key < b.key }

// Root is the Merkle root over all keys and values.
func (s State) Root() crowd.Hash { return s.tree.rootHash() }

// Get is the encoded value under key, or nil. The caller must not change it.
func (s State) Get(key []byte) []byte { return s.get(string(key)) }

func (s State) get(key string) []byte {
	if s.kv == nil {
		return nil
	}
	e, _ := s.kv.Get(entry{key: key})
	return e.val
}

// Each calls f for every key that begins with prefix, in order, until f returns false.
func (s State) Each(prefix string, f func(key string, val []byte) bool) {
	if s.kv == nil {
		return
	}
	s.kv.AscendGreaterOrEqual(entry{key: prefix}, func(e entry) bool {
		return len(e.key) >= len(prefix) && e.key[:len(prefix)] == prefix && f(e.key, e.val)
	})
}

// EachAfter is Each from the first key after after on, which it finds without a look at those before.
func (s State) EachAfter(prefix, after string, f func(key string, val []byte) bool) {
	if s.kv == nil {
		return
	}
	s.kv.AscendGreaterOrEqual(entry{key: max(prefix, after+"\x00")}, func(e entry) bool {
		return strings.HasPrefix(e.key, prefix) && f(e.key, e.val)
	})
}

// Load rebuilds a state from all its keys and values, as Each gives them.
func Load(each func(f func(key string, val []byte))) State {
	s := State{kv: btree.NewG(32, less)}
	each(func(key string, val []byte) {
		s.kv.ReplaceOrInsert(entry{key, val})
		s.tree = s.tree.insert(0, leaf(key, val))
	})
	s.tree.seal()
	return s
}

// Account is what an address owns and how many transactions it has made.
type Account struct {
	_       struct{} `cbor:",toarray"`
	Balance crowd.Credits
	Nonce   uint64
}

// Supply counts every credit there is. Minted = accounts + stakes + escrows + Burned, always.
type Supply struct {
	_      struct{} `cbor:",toarray"`
	Minted crowd.Credits
	Burned crowd.Credits
}

// Beacon is the public randomness after the last block that carried some.
type Beacon struct {
	_ struct{} `cbor:",toarray"`
	R crowd.Hash
}

const (
	keyParams        = "sys/params"
	keyAuthorities   = "sys/authorities"
	keyBeacon        = "sys/beacon"
	keyEpochs        = "sys/epochs"
	keySupply        = "sys/supply"
	prefixAccount    = "account/"
	PrefixProvider   = "provider/"
	PrefixReputation = "reputation/"
	prefixEvidence   = "evidence/"
	PrefixJob        = "job/"
	prefixDraw       = "draw/" // height, job: waits for the beacon of that height
	prefixDue        = "due/"  // time, job: wants attention then
)

// AccountKey, ProviderKey, ReputationKey, EvidenceKey and JobKey are where records stand in the state.
func AccountKey(a crowd.Address) []byte    { return []byte(prefixAccount + string(a[:])) }
func ProviderKey(a crowd.Address) []byte   { return []byte(PrefixProvider + string(a[:])) }
func ReputationKey(a crowd.Address) []byte { return []byte(PrefixReputation + string(a[:])) }
func EvidenceKey(a crowd.Address) []byte   { return []byte(prefixEvidence + string(a[:])) }
func JobKey(id crowd.JobID) []byte         { return []byte(PrefixJob + string(id[:])) }

// AuthoritiesKey and ParamsKey are where the authorities and the rules stand in the state.
func AuthoritiesKey() []byte { return []byte(keyAuthorities) }
func ParamsKey() []byte      { return []byte(keyParams) }

// JobOfKey is the inverse of JobKey.
func JobOfKey(key []byte) (id crowd.JobID, ok bool) {
	if len(key) != len(PrefixJob)+len(id) || string(key[:len(PrefixJob)]) != PrefixJob {
		return id, false
	}
	copy(id[:], key[len(PrefixJob):])
	return id, true
}

func dueKey(t crowd.Time, id crowd.JobID) string {
	return prefixDue + string(binary.BigEndian.AppendUint64(nil, uint64(t))) + string(id[:])
}

func drawKey(h crowd.Height, id crowd.JobID) string {
	return prefixDraw + string(binary.BigEndian.AppendUint64(nil, uint64(h))) + string(id[:])
}

// indexKey takes a dueKey or drawKey apart.
func indexKey(prefix, key string) (n uint64, id crowd.JobID) {
	n = binary.BigEndian.Uint64([]byte(key[len(prefix):]))
	copy(id[:], key[len(prefix)+8:])
	return n, id
}

// load decodes what this package wrote itself, so that it cannot fail.
func load[T any](get func(string) []byte, key string) (v T, ok bool) {
	raw := get(key)
	if raw == nil {
		return v, false
	}
	if err := crowd.DecodeTrusted(raw, &v); err != nil {
		panic("bug: state holds " + key + ": " + err.Error())
	}
	return v, true
}

// Params are the rules of the network.
func (s State) Params() Params { p, _ := load[Params](s.get, keyParams); return p }

// Authorities are in the order in which openings are sealed to them.
func (s State) Authorities() []Authority { a, _ := load[[]Authority](s.get, keyAuthorities); return a }

// Beacon is the newest public randomness.
func (s State) Beacon() Beacon { b, _ := load[Beacon](s.get, keyBeacon); return b }

// Supply counts all credits.
func (s State) Supply() Supply { v, _ := load[Supply](s.get, keySupply); return v }

// Account of a; the zero Account when there is none.
func (s State) Account(a crowd.Address) Account {
	v, _ := load[Account](s.get, string(AccountKey(a)))
	return v
}

// Reputation of a.
func (s State) Reputation(a crowd.Address) Reputation {
	v, _ := load[Reputation](s.get, string(ReputationKey(a)))
	return v
}

// Provider at a.
func (s State) Provider(a crowd.Address) (Provider, bool) {
	return load[Provider](s.get, string(ProviderKey(a)))
}

// Job with that ID, until its retention has ended.
func (s State) Job(id crowd.JobID) (Job, bool) { return load[Job](s.get, string(JobKey(id))) }

// EachJob calls f for every job in the state until it returns false.
func (s State) EachJob(f func(Job) bool) {
	s.Each(PrefixJob, func(_ string, val []byte) bool { return f(decodeOwn[Job](val)) })
}

// EachProvider calls f for every provider until it returns false.
func (s State) EachProvider(f func(Provider) bool) {
	s.Each(PrefixProvider, func(_ string, val []byte) bool { return f(decodeOwn[Provider](val)) })
}

// EachAccount calls f for every account until it returns false.
func (s State) EachAccount(f func(crowd.Address, Account) bool) {
	s.Each(prefixAccount, func(key string, val []byte) bool {
		return f(crowd.Address([]byte(key[len(prefixAccount):])), decodeOwn[Account](val))
	})
}

func decodeOwn[T any](raw []byte) T {
	v, _ := load[T](func(string) []byte { return raw }, "")
	return v
}

// NextDue is when a deadline wants a block, and false when none is set.
func (s State) NextDue() (t crowd.Time, ok bool) {
	s.Each(prefixDue, func(key string, _ []byte) bool {
		n, _ := indexKey(prefixDue, key)
		t, ok = crowd.Time(n), true
		return false
	})
	return t, ok
}

// DrawPending reports whether a job waits for the beacon of a coming block.
func (s State) DrawPending() (pending bool) {
	s.Each(prefixDraw, func(string, []byte) bool { pending = true; return false })
	return pending
}

// NextBeacon is R_h = Keccak(R_{h-1} ‖ VRF_proposer(R_{h-1})), DESIGN section 6,
// or an error when the proof is not the proposer's.
func (b Beacon) NextBeacon(proposer identity.VRFPublic, proof identity.VRFProof) (Beacon, error) {
	out, err := identity.VerifyVRF(proposer, b.R[:], proof)
	if err != nil {
		return Beacon{}, err
	}
	return Beacon{R: crowd.Keccak256(b.R[:], out[:])}, nil
}
