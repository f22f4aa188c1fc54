package chain

import (
	"context"
	stded25519 "crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	dbm "github.com/cometbft/cometbft-db"
	cfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/crypto"
	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
	"github.com/cometbft/cometbft/types"

	"github.com/crowdcompute/crowd/internal/identity"
	"github.com/crowdcompute/crowd/internal/ledger"
)

// PeerID is the name of a node with key k in CometBFT's p2p: 40 hex digits, to stand before the @ in Peers.
func PeerID(k *identity.Key) string { return string(peerKey(k).ID()) }

func peerKey(k *identity.Key) *p2p.NodeKey {
	if k == nil {
		return &p2p.NodeKey{PrivKey: ed25519.GenPrivKey()}
	}
	return &p2p.NodeKey{PrivKey: ed25519.PrivKey(stded25519.NewKeyFromSeed(k.Derive("cometbft-p2p")))}
}

// engineConfig is CometBFT tuned for blocks on demand.
func (f *Full) engineConfig() *cfg.Config {
	c := cfg.DefaultConfig()
	c.SetRoot(f.cfg.Dir)
	c.Moniker = "crowd"
	c.RPC.ListenAddress = ""
	c.TxIndex.Indexer = "null"
	c.P2P.AddrBook = "data/addrbook.json"
	c.P2P.PexReactor = false
	c.P2P.AddrBookStrict = false
	c.P2P.AllowDuplicateIP = true
	c.P2P.FlushThrottleTimeout = time.Millisecond
	c.P2P.PersistentPeers = strings.Join(f.cfg.Peers, ",")
	c.P2P.ListenAddress = "tcp://" + f.listen
	if f.cfg.Listen == "" {
		// CometBFT knows no node without a listener: one that turns everybody away, then.
		c.P2P.MaxNumInboundPeers = 0
	}
	c.Mempool.Size = 5000
	c.Mempool.MaxTxsBytes = 64 << 20
	c.Mempool.MaxTxBytes = ledger.MaxTx
	c.Consensus.CreateEmptyBlocks = false
	c.Consensus.TimeoutCommit = 0
	c.Consensus.SkipTimeoutCommit = true
	c.Consensus.TimeoutPropose = 600 * time.Millisecond
	c.Consensus.TimeoutPrevote = 300 * time.Millisecond
	c.Consensus.TimeoutPrecommit = 300 * time.Millisecond
	c.Consensus.PeerGossipSleepDuration = 2 * time.Millisecond
	return c
}

// freePort is addr with a free port in place of port 0, which CometBFT would pass on
// to its peers as it is. Should another process take the port at once, start fails.
func freePort(addr string) (string, error) {
	addr = strings.TrimPrefix(addr, "tcp://")
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	if _, port, err := net.SplitHostPort(addr); err != nil || port != "0" {
		return addr, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// maxBlock bounds a block, in bytes. Large blocks stall small machines for seconds.
const maxBlock = 1 << 20

func (f *Full) genesisDoc() (*types.GenesisDoc, error) {
	g := f.cfg.Genesis
	params := types.DefaultConsensusParams()
	params.Block.MaxBytes = maxBlock
	params.Evidence.MaxBytes = maxBlock / 4
	// CometBFT never forgets the header of a block that was young enough for evidence when the block was pruned.
	params.Evidence.MaxAgeNumBlocks = int64(f.app.keep)
	params.Evidence.MaxAgeDuration = time.Duration(g.Params.Retention) * time.Millisecond
	doc := &types.GenesisDoc{
		GenesisTime:     time.UnixMilli(int64(g.Time)).UTC(),
		ChainID:         g.ChainID(),
		InitialHeight:   1,
		ConsensusParams: params,
	}
	for _, a := range g.Authorities {
		key := ed25519.PubKey(a.Consensus)
		doc.Validators = append(doc.Validators, types.GenesisValidator{Address: key.Address(), PubKey: key, Power: 1})
	}
	return doc, nil
}

// signer is the voting key. What it has signed last is on disk before a vote
// leaves, so that no crash makes it sign twice.
func (f *Full) signer() (types.PrivValidator, error) {
	var key crypto.PrivKey = ed25519.GenPrivKey() // of a follower: never votes
	if f.app.vrf != nil {
		key = consensusPriv(f.cfg.Key)
	}
	path := filepath.Join(f.cfg.Dir, "data", "signed.json")
	pv := privval.NewFilePV(key, "", path)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return pv, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was signed last: %w", err)
	}
	// LoadFilePV would end the process on a bad file.
	var last privval.FilePVLastSignState
	if err := cmtjson.Unmarshal(raw, &last); err != nil || !json.Valid(raw) || (len(last.SignBytes) == 0) != (len(last.Signature) == 0) {
		return nil, fmt.Errorf("read what was signed last in %s: %w: %v", path, ErrCorrupt, err)
	}
	s := &pv.LastSignState
	s.Height, s.Round, s.Step, s.Signature, s.SignBytes = last.Height, last.Round, last.Step, last.Signature, last.SignBytes
	return pv, nil
}

// database opens one of CometBFT's databases, once.
func (f *Full) database(name string) (*survivor, error) {
	if db := f.dbs[name]; db != nil {
		return db, nil
	}
	db, err := openDB(name, filepath.Join(f.cfg.Dir, "data"))
	if err != nil {
		return nil, err
	}
	f.dbs[name] = &survivor{DB: db}
	return f.dbs[name], nil
}

// start builds CometBFT, which replays what the ledger has not seen, and lets it run.
func (f *Full) start(ctx context.Context) (n *node.Node, err error) {
	defer func() { // CometBFT panics on data that it does not understand
		if r := recover(); r != nil {
			err = fmt.Errorf("start consensus: %w: %v", ErrCorrupt, firstLine(fmt.Sprint(r)))
		}
	}()
	pv, err := f.signer()
	if err != nil {
		return nil, err
	}
	if f.listen, err = freePort(f.cfg.Listen); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", f.cfg.Listen, err)
	}
	c := f.engineConfig()
	if err := c.ValidateBasic(); err != nil {
		return nil, fmt.Errorf("configure consensus: %w", err)
	}
	n, err = node.NewNodeWithContext(ctx, c, pv, peerKey(f.cfg.Key),
		proxy.NewConnSyncLocalClientCreator(f.app), f.genesisDoc,
		func(x *cfg.DBContext) (dbm.DB, error) { return f.database(x.ID) },
		node.DefaultMetricsProvider(c.Instrumentation), engineLog{log: f.log, ending: &f.ending, halted: f.fail})
	if err != nil {
		return nil, fmt.Errorf("start consensus: %w", err)
	}
	if got, want := n.GenesisDoc().ChainID, f.app.chain; got != want {
		return nil, fmt.Errorf("start consensus: the folder holds chain %s, not %s", got, want)
	}
	f.provable(f.app.current())
	if err := n.Start(); err != nil {
		return nil, fmt.Errorf("start consensus: %w", err)
	}
	return n, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line[:min(len(line), 300)]
}
